/**
 * Decides what is remembered of the content that the numbers of a session came with, to tell the same tick once more
 * from another tick under the same number: of the last 256 numbers the content itself, as a hash of 32 bits with the time
 * and feed that brought it; of older ones the first and the last stamp among the 256 numbers that they are one of.
 */

/** Numbers whose content is known; a power of two. */
export const RECENT_NUMBERS = 256
/** Older numbers that share what is known of their stamps. */
export const BLOCK_NUMBERS = 256
/** The ring begins with room for so many, and doubles: most instruments never need more. */
const FIRST_CAPACITY = 4

/** Feed names told apart; all beyond these count as one. Nothing that is published depends on them. */
const MAX_FEEDS = 255
const feeds: Array<string> = ["dma", "snapshot"]
const codes = new Map(feeds.map((name, code) => [name, code]))
const codeOf = (feed: string): number => {
  if (feed === "dma") return 0
  let code = codes.get(feed)
  if (code === undefined) {
    code = Math.min(feeds.length, MAX_FEEDS)
    if (code === MAX_FEEDS) return code
    feeds.push(feed)
    codes.set(feed, code)
  }
  return code
}

/** A place in the ring: when its number came (µs of record time; −1 where that is not known), and hash × 256 + feed. */
const STRIDE = 2
const EMPTY = new Float64Array(0)
const HEADER_BYTES = 32
const BLOCK_BYTES = 24

export class Contents {
  /** Numbers up to this were seen before contents were kept: nothing is known of them. */
  readonly #unknownUpTo: number
  #highest: number
  #capacity = 0
  /** The place of a number is itself modulo the capacity; it is that number's while no higher one has taken it. */
  #ring = EMPTY
  #count = 0
  /** The first number, which is in no ring while it is alone. */
  #loneId = -1
  #loneTime = -1
  #loneTag = 0
  /** The block last used, so that a run of numbers never looks its block up. */
  #block = -1
  #from = Number.POSITIVE_INFINITY
  #to = Number.NEGATIVE_INFINITY
  /** The others. */
  #blocks: Map<number, readonly [from: number, to: number]> | undefined

  constructor(unknownUpTo = -1) {
    this.#unknownUpTo = unknownUpTo
    this.#highest = unknownUpTo
  }

