/**
 * Decides what a reader of `normalized_ticks` takes in: each tick once, whatever a retry or a zombie published again,
 * with an alarm where positions do not follow on.
 */
import { type Context, Stream } from "effect"
import type { Tick } from "../schema/Tick.ts"
import { decodeTick } from "../schema/TickJson.ts"
import { type Bookmark, MarkTracker } from "./bookmark.ts"
import { END_HEADER, REPLAY_HEADER, WATERMARK_HEADER } from "./decode.ts"
import * as metrics from "./metrics.ts"
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
  readonly context: Context.Context<never>
}

/** Instruments of a partition whose place is remembered, to see that positions follow on; those silent longest go. */
const REMEMBERED_INSTRUMENTS = 20_000

interface Place {
  epoch: number
  position: number
}

/** Records of one partition as ticks taken once. */
export const follow =
  (options: FollowOptions) =>
  <E, R>(records: Stream.Stream<ReadonlyArray<LogRecord>, E, R>): Stream.Stream<TickBatch, E, R> =>
    Stream.suspend(() => {
      const { reader, partition, incarnation, context } = options
      const stage = { stage: reader }
      const received = metrics.bind(metrics.stageReceived, stage, context)
      const sent = metrics.bind(metrics.stageSent, stage, context)
      const repeated = metrics.bind(metrics.stageDiscarded, { ...stage, reason: "repeated" }, context)
      const undecodable = metrics.bind(metrics.stageDiscarded, { ...stage, reason: "undecodable" }, context)
      const alarms = metrics.bind(metrics.orderAlarms, { reader }, context)
      alarms.add(0)
      const tracker = new MarkTracker(options.bookmark?.mark)
      const places = new RecentMap<number, Place>(REMEMBERED_INSTRUMENTS)
      return Stream.map(records, (array): TickBatch => {
        const ticks: Array<Tick> = []
        const replays: Array<Replayed> = []
        let seen = 0
        let dropped = 0
        let bad = 0
        let alarmed = 0
        for (const record of array) {
          const { headers, unreadable } = record
          if (unreadable !== undefined) {
            seen += unreadable.records
            bad += unreadable.records
            continue
          }
          const run = headers?.[REPLAY_HEADER]
          const watermark = headers?.[WATERMARK_HEADER]
          if (run !== undefined && watermark !== undefined) {
            replays.push({ run, watermark: Number(watermark), end: headers?.[END_HEADER] !== undefined })
            continue
          }
          seen++
          const tick = record.value === null ? undefined : decodeTick(record.value)
          if (tick === undefined) {
            bad++
            continue
          }
          if (!tracker.take(tick.source)) {
            dropped++
            continue
          }
          if (run !== undefined) {
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
        sent.add(seen - dropped - bad)
        if (dropped > 0) repeated.add(dropped)
        if (bad > 0) undecodable.add(bad)
        if (alarmed > 0) alarms.add(alarmed)
        const newest = array[array.length - 1]!
        return {
          partition,
          ticks,
          replays,
          publishedAt: newest.recordTime,
          bookmark: { partition, incarnation, offset: newest.offset + 1, mark: tracker.mark }
        }
      })
    })
