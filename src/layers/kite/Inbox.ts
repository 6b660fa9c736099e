/**
 * Decides what waits between Kite's sockets and the log: so many records and bytes, then the sockets are not read until
 * half of it has gone (`block`). What a server has for a socket that is not read is the server's to merge.
 */
import { Effect, Latch } from "effect"
import type { RawSinkTick } from "../../streams/ports/RawSink.ts"

/** Full at either; frames that were read already still go in. */
export const MAX_WAITING_RECORDS = 100_000
export const MAX_WAITING_BYTES = 64 * 1024 * 1024
/** Records handed on at a time. */
const TAKEN = 4000

/** What is not read while the inbox is full. */
export interface Paused {
  readonly pause: () => void
  readonly resume: () => void
}

export class Inbox {
  #records: Array<RawSinkTick> = []
  #bytes = 0
  #isPaused = false
  /** Times that it was full. */
  fulls = 0
  readonly #arrived = Latch.makeUnsafe(false)
  readonly #sources = new Set<Paused>()
  readonly #maxRecords: number

  constructor(maxRecords = MAX_WAITING_RECORDS) {
    this.#maxRecords = maxRecords
  }

  get size(): number {
    return this.#records.length
  }
  get bytes(): number {
    return this.#bytes
  }
  get isPaused(): boolean {
    return this.#isPaused
  }

  /** A source is read from now on, unless the inbox is full. Answers how it leaves. */
  join(source: Paused): () => void {
    this.#sources.add(source)
    if (this.#isPaused) source.pause()
    return () => this.#sources.delete(source)
  }

  put(records: ReadonlyArray<RawSinkTick>): void {
    if (records.length === 0) return
    for (const record of records) {
      this.#records.push(record)
      this.#bytes += record.value.byteLength
    }
    this.#arrived.openUnsafe()
    if (this.#isPaused || (this.#records.length < this.#maxRecords && this.#bytes < MAX_WAITING_BYTES)) return
    this.#isPaused = true
    this.fulls += 1
    for (const source of this.#sources) source.pause()
  }

  /** The oldest records, at least one of them. */
  readonly take: Effect.Effect<ReadonlyArray<RawSinkTick>> = Effect.suspend(() =>
    Effect.map(this.#arrived.await, () => {
      const taken = this.#records.slice(0, TAKEN)
      this.#records = this.#records.slice(TAKEN)
      for (const record of taken) this.#bytes -= record.value.byteLength
      if (this.#records.length === 0) this.#arrived.closeUnsafe()
      if (this.#isPaused && this.#records.length * 2 <= this.#maxRecords && this.#bytes * 2 <= MAX_WAITING_BYTES) {
        this.#isPaused = false
        for (const source of this.#sources) source.resume()
      }
      return taken
    })
  )
}
