/**
 * Decides what a server reads: every partition of `normalized_ticks`, in no group, from a few minutes back, so that
 * its memory and its marks are filled before it is ready.
 */
import { Clock, Effect, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Bookmark } from "../log/bookmark.ts"
import { follow, type TickBatch } from "../log/follow.ts"
import { TickLog } from "../log/TickLog.ts"
import { Readiness } from "../run/Readiness.ts"
import { alone } from "../run/restart.ts"
import type { LogPlace } from "./parts.ts"

/** How far back a server begins: a bar of five minutes under way is whole then, with a minute for clocks apart. */
export const BACK_MICROS = 6 * 60 * 1_000_000

/** Offsets looked through for the last that is a record's. */
const TAIL = 500

/** The offset after the last record of a partition: what a transaction left behind it is no record, and none is waited for. */
const lastRecordEnd = (partition: number, from: number) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const { end } = yield* log.bounds("normalized_ticks", partition)
    const { records } = yield* log.slice("normalized_ticks", partition, Math.max(from, end - TAIL), TAIL)
    const last = records[records.length - 1]
    return last === undefined ? from : last.offset + 1
  })

/** Plain calls that never wait. */
export interface Reader {
  /**
   * A partition is read from here on, which has all that was published from `since` on (µs). Again: something may have
   * been lost between where it was read up to and here.
   */
  readonly begin: (place: LogPlace, since: number) => void
  /** Behind: what was published before this server began. */
  readonly take: (batch: TickBatch, isBehind: boolean) => void
}

/** Hands each batch of each partition to a reader. Ready once it has caught up. */
export const broadcast = (reader: Reader): Effect.Effect<void, LogError, TickLog | Readiness> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const readiness = yield* Readiness
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const caughtUp = yield* readiness.condition("log caught up")
    const now = () => clock.currentTimeMillisUnsafe() * 1000
    const since = now() - BACK_MICROS
    const runAlone = alone("server")
    let behind = log.partitions

    const partition = (number: number) => {
      /** How far it was read: a reader that failed goes on from there, unless the topic is another by then. */
      let bookmark: Bookmark | undefined
      let isBehind = true
      let hasBegun = false
      const reached = Effect.suspend(() => {
        if (!isBehind) return Effect.void
        isBehind = false
        return --behind === 0 ? caughtUp : Effect.void
      })
      const read = Effect.gen(function* () {
        const incarnation = log.incarnation("normalized_ticks")
        if (bookmark?.incarnation !== incarnation) bookmark = undefined
        const bounds = yield* log.bounds("normalized_ticks", number)
        const from =
          bookmark === undefined
            ? yield* log.offsetAt("normalized_ticks", number, since)
            : Math.min(bounds.end, Math.max(bounds.start, bookmark.offset))
        // Where nothing older is left, what was published before it is not known to be all.
        if (bookmark === undefined || from > bookmark.offset) {
          const isFirst = bookmark === undefined && !hasBegun
          reader.begin({ partition: number, incarnation, offset: from }, isFirst && from > bounds.start ? since : now())
          hasBegun = true
        }
        const end = yield* lastRecordEnd(number, from)
        if (from >= end) yield* reached
        yield* log.read("normalized_ticks", number, from).pipe(
          follow({ reader: "follow-server", partition: number, incarnation, log, bookmark, context }),
          Stream.runForEach((batch) => {
            // Before it is taken: one that cannot be taken is passed over, and what comes after it is live.
            bookmark = batch.bookmark
            reader.take(batch, isBehind)
            return batch.bookmark.offset < end ? Effect.void : reached
          })
        )
      })
      return runAlone({ partition: number, revoked: Effect.never }, read)
    }
    yield* Effect.forEach(
      Array.from({ length: log.partitions }, (_, number) => number),
      partition,
      { concurrency: "unbounded", discard: true }
    )
  })
