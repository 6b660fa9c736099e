/** Decides how the objects of one long JSON list are cut apart, each as it comes, so that the list is never whole in memory. */

/** The longest object: a broker's instrument has some five hundred characters. */
export const MAX_OBJECT_CHARS = 64 * 1024

const QUOTE = 0x22
const BACKSLASH = 0x5c
const OPEN = 0x7b
const CLOSE = 0x7d

/** The texts of the objects in a list. What stands between them is passed over; one without an end is dropped. */
export class JsonObjects {
  #text = ""
  /** Where reading goes on. */
  #at = 0
  #start = -1
  #depth = 0
  #isInText = false

  /** The objects that are whole with this text. */
  take(text: string): ReadonlyArray<string> {
    this.#text += text
    const all = this.#text
    const objects: Array<string> = []
    let at = this.#at
    for (; at < all.length; at++) {
      const code = all.charCodeAt(at)
      if (this.#isInText) {
        if (code === BACKSLASH) at += 1
        else if (code === QUOTE) this.#isInText = false
      } else if (code === QUOTE) this.#isInText = true
      else if (code === OPEN) {
        if (this.#depth === 0) this.#start = at
        this.#depth += 1
      } else if (code === CLOSE && this.#depth > 0) {
        this.#depth -= 1
        if (this.#depth === 0) {
          objects.push(all.slice(this.#start, at + 1))
          this.#start = -1
        }
      }
    }
    const keptFrom = this.#start < 0 ? Math.min(at, all.length) : this.#start
    this.#text = all.slice(keptFrom)
    this.#at = at - keptFrom
    if (this.#start >= 0) this.#start = 0
    if (this.#text.length > MAX_OBJECT_CHARS)
      throw new Error(`an object in it has more than ${MAX_OBJECT_CHARS} characters`)
    return objects
  }
}
