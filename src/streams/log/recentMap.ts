/** Decides what is remembered by key where keys come without end: the ones used lately, at a bounded size. */

/**
 * A map of at least the `limit` keys used last and at most twice as many. Two halves: full, the newer becomes the older,
 * and what the older still held goes; so nothing is moved or ordered at each use.
 */
export class RecentMap<K, V> {
  private readonly limit: number
  private newer = new Map<K, V>()
  private older = new Map<K, V>()

  constructor(limit: number) {
    this.limit = limit
  }

  get size(): number {
    return this.newer.size + this.older.size
  }

  get(key: K): V | undefined {
    const value = this.newer.get(key)
    if (value !== undefined) return value
    const old = this.older.get(key)
    if (old === undefined) return undefined
    this.set(key, old)
    return old
  }

  set(key: K, value: V): void {
    this.older.delete(key)
    this.newer.set(key, value)
    if (this.newer.size < this.limit) return
    this.older = this.newer
    this.newer = new Map()
  }
}
