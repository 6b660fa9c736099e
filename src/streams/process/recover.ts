/**
 * Decides from where a partition is run again, with which state, and up to which source nothing is published: by the
 * checkpoint, by what `normalized_ticks` holds since, or from the retained raw of the day where there is no checkpoint.
 */
import { Clock, Effect } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import { decodeQuote, QUOTE_SOURCE_INDEX } from "../../schema/Quote.ts"
import { EPOCHS_PER_DAY, type Source, type Tick, tradingDay, tradingDayStart } from "../../schema/Tick.ts"
import { decodeTick } from "../../schema/TickJson.ts"
import { KIND_HEADER, QUOTE_KIND, REPLAY_HEADER } from "../log/headers.ts"
import { END_SLACK } from "../log/rawSources.ts"
import { BEFORE_ALL, isUpTo, type SourcePlace, sourceKey } from "../log/source.ts"
import { type AssignedPartition, type LogRecord, TickLog } from "../log/TickLog.ts"
import { type ChangedState, type Checkpoint, Checkpoints } from "../ports/Checkpoints.ts"
import type { LostOffsets } from "../run/lostOffsets.ts"
import type { PartitionStates } from "./batch.ts"
import { PartitionState, type Seen } from "./partitionState.ts"
import { RunStates } from "./RunStates.ts"
import { decodeInstrument, decodeMarks, encodeInstrument, encodeMarks } from "./stateCodec.ts"

export interface Recovered {
  readonly states: PartitionStates
  /** The raw offset to read from. */
  readonly from: number
  /** Live records below this are in the state already: only those of replays are run again. */
  readonly liveFrom: number
  /** The highest source published; nothing at or below it is published again. */
  readonly through: SourcePlace
  /** Normalized offset from which `through` was read: a checkpoint names it until all up to `through` is run again. */
  readonly normalizedFrom: number
  /** First raw offset of each replay run that had not ended. */
  readonly runs: ReadonlyMap<string, number>
  /** Whether the state came of a checkpoint. */
  readonly fromCheckpoint: boolean
  /** The highest record time that the state has seen, µs. */
  readonly recordTime: number
  /** On a day whose state was lost: the live sources published since the checkpoint, where the log shows them all. */
  readonly published: ReadonlySet<string> | undefined
}

/**
 * What belongs to the partition is kept as the state of token 0, which no instrument has. Of a replay run it is where
 * it began: its state is not kept, its records are run again.
 */
const PARTITION_TOKEN = 0

/** The checkpoint of what changed since the last one. */
export const checkpointOf = (
  states: PartitionStates,
  changed: Iterable<number>,
  recordTime: number,
  marks: Omit<Checkpoint, "instruments">
): ChangedState => {
  const instruments = new Map<number, Uint8Array>()
  for (const token of changed) {
    const days = states.live.instruments.get(token)
    if (days !== undefined) instruments.set(token, encodeInstrument(days))
  }
  instruments.set(
    PARTITION_TOKEN,
    encodeMarks({
      runs: states.runs.since(recordTime),
      recordTime,
      lost: states.live.lost,
      expiredUpTo: states.live.expiredUpTo,
      floor: states.live.floor
    })
  )
  const { gone, instruments: held } = states.live
  return { ...marks, instruments, gone: gone === "others" ? gone : [...gone].filter((token) => !held.has(token)) }
}

/** The states that a checkpoint holds, and what goes with them; undefined where a part of it is missing or of another format. */
export const restore = (
  checkpoint: Pick<Checkpoint, "instruments">,
  maxInstruments?: number
):
  | { readonly states: PartitionStates; readonly runs: Map<string, number>; readonly recordTime: number }
  | undefined => {
  const kept = checkpoint.instruments.get(PARTITION_TOKEN)
  const marks = kept === undefined ? undefined : decodeMarks(kept)
  if (marks === undefined) return undefined
  const live = new PartitionState(maxInstruments)
  live.lost = marks.lost
  live.floor = marks.floor
  live.expiredUpTo = marks.expiredUpTo
  for (const [token, bytes] of checkpoint.instruments) {
    if (token === PARTITION_TOKEN) continue
    const days = decodeInstrument(bytes)
    if (days === undefined) return undefined
    live.restore(days)
  }
  return { states: { live, runs: new RunStates() }, runs: new Map(marks.runs), recordTime: marks.recordTime }
}

