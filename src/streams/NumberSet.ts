/** Decides how the hashes and rising ids of a day are kept: an exact set of safe integers of either sign, flat. */

const FIRST_CAPACITY = 16
/** Above this share of used slots the table doubles: linear probing stays at a few steps. */
const MAX_LOAD = 0.6

const slotOf = (n: number, mask: number): number => {
  let h = n | 0
  h ^= Math.imul(Math.floor(n / 4_294_967_296), 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) & mask
}

/**
 * Open addressing in one Float64Array: 13 to 27 bytes a number, nothing for the collector to walk. Numbers are only
 * ever added; the whole set goes with its day.
 */
export class NumberSet {
  /** 0 marks a free slot; the number 0 itself is `#zero`. */
  #table = new Float64Array(FIRST_CAPACITY)
  #mask = FIRST_CAPACITY - 1
  #used = 0
  #zero = false

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

  has(n: number): boolean {
    if (n === 0) return this.#zero
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
    const table = new Float64Array(capacity)
    const mask = capacity - 1
    for (let i = 0; i < old.length; i++) {
      const n = old[i]!
      if (n === 0) continue
      let slot = slotOf(n, mask)
      while (table[slot] !== 0) slot = (slot + 1) & mask
      table[slot] = n
    }
    this.#table = table
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

  /** Throws a RangeError where the bytes are not those of `encode`. */
  static decode(bytes: Uint8Array): NumberSet {
    if (bytes.length % 8 !== 0) throw new RangeError(`NumberSet: ${bytes.length} bytes are no whole float64s`)
    const set = new NumberSet()
    const count = bytes.length / 8
    let capacity = FIRST_CAPACITY
    while (count > capacity * MAX_LOAD) capacity *= 2
    if (capacity > FIRST_CAPACITY) set.#grow(capacity)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let at = 0; at < bytes.length; at += 8) {
      const n = view.getFloat64(at, true)
      if (!Number.isSafeInteger(n)) throw new RangeError(`NumberSet: ${n} is no safe integer`)
      set.add(n)
    }
    return set
  }
}
