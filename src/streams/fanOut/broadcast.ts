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

/** How far back a server begins. */
export const BACK_MICROS = 5 * 60 * 1_000_000

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

/** Hands each batch of each partition to `take`, a plain call that never waits. Ready once it has caught up. */
export const broadcast = (take: (batch: TickBatch) => void): Effect.Effect<void, LogError, TickLog | Readiness> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const readiness = yield* Readiness
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const caughtUp = yield* readiness.condition("log caught up")
    const since = clock.currentTimeMillisUnsafe() * 1000 - BACK_MICROS
    const runAlone = alone("server")
    let behind = log.partitions

    const partition = (number: number) => {
      /** How far it was read: a reader that failed goes on from there, unless the topic is another by then. */
      let bookmark: Bookmark | undefined
      let isBehind = true
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
        const end = yield* lastRecordEnd(number, from)
        if (from >= end) yield* reached
        yield* log.read("normalized_ticks", number, from).pipe(
          follow({ reader: "follow-server", partition: number, incarnation, log, bookmark, context }),
          Stream.runForEach((batch) => {
            // Before it is taken: one that cannot be taken is passed over, and what comes after it is live.
            bookmark = batch.bookmark
            take(batch)
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
