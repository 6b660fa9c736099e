/**
 * Decides how the hashes and rising ids of a day are kept: an exact set of safe integers of either sign, flat, each with a
 * hash of its content where that says more than the number.
 */

const FIRST_CAPACITY = 4
/** Above this share of used slots the table doubles: linear probing stays at a few steps. */
const MAX_LOAD = 0.6

const slotOf = (n: number, mask: number): number => {
  let h = n | 0
  h ^= Math.imul(Math.floor(n / 4_294_967_296), 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) & mask
}

/** What `put` found: a number that is new, known with the same content or none, or known with another. */
export const NEW = 1
export const SAME = 0
export const OTHER = -1

const NO_NUMBERS = new Float64Array(0)

/**
 * Open addressing in one Float64Array: 13 to 27 bytes a number, half as much again with contents, nothing for the
 * collector to walk; made with the first number. Numbers are only ever added; the whole set goes with its day.
 */
export class NumberSet {
  /** 0 marks a free slot; the number 0 itself is `#zero`. */
  #table = NO_NUMBERS
  #mask = -1
  #used = 0
  #zero = false
  /** The contents, in the places of their numbers; 0 where there is none. Made with the first one. */
  #prints: Int32Array | undefined
  #zeroPrint = 0

  get size(): number {
    return this.#used + (this.#zero ? 1 : 0)
  }

  /** Bytes of the table. */
  get bytes(): number {
    return this.#table.byteLength
  }

  /** True where `n` is new. */
  add(n: number): boolean {
    if (n === 0) {
      if (this.#zero) return false
      this.#zero = true
      return true
    }
    if (this.#mask < 0) this.#grow(FIRST_CAPACITY)
    const table = this.#table
    const mask = this.#mask
    let slot = slotOf(n, mask)
    for (;;) {
      const found = table[slot]!
      if (found === n) return false
      if (found === 0) break
      slot = (slot + 1) & mask
    }
    table[slot] = n
    this.#used += 1
    if (this.#used > table.length * MAX_LOAD) this.#grow(table.length * 2)
    return true
  }

  /** Adds a number with a hash of its content, no 0 among 2^32: `NEW`, or what is known of it already. */
  put(n: number, print: number): number {
    if (this.add(n)) {
      if (n === 0) this.#zeroPrint = print
      else {
        this.#prints ??= new Int32Array(this.#table.length)
        this.#prints[this.#slot(n)] = print
      }
      return NEW
    }
    return this.differs(n, print) ? OTHER : SAME
  }

  /** Whether a number is there with another content. */
  differs(n: number, print: number): boolean {
    if (!this.has(n)) return false
    const known = n === 0 ? this.#zeroPrint : (this.#prints?.[this.#slot(n)] ?? 0)
    return known !== 0 && known !== print
  }

  /** Where a number is that is there. */
  #slot(n: number): number {
    let slot = slotOf(n, this.#mask)
    while (this.#table[slot] !== n) slot = (slot + 1) & this.#mask
    return slot
  }

  has(n: number): boolean {
    if (n === 0) return this.#zero
    if (this.#mask < 0) return false
    const table = this.#table
    const mask = this.#mask
    let slot = slotOf(n, mask)
    for (;;) {
      const found = table[slot]!
      if (found === n) return true
      if (found === 0) return false
      slot = (slot + 1) & mask
    }
  }

  #grow(capacity: number): void {
    const old = this.#table
    const oldPrints = this.#prints
    const table = new Float64Array(capacity)
    const prints = oldPrints === undefined ? undefined : new Int32Array(capacity)
    const mask = capacity - 1
    for (let i = 0; i < old.length; i++) {
      const n = old[i]!
      if (n === 0) continue
      let slot = slotOf(n, mask)
      while (table[slot] !== 0) slot = (slot + 1) & mask
      table[slot] = n
      if (prints !== undefined) prints[slot] = oldPrints![i]!
    }
    this.#table = table
    this.#prints = prints
    this.#mask = mask
  }

  /** The numbers as little-endian float64, in no order. */
  encode(): Uint8Array {
    const bytes = new Uint8Array(this.size * 8)
    const view = new DataView(bytes.buffer)
    let at = this.#zero ? 8 : 0
    for (let i = 0; i < this.#table.length; i++) {
      const n = this.#table[i]!
      if (n === 0) continue
      view.setFloat64(at, n, true)
      at += 8
    }
    return bytes
  }

  /** Their contents as little-endian int32, in the same order; empty where none has one. */
  encodePrints(): Uint8Array {
    if (this.#prints === undefined && this.#zeroPrint === 0) return new Uint8Array(0)
    const bytes = new Uint8Array(this.size * 4)
    const view = new DataView(bytes.buffer)
    let at = 0
    if (this.#zero) {
      view.setInt32(0, this.#zeroPrint, true)
      at = 4
    }
    for (let i = 0; i < this.#table.length; i++) {
      if (this.#table[i] === 0) continue
      view.setInt32(at, this.#prints?.[i] ?? 0, true)
      at += 4
    }
    return bytes
  }

  /** Throws a RangeError where the bytes are not those of `encode` and `encodePrints`. */
  static decode(bytes: Uint8Array, prints: Uint8Array = new Uint8Array(0)): NumberSet {
    if (bytes.length % 8 !== 0) throw new RangeError(`NumberSet: ${bytes.length} bytes are no whole float64s`)
    if (prints.length !== 0 && prints.length * 2 !== bytes.length) {
      throw new RangeError(`NumberSet: ${prints.length} bytes of contents for ${bytes.length} of numbers`)
    }
    const set = new NumberSet()
    const count = bytes.length / 8
    let capacity = FIRST_CAPACITY
    while (count > capacity * MAX_LOAD) capacity *= 2
    if (count > 0) set.#grow(capacity)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const contents = prints.length === 0 ? undefined : new DataView(prints.buffer, prints.byteOffset, prints.byteLength)
    for (let at = 0; at < bytes.length; at += 8) {
      const n = view.getFloat64(at, true)
      if (!Number.isSafeInteger(n)) throw new RangeError(`NumberSet: ${n} is no safe integer`)
      const print = contents === undefined ? 0 : contents.getInt32(at / 2, true)
      if (print === 0) set.add(n)
      else set.put(n, print)
    }
    return set
  }
}
