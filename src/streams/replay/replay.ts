/**
 * Decides how one run of a replay goes into the pipeline: stored ticks and quotes, merged and paced, as raw records in
 * slices, each closed by a watermark in every partition, within a window that all replays share.
 */
import { Effect, Schedule, Stream } from "effect"
import type { LogError, StoreError } from "../../schema/Errors.ts"
import { partitionOf } from "../../schema/Partition.ts"
import type { Quote } from "../../schema/Quote.ts"
import { encodeRawRecord, encodeRawTick } from "../../schema/RawTick.ts"
import { REPLAY_HEADER, watermarkRecord } from "../log/headers.ts"
import type { NewRecord, TickLog } from "../log/TickLog.ts"
import type { ArchivedQuotes, PastTicks } from "../ports/History.ts"
import type { StoredTick, TickStore } from "../ports/TickStore.ts"
import { merge, type PageReader } from "./merge.ts"
import type { Pace } from "./pace.ts"
import { compareGlobally } from "./reorderByWatermark.ts"

/** Rows of one page, where the instruments are few enough. */
export const PAGE_ROWS = 5000
/** Rows that all pages of a run hold together; with many instruments the pages are smaller. */
const PAGES_ROWS = 200_000
const MIN_PAGE_ROWS = 100
/** Of quotes, which are some six times as large as ticks; of more than 1,500 instruments 10 of each, 200,000 of 10,000. */
const QUOTE_PAGES_ROWS = 30_000
const MIN_QUOTE_PAGE_ROWS = 10
/** Pages fetched at a time: the store has few connections, and other readers. */
const FETCHES = 2
/** A page is asked for again after 0.1, 0.2, 0.4, 0.8 and 1.6 s where that can help. */
const RETRY = Schedule.exponential("100 millis")
const RETRIES = 5

/** Rows a page of each of `sources` readers may have: two pages of each are held at most. */
export const pageRows = (sources: number): number => rowsWithin(PAGES_ROWS, MIN_PAGE_ROWS, sources)

const rowsWithin = (all: number, least: number, sources: number): number =>
  Math.min(PAGE_ROWS, Math.max(least, Math.floor(all / (2 * Math.max(1, sources)))))

