/**
 * Decides how one partition of `raw_ticks` becomes its partition of `normalized_ticks`: the stages in order, one await
 * a batch for the claims and one for the publish, and the raw offset committed beside what follows.
 */
import { Clock, Effect, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import { commitLater } from "../log/commitLater.ts"
import { REPLAY_HEADER } from "../log/headers.ts"
import { type AssignedPartition, type LogRecord, TickLog } from "../log/TickLog.ts"
import type { Checkpoints } from "../ports/Checkpoints.ts"
import type { Claims } from "../ports/Claims.ts"
import { crashPoint } from "../run/crashPoint.ts"
import type { LostOffsets } from "../run/lostOffsets.ts"
import type { PartitionStates, Quoted } from "./batch.ts"
import { checkpoint } from "./checkpoint.ts"
import { claim } from "./claim.ts"
import { counters } from "./count.ts"
import { type DecodeOptions, decode } from "./decode.ts"
import { deduplicate } from "./deduplicate.ts"
import type { FeedClocks } from "./feedClocks.ts"
import { normalize } from "./normalize.ts"
import { PartitionState } from "./partitionState.ts"
import { publish } from "./publish.ts"
import { quote } from "./quote.ts"
import { RunStates } from "./RunStates.ts"
import { type Recovered, recover } from "./recover.ts"
import { sequence } from "./sequence.ts"

export type ProcessSettings = Pick<
  Settings,
  | "GAP_HOLD_MS"
  | "MAX_SEQUENCE_JUMP"
  | "DMA_SILENCE_MS"
  | "MAX_FUTURE_SKEW_MS"
  | "ZERO_PRICE"
  | "SNAPSHOT_MS"
  | "PROCESS_INSTRUMENTS"
>

/** The stages in their order, as the topology tells of them. */
export const STAGE_NODES = [
  ["decode", "reads raw records; what cannot be read goes to the DLQ"],
  ["normalize", "one form, identity, trading day; stamps too far ahead go to the DLQ"],
  ["deduplicate", "sessions, arbitration between feeds, each identity once"],
  ["sequence", "gaps, status, volume, epoch and position"],
  ["quote", "what packets say of book and day: the whole of it, where something changed"],
  ["publish", "writes clean ticks, quotes and dead letters, then commits"]
] as const

/** The pure stages of a partition, joined: an array of raw records in, what is to be published out. */
export const stages = (
  states: PartitionStates,
  incarnation: string,
  place: DecodeOptions,
  settings: Omit<ProcessSettings, "SNAPSHOT_MS" | "PROCESS_INSTRUMENTS">,
  onFeedLead: (winner: string, micros: number) => void
) => ({
  decode: decode(place),
  normalize: normalize({ incarnation, maxFutureSkewMicros: settings.MAX_FUTURE_SKEW_MS * 1000 }),
  deduplicate: deduplicate(states, {
    gapHoldMicros: settings.GAP_HOLD_MS * 1000,
    dmaSilenceMicros: settings.DMA_SILENCE_MS * 1000,
    maxSequenceJump: settings.MAX_SEQUENCE_JUMP,
    keepsZeroPrice: settings.ZERO_PRICE === "keep",
    onFeedLead
  }),
  sequence,
  quote: quote({ incarnation })
})

/** The states of a partition that was never processed, with so many instruments at most. */
export const makeStates = (maxInstruments?: number): PartitionStates => ({
  live: new PartitionState(maxInstruments),
  runs: new RunStates()
})

/** What is in the recovered state already does not go through the stages again; a run that goes on does, whole. */
const freshOf =
  ({ liveFrom, runs }: Recovered) =>
  (records: ReadonlyArray<LogRecord>): ReadonlyArray<LogRecord> =>
    records[0]!.offset >= liveFrom
      ? records
      : records.filter(({ offset, headers }) => {
          if (offset >= liveFrom) return true
          const since = runs.get(headers?.[REPLAY_HEADER] ?? "")
          return since !== undefined && offset >= since
        })

/** Where the broker's clock stepped back, record time stands still at the highest that the state has seen. */
const steadyFrom = (recordTime: number) => {
  let highest = recordTime
  return (records: ReadonlyArray<LogRecord>): ReadonlyArray<LogRecord> => {
    const before = highest
    highest = Math.max(before, records[records.length - 1]!.recordTime)
    if (records[0]!.recordTime >= before) return records
    return records.map((record) => (record.recordTime >= before ? record : { ...record, recordTime: before }))
  }
}

/**
 * Runs one assigned partition until it is revoked: recovered first, then live. A failed or unknown append ends it;
 * whoever runs it then recovers it anew.
 */
export const processPartition = (
  assigned: AssignedPartition,
  settings: ProcessSettings,
  lostOffsets: LostOffsets,
  clocks: FeedClocks
): Effect.Effect<void, LogError, TickLog | Claims | Checkpoints> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const clock = yield* Clock.Clock
    const { partition } = assigned
    const count = counters(yield* Effect.context<never>(), partition)
    yield* Effect.addFinalizer(() => Effect.sync(() => count.held(0)))
    const rawIncarnation = log.incarnation("raw_ticks")
    const normalizedIncarnation = log.incarnation("normalized_ticks")
    const recovered = yield* recover(assigned, lostOffsets, settings.PROCESS_INSTRUMENTS)
    const { states, through, liveFrom } = recovered
    const lostDay = states.live.lost?.isMissed === false ? states.live.lost.day : undefined

    const stage = stages(states, rawIncarnation, { partition, partitions: log.partitions }, settings, count.lead)
    const askClaims = yield* claim({
      incarnation: rawIncarnation,
      partition,
      through,
      lostDay,
      published: recovered.published
    })
    const publishBatch = yield* publish({ partition, through, incarnation: normalizedIncarnation, clocks })
    const keep = yield* checkpoint({
      partition,
      states,
      rawIncarnation,
      normalizedIncarnation,
      savedOffset: recovered.fromCheckpoint ? liveFrom : undefined,
      everyMs: settings.SNAPSHOT_MS
    })
    const commits = yield* commitLater(assigned, () => crashPoint("after-raw-commit"))
    // Whoever had the partition may have ended between checkpoint and commit: where nothing more comes, nobody else would.
    if (recovered.fromCheckpoint && liveFrom > (assigned.committed?.offset ?? 0)) {
      commits.commit({ offset: liveFrom, metadata: "" })
    }
    /** Where the next owner looks for what was published beyond a checkpoint: never past it while it is run again. */
    let normalizedOffset = recovered.normalizedFrom

    const write = Effect.fnUntraced(function* (batch: Quoted) {
      const { first, ...written } = yield* publishBatch(batch)
      if (first !== undefined) normalizedOffset = first + written.records
      count.published(batch, written, clock.currentTimeMillisUnsafe() * 1000)
      const { nextOffset: rawOffset, recordTime } = batch
      if (rawOffset <= liveFrom) return
      commits.commit({ offset: rawOffset, metadata: "" })
      yield* keep({ rawOffset, normalizedOffset, recordTime })
    })

    yield* assigned.read(recovered.from).pipe(
      Stream.map(freshOf(recovered)),
      Stream.filter((records) => records.length > 0),
      Stream.map(steadyFrom(recovered.recordTime)),
      Stream.map(stage.decode),
      Stream.map(stage.normalize),
      Stream.map(stage.deduplicate),
      Stream.mapEffect(askClaims),
      Stream.map(stage.sequence),
      Stream.map(stage.quote),
      Stream.runForEach(write)
    )
    yield* commits.settled
  }).pipe(Effect.scoped)