  /** Remembers a number that is new, with its stamp and the hash of its content, and who brought it when (µs). */
  put(id: number, exchangeTs: number, print: number, time: number, feed: string): void {
    const tag = (print >>> 0) * 256 + codeOf(feed)
    if (this.#count === 0) {
      this.#loneId = id
      this.#loneTime = time
      this.#loneTag = tag
    } else {
      if (this.#count >= this.#capacity && this.#capacity < RECENT_NUMBERS) this.#grow()
      this.#place(Math.max(id, this.#highest), id, time, tag)
    }
    this.#count++
    if (id > this.#highest) this.#highest = id
    const block = Math.floor(id / BLOCK_NUMBERS)
    if (block !== this.#block) this.#turnTo(block)
    if (exchangeTs < this.#from) this.#from = exchangeTs
    if (exchangeTs > this.#to) this.#to = exchangeTs
  }

  /** Whether a number that was seen came with another content than this. Of an old one only what is sure counts. */
  differs(id: number, exchangeTs: number, print: number): boolean {
    if (id <= this.#unknownUpTo) return false
    const tag = this.#tag(id)
    if (tag !== 0) return Math.floor(tag / 256) !== print >>> 0
    const block = Math.floor(id / BLOCK_NUMBERS)
    if (block === this.#block) return exchangeTs < this.#from || exchangeTs > this.#to
    const known = this.#blocks?.get(block)
    return known !== undefined && (exchangeTs < known[0] || exchangeTs > known[1])
  }

  /** The record time (µs) at which another feed than `feed` brought `id`; -1 where none is known to have. */
  otherTime(id: number, feed: string): number {
    const tag = this.#tag(id)
    if (tag === 0 || tag % 256 === codeOf(feed)) return -1
    return this.#capacity === 0 ? this.#loneTime : this.#ring[(id % this.#capacity) * STRIDE]!
  }

  /** The feed that brought `id`, where `otherTime` answers a time. */
  feed(id: number): string {
    return feeds[this.#tag(id) % 256] ?? "other"
  }

  #tag(id: number): number {
    if (this.#capacity === 0) return id === this.#loneId ? this.#loneTag : 0
    const isRecent = id > this.#unknownUpTo && id > this.#highest - this.#capacity
    return isRecent ? this.#ring[(id % this.#capacity) * STRIDE + 1]! : 0
  }

  #place(highest: number, id: number, time: number, tag: number): void {
    if (id <= highest - this.#capacity) return
    const place = (id % this.#capacity) * STRIDE
    this.#ring[place] = time
    this.#ring[place + 1] = tag
  }

  #grow(): void {
    const before = this.#capacity
    const old = this.#ring
    this.#capacity = before === 0 ? FIRST_CAPACITY : before * 2
    this.#ring = new Float64Array(this.#capacity * STRIDE)
    if (before === 0) this.#place(this.#highest, this.#loneId, this.#loneTime, this.#loneTag)
    for (let id = Math.max(0, this.#highest - before + 1); id <= this.#highest; id++) {
      const from = (id % before) * STRIDE
      const to = (id % this.#capacity) * STRIDE
      this.#ring[to] = old[from]!
      this.#ring[to + 1] = old[from + 1]!
    }
  }

  #turnTo(block: number): void {
    if (this.#block >= 0) {
      this.#blocks ??= new Map()
      this.#blocks.set(this.#block, [this.#from, this.#to])
    }
    const known = this.#blocks?.get(block)
    this.#block = block
    this.#from = known?.[0] ?? Number.POSITIVE_INFINITY
    this.#to = known?.[1] ?? Number.NEGATIVE_INFINITY
  }

  /** Little-endian: unknownUpTo, highest, count of puts, the first number (float64 each), and all that is known but who brought it when. */
  encode(): Uint8Array {
    const blocks = new Map(this.#blocks)
    if (this.#block >= 0) blocks.set(this.#block, [this.#from, this.#to])
    const bytes = new Uint8Array(HEADER_BYTES + 6 + this.#capacity * 4 + blocks.size * BLOCK_BYTES)
    const view = new DataView(bytes.buffer)
    view.setFloat64(0, this.#unknownUpTo, true)
    view.setFloat64(8, this.#highest, true)
    view.setFloat64(16, this.#count, true)
    view.setUint16(HEADER_BYTES, this.#capacity, true)
    view.setFloat64(24, this.#loneId, true)
    view.setUint32(HEADER_BYTES + 2, Math.floor(this.#loneTag / 256), true)
    let at = HEADER_BYTES + 6
    for (let i = 0; i < this.#capacity; i++, at += 4) {
      view.setUint32(at, Math.floor(this.#ring[i * STRIDE + 1]! / 256), true)
    }
    for (const [block, [from, to]] of blocks) {
      view.setFloat64(at, block, true)
      view.setFloat64(at + 8, from, true)
      view.setFloat64(at + 16, to, true)
      at += BLOCK_BYTES
    }
    return bytes
  }

  /** Throws a RangeError where the bytes are not those of `encode`. */
  static decode(bytes: Uint8Array): Contents {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const contents = new Contents(view.getFloat64(0, true))
    const capacity = view.getUint16(HEADER_BYTES, true)
    if (capacity > RECENT_NUMBERS) throw new RangeError(`Contents: ${capacity} recent numbers`)
    contents.#highest = view.getFloat64(8, true)
    contents.#count = view.getFloat64(16, true)
    contents.#capacity = capacity
    contents.#ring = new Float64Array(capacity * STRIDE)
    const tagAt = (at: number) => {
      const print = view.getUint32(at, true)
      return print === 0 ? 0 : print * 256 + MAX_FEEDS
    }
    contents.#loneId = view.getFloat64(24, true)
    contents.#loneTag = tagAt(HEADER_BYTES + 2)
    let at = HEADER_BYTES + 6
    for (let i = 0; i < capacity; i++, at += 4) {
      contents.#ring[i * STRIDE] = -1
      contents.#ring[i * STRIDE + 1] = tagAt(at)
    }
    for (; at < bytes.length; at += BLOCK_BYTES) {
      const block = view.getFloat64(at, true)
      contents.#turnTo(block)
      contents.#from = view.getFloat64(at + 8, true)
      contents.#to = view.getFloat64(at + 16, true)
    }
    return contents
  }
}
