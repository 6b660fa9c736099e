/** Decides what is kept of many where only the first few in order are wanted: a heap with the last of them on top. */

/** The first few of what it was offered, by three numbers one after another. */
export class FirstOf {
  size = 0
  readonly limit: number
  private readonly keys: Float64Array

  constructor(limit: number) {
    this.limit = limit
    this.keys = new Float64Array(3 * limit)
  }

  /** The first number of the last one. */
  get last(): number {
    return this.keys[0] ?? Number.NaN
  }

  /** Whether one that is offered would be kept. */
  takes(a: number, b: number, c: number): boolean {
    return this.size < this.limit || (this.limit > 0 && this.isAfter(0, a, b, c))
  }

  /** Keeps one that is taken; where it is full, the last goes. */
  put(a: number, b: number, c: number): void {
    if (this.size < this.limit) {
      let at = this.size++
      while (at > 0) {
        const above = (at - 1) >> 1
        if (this.isAfter(above, a, b, c)) break
        this.copy(above, at)
        at = above
      }
      this.write(at, a, b, c)
    } else this.sink(a, b, c)
  }

  /** The third number of the last one, which is let go. */
  takeLast(): number {
    const { keys } = this
    const last = keys[2]!
    this.size -= 1
    const end = 3 * this.size
    if (this.size > 0) this.sink(keys[end]!, keys[end + 1]!, keys[end + 2]!)
    return last
  }

  /** Whether what is kept at a place comes after. */
  private isAfter(at: number, a: number, b: number, c: number): boolean {
    const { keys } = this
    const i = 3 * at
    if (keys[i] !== a) return keys[i]! > a
    return keys[i + 1] === b ? keys[i + 2]! > c : keys[i + 1]! > b
  }

  /** Puts one in the place of the top. */
  private sink(a: number, b: number, c: number): void {
    const { keys, size } = this
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= size) break
      const j = 3 * (below + 1)
      if (below + 1 < size && this.isAfter(below + 1, keys[j - 3]!, keys[j - 2]!, keys[j - 1]!)) below += 1
      if (!this.isAfter(below, a, b, c)) break
      this.copy(below, at)
      at = below
    }
    this.write(at, a, b, c)
  }

  private copy(from: number, to: number): void {
    const { keys } = this
    keys[3 * to] = keys[3 * from]!
    keys[3 * to + 1] = keys[3 * from + 1]!
    keys[3 * to + 2] = keys[3 * from + 2]!
  }

  private write(at: number, a: number, b: number, c: number): void {
    this.keys[3 * at] = a
    this.keys[3 * at + 1] = b
    this.keys[3 * at + 2] = c
  }
}
