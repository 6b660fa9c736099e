/**
 * Decides what a reader of `normalized_ticks` takes in: each tick once, whatever a retry or a zombie published again,
 * with an alarm where positions do not follow on.
 */
import { type Context, Effect, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Source, Tick } from "../../schema/Tick.ts"
import { decodeTick } from "../../schema/TickJson.ts"
import * as metrics from "../metrics.ts"
import { type Bookmark, MarkTracker } from "./bookmark.ts"
import { isRun, REPLAY_HEADER, readWatermark, WATERMARK_HEADER } from "./headers.ts"
import { type RawLog, RawSources } from "./rawSources.ts"
import { RecentMap } from "./recentMap.ts"
import type { LogRecord } from "./TickLog.ts"

/** What came of a replay run: a tick, or a watermark that every tick before it lies under. */
export type Replayed =
  | { readonly run: string; readonly tick: Tick }
  | { readonly run: string; readonly watermark: number; readonly end: boolean }

/** What an array of records of one partition holds. */
export interface TickBatch {
  readonly partition: number
  /** Live ticks, those of old days included. */
  readonly ticks: ReadonlyArray<Tick>
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

/** Why a record is not handed on: published again, no tick, or not of the platform's own. */
export const FOLLOW_DISCARDS = ["repeated", "undecodable", "foreign"] as const

/** Instruments of a partition whose place is remembered, to see that positions follow on; those silent longest go. */
const REMEMBERED_INSTRUMENTS = 20_000

interface LastSeen {
  epoch: number
  position: number
}

/**
 * Records of one partition as ticks taken once. What the platform did not publish is counted as `foreign` and passed
 * over, and moves no mark.
 */
export const follow =
  (options: FollowOptions) =>
  <E, R>(records: Stream.Stream<ReadonlyArray<LogRecord>, E, R>): Stream.Stream<TickBatch, E | LogError, R> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const { reader, partition, incarnation, context, log } = options
        const stage = { stage: reader }
        const received = metrics.bind(metrics.stageReceived, stage, context)
        const sent = metrics.bind(metrics.stageSent, stage, context)
        const discard = (reason: (typeof FOLLOW_DISCARDS)[number]) =>
          metrics.bind(metrics.stageDiscarded, { ...stage, reason }, context)
        const repeated = discard("repeated")
        const undecodable = discard("undecodable")
        const foreign = discard("foreign")
        const alarms = metrics.bind(metrics.orderAlarms, { reader }, context)
        alarms.add(0)
        const sources = yield* RawSources.make(log, partition)
        const tracker = new MarkTracker(options.bookmark?.mark, sources.incarnation, sources.limit)
        const places = new RecentMap<number, LastSeen>(REMEMBERED_INSTRUMENTS)

        /** The tick of each record, undefined for those that hold none, and the sources that the log is to be asked of. */
        const decode = (array: ReadonlyArray<LogRecord>) => {
          const open: Array<Source> = []
          const ticks = array.map(({ value, unreadable }) => {
            const isNone = value === null || value.length === 0 || unreadable !== undefined
            const tick = isNone ? undefined : decodeTick(value)
            if (tick !== undefined && sources.isOpen(tick.source)) open.push(tick.source)
            return tick
          })
          return { ticks, open }
        }

        const take = (array: ReadonlyArray<LogRecord>, decoded: ReadonlyArray<Tick | undefined>): TickBatch => {
          const ticks: Array<Tick> = []
          const replays: Array<Replayed> = []
          let seen = 0
          let dropped = 0
          let bad = 0
          let strange = 0
          let alarmed = 0
          for (let i = 0; i < array.length; i++) {
            const { headers, unreadable, value, recordTime } = array[i]!
            if (unreadable !== undefined) {
              seen += unreadable.records
              bad += unreadable.records
              continue
            }
            const run = headers === undefined ? "" : (headers[REPLAY_HEADER] ?? "")
            if (run !== "") {
              const isMark = headers![WATERMARK_HEADER] !== undefined
              const watermark = isMark ? readWatermark(headers!) : undefined
              if (!isRun(run) || typeof watermark === "string" || (isMark && value !== null && value.length > 0)) {
                seen++
                strange++
                continue
              }
              if (watermark !== undefined) {
                replays.push({ run, watermark: watermark.number, end: watermark.end })
                continue
              }
            }
            seen++
            const tick = decoded[i]
            if (tick === undefined) {
              bad++
              continue
            }
            if (sources.isForeign(tick.source, tracker.incarnation, recordTime)) {
              strange++
              continue
            }
            if (!tracker.take(tick.source)) {
              dropped++
              continue
            }
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
          received.add(seen)
          sent.add(seen - dropped - bad - strange)
          if (dropped > 0) repeated.add(dropped)
          if (bad > 0) undecodable.add(bad)
          if (strange > 0) foreign.add(strange)
          if (alarmed > 0) alarms.add(alarmed)
          const newest = array[array.length - 1]!
          return {
            partition,
            ticks,
            replays,
            publishedAt: newest.recordTime,
            bookmark: { partition, incarnation, offset: newest.offset + 1, mark: tracker.mark }
          }
        }

        return Stream.mapEffect(records, (array): Effect.Effect<TickBatch, LogError> => {
          const { ticks, open } = decode(array)
          if (open.length === 0) return Effect.succeed(take(array, ticks))
          return Effect.map(sources.settle(open), () => {
            tracker.raw = sources.incarnation
            return take(array, ticks)
          })
        })
      })
    )
