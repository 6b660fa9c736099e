/**
 * Decides how the store keeps up: all partitions of the group `store` gathered into one transaction at a time, with
 * the bookmarks of what it holds, and offsets committed after it; smaller transactions where the store is too slow for
 * whole ones.
 */
import { Clock, Effect, Stream } from "effect"
import type { LogError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import type { Tick } from "../schema/Tick.ts"
import { type Bookmark, toMetadata } from "./bookmark.ts"
import { crashPoint } from "./crashPoint.ts"
import { Drain } from "./Drain.ts"
import { follow, type TickBatch } from "./follow.ts"
import { gather } from "./gather.ts"
import { type LostOffsetsSettings, lostOffsets } from "./lostOffsets.ts"
import * as metrics from "./metrics.ts"
import type { Readiness } from "./Readiness.ts"
import { retrySink } from "./sinkRetry.ts"
import { type AssignedPartition, TickLog } from "./TickLog.ts"
import { TickStore } from "./TickStore.ts"

/** A transaction is never asked for fewer ticks; at the store's time limit of 30 s that is 4 rows a second. */
const LEAST_TICKS = 125
/** Transactions grow again while they take less. */
const QUICK_MS = 2000

interface OwnedBatch extends TickBatch {
  readonly assigned: AssignedPartition
}

export const writeStore = (
  settings: Pick<Settings, "STORE_BATCH_TICKS" | "STORE_FLUSH_MS"> & LostOffsetsSettings
): Effect.Effect<void, LogError, TickLog | TickStore | Readiness | Drain> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const store = yield* TickStore
    const lost = yield* lostOffsets("store", "normalized_ticks", settings)
    const drain = yield* Drain
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const incarnation = log.incarnation("normalized_ticks")
    const received = metrics.bind(metrics.stageReceived, { stage: "store" }, context)
    const sent = metrics.bind(metrics.stageSent, { stage: "store" }, context)
    const absorbed = metrics.bind(metrics.stageDiscarded, { stage: "store", reason: "absorbed" }, context)
    const dropped = metrics.bind(metrics.stageDiscarded, { stage: "store", reason: "dropped-day" }, context)
    const flush = metrics.bind(metrics.sinkFlush, { sink: "store" }, context)

    const partition = (assigned: AssignedPartition) =>
      Stream.unwrap(
        Effect.gen(function* () {
          // The store's own bookmark was written with its rows; the group's commit may lag behind it.
          const bookmarks = yield* store.bookmarks(incarnation).pipe(retrySink("store"))
          const bookmark = bookmarks.find((mine) => mine.partition === assigned.partition)
          const { start } = yield* log.bounds("normalized_ticks", assigned.partition)
          return lost.read(assigned, bookmark?.offset ?? start).pipe(
            follow({ reader: "follow-store", partition: assigned.partition, incarnation, bookmark, context }),
            Stream.map((batch): OwnedBatch => ({ ...batch, assigned }))
          )
        })
      )

    /** Ticks of one transaction: halved with each failure, so that a slow store still gets on, and doubled back. */
    let most = settings.STORE_BATCH_TICKS
    /** Writes all, in as many transactions as it takes; the bookmarks go with the last, so nothing is passed over. */
    const writeAll = Effect.fnUntraced(function* (
      ticks: ReadonlyArray<Tick>,
      replayed: ReadonlyArray<Tick>,
      bookmarks: ReadonlyArray<Bookmark>
    ) {
      const total = ticks.length + replayed.length
      let added = 0
      let archiveOnly = 0
      let at = 0
      do {
        const part = Effect.suspend(() => {
          const to = most === settings.STORE_BATCH_TICKS ? total : Math.min(total, at + most)
          return Effect.map(
            store.write({
              ticks: ticks.slice(at, to),
              replayed: replayed.slice(Math.max(0, at - ticks.length), Math.max(0, to - ticks.length)),
              bookmarks: to === total ? bookmarks : []
            }),
            (result) => ({ result, to })
          )
        }).pipe(
          Effect.tapError(() =>
            Effect.sync(() => {
              most = Math.min(settings.STORE_BATCH_TICKS, Math.max(LEAST_TICKS, Math.ceil(most / 2)))
            })
          )
        )
        const started = clock.currentTimeMillisUnsafe()
        const { result, to } = yield* part.pipe(retrySink("store"))
        if (clock.currentTimeMillisUnsafe() - started < QUICK_MS) most = Math.min(settings.STORE_BATCH_TICKS, most * 2)
        added += result.added
        archiveOnly += result.dropped ?? 0
        at = to
      } while (at < total)
      return { added, archiveOnly }
    })

    const write = Effect.fnUntraced(function* (group: ReadonlyArray<OwnedBatch>) {
      const ticks: Array<Tick> = []
      const replayed: Array<Tick> = []
      const newest = new Map<number, { readonly bookmark: Bookmark; readonly assigned: AssignedPartition }>()
      for (const { ticks: live, replays, bookmark, assigned } of group) {
        for (const tick of live) ticks.push(tick)
        for (const replay of replays) if ("tick" in replay) replayed.push(replay.tick)
        newest.set(bookmark.partition, { bookmark, assigned })
      }
      const total = ticks.length + replayed.length
      const started = clock.currentTimeMillisUnsafe()
      const bookmarks = [...newest.values()].map(({ bookmark }) => bookmark)
      const { added, archiveOnly } = yield* writeAll(ticks, replayed, bookmarks)
      crashPoint("after-store-write")
      flush.add((clock.currentTimeMillisUnsafe() - started) / 1000)
      received.add(total)
      sent.add(added)
      if (archiveOnly > 0) dropped.add(archiveOnly)
      if (added + archiveOnly < total) absorbed.add(total - archiveOnly - added)
      // A partition given to another member meanwhile is that member's to commit; the rows are safe either way.
      yield* Effect.forEach(
        newest.values(),
        ({ bookmark, assigned }) =>
          assigned
            .commit({ offset: bookmark.offset, metadata: toMetadata(bookmark.mark) })
            .pipe(Effect.catch((error) => Effect.logDebug(error.message))),
        { concurrency: "unbounded", discard: true }
      )
      crashPoint("after-store-commit")
    })

    yield* log.assignments("store", "normalized_ticks").pipe(
      Stream.flatMap(partition, { concurrency: "unbounded" }),
      gather({
        count: ({ ticks, replays }) => ticks.length + replays.length,
        ticks: settings.STORE_BATCH_TICKS,
        ms: settings.STORE_FLUSH_MS,
        drain: drain.begun
      }),
      Stream.runForEach(write)
    )
  })
