/**
 * Decides what archive objects hold: the ticks and the quotes of a range of one partition, up to a number of them or a
 * time, and the very range that was begun before where one was. The offset is committed once the range is complete.
 */
import { Clock, Effect, Schedule, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import { QUOTE_WEIGHT, QuoteQueue } from "../../schema/QuoteColumns.ts"
import type { Settings } from "../../schema/Settings.ts"
import { TickQueue } from "../../schema/TickColumns.ts"
import type { Bookmark } from "../log/bookmark.ts"
import type { TickBatch } from "../log/follow.ts"
import { gather } from "../log/gather.ts"
import type { LogRecord, TickLog } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { Archive } from "../ports/Archive.ts"
import type { Drain } from "../run/Drain.ts"
import type { LostOffsetsSettings } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { consume, type SinkPartition } from "./consume.ts"

/** A batch whose ticks and quotes lie in the queues. */
interface WaitingBatch {
  readonly ticks: number
  readonly quotes: number
  readonly replays: number
  readonly replayedQuotes: number
  readonly bookmark: Bookmark
}

/** Why a tick or quote that came is in no object of its own. */
export const ARCHIVE_DISCARDS = ["replay", "archived"] as const

export const writeArchive = (
  settings: Pick<Settings, "ARCHIVE_BATCH_TICKS" | "ARCHIVE_FLUSH_MS"> & LostOffsetsSettings
): Effect.Effect<void, LogError, TickLog | Archive | Readiness | Drain> =>
  Effect.gen(function* () {
    const archive = yield* Archive
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const sink = yield* consume(
      {
        group: "archive",
        sink: "archive",
        discards: ARCHIVE_DISCARDS,
        capacity: settings.ARCHIVE_BATCH_TICKS * 2
      },
      settings
    )
    const { incarnation } = sink

    const write = ({ partition, committed, start, held, read, ask, revoked, done }: SinkPartition) =>
      Effect.gen(function* () {
        let bookmark = committed
        let first = bookmark?.offset ?? (yield* start)
        let queue = new TickQueue()
        let quoteQueue = new QuoteQueue()
        /** What waits, as many ticks as take its room. */
        const shown = () => sink.waiting(partition, queue.length + quoteQueue.length * QUOTE_WEIGHT)
        /** How far was read: what lies between is gathered, and no one is behind with it. */
        let taken = first
        const gathered = metrics.bind(
          metrics.heldRecords,
          { group: "archive", topic: "normalized_ticks", partition: String(partition) },
          context
        )
        const enqueue = ({ ticks, quotes, replays, bookmark: next }: TickBatch): WaitingBatch => {
          queue.append(ticks)
          quoteQueue.append(quotes)
          shown()
          taken = next.offset
          gathered.add(taken - first)
          const count = (kind: "tick" | "quote") => replays.reduce((n, replay) => (kind in replay ? n + 1 : n), 0)
          return {
            ticks: ticks.length,
            quotes: quotes.length,
            replays: count("tick"),
            replayedQuotes: count("quote"),
            bookmark: next
          }
        }
        const put = Effect.fnUntraced(function* (group: ReadonlyArray<WaitingBatch>) {
          const newest = group[group.length - 1]
          if (newest === undefined) return
          const next = newest.bookmark
          const sum = (of: Exclude<keyof WaitingBatch, "bookmark">) => group.reduce((n, batch) => n + batch[of], 0)
          const [ticks, quotes, replay] = [sum("ticks"), sum("quotes"), sum("replays")]
          const replayed = sum("replayedQuotes")
          const range = { incarnation, partition, first, last: next.offset - 1 }
          const startedAt = clock.currentTimeMillisUnsafe()
          let archived = 0
          if (ticks + quotes > 0) {
            const found = yield* ask(
              archive
                .write(range, queue.peek(ticks), quoteQueue.peek(quotes))
                .pipe(Effect.catchTag("RangeTaken", Effect.succeed)),
              { isLong: true }
            )
            if (typeof found !== "number") return yield* found
            archived = found
            queue.drop(ticks)
            quoteQueue.drop(quotes)
            shown()
          }
          bookmark = next
          first = next.offset
          gathered.add(Math.max(0, taken - first))
          sink.written({
            ticks: ticks + replay,
            discarded: { replay, archived },
            quotes: { taken: quotes + replayed, discarded: { replay: replayed } },
            startedAt
          })
          done(next)
        })
        /** Completes a range that was begun here, by this group before a crash or by a member that is one no longer. */
        const complete = (last: number) =>
          read(first, bookmark, (all) =>
            all.pipe(
              Stream.map((records): ReadonlyArray<LogRecord> => {
                const mine = records.filter((record) => record.offset <= last)
                const beyond = records.find((record) => record.offset > last)
                // The range may end within a batch that was read then and cannot be now: of it there is only its end.
                if (beyond?.unreadable !== undefined && mine.at(-1)?.offset !== last) {
                  mine.push({ ...beyond, offset: last })
                }
                return mine
              }),
              Stream.takeUntil((records) => records.length === 0 || records[records.length - 1]!.offset === last),
              Stream.filter((records) => records.length > 0)
            )
          ).pipe(
            Stream.map(enqueue),
            Stream.runCollect,
            Effect.flatMap((group) => (group.at(-1)?.bookmark.offset === last + 1 ? put(group) : Effect.void))
          )
        const fromHere = Effect.gen(function* () {
          queue = new TickQueue()
          quoteQueue = new QuoteQueue()
          shown()
          gathered.add(0)
          // A range begun over what is gone cannot be completed: the next one begins where the log does.
          first = yield* held(first)
          for (;;) {
            const begun = yield* ask(archive.begun(incarnation, partition, first))
            if (begun === undefined) break
            yield* complete(begun.last)
            // The reader ended before the range did: the partition was taken away, or a stop has begun.
            if (first <= begun.last) return
          }
          yield* read(first, bookmark).pipe(
            Stream.map(enqueue),
            gather({
              count: ({ ticks, quotes, replays, replayedQuotes }) =>
                ticks + quotes * QUOTE_WEIGHT + replays + replayedQuotes,
              ticks: settings.ARCHIVE_BATCH_TICKS,
              ms: settings.ARCHIVE_FLUSH_MS,
              drain: sink.stopping
            }),
            Stream.runForEach(put)
          )
        })
        // Who finds a range begun where its own should begin reads on from there, and completes it.
        yield* Effect.retry(fromHere, {
          while: (error) => error._tag === "RangeTaken",
          schedule: Schedule.spaced("1 second")
        }).pipe(
          Effect.catchTag("RangeTaken", Effect.die),
          Effect.raceFirst(revoked),
          Effect.ensuring(
            Effect.sync(() => {
              gathered.add(0)
              sink.waiting(partition, 0)
            })
          )
        )
      })

    yield* sink.each(write)
  }).pipe(Effect.scoped)
