/**
 * Decides what a reader of `normalized_ticks` takes in: each tick and each quote once, whatever a retry or a zombie
 * published again, with an alarm where positions do not follow on. The two are counted apart.
 */
import { type Context, Effect, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import { decodeQuote, type Quote } from "../../schema/Quote.ts"
import type { Source, Tick } from "../../schema/Tick.ts"
import { decodeTick } from "../../schema/TickJson.ts"
import * as metrics from "../metrics.ts"
import { type Bookmark, MarkTracker } from "./bookmark.ts"
import { isRun, KIND_HEADER, QUOTE_KIND, REPLAY_HEADER, readWatermark, WATERMARK_HEADER } from "./headers.ts"
import { type RawLog, RawSources } from "./rawSources.ts"
import { RecentMap } from "./recentMap.ts"
import type { LogRecord } from "./TickLog.ts"

/** What came of a replay run: a tick, a quote, or a watermark that every tick and quote before it lies under. */
export type Replayed =
  | { readonly run: string; readonly tick: Tick }
  | { readonly run: string; readonly quote: Quote }
  | { readonly run: string; readonly watermark: number; readonly end: boolean }

/** What an array of records of one partition holds. */
export interface TickBatch {
  readonly partition: number
  /** Live ticks, those of old days included. */
  readonly ticks: ReadonlyArray<Tick>
  /** Live quotes, those of old days included, in their own order. */
  readonly quotes: ReadonlyArray<Quote>
  readonly replays: ReadonlyArray<Replayed>
  /** Record time of the newest record, µs. */
  readonly publishedAt: number
  /** Where the reader stands after it. */
  readonly bookmark: Bookmark
}

export interface FollowOptions {
  /** Names the reader in its counters. */
  readonly reader: string
  readonly partition: number
  /** Of `normalized_ticks`. */
  readonly incarnation: string
  /** Where the reader stood; undefined for one that never read. */
  readonly bookmark: Bookmark | undefined
  /** Asked whose a source is that is not as expected. */
  readonly log: RawLog
  readonly context: Context.Context<never>
}

/** Why a record is not handed on: published again, neither tick nor quote, or not of the platform's own. */
export const FOLLOW_DISCARDS = ["repeated", "undecodable", "foreign"] as const

/** Instruments of a partition whose place is remembered, to see that positions follow on; those silent longest go. */
const REMEMBERED_INSTRUMENTS = 20_000

/** The stage under which a reader counts its quotes. */
export const quotesOf = (reader: string): string => `${reader}-quotes`

/** What came of the records of one kind. */
class Tally {
  seen = 0
  repeated = 0
  undecodable = 0
  foreign = 0
}

/** Adds what a stage saw to its counters. */
const countersOf = (stage: string, context: Context.Context<never>) => {
  const received = metrics.bind(metrics.stageReceived, { stage }, context)
  const sent = metrics.bind(metrics.stageSent, { stage }, context)
  const discards = FOLLOW_DISCARDS.map(
    (reason) => [reason, metrics.bind(metrics.stageDiscarded, { stage, reason }, context)] as const
  )
  return (tally: Tally): void => {
    let discarded = 0
    for (const [reason, counter] of discards) {
      if (tally[reason] === 0) continue
      counter.add(tally[reason])
      discarded += tally[reason]
    }
    received.add(tally.seen)
    sent.add(tally.seen - discarded)
  }
}

interface LastSeen {
  epoch: number
  position: number
}

/**
 * Records of one partition as ticks and quotes taken once. What the platform did not publish is counted as `foreign` and passed
 * over, and moves no mark.
 */
export const follow =
  (options: FollowOptions) =>
  <E, R>(records: Stream.Stream<ReadonlyArray<LogRecord>, E, R>): Stream.Stream<TickBatch, E | LogError, R> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const { reader, partition, incarnation, context, log } = options
        const countTicks = countersOf(reader, context)
        const countQuotes = countersOf(quotesOf(reader), context)
        const alarms = metrics.bind(metrics.orderAlarms, { reader }, context)
        alarms.add(0)
        const sources = yield* RawSources.make(log, partition)
        const tracker = new MarkTracker(options.bookmark?.mark, sources.incarnation, sources.limit)
        const places = new RecentMap<number, LastSeen>(REMEMBERED_INSTRUMENTS)

        /** What each record holds, undefined for those that hold nothing, and the sources that the log is to be asked of. */
        const decode = (array: ReadonlyArray<LogRecord>) => {
          const open: Array<Source> = []
          const held = array.map(({ value, headers, unreadable }): Tick | Quote | undefined => {
            if (value === null || value.length === 0 || unreadable !== undefined) return undefined
            const found = headers?.[KIND_HEADER] === QUOTE_KIND ? decodeQuote(value) : decodeTick(value)
            if (found !== undefined && sources.isOpen(found.source)) open.push(found.source)
            return found
          })
          return { held, open }
        }

        const take = (array: ReadonlyArray<LogRecord>, held: ReadonlyArray<Tick | Quote | undefined>): TickBatch => {
          const ticks: Array<Tick> = []
          const quotes: Array<Quote> = []
          const replays: Array<Replayed> = []
          const ofTicks = new Tally()
          const ofQuotes = new Tally()
          let alarmed = 0
          for (let i = 0; i < array.length; i++) {
            const { headers, unreadable, value, recordTime } = array[i]!
            if (unreadable !== undefined) {
              ofTicks.seen += unreadable.records
              ofTicks.undecodable += unreadable.records
              continue
            }
            const kind = headers?.[KIND_HEADER]
            const isQuote = kind === QUOTE_KIND
            const tally = isQuote ? ofQuotes : ofTicks
            const run = headers === undefined ? "" : (headers[REPLAY_HEADER] ?? "")
            if (run !== "") {
              const isMark = headers![WATERMARK_HEADER] !== undefined
              const watermark = isMark ? readWatermark(headers!) : undefined
              if (!isRun(run) || typeof watermark === "string" || (isMark && value !== null && value.length > 0)) {
                tally.seen++
                tally.foreign++
                continue
              }
              if (watermark !== undefined) {
                replays.push({ run, watermark: watermark.number, end: watermark.end })
                continue
              }
            }
            tally.seen++
            const found = held[i]
            if (found === undefined) {
              tally.undecodable++
              continue
            }
            // Of a kind that is yet to be: nothing of this platform as it is.
            const isOther = kind !== undefined && !isQuote
            if (isOther || sources.isForeign(found.source, tracker.incarnation, recordTime)) {
              tally.foreign++
              continue
            }
            if (!tracker.take(found.source)) {
              tally.repeated++
              continue
            }
            if (isQuote) {
              const quote = found as Quote
              if (run === "") quotes.push(quote)
              else replays.push({ run, quote })
              continue
            }
            const tick = found as Tick
            if (run !== "") {
              replays.push({ run, tick })
              continue
            }
            ticks.push(tick)
            if (tick.old) continue
            const place = places.get(tick.instrument_token)
            if (place === undefined) {
              places.set(tick.instrument_token, { epoch: tick.epoch, position: tick.position })
              continue
            }
            const follows = tick.epoch === place.epoch ? tick.position === place.position + 1 : tick.epoch > place.epoch
            if (!follows) alarmed++
            place.epoch = tick.epoch
            place.position = tick.position
          }
          countTicks(ofTicks)
          countQuotes(ofQuotes)
          if (alarmed > 0) alarms.add(alarmed)
          const newest = array[array.length - 1]!
          return {
            partition,
            ticks,
            quotes,
            replays,
            publishedAt: newest.recordTime,
            bookmark: { partition, incarnation, offset: newest.offset + 1, mark: tracker.mark }
          }
        }

        return Stream.mapEffect(records, (array): Effect.Effect<TickBatch, LogError> => {
          const { held, open } = decode(array)
          if (open.length === 0) return Effect.succeed(take(array, held))
          return Effect.map(sources.settle(open), () => {
            tracker.raw = sources.incarnation
            return take(array, held)
          })
        })
      })
    )
