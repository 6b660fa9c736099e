/**
 * Decides how the sequence ids of one instrument's day are kept: an exact set of non-negative safe integers, in pages
 * of 4,096 ids, each a short list while sparse and one bit an id once dense.
 */

const PAGE_IDS = 4096
const PAGE_WORDS = PAGE_IDS / 32
/** A page with more ids than this becomes a bitmap of 512 bytes. */
const SPARSE_MAX = 32

/** Kinds of an encoded page. */
const RUN = 0
const LIST = 1
const BITMAP = 2

const bitCount = (word: number): number => {
  let w = word - ((word >>> 1) & 0x55555555)
  w = (w & 0x33333333) + ((w >>> 2) & 0x33333333)
  return Math.imul((w + (w >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

/**
 * What is known of a page: one id alone (0 to 4095), a bitmap (−1 − its number in the slab), or a list of up to 32 ids
 * in the order they came, always exactly as long as what it holds.
 */
type Page = number | ReadonlyArray<number>

const NO_BITS = new Uint32Array(0)

export class IdSet {
  /** The page that was there first, while it is alone: most instruments have no other. */
  #loneNumber = -1
  #lone: Page = 0
  /** All pages, once there are two. */
  #pages: Map<number, Page> | undefined
  /** All bitmaps of the set, one after the other. */
  #bits = NO_BITS
  #bitmaps = 0
  #size = 0
  #highest = -1
  /** The bitmap last used, so that a run of ids never looks its page up: its first id and its first word. */
  #start = -1
  #base = 0

  get size(): number {
    return this.#size
  }

  /** The highest id; -1 while there is none. */
  get highest(): number {
    return this.#highest
  }

  /** True where `id` is new. */
  add(id: number): boolean {
    const within = id - this.#start
    if (this.#start >= 0 && within >= 0 && within < PAGE_IDS) {
      const word = this.#base + (within >>> 5)
      const bit = 1 << (within & 31)
      const bits = this.#bits
      const old = bits[word]!
      if ((old & bit) !== 0) return false
      bits[word] = old | bit
    } else if (!this.#addElsewhere(id)) {
      return false
    }
    this.#size += 1
    if (id > this.#highest) this.#highest = id
    return true
  }

  has(id: number): boolean {
    const number = Math.floor(id / PAGE_IDS)
    const within = id - number * PAGE_IDS
    const page = this.#page(number)
    if (page === undefined) return false
    if (typeof page !== "number") return page.includes(within)
    if (page >= 0) return page === within
    return (this.#bits[(-1 - page) * PAGE_WORDS + (within >>> 5)]! & (1 << (within & 31))) !== 0
  }

  #page(number: number): Page | undefined {
    if (this.#pages !== undefined) return this.#pages.get(number)
    return number === this.#loneNumber ? this.#lone : undefined
  }

  #setPage(number: number, page: Page): void {
    if (this.#pages !== undefined) this.#pages.set(number, page)
    else if (this.#loneNumber < 0 || this.#loneNumber === number) {
      this.#loneNumber = number
      this.#lone = page
    } else {
      this.#pages = new Map([
        [this.#loneNumber, this.#lone],
        [number, page]
      ])
    }
  }

  /** The numbers of its pages, ascending. */
  #numbers(): Float64Array {
    if (this.#pages !== undefined) return Float64Array.from(this.#pages.keys()).sort()
    return this.#loneNumber < 0 ? new Float64Array(0) : Float64Array.of(this.#loneNumber)
  }

  #addElsewhere(id: number): boolean {
    if (!Number.isSafeInteger(id) || id < 0) throw new RangeError(`IdSet: ${id} is no id`)
    const number = Math.floor(id / PAGE_IDS)
    const start = number * PAGE_IDS
    const within = id - start
    const page = this.#page(number)
    if (page === undefined) {
      this.#setPage(number, within)
      return true
    }
    if (typeof page !== "number") {
      if (page.includes(within)) return false
      if (page.length < SPARSE_MAX) {
        // A fresh array of the exact length: a push would reserve room for sixteen more in every sparse page.
        this.#setPage(number, [...page, within])
        return true
      }
      const base = this.#newBitmap(number)
      for (const other of page) this.#bits[base + (other >>> 5)]! |= 1 << (other & 31)
      this.#bits[base + (within >>> 5)]! |= 1 << (within & 31)
      this.#start = start
      this.#base = base
      return true
    }
    if (page >= 0) {
      if (page === within) return false
      this.#setPage(number, [page, within])
      return true
    }
    this.#start = start
    this.#base = (-1 - page) * PAGE_WORDS
    const word = this.#base + (within >>> 5)
    const bit = 1 << (within & 31)
    const old = this.#bits[word]!
    if ((old & bit) !== 0) return false
    this.#bits[word] = old | bit
    return true
  }

  /** The first word of a new, empty bitmap for the page. */
  #newBitmap(number: number): number {
    const base = this.#bitmaps * PAGE_WORDS
    if (base + PAGE_WORDS > this.#bits.length) {
      const larger = new Uint32Array((this.#bitmaps + Math.max(1, this.#bitmaps >>> 1)) * PAGE_WORDS)
      larger.set(this.#bits)
      this.#bits = larger
    }
    this.#setPage(number, -1 - this.#bitmaps)
    this.#bitmaps += 1
    return base
  }

  /**
   * Equal sets give equal bytes, whatever the order of adding. Pages ascend; each is its number (float64), a kind, and
   * one run (first, last), a list (count, ids) or the bitmap; a day without losses costs 13 bytes per 4,096 ids.
   */
  encode(): Uint8Array {
    const numbers = this.#numbers()
    const parts = new Uint8Array(this.#encodedLimit())
    const view = new DataView(parts.buffer)
    let at = 0
    for (const number of numbers) {
      view.setFloat64(at, number, true)
      at += 8
      const ids = this.#pageIds(number)
      const first = ids[0]!
      const last = ids[ids.length - 1]!
      if (last - first === ids.length - 1) {
        view.setUint8(at, RUN)
        view.setUint16(at + 1, first, true)
        view.setUint16(at + 3, last, true)
        at += 5
      } else if (ids.length <= SPARSE_MAX) {
        view.setUint8(at, LIST)
        view.setUint8(at + 1, ids.length)
        at += 2
        for (const id of ids) {
          view.setUint16(at, id, true)
          at += 2
        }
      } else {
        view.setUint8(at, BITMAP)
        at += 1
        for (const id of ids) parts[at + (id >>> 3)]! |= 1 << (id & 7)
        at += PAGE_IDS / 8
      }
    }
    return parts.slice(0, at)
  }

  #encodedLimit(): number {
    return this.#bitmaps * (9 + PAGE_IDS / 8) + (this.#numbers().length - this.#bitmaps) * (10 + SPARSE_MAX * 2)
  }

  /** The ids of a page within it, ascending. */
  #pageIds(number: number): Uint16Array {
    const page = this.#page(number)!
    if (typeof page !== "number") return Uint16Array.from(page).sort()
    if (page >= 0) return Uint16Array.of(page)
    const base = (-1 - page) * PAGE_WORDS
    let count = 0
    for (let w = 0; w < PAGE_WORDS; w++) count += bitCount(this.#bits[base + w]!)
    const ids = new Uint16Array(count)
    let at = 0
    for (let w = 0; w < PAGE_WORDS; w++) {
      let word = this.#bits[base + w]!
      while (word !== 0) {
        ids[at++] = (w << 5) + (31 - Math.clz32(word & -word))
        word &= word - 1
      }
    }
    return ids
  }

  /** Throws a RangeError where the bytes are not those of `encode`. */
  static decode(bytes: Uint8Array): IdSet {
    const set = new IdSet()
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    let at = 0
    let previous = -1
    while (at < bytes.length) {
      const number = view.getFloat64(at, true)
      if (!Number.isSafeInteger(number * PAGE_IDS) || number <= previous) {
        throw new RangeError(`IdSet: page ${number} after page ${previous}`)
      }
      previous = number
      const start = number * PAGE_IDS
      const kind = view.getUint8(at + 8)
      at += 9
      if (kind === RUN) {
        const first = view.getUint16(at, true)
        const last = view.getUint16(at + 2, true)
        if (first > last || last >= PAGE_IDS) throw new RangeError(`IdSet: run from ${first} to ${last}`)
        for (let id = first; id <= last; id++) set.add(start + id)
        at += 4
      } else if (kind === LIST) {
        const count = view.getUint8(at)
        at += 1
        for (let i = 0; i < count; i++, at += 2) {
          const id = view.getUint16(at, true)
          if (id >= PAGE_IDS) throw new RangeError(`IdSet: id ${id} in a page`)
          set.add(start + id)
        }
      } else if (kind === BITMAP) {
        if (at + PAGE_IDS / 8 > bytes.length) throw new RangeError("IdSet: a bitmap that ends early")
        for (let id = 0; id < PAGE_IDS; id++) {
          if ((bytes[at + (id >>> 3)]! & (1 << (id & 7))) !== 0) set.add(start + id)
        }
        at += PAGE_IDS / 8
      } else {
        throw new RangeError(`IdSet: page of kind ${kind}`)
      }
    }
    return set
  }
}
