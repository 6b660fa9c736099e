/**
 * Decides which sources a record of `normalized_ticks` may name: the raw topic's own incarnation, and no offset that
 * the raw log has not given. Anybody may write such a record, or mirror one here from elsewhere; what the platform did
 * not publish moves no mark.
 */
import { Clock, Effect } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Source } from "../../schema/Tick.ts"
import type { TickLog } from "./TickLog.ts"

/** What is asked of the log. */
export type RawLog = Pick<TickLog["Service"], "incarnation" | "latest" | "bounds">

/**
 * How far above the raw log's end, as last asked for, a source may lie without another look: so many records a look.
 * What a broker lost of the raw log's newest had been published before, and is not taken for foreign up to this.
 */
export const END_SLACK = 10_000
/** A record stamped so much later (µs) than this process knew the raw topic's incarnation is not from before it. */
const BEFORE_MICROS = 300_000_000
/** Incarnations kept as known not to be the raw topic's; one more and all are forgotten: they are asked for again. */
const MAX_OTHERS = 1024

export class RawSources {
  readonly #log: RawLog
  readonly #partition: number
  readonly #others = new Set<string>()
  /** The raw topic's, as last asked for. */
  incarnation = ""
  /** The first offset that its log cannot have given. */
  limit = 0
  /** When the incarnation was learned, µs. */
  #since = Number.NEGATIVE_INFINITY

  private constructor(log: RawLog, partition: number) {
    this.#log = log
    this.#partition = partition
  }

  static make(log: RawLog, partition: number): Effect.Effect<RawSources, LogError> {
    const sources = new RawSources(log, partition)
    return Effect.gen(function* () {
      yield* sources.#learn(log.incarnation("raw_ticks"))
      yield* sources.#lookAtEnd
      return sources
    })
  }

  /** Whether the log must be asked before it can be said whose source this is. Next to nothing for one's own. */
  isOpen([incarnation, offset]: Source): boolean {
    return incarnation === this.incarnation ? offset >= this.limit : !this.#others.has(incarnation)
  }

  /** Asks the log as much as these sources need, which were read before: afterwards none of them is open. */
  settle(found: ReadonlyArray<Source>): Effect.Effect<void, LogError> {
    return Effect.gen({ self: this }, function* () {
      if (found.some(([incarnation]) => incarnation === this.incarnation)) yield* this.#lookAtEnd
      // What is above the end of a log recreated meanwhile may be the one's before.
      if (!found.some((source) => this.isOpen(source))) return
      yield* this.#learn(yield* this.#log.latest("raw_ticks"))
      yield* this.#lookAtEnd
      for (const [incarnation] of found) {
        if (incarnation === this.incarnation || this.#others.has(incarnation)) continue
        if (this.#others.size >= MAX_OTHERS) this.#others.clear()
        this.#others.add(incarnation)
      }
    })
  }

  get #lookAtEnd(): Effect.Effect<void, LogError> {
    return Effect.map(this.#log.bounds("raw_ticks", this.#partition), ({ end }) => {
      this.limit = end + END_SLACK
    })
  }

  #learn(incarnation: string): Effect.Effect<void> {
    return Effect.map(Clock.currentTimeMillis, (now) => {
      if (incarnation === this.incarnation) return
      this.incarnation = incarnation
      this.#since = now * 1000
    })
  }

  /**
   * Whether the platform cannot have published it. What names another incarnation may be from before the raw topic was
   * recreated, until the reader has met the topic's own.
   */
  isForeign([incarnation, offset]: Source, met: string | undefined, recordTime: number): boolean {
    if (incarnation === this.incarnation) return offset >= this.limit
    return met === this.incarnation || recordTime > this.#since + BEFORE_MICROS
  }
}
