/**
 * Decides how the store keeps up: all partitions of the group `store` gathered into one transaction at a time, with
 * the bookmarks of what it holds, and offsets committed after it; smaller transactions where the store is too slow for
 * whole ones.
 */
import { Clock, Effect, Scope, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import type { Tick } from "../../schema/Tick.ts"
import { TickQueue } from "../../schema/TickColumns.ts"
import { type Bookmark, toMetadata } from "../log/bookmark.ts"
import { type CommitLater, commitLater } from "../log/commitLater.ts"
import { follow, type TickBatch } from "../log/follow.ts"
import { gatherFrom } from "../log/gather.ts"
import { type AssignedPartition, TickLog } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { TickStore } from "../ports/TickStore.ts"
import { crashPoint } from "../run/crashPoint.ts"
import { Drain } from "../run/Drain.ts"
import { type LostOffsetsSettings, lostOffsets } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { alone } from "../run/restart.ts"
import { retrySink } from "../run/sinkRetry.ts"

/** A transaction is never asked for fewer ticks; at the store's time limit of 30 s that is 4 rows a second. */
const LEAST_TICKS = 125
/** Transactions grow again while they take less. */
const QUICK_MS = 2000

/** A batch whose ticks lie in the queues: as objects they would outlive the young generation while they wait. */
interface Waiting {
  readonly ticks: number
  readonly replayed: number
  readonly bookmark: Bookmark
  readonly commits: CommitLater
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
    const scope = yield* Effect.scope
    const context = yield* Effect.context<never>()
    const incarnation = log.incarnation("normalized_ticks")
    const received = metrics.bind(metrics.stageReceived, { stage: "store" }, context)
    const sent = metrics.bind(metrics.stageSent, { stage: "store" }, context)
    const absorbed = metrics.bind(metrics.stageDiscarded, { stage: "store", reason: "absorbed" }, context)
    const dropped = metrics.bind(metrics.stageDiscarded, { stage: "store", reason: "dropped-day" }, context)
    const flush = metrics.bind(metrics.sinkFlush, { sink: "store" }, context)

    const live = new TickQueue()
    const ofReplays = new TickQueue()
    /** In the order in which batches are gathered, which is the one in which `write` takes them. */
    const enqueue = (commits: CommitLater, { ticks, replays, bookmark }: TickBatch): Waiting => {
      live.append(ticks)
      const replayed = replays.flatMap((replay) => ("tick" in replay ? [replay.tick] : []))
      ofReplays.append(replayed)
      return { ticks: ticks.length, replayed: replayed.length, bookmark, commits }
    }

    const runAlone = alone("store")
    const partition = (assigned: AssignedPartition, push: (batch: Waiting) => Effect.Effect<void>) =>
      Effect.gen(function* () {
        // Until the partition is another's: what was taken last is written after its reading has ended.
        const commits = yield* Scope.provide(
          commitLater(assigned, () => crashPoint("after-store-commit")),
          scope
        )
        const reading = Effect.gen(function* () {
          // The store's own bookmark was written with its rows; the group's commit may lag behind it.
          const bookmarks = yield* store.bookmarks(incarnation).pipe(retrySink("store"))
          const bookmark = bookmarks.find((mine) => mine.partition === assigned.partition)
          const { start } = yield* log.bounds("normalized_ticks", assigned.partition)
          yield* lost.read(assigned, bookmark?.offset ?? start).pipe(
            follow({ reader: "follow-store", partition: assigned.partition, incarnation, log, bookmark, context }),
            Stream.runForEach((batch) => push(enqueue(commits, batch)))
          )
        })
        yield* runAlone(assigned, reading)
      })

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

    const write = Effect.fnUntraced(function* (group: ReadonlyArray<Waiting>) {
      const newest = new Map<number, Waiting>()
      for (const batch of group) newest.set(batch.bookmark.partition, batch)
      const ticks = live.take(group.reduce((n, batch) => n + batch.ticks, 0))
      const replayed = ofReplays.take(group.reduce((n, batch) => n + batch.replayed, 0))
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
      for (const { bookmark, commits } of newest.values()) {
        commits.commit({ offset: bookmark.offset, metadata: toMetadata(bookmark.mark) })
      }
    })

    const groups = gatherFrom(
      {
        count: ({ ticks, replayed }: Waiting) => ticks + replayed,
        ticks: settings.STORE_BATCH_TICKS,
        ms: settings.STORE_FLUSH_MS,
        drain: drain.begun
      },
      (push) =>
        log.assignments("store", "normalized_ticks").pipe(
          Stream.mapEffect((assigned) => partition(assigned, push), { concurrency: "unbounded" }),
          Stream.runDrain
        )
    )
    yield* Stream.runForEach(groups, write)
  }).pipe(Effect.scoped)