/** As `restore`; a checkpoint on which it fails is none. */
const restoreIfSound = (checkpoint: Checkpoint, maxInstruments: number) => {
  try {
    return restore(checkpoint, maxInstruments)
  } catch {
    return undefined
  }
}

/** Records of `normalized_ticks` looked at in a turn. */
const PIECE = 2000

/** What a record of `normalized_ticks` says of where it came from: the tick that it holds, or the source of its quote. */
const sourceIn = ({
  value,
  headers,
  unreadable
}: LogRecord): { readonly tick: Tick | undefined; readonly source: Source } | undefined => {
  if (value === null || value.length === 0 || unreadable !== undefined) return undefined
  const kind = headers?.[KIND_HEADER]
  if (kind === undefined) {
    const tick = decodeTick(value)
    return tick && { tick, source: tick.source }
  }
  const quote = kind === QUOTE_KIND ? decodeQuote(value) : undefined
  return quote && { tick: undefined, source: quote.source }
}

/**
 * The highest source of a raw incarnation in a normalized partition, from an offset to its end, and whether all from
 * that offset on was still there: of ticks and of quotes. Each live tick of it is shown to `onTick`. Sources that the raw
 * log cannot have given are passed over: somebody else wrote them.
 */
const highestSource = (
  partition: number,
  from: number,
  rawIncarnation: string,
  onTick: (tick: Tick) => void = () => {},
  /** Shown those of other raw incarnations before the first of this one, with their record time. */
  onOther: (tick: Tick, recordTime: number) => void = () => {}
) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const { start, end } = yield* log.bounds("normalized_ticks", partition)
    // After the other: all that was published by then has a place below this end.
    const limit = (yield* log.bounds("raw_ticks", partition)).end + END_SLACK
    let through = BEFORE_ALL
    let isMet = false
    const see = (record: LogRecord) => {
      const found = sourceIn(record)
      if (found === undefined) return
      const { tick, source } = found
      const isLiveTick = tick !== undefined && (record.headers?.[REPLAY_HEADER] ?? "") === ""
      if (source[0] !== rawIncarnation) {
        if (isLiveTick && !isMet) onOther(tick, record.recordTime)
        return
      }
      if (source[1] >= limit) return
      isMet = true
      if (isLiveTick) onTick(tick)
      if (!isUpTo(through, source[1], source[2])) through = { offset: source[1], index: source[2] }
    }
    // In pieces, not as a stream: what lies last may be no record, and none comes after it while this goes on.
    for (let at = Math.max(from, start); at < end; ) {
      const { records, next } = yield* log.slice("normalized_ticks", partition, at, PIECE)
      for (const record of records) see(record)
      if (next <= at) break
      at = next
    }
    return { through, isWhole: from >= start }
  })

/** A record stamped so much later (µs) than the raw log's first is not from before the raw topic was recreated. */
const RECREATED_MICROS = 60_000_000

/** The record time of the first record of a raw partition, µs; there is none yet: for ever. */
const firstRecordTime = (partition: number, start: number) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const { records } = yield* log.slice("raw_ticks", partition, start, 1)
    return records[0]?.recordTime ?? Number.POSITIVE_INFINITY
  })

