/**
 * Decides how many short values reach a Lua script as one argument: a flat MessagePack array, which the server takes
 * apart in C; as arguments of their own they would cost more than what is done with them.
 */

const ARRAY_32 = 0xdd
const SHORT_STRING = 0xa0
const STRING_16 = 0xda
const STRING_32 = 0xdb
const INT_32 = 0xd2

/** A flat array under way. */
export class FlatArray {
  #bytes: Buffer
  /** After the array's own header. */
  #at = 5
  #count = 0

  constructor(sizeHint = 1024) {
    this.#bytes = Buffer.allocUnsafe(Math.max(16, sizeHint))
  }

  get length(): number {
    return this.#count
  }

  /** Text of ASCII alone, up to 65,535 characters. */
  ascii(text: string): void {
    const { length } = text
    this.#reserve(length + 3)
    const bytes = this.#bytes
    if (length < 32) bytes[this.#at++] = SHORT_STRING | length
    else {
      bytes[this.#at++] = STRING_16
      this.#at = bytes.writeUInt16BE(length, this.#at)
    }
    this.#at += bytes.write(text, this.#at, "latin1")
    this.#count += 1
  }

  text(text: string): void {
    // No character of JavaScript's takes more than three bytes.
    this.#reserve(text.length * 3 + 5)
    const written = this.#bytes.write(text, this.#at + 5, "utf8")
    this.#bytes[this.#at] = STRING_32
    this.#bytes.writeUInt32BE(written, this.#at + 1)
    this.#at += 5 + written
    this.#count += 1
  }

  /** A whole number of 31 bits. */
  int(value: number): void {
    this.#reserve(5)
    this.#bytes[this.#at] = INT_32
    this.#at = this.#bytes.writeInt32BE(value, this.#at + 1)
    this.#count += 1
  }

  finish(): Buffer {
    this.#bytes[0] = ARRAY_32
    this.#bytes.writeUInt32BE(this.#count, 1)
    return this.#bytes.subarray(0, this.#at)
  }

  #reserve(more: number): void {
    if (this.#at + more <= this.#bytes.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#at + more))
    this.#bytes.copy(larger, 0, 0, this.#at)
    this.#bytes = larger
  }
}
