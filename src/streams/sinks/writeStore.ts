/**
 * Decides how the store keeps up: all partitions of the group `store` gathered into one transaction at a time, with
 * the bookmarks of what it holds, and offsets committed after it; smaller transactions where the store is too slow for
 * whole ones, ticks before quotes. A row that the store refuses for good is set aside in the DLQ, and the rest goes on.
 */
import { Clock, Effect, Stream } from "effect"
import type { LogError, StoreError } from "../../schema/Errors.ts"
import { partitionOf } from "../../schema/Partition.ts"
import type { Quote } from "../../schema/Quote.ts"
import type { Settings } from "../../schema/Settings.ts"
import type { Tick } from "../../schema/Tick.ts"
import { TickQueue } from "../../schema/TickColumns.ts"
import type { Bookmark } from "../log/bookmark.ts"
import type { TickBatch } from "../log/follow.ts"
import { gatherFrom } from "../log/gather.ts"
import { setAsideRecord } from "../log/headers.ts"
import { TickLog } from "../log/TickLog.ts"
import { type StoreBatch, TickStore } from "../ports/TickStore.ts"
import type { Drain } from "../run/Drain.ts"
import type { LostOffsetsSettings } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { retrySink } from "../run/sinkRetry.ts"
import { consume, type SinkPartition } from "./consume.ts"

/** A transaction is never asked for fewer ticks; at the store's time limit of 30 s that is 4 rows a second. */
const LEAST_TICKS = 125
/**
 * Why a tick or a quote that came is not a row more: it was there, or of a quote a later one of its stamp; its day is
 * dropped; or the store refuses it for good.
 */
export const STORE_DISCARDS = ["absorbed", "dropped-day", "refused"] as const
/** Transactions grow again while they take less. */
const QUICK_MS = 2000

/** A batch whose ticks lie in the queues: as objects they would outlive the young generation while they wait. */
interface WaitingBatch {
  readonly ticks: number
  readonly replayed: number
  readonly quotes: ReadonlyArray<Quote>
  readonly replayedQuotes: ReadonlyArray<Quote>
  readonly bookmark: Bookmark
  readonly done: SinkPartition["done"]
}

/** Rows in the order in which they are written: those that come first never wait for what comes after. */
type Rows = Omit<StoreBatch, "bookmarks">
const PARTS = ["ticks", "replayed", "quotes", "replayedQuotes"] as const satisfies ReadonlyArray<keyof Rows>

/** The rows from `at` to `to`, counted through all parts. */
const sliceOf = (rows: Rows, at: number, to: number): Rows => {
  let begins = 0
  const [ticks, replayed, quotes, replayedQuotes] = PARTS.map((part) => {
    const all: ReadonlyArray<unknown> = rows[part]
    const [from, end] = [Math.max(0, at - begins), Math.max(0, to - begins)]
    begins += all.length
    return from === 0 && end >= all.length ? all : all.slice(from, end)
  })
  return { ticks, replayed, quotes, replayedQuotes } as Rows
}

const countOf = ({ ticks, replayed }: Pick<Rows, "ticks" | "replayed">): number => ticks.length + replayed.length
const quotesIn = ({ quotes, replayedQuotes }: Pick<Rows, "quotes" | "replayedQuotes">): number =>
  quotes.length + replayedQuotes.length

/** What became of rows: added, only counted in a day that the store has dropped, refused; the rest was there before. */
interface Outcome {
  readonly added: number
  readonly dropped: number
  readonly refused: number
}

interface Outcomes {
  readonly ticks: Outcome
  readonly quotes: Outcome
}

const NOTHING: Outcome = { added: 0, dropped: 0, refused: 0 }
const NO_ROWS: Outcomes = { ticks: NOTHING, quotes: NOTHING }
const plus = (a: Outcome, b: Outcome): Outcome => ({
  added: a.added + b.added,
  dropped: a.dropped + b.dropped,
  refused: a.refused + b.refused
})
const sum = (a: Outcomes, b: Outcomes): Outcomes => ({
  ticks: plus(a.ticks, b.ticks),
  quotes: plus(a.quotes, b.quotes)
})