/** The state and the place from which an assigned partition goes on. */
export const recover = (
  assigned: AssignedPartition,
  lostOffsets: LostOffsets,
  maxInstruments: number
): Effect.Effect<Recovered, LogError, TickLog | Checkpoints> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const checkpoints = yield* Checkpoints
    const clock = yield* Clock.Clock
    const { partition, committed } = assigned
    const rawIncarnation = log.incarnation("raw_ticks")
    const raw = yield* log.bounds("raw_ticks", partition)

    const checkpoint = yield* checkpoints.load(rawIncarnation, partition).pipe(
      // Without its checkpoint a partition is run again from the retained raw of the day: slower, and as exact.
      Effect.catch((error) =>
        Effect.as(Effect.logWarning(`partition ${partition}: no checkpoint: ${error.message}`), undefined)
      )
    )
    const restored = checkpoint === undefined ? undefined : restoreIfSound(checkpoint, maxInstruments)
    const runsFrom = restored === undefined ? [] : [...restored.runs.values()]
    if (
      checkpoint !== undefined &&
      restored !== undefined &&
      checkpoint.normalizedIncarnation === log.incarnation("normalized_ticks") &&
      checkpoint.rawOffset >= raw.start
    ) {
      const { lost } = restored.states.live
      const published = new Set<string>()
      const { through, isWhole } = yield* highestSource(
        partition,
        checkpoint.normalizedOffset,
        rawIncarnation,
        lost === undefined ? undefined : ({ source }) => published.add(sourceKey(source))
      )
      return {
        states: restored.states,
        from: Math.max(raw.start, Math.min(checkpoint.rawOffset, ...runsFrom)),
        liveFrom: checkpoint.rawOffset,
        // All below the checkpoint is published, also what a replay's records are run again for.
        through:
          through.offset >= checkpoint.rawOffset
            ? through
            : { offset: checkpoint.rawOffset - 1, index: QUOTE_SOURCE_INDEX },
        normalizedFrom: checkpoint.normalizedOffset,
        runs: restored.runs,
        fromCheckpoint: true,
        recordTime: restored.recordTime,
        published: lost !== undefined && isWhole ? published : undefined
      }
    }

    const live = new PartitionState(maxInstruments)
    const fresh = {
      states: { live, runs: new RunStates() },
      runs: new Map<string, number>(),
      fromCheckpoint: false,
      recordTime: Number.NEGATIVE_INFINITY,
      published: undefined
    }
    const day = tradingDay(clock.currentTimeMillisUnsafe() * 1000)
    const dayFrom = yield* log.offsetAt("raw_ticks", partition, tradingDayStart(day))
    const since = committed === undefined ? 0 : yield* log.offsetAt("normalized_ticks", partition, tradingDayStart(day))
    const seen = new Map<number, Seen>()
    const see = (tick: Tick) => {
      // No epoch of ours is of another day than its tick: what somebody else wrote raises none.
      if (tradingDay(tick.exchange_ts) !== day || Math.floor(tick.epoch / EPOCHS_PER_DAY) !== day) return
      const before = seen.get(tick.instrument_token)
      if (before === undefined) seen.set(tick.instrument_token, { session: tick.session, epoch: tick.epoch })
      else {
        before.session = Math.max(before.session, tick.session)
        before.epoch = Math.max(before.epoch, tick.epoch)
      }
    }
    const begunAt = yield* firstRecordTime(partition, raw.start)
    /** What the day had when `raw_ticks` was recreated in the midst of it, and what was published of it since. */
    let isAnew = false
    const published = new Set<string>()
    const { through, isWhole } = yield* highestSource(
      partition,
      since,
      rawIncarnation,
      (tick) => (isAnew ? published.add(sourceKey(tick.source)) : see(tick)),
      (tick, recordTime) => {
        if (tradingDay(tick.exchange_ts) !== day || recordTime > begunAt + RECREATED_MICROS) return
        isAnew = true
        see(tick)
      }
    )
    if (isAnew && raw.start === 0) {
      // All that the new topic has is run, as on any day whose state was lost: it went with the old one.
      live.lost = { day, isMissed: false, seen }
      yield* Effect.logError(`partition ${partition}: raw_ticks was recreated, the day's state is lost: new epochs`)
      return {
        ...fresh,
        from: 0,
        liveFrom: 0,
        through,
        normalizedFrom: since,
        published: isWhole ? published : undefined
      }
    }
    // The first record that nobody is known to have processed.
    const next = Math.max(committed?.offset ?? 0, through.offset + 1, checkpoint?.rawOffset ?? 0)
    if (next === 0 || (committed === undefined && raw.start === 0)) {
      // Never processed, or not for as long as the log remembers: all of it, but nothing twice.
      return { ...fresh, from: raw.start, liveFrom: raw.start, through, normalizedFrom: since }
    }
    if (next < raw.start) yield* lostOffsets.goOn(partition, next, raw.start)
    // Where the log reaches back before the day began, running it again gives the very same state. Where it does not,
    // the state is truly lost: only what was never published is run, it begins new epochs, and what it would have known
    // as a duplicate the claims may still know.
    const holdsTheDay = raw.start === 0 || dayFrom > raw.start
    const from = holdsTheDay
      ? Math.max(raw.start, Math.min(committed?.offset ?? next, dayFrom))
      : Math.max(next, raw.start)
    if (!holdsTheDay) {
      live.lost = { day, isMissed: next < raw.start, seen }
      yield* Effect.logError(
        `partition ${partition}: its state is lost and the log no longer holds the day: new epochs`
      )
    }
    return { ...fresh, from, liveFrom: from, through, normalizedFrom: since }
  })
