/**
 * Decides how the store keeps up: all partitions of the group `store` gathered into one transaction at a time, with
 * the bookmarks of what it holds, and offsets committed after it; smaller transactions where the store is too slow for
 * whole ones. A row that the store refuses for good is set aside in the DLQ, and the rest goes on.
 */
import { Clock, Effect, Stream } from "effect"
import type { LogError, StoreError } from "../../schema/Errors.ts"
import { partitionOf } from "../../schema/Partition.ts"
import type { Settings } from "../../schema/Settings.ts"
import type { Tick } from "../../schema/Tick.ts"
import { TickQueue } from "../../schema/TickColumns.ts"
import type { Bookmark } from "../log/bookmark.ts"
import type { TickBatch } from "../log/follow.ts"
import { gatherFrom } from "../log/gather.ts"
import { setAsideRecord } from "../log/headers.ts"
import { TickLog } from "../log/TickLog.ts"
import { TickStore } from "../ports/TickStore.ts"
import type { Drain } from "../run/Drain.ts"
import type { LostOffsetsSettings } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { retrySink } from "../run/sinkRetry.ts"
import { consume, type SinkPartition } from "./consume.ts"

/** A transaction is never asked for fewer ticks; at the store's time limit of 30 s that is 4 rows a second. */
const LEAST_TICKS = 125
/** Why a tick that came is not a row more: it was there, its day is dropped, or the store refuses it for good. */
export const STORE_DISCARDS = ["absorbed", "dropped-day", "refused"] as const
/** Transactions grow again while they take less. */
const QUICK_MS = 2000

/** A batch whose ticks lie in the queues: as objects they would outlive the young generation while they wait. */
interface WaitingBatch {
  readonly ticks: number
  readonly replayed: number
  readonly bookmark: Bookmark
  readonly done: SinkPartition["done"]
}

/** What became of rows: added, only counted in a day that the store has dropped, refused; the rest was there before. */
interface Rows {
  readonly added: number
  readonly dropped: number
  readonly refused: number
}

const NO_ROWS: Rows = { added: 0, dropped: 0, refused: 0 }
const sum = (a: Rows, b: Rows): Rows => ({
  added: a.added + b.added,
  dropped: a.dropped + b.dropped,
  refused: a.refused + b.refused
})