const again = <A>(asked: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> =>
  Effect.retry(asked, { schedule: RETRY, times: RETRIES, while: ({ transient }) => transient })

/** One instrument's stored ticks in [from, to), by keyset. */
export const storeReader = (
  store: Pick<TickStore["Service"], "ticks">,
  query: { readonly token: number; readonly from: number; readonly to: number; readonly rows: number }
): PageReader<StoredTick, StoreError> => ({
  pageSize: query.rows,
  page: (after) =>
    store
      .ticks({
        instrument_token: query.token,
        from: query.from,
        to: query.to,
        limit: query.rows,
        ...(after === undefined ? {} : { after })
      })
      .pipe(again)
})

/** What a replay puts in: a stored tick, or what was known of book and day. */
export type Packet = StoredTick | Quote

export const isTick = (packet: Packet): packet is StoredTick => "price" in packet

/** The order over all instruments; a quote comes after the ticks of its stamp. */
const comparePackets = (a: Packet, b: Packet): number => {
  const by = a.exchange_ts - b.exchange_ts
  if (by !== 0) return by
  if (isTick(a)) return isTick(b) ? compareGlobally(a, b) : -1
  return isTick(b) ? 1 : a.instrument_token - b.instrument_token
}

/** What a replay asks of the past. */
export type PastPackets = Pick<PastTicks, "ticks" | "quotePage" | "archivedQuotes">

/** One instrument's quotes in [from, to), by keyset. */
const quoteReader = (
  past: Pick<PastPackets, "quotePage">,
  query: { readonly token: number; readonly from: number; readonly to: number; readonly rows: number }
): PageReader<Quote, StoreError> => ({
  pageSize: query.rows,
  page: (after) =>
    past
      .quotePage({
        instrument_token: query.token,
        from: query.from,
        to: query.to,
        limit: query.rows,
        ...(after === undefined ? {} : { after: after.exchange_ts })
      })
      .pipe(again)
})

/** All archived quotes of the instruments in [from, to), by time, then instrument. */
const archivedQuoteReader = (
  archived: ArchivedQuotes,
  query: { readonly tokens: ReadonlySet<number>; readonly from: number; readonly to: number }
): PageReader<Quote, StoreError> => ({
  pageSize: PAGE_ROWS,
  page: (after) => archived.page({ ...query, limit: PAGE_ROWS, ...(after === undefined ? {} : { after }) }).pipe(again)
})

/**
 * All stored ticks and quotes of the instruments in [from, to), in global order, in arrays of `arraySize`. Archived
 * quotes are one source: the archive would decode what lies around an instrument's few for each instrument anew.
 */
export const storedPackets = (
  past: PastPackets,
  query: {
    readonly tokens: ReadonlyArray<number>
    readonly from: number
    readonly to: number
    readonly arraySize: number
  }
): Stream.Stream<Packet, StoreError> => {
  const { tokens, from, to, arraySize } = query
  const { archivedQuotes } = past
  const rows = pageRows(tokens.length)
  const quoteRows = rowsWithin(QUOTE_PAGES_ROWS, MIN_QUOTE_PAGE_ROWS, tokens.length)
  return Stream.unwrap(
    Effect.gen(function* () {
      const before = archivedQuotes === undefined ? from : yield* again(archivedQuotes.before)
      const held = Math.min(to, Math.max(from, before))
      const quotes = [
        ...(archivedQuotes === undefined || held === from
          ? []
          : [archivedQuoteReader(archivedQuotes, { tokens: new Set(tokens), from, to: held })]),
        ...(held === to ? [] : tokens.map((token) => quoteReader(past, { token, from: held, to, rows: quoteRows })))
      ]
      const ticks = tokens.map((token) => storeReader(past, { token, from, to, rows }))
      // Each is asked for what comes after the last that it gave.
      const readers = [...ticks, ...quotes] as ReadonlyArray<PageReader<Packet, StoreError>>
      return merge(readers, { order: comparePackets, arraySize, concurrency: FETCHES })
    })
  )
}

/** All stored ticks of the instruments in [from, to), in global order, in arrays of exactly `arraySize` but the last. */
export const storedTicks = (
  store: Pick<TickStore["Service"], "ticks">,
  query: {
    readonly tokens: ReadonlyArray<number>
    readonly from: number
    readonly to: number
    readonly arraySize: number
    /** Of a page. */
    readonly rows?: number
  }
): Stream.Stream<StoredTick, StoreError> => {
  const rows = query.rows ?? pageRows(query.tokens.length)
  return merge(
    query.tokens.map((token) => storeReader(store, { token, from: query.from, to: query.to, rows })),
    { order: compareGlobally, arraySize: query.arraySize, concurrency: FETCHES }
  )
}

/** A stored tick as the raw record that replays it: with its number, session and reception, and no connection. */
export const encodeReplayedTick = (t: StoredTick): string =>
  encodeRawTick({
    instrument_token: t.instrument_token,
    exchange_ts: t.exchange_ts,
    price: t.price,
    feed: t.feed,
    volume: t.volume,
    day_volume: -1,
    sequence_id: t.sequence_id,
    sequencing: t.sequencing,
    reset: false,
    connection: t.feed,
    occurrence: 0,
    received_ts: t.received_ts,
    session: t.session
  })

/** A quote as the raw record that replays it: alone. */
const encodeReplayedQuote = (q: Quote): string => {
  const { instrument_token, exchange_ts, feed, received_ts } = q
  return encodeRawRecord({ tick: undefined, quote: { instrument_token, exchange_ts, feed, received_ts, state: q } })
}

/** One run's records: by partition, with the keys and partitions of its instruments kept. */
export class RunEncoder {
  readonly #headers: Readonly<Record<string, string>>
  readonly #run: string
  readonly #partitions: number
  readonly #places = new Map<number, { readonly key: string; readonly partition: number }>()

  constructor(run: string, partitions: number) {
    this.#run = run
    this.#partitions = partitions
    this.#headers = { [REPLAY_HEADER]: run }
  }

  #place(token: number): { readonly key: string; readonly partition: number } {
    let place = this.#places.get(token)
    if (place === undefined) {
      place = { key: String(token), partition: partitionOf(token, this.#partitions) }
      this.#places.set(token, place)
    }
    return place
  }

  /** The slice's records of each partition, in order, with its watermark last in every one. */
  slice(packets: ReadonlyArray<Packet>, watermark: number, end: boolean): ReadonlyArray<ReadonlyArray<NewRecord>> {
    const records: Array<Array<NewRecord>> = Array.from({ length: this.#partitions }, () => [])
    for (const packet of packets) {
      const { key, partition } = this.#place(packet.instrument_token)
      records[partition]!.push({
        key,
        value: Buffer.from(isTick(packet) ? encodeReplayedTick(packet) : encodeReplayedQuote(packet), "utf8"),
        headers: this.#headers
      })
    }
    const closing = watermarkRecord({ run: this.#run, number: watermark, end })
    for (const partition of records) partition.push(closing)
    return records
  }
}

/** Ticks and quotes of all replays between `raw_ticks` and their watermark, by run; whoever waits is served in turn. */
export interface Window {
  readonly capacity: number
  readonly usedUnsafe: () => number
  /** Waits until so many (the capacity at most) fit. */
  readonly take: (run: string, packets: number) => Effect.Effect<void>
  readonly freeUnsafe: (run: string, packets: number) => void
  /** Frees all that a run has, whatever became of it. */
  readonly dropUnsafe: (run: string) => void
}

/** Strictly first come, first served, and each run asks for one slice at a time: so replays take turns. */
export const makeWindow = (capacity: number): Window => {
  let used = 0
  const byRun = new Map<string, number>()
  const waiting: Array<{ readonly run: string; readonly ticks: number; readonly admit: () => void }> = []
  const give = (run: string, ticks: number) => {
    used += ticks
    byRun.set(run, (byRun.get(run) ?? 0) + ticks)
  }
  const free = (run: string, wanted: number) => {
    const has = byRun.get(run) ?? 0
    const ticks = Math.min(wanted, has)
    used -= ticks
    if (ticks === has) byRun.delete(run)
    else byRun.set(run, has - ticks)
    while (waiting.length > 0 && used + waiting[0]!.ticks <= capacity) {
      const next = waiting.shift()!
      give(next.run, next.ticks)
      next.admit()
    }
  }
  return {
    capacity,
    usedUnsafe: () => used,
    take: (run, wanted) =>
      Effect.suspend(() => {
        const ticks = Math.min(wanted, capacity)
        if (waiting.length === 0 && used + ticks <= capacity) {
          give(run, ticks)
          return Effect.void
        }
        return Effect.callback<void>((resume) => {
          const entry = { run, ticks, admit: () => resume(Effect.void) }
          waiting.push(entry)
          return Effect.sync(() => {
            const at = waiting.indexOf(entry)
            if (at >= 0) waiting.splice(at, 1)
            free(run, 0)
          })
          // Whoever freed it goes on first: it may have more to tell.
        }).pipe(Effect.andThen(Effect.yieldNow))
      }),
    freeUnsafe: free,
    dropUnsafe: (run) => free(run, Number.POSITIVE_INFINITY)
  }
}

/**
 * Slices in a window: enough that the pipeline never idles, and so many that one slice's work, which is how long a live
 * tick of the same process may wait, stays near 2 ms.
 */
const SLICES_IN_WINDOW = 16

/** Ticks and quotes a slice holds at most. It depends on the window alone, so that a run's records do not depend on timing. */
export const sliceTicks = (window: Pick<Window, "capacity">): number =>
  Math.max(1, Math.floor(window.capacity / SLICES_IN_WINDOW))

export interface RunOptions {
  /** `<replay id>.<run number>`. */
  readonly run: string
  readonly log: Pick<TickLog["Service"], "append" | "partitions">
  readonly window: Window
  readonly pace: Pace
  /** So many ticks and quotes have come due; they are on their way until their slice's watermark is back. */
  readonly onDue: (packets: number) => void
  /** Waits while what is downstream is too far behind. */
  readonly holdBack: Effect.Effect<void>
  /** A slice is about to be appended. */
  readonly onSlice: (slice: Slice) => void
}

/** What goes in at once. */
export interface Slice {
  readonly watermark: number
  /** How many ticks and quotes it has, and how many of them are ticks. */
  readonly packets: number
  readonly ticks: number
  /** Whether it ends the run. */
  readonly end: boolean
}

/** Appends to every partition at once, and waits for all. */
const appendSlice = (
  log: RunOptions["log"],
  records: ReadonlyArray<ReadonlyArray<NewRecord>>
): Effect.Effect<void, LogError> =>
  Effect.forEach(records, (batch, partition) => log.append("raw_ticks", partition, batch), {
    concurrency: "unbounded",
    discard: true
  })

/**
 * Puts all ticks and quotes of a run into `raw_ticks` and, after the last, the watermark that ends it. A slice's and its
 * watermark are one append a partition, so that no watermark can be ahead of what it covers.
 */
export const replay = <E>(packets: Stream.Stream<Packet, E>, options: RunOptions): Effect.Effect<void, E | LogError> =>
  Effect.suspend(() => {
    const { log, window, pace } = options
    const encoder = new RunEncoder(options.run, log.partitions)
    const size = sliceTicks(window)
    let watermark = 0
    const send = (slice: ReadonlyArray<Packet>, end: boolean) =>
      Effect.suspend(() => {
        watermark++
        const ticks = slice.reduce((count, packet) => (isTick(packet) ? count + 1 : count), 0)
        options.onSlice({ watermark, packets: slice.length, ticks, end })
        return appendSlice(log, encoder.slice(slice, watermark, end))
      })
    const sendWithin = (slice: ReadonlyArray<Packet>) =>
      // A turn of the event loop a slice: live ticks, clients and timers come first, however fast the log takes slices.
      Effect.yieldNow.pipe(
        Effect.andThen(options.holdBack),
        Effect.andThen(window.take(options.run, slice.length)),
        Effect.andThen(send(slice, false))
      )
    return pace.apply(packets).pipe(
      Stream.runForEachArray((due) => {
        options.onDue(due.length)
        if (due.length <= size) return sendWithin(due)
        const slices = Array.from({ length: Math.ceil(due.length / size) }, (_, i) =>
          due.slice(i * size, (i + 1) * size)
        )
        return Effect.forEach(slices, sendWithin, { discard: true })
      }),
      Effect.andThen(send([], true))
    )
  })

/** Tells the pipeline that a run which was stopped has ended, so that its state is freed there. */
export const endRun = (run: string, watermark: number, log: RunOptions["log"]): Effect.Effect<void, LogError> =>
  appendSlice(log, new RunEncoder(run, log.partitions).slice([], watermark, true))