/** Rows that came, by why they are not in the store. */
const discardsOf = (count: number, { added, dropped, refused }: Outcome) => ({
  absorbed: count - added - dropped - refused,
  "dropped-day": dropped,
  refused
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
    const enqueue = (done: SinkPartition["done"], { ticks, quotes, replays, bookmark }: TickBatch): WaitingBatch => {
      live.append(ticks)
      const replayed = replays.flatMap((replay) => ("tick" in replay ? [replay.tick] : []))
      const replayedQuotes = replays.flatMap((replay) => ("quote" in replay ? [replay.quote] : []))
      ofReplays.append(replayed)
      shown()
      return { ticks: ticks.length, replayed: replayed.length, quotes, replayedQuotes, bookmark, done }
    }

    const read = (
      { partition, start, committed, read, ask, done }: SinkPartition,
      push: (batch: WaitingBatch) => Effect.Effect<void>
    ) =>
      Effect.gen(function* () {
        // The store's own bookmark was written with its rows; the group's commit may lag behind it.
        const bookmarks = yield* ask(store.bookmarks(sink.incarnation))
        const bookmark = bookmarks.find((mine) => mine.partition === partition)
        // Whoever had the partition may have ended in between: where nothing more comes, nobody else would commit it.
        if (bookmark !== undefined && bookmark.offset > (committed?.offset ?? 0)) done(bookmark)
        yield* read(bookmark?.offset ?? (yield* start), bookmark).pipe(
          Stream.runForEach((batch) => push(enqueue(done, batch)))
        )
      })

    const setAside = (row: Tick | Quote, error: StoreError) =>
      Effect.gen(function* () {
        const { instrument_token, exchange_ts, source } = row
        const what = `instrument_token ${instrument_token} at ${exchange_ts}, source ${source.join(" ")}`
        yield* Effect.logError(
          `the store refuses a ${"price" in row ? "tick" : "quote"} for good, which is set aside in the DLQ: ${error.message}: ${what}`
        )
        const record = setAsideRecord(row, "store", error.message)
        yield* log
          .append("raw_ticks_dlq", partitionOf(instrument_token, log.partitions), [record])
          .pipe(retrySink("dead letters"))
      })

    /** Ticks of one transaction: halved with each failure, so that a slow store still gets on, and doubled back. */
    let most = settings.STORE_BATCH_TICKS
    /** Writes all, in as many transactions as it takes; the bookmarks go with the last, so nothing is passed over. */
    const writeAll = Effect.fnUntraced(function* (rows: Rows, bookmarks: ReadonlyArray<Bookmark>) {
      /** Where quotes begin. */
      const edge = countOf(rows)
      const total = edge + quotesIn(rows)
      /** One transaction of the rows from `at` to `to`; a refusal for good is a value. */
      const transaction = (at: number, to: number) =>
        store.write({ ...sliceOf(rows, at, to), bookmarks: to === total ? bookmarks : [] }).pipe(
          Effect.map(
            ({ added, dropped = 0, quotes }): Outcomes => ({
              ticks: { added, dropped, refused: 0 },
              quotes: { ...NOTHING, ...quotes }
            })
          ),
          Effect.catchIf(
            ({ transient }) => !transient,
            (error) => Effect.succeed(error)
          )
        )
      /** Takes what was refused apart, ticks from quotes first, then by halves, down to the rows that are. */
      const apart = (at: number, to: number, error: StoreError): Effect.Effect<Outcomes, never, Readiness> =>
        Effect.gen(function* () {
          if (to - at <= 1) {
            const one = sliceOf(rows, at, to)
            for (const part of PARTS) for (const row of one[part]) yield* setAside(row, error)
            if (to === total) yield* store.write({ ...sliceOf(rows, to, to), bookmarks }).pipe(retrySink("store"))
            const refused = { ...NOTHING, refused: to - at }
            return at < edge ? { ...NO_ROWS, ticks: refused } : { ...NO_ROWS, quotes: refused }
          }
          const middle = at < edge && edge < to ? edge : (at + to) >>> 1
          return sum(yield* inParts(at, middle), yield* inParts(middle, to))
        })
      const inParts = (at: number, to: number): Effect.Effect<Outcomes, never, Readiness> =>
        Effect.flatMap(transaction(at, to).pipe(retrySink("store")), (done) =>
          "ticks" in done ? Effect.succeed(done) : apart(at, to, done)
        )
      let outcomes = NO_ROWS
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
        outcomes = sum(outcomes, "ticks" in done ? done : yield* apart(at, to, done))
        at = to
      } while (at < total)
      return outcomes
    })

    const write = Effect.fnUntraced(function* (group: ReadonlyArray<WaitingBatch>) {
      const newest = new Map<number, WaitingBatch>()
      for (const batch of group) newest.set(batch.bookmark.partition, batch)
      const rows: Rows = {
        ticks: live.take(group.reduce((n, batch) => n + batch.ticks, 0)),
        replayed: ofReplays.take(group.reduce((n, batch) => n + batch.replayed, 0)),
        quotes: group.flatMap((batch) => batch.quotes),
        replayedQuotes: group.flatMap((batch) => batch.replayedQuotes)
      }
      const startedAt = clock.currentTimeMillisUnsafe()
      const bookmarks = [...newest.values()].map(({ bookmark }) => bookmark)
      const { ticks, quotes } = yield* writeAll(rows, bookmarks)
      const [count, quoted] = [countOf(rows), quotesIn(rows)]
      sink.written({
        ticks: count,
        discarded: discardsOf(count, ticks),
        quotes: { taken: quoted, discarded: discardsOf(quoted, quotes) },
        startedAt
      })
      shown()
      // A partition given to another member meanwhile is that member's to commit; the rows are safe either way.
      for (const { bookmark, done } of newest.values()) done(bookmark)
    })

    const groups = gatherFrom(
      {
        count: (batch: WaitingBatch) => batch.ticks + batch.replayed + quotesIn(batch),
        ticks: settings.STORE_BATCH_TICKS,
        ms: settings.STORE_FLUSH_MS,
        drain: sink.stopping
      },
      (push) => sink.each((partition) => read(partition, push))
    )
    yield* Stream.runForEach(groups, write)
  }).pipe(Effect.scoped)