export const writeStore = (
  settings: Pick<Settings, "STORE_BATCH_TICKS" | "STORE_FLUSH_MS"> & LostOffsetsSettings
): Effect.Effect<void, LogError, TickLog | TickStore | Readiness | Drain> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const store = yield* TickStore
    const clock = yield* Clock.Clock
    const capacity = settings.STORE_BATCH_TICKS * 2
    const sink = yield* consume(
      {
        group: "store",
        sink: "store",
        discards: STORE_DISCARDS,
        capacity
      },
      settings
    )

    const live = new TickQueue()
    const ofReplays = new TickQueue()
    const shown = () => sink.waiting(0, live.length + ofReplays.length)
    /** In the order in which batches are gathered, which is the one in which `write` takes them. */
    const enqueue = (done: SinkPartition["done"], { ticks, replays, bookmark }: TickBatch): WaitingBatch => {
      live.append(ticks)
      const replayed = replays.flatMap((replay) => ("tick" in replay ? [replay.tick] : []))
      ofReplays.append(replayed)
      shown()
      return { ticks: ticks.length, replayed: replayed.length, bookmark, done }
    }

    const read = (
      { partition, start, read, ask, done }: SinkPartition,
      push: (batch: WaitingBatch) => Effect.Effect<void>
    ) =>
      Effect.gen(function* () {
        // The store's own bookmark was written with its rows; the group's commit may lag behind it.
        const bookmarks = yield* ask(store.bookmarks(sink.incarnation))
        const bookmark = bookmarks.find((mine) => mine.partition === partition)
        yield* read(bookmark?.offset ?? (yield* start), bookmark).pipe(
          Stream.runForEach((batch) => push(enqueue(done, batch)))
        )
      })

    const setAside = (tick: Tick, error: StoreError) =>
      Effect.gen(function* () {
        const { instrument_token, exchange_ts, source } = tick
        const what = `instrument_token ${instrument_token} at ${exchange_ts}, source ${source.join(" ")}`
        yield* Effect.logError(
          `the store refuses a tick for good, which is set aside in the DLQ: ${error.message}: ${what}`
        )
        const record = setAsideRecord(tick, "store", error.message)
        yield* log
          .append("raw_ticks_dlq", partitionOf(instrument_token, log.partitions), [record])
          .pipe(retrySink("dead letters"))
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
      /** One transaction of the rows from `at` to `to`; a refusal for good is a value. */
      const transaction = (at: number, to: number) =>
        store
          .write({
            ticks: ticks.slice(at, to),
            replayed: replayed.slice(Math.max(0, at - ticks.length), Math.max(0, to - ticks.length)),
            bookmarks: to === total ? bookmarks : []
          })
          .pipe(
            Effect.map(({ added, dropped = 0 }): Rows => ({ added, dropped, refused: 0 })),
            Effect.catchIf(
              ({ transient }) => !transient,
              (error) => Effect.succeed(error)
            )
          )
      /** Halves what was refused, down to the rows that are. */
      const apart = (at: number, to: number, error: StoreError): Effect.Effect<Rows, never, Readiness> =>
        Effect.gen(function* () {
          if (to - at <= 1) {
            if (to > at) yield* setAside(at < ticks.length ? ticks[at]! : replayed[at - ticks.length]!, error)
            if (to === total) yield* store.write({ ticks: [], replayed: [], bookmarks }).pipe(retrySink("store"))
            return { ...NO_ROWS, refused: to - at }
          }
          const middle = (at + to) >>> 1
          return sum(yield* inParts(at, middle), yield* inParts(middle, to))
        })
      const inParts = (at: number, to: number): Effect.Effect<Rows, never, Readiness> =>
        Effect.flatMap(transaction(at, to).pipe(retrySink("store")), (done) =>
          "refused" in done ? Effect.succeed(done) : apart(at, to, done)
        )
      let rows = NO_ROWS
      let at = 0
      do {
        let to = total
        const part = Effect.suspend(() => {
          to = most === settings.STORE_BATCH_TICKS ? total : Math.min(total, at + most)
          return transaction(at, to)
        }).pipe(
          Effect.tapError(() =>
            Effect.sync(() => {
              most = Math.min(settings.STORE_BATCH_TICKS, Math.max(LEAST_TICKS, Math.ceil(most / 2)))
            })
          )
        )
        const started = clock.currentTimeMillisUnsafe()
        const done = yield* part.pipe(retrySink("store"))
        if (clock.currentTimeMillisUnsafe() - started < QUICK_MS) most = Math.min(settings.STORE_BATCH_TICKS, most * 2)
        rows = sum(rows, "refused" in done ? done : yield* apart(at, to, done))
        at = to
      } while (at < total)
      return rows
    })

    const write = Effect.fnUntraced(function* (group: ReadonlyArray<WaitingBatch>) {
      const newest = new Map<number, WaitingBatch>()
      for (const batch of group) newest.set(batch.bookmark.partition, batch)
      const ticks = live.take(group.reduce((n, batch) => n + batch.ticks, 0))
      const replayed = ofReplays.take(group.reduce((n, batch) => n + batch.replayed, 0))
      const total = ticks.length + replayed.length
      const startedAt = clock.currentTimeMillisUnsafe()
      const bookmarks = [...newest.values()].map(({ bookmark }) => bookmark)
      const { added, dropped, refused } = yield* writeAll(ticks, replayed, bookmarks)
      const absorbed = total - added - dropped - refused
      sink.written({ ticks: total, discarded: { absorbed, "dropped-day": dropped, refused }, startedAt })
      shown()
      // A partition given to another member meanwhile is that member's to commit; the rows are safe either way.
      for (const { bookmark, done } of newest.values()) done(bookmark)
    })

    const groups = gatherFrom(
      {
        count: ({ ticks, replayed }: WaitingBatch) => ticks + replayed,
        ticks: settings.STORE_BATCH_TICKS,
        ms: settings.STORE_FLUSH_MS,
        drain: sink.stopping
      },
      (push) => sink.each((partition) => read(partition, push))
    )
    yield* Stream.runForEach(groups, write)
  }).pipe(Effect.scoped)
