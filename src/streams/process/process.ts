/**
 * Decides how one partition of `raw_ticks` becomes its partition of `normalized_ticks`: the stages in order, one await
 * a batch for the claims and one for the publish, and the raw offset committed beside what follows.
 */
import { Clock, type Context, Effect, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import { commitLater } from "../log/commitLater.ts"
import { REPLAY_HEADER } from "../log/headers.ts"
import { isUpTo, sourceKey } from "../log/source.ts"
import { type AssignedPartition, type LogRecord, TickLog } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { Claims } from "../ports/Claims.ts"
import { StateSnapshots } from "../ports/StateSnapshots.ts"
import { crashPoint } from "../run/crashPoint.ts"
import type { LostOffsets } from "../run/lostOffsets.ts"
import type { Batch, Candidate, DeadReason, PartitionStates, StageName } from "./batch.ts"
import { type DecodeOptions, decode } from "./decode.ts"
import { deduplicate } from "./deduplicate.ts"
import type { FeedClocks } from "./feedClocks.ts"
import { discardClaimed } from "./lostDay.ts"
import { normalize } from "./normalize.ts"
import { PartitionState } from "./partitionState.ts"
import { cutDead, toDeadRecords, toRecords } from "./publish.ts"
import { RunStates } from "./RunStates.ts"
import { recover, snapshotOf } from "./recover.ts"
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
  sequence
})

/** A partition says no more than one defect in this time. */
const SAY_DEFECT_MS = 60_000

/** The states of a partition that was never processed, with so many instruments at most. */
export const makeStates = (maxInstruments?: number): PartitionStates => ({
  live: new PartitionState(maxInstruments),
  runs: new RunStates()
})

/**
 * Runs one assigned partition until it is revoked: recovered first, then live. A failed or unknown append ends it;
 * whoever runs it then recovers it anew.
 */
export const processPartition = (
  assigned: AssignedPartition,
  settings: ProcessSettings,
  lostOffsets: LostOffsets,
  clocks: FeedClocks
): Effect.Effect<void, LogError, TickLog | Claims | StateSnapshots> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const claims = yield* Claims
    const snapshots = yield* StateSnapshots
    const clock = yield* Clock.Clock
    const { partition } = assigned
    const count = counters(yield* Effect.context<never>(), partition)
    yield* Effect.addFinalizer(() => Effect.sync(() => count.held(0)))
    const incarnation = log.incarnation("raw_ticks")
    const normalizedIncarnation = log.incarnation("normalized_ticks")
    const { states, from, liveFrom, through, runs, published, ...recovered } = yield* recover(
      assigned,
      lostOffsets,
      settings.PROCESS_INSTRUMENTS
    )
    const place = { partition, partitions: log.partitions }
    const stage = stages(states, incarnation, place, settings, count.lead)

    /** What is in the recovered state already does not go through the stages again; a run that goes on does, whole. */
    const fresh = (records: ReadonlyArray<LogRecord>) =>
      records[0]!.offset >= liveFrom
        ? records
        : records.filter(({ offset, headers }) => {
            if (offset >= liveFrom) return true
            const since = runs.get(headers?.[REPLAY_HEADER] ?? "")
            return since !== undefined && offset >= since
          })

    let recordTime = recovered.recordTime
    /** Where the broker's clock stepped back, record time stands still at the highest that the state has seen. */
    const steady = (records: ReadonlyArray<LogRecord>) => {
      const highest = recordTime
      recordTime = Math.max(highest, records[records.length - 1]!.recordTime)
      if (records[0]!.recordTime >= highest) return records
      return records.map((record) => (record.recordTime >= highest ? record : { ...record, recordTime: highest }))
    }

    /** The day whose state was lost here, if one was: on it, what others have claimed is a duplicate. */
    const lost = states.live.lost?.isMissed === true ? undefined : states.live.lost

    const claim = (batch: Batch) => {
      if (lost !== undefined && published !== undefined) {
        const isDecided = ({ tick, record, index }: Candidate) =>
          isUpTo(through, record.offset, index) && !published.has(sourceKey(tick.source))
        discardClaimed(batch, lost.day, batch.ticks.filter(isDecided))
      }
      const asked = batch.ticks.filter(
        ({ run, record, isPriceless }) => run === "" && !isPriceless && record.offset > through.offset
      )
      if (asked.length === 0) return Effect.succeed(batch)
      const ticks = asked.map(({ tick }) => tick)
      const found = (foreign: ReadonlyArray<number>) => {
        count.claimed(foreign.length)
        if (lost === undefined) return
        const claimed = foreign.map((i) => asked[i]!)
        discardClaimed(batch, lost.day, claimed)
      }
      const claimant = { incarnation, partition, through: batch.nextOffset - 1, decides: lost !== undefined }
      return claims.claim(claimant, ticks).pipe(
        Effect.map(found),
        // The partition's own state has decided; without claims the platform goes on, and says so.
        Effect.catch(() => Effect.sync(count.unclaimed)),
        Effect.map(() => {
          crashPoint("after-claim")
          return batch
        })
      )
    }

    const commits = yield* commitLater(assigned, () => crashPoint("after-raw-commit"))
    /** Where the next owner looks for what was published beyond a snapshot: never past it while it is run again. */
    let normalizedOffset = recovered.normalizedFrom
    /** The snapshot that the next one changes; undefined: the next one is whole. */
    let savedOffset = recovered.fromSnapshot ? liveFrom : undefined
    /** Record time of the newest record in it. */
    let savedTime = Number.NEGATIVE_INFINITY
    // What follows the loss of a state is kept with the first batch: until then a kill would lose it once more.
    let savedAt = states.live.lost !== undefined && !recovered.fromSnapshot ? 0 : clock.currentTimeMillisUnsafe()
    const snapshot = (rawOffset: number, recordTime: number) =>
      Effect.suspend(() => {
        const { live } = states
        // A whole one names all there are: what else is kept there is of nobody.
        if (savedOffset === undefined) live.gone = "others"
        else if (live.gone === "others") savedOffset = undefined
        const changed = live.changedSince(savedOffset === undefined ? Number.NEGATIVE_INFINITY : savedTime)
        savedAt = clock.currentTimeMillisUnsafe()
        const marks = { rawIncarnation: incarnation, rawOffset, normalizedIncarnation, normalizedOffset }
        return snapshots.save(partition, snapshotOf(states, changed, recordTime, marks), savedOffset).pipe(
          Effect.map((isKept) => {
            crashPoint("after-snapshot")
            savedOffset = isKept ? rawOffset : undefined
            live.gone = new Set()
            savedTime = recordTime
            return count.saved()
          }),
          Effect.catch((error) =>
            Effect.suspend(() => {
              count.unsaved()
              return Effect.logDebug(`partition ${partition}: snapshot not kept: ${error.message}`)
            })
          )
        )
      })

    /** A stage failing is a fault of the platform: one of its letters is said aloud now and then, all are counted. */
    let defectSaidAt = Number.NEGATIVE_INFINITY
    const sayDefect = ({ dead }: Batch) => {
      const defect = dead.find(({ kind }) => kind === "defect")
      const now = clock.currentTimeMillisUnsafe()
      if (defect === undefined || now - defectSaidAt < SAY_DEFECT_MS) return Effect.void
      defectSaidAt = now
      const place = `raw_ticks-${partition} at offset ${defect.record.offset}`
      return Effect.logError(`${place} went to the dead letters, which is a defect: ${defect.reason}`)
    }

    const publish = Effect.fnUntraced(function* (batch: Batch) {
      // Before the ticks: what shows that these are published shows that the rest is done.
      const dead = toDeadRecords(batch.dead, partition, through)
      if (dead.length > 0) {
        yield* log.append("raw_ticks_dlq", partition, dead).pipe(
          Effect.catchIf(
            (error) => error.reason === "too_large",
            () => log.append("raw_ticks_dlq", partition, dead.map(cutDead))
          )
        )
        crashPoint("after-dead-letters")
        yield* sayDefect(batch)
        yield* clocks.note(batch.dead)
      }
      for (const [to, forwards] of Map.groupBy(batch.forwards, (forward) => forward.to)) {
        yield* log.append(
          "raw_ticks",
          to,
          forwards.map((forward) => forward.record)
        )
        crashPoint("after-forward")
      }
      const records = toRecords(batch, through)
      if (records.length > 0) {
        const first = yield* log.append("normalized_ticks", partition, records, normalizedIncarnation)
        normalizedOffset = first + records.length
        crashPoint("after-publish")
      }
      count.published(batch, records.length, clock.currentTimeMillisUnsafe() * 1000)
      if (batch.nextOffset <= liveFrom) return
      commits.commit({ offset: batch.nextOffset, metadata: "" })
      if (clock.currentTimeMillisUnsafe() - savedAt >= settings.SNAPSHOT_MS)
        yield* snapshot(batch.nextOffset, batch.recordTime)
    })

    yield* assigned.read(from).pipe(
      Stream.map(fresh),
      Stream.filter((records) => records.length > 0),
      Stream.map(steady),
      Stream.map(stage.decode),
      Stream.map(stage.normalize),
      Stream.map(stage.deduplicate),
      Stream.mapEffect(claim),
      Stream.map(stage.sequence),
      Stream.runForEach(publish)
    )
    yield* commits.settled
  }).pipe(Effect.scoped)

/** Feeds told apart in counters; any other name counts as `other`, so that names cannot grow the metrics. */
const FEEDS = ["dma", "snapshot", "other"] as const
const feedLabel = (feed: string): (typeof FEEDS)[number] => (feed === "dma" || feed === "snapshot" ? feed : "other")

/** Where a tick is found not to go on; of a `defect` it is said, and all else is found by `decode`. */
const STAGE_OF: Partial<Record<DeadReason, StageName>> = {
  future: "normalize",
  jump: "deduplicate",
  conflict: "deduplicate"
}

const counters = (context: Context.Context<never>, partition: number) => {
  const stage = (name: string, reasons: ReadonlyArray<string>) => ({
    received: metrics.bind(metrics.stageReceived, { stage: name }, context),
    sent: metrics.bind(metrics.stageSent, { stage: name }, context),
    discarded: Object.fromEntries(
      reasons.map((reason) => [reason, metrics.bind(metrics.stageDiscarded, { stage: name, reason }, context)])
    )
  })
  const decoded = stage("decode", [
    "tombstone",
    "too_large",
    "undecodable",
    "header",
    "invalid",
    "misrouted",
    "forwarded",
    "defect"
  ])
  const normalized = stage("normalize", ["future", "defect"])
  const deduplicated = stage("deduplicate", ["duplicate", "claimed", "suppressed", "jump", "conflict", "defect"])
  const sequenced = stage("sequence", ["zero_price", "defect"])
  const ofStage = { decode: decoded, normalize: normalized, deduplicate: deduplicated, sequence: sequenced }
  const publish = stage("publish", ["published"])
  const opened = metrics.bind(metrics.gaps, {}, context)
  const filled = metrics.bind(metrics.gapFills, {}, context)
  const lost = metrics.bind(metrics.lostTicks, {}, context)
  const epochs = metrics.bind(metrics.newEpochs, {}, context)
  const sessions = {
    reset: metrics.bind(metrics.newSessions, { reason: "reset" }, context),
    jump: metrics.bind(metrics.newSessions, { reason: "jump" }, context),
    conflict: metrics.bind(metrics.newSessions, { reason: "conflict" }, context)
  }
  // A figure that nothing has moved yet is 0, not absent.
  for (const counter of [opened, filled, lost, epochs, ...Object.values(sessions)]) counter.add(0)
  const held = metrics.bind(metrics.processInstruments, { partition: String(partition) }, context)
  const forgotten = metrics.bind(metrics.processForgotten, {}, context)
  forgotten.add(0)
  const degraded = metrics.bind(metrics.claimsDegraded, {}, context)
  const snapshotsDegraded = metrics.bind(metrics.snapshotsDegraded, {}, context)
  const foreign = metrics.bind(metrics.claimsForeign, {}, context)
  const toReceived = metrics.bind(metrics.tickLatency, { edge: "exchange_to_received" }, context)
  const toPublished = metrics.bind(metrics.tickLatency, { edge: "received_to_published" }, context)
  const perFeed = <I, S>(metric: Parameters<typeof metrics.bind<I, S>>[0]) => {
    const bound = FEEDS.map((feed) => [feed, metrics.bind(metric, { feed }, context)] as const)
    return Object.fromEntries(bound) as Record<(typeof FEEDS)[number], { readonly add: (value: I) => void }>
  }
  const wins = perFeed(metrics.feedWins)
  const leads = perFeed(metrics.feedLead)

  return {
    lead: (winner: string, micros: number) => leads[feedLabel(winner)].add(micros / 1e6),
    claimed: (others: number) => {
      degraded.add(0)
      if (others > 0) foreign.add(others)
    },
    unclaimed: () => degraded.add(1),
    held: (instruments: number) => held.add(instruments),
    saved: () => snapshotsDegraded.add(0),
    unsaved: () => snapshotsDegraded.add(1),
    /**
     * Counts a batch through all stages, once it is published; `records` of it were, the others had been before a
     * recovery. `now` in µs.
     */
    published: (batch: Batch, records: number, now: number) => {
      const { count, dead, ticks } = batch
      let beforeNormalize = 0
      for (const { kind, stage = STAGE_OF[kind] ?? "decode" } of dead) {
        ofStage[stage].discarded[kind]!.add(1)
        if (stage === "decode") beforeNormalize++
      }
      if (batch.forwards.length > 0) decoded.discarded.forwarded!.add(batch.forwards.length)
      decoded.received.add(count.decoded + beforeNormalize + batch.forwards.length)
      decoded.sent.add(count.decoded)
      normalized.received.add(count.decoded)
      normalized.sent.add(count.normalized)
      deduplicated.received.add(count.normalized)
      deduplicated.sent.add(count.admitted)
      if (count.duplicates > 0) deduplicated.discarded.duplicate!.add(count.duplicates)
      if (count.claimed > 0) deduplicated.discarded.claimed!.add(count.claimed)
      if (count.suppressed > 0) deduplicated.discarded.suppressed!.add(count.suppressed)
      sequenced.received.add(count.admitted)
      if (count.priceless > 0) sequenced.discarded.zero_price!.add(count.priceless)
      sequenced.sent.add(count.sequenced)
      publish.received.add(count.sequenced)
      const before = count.sequenced + batch.watermarks.length - records
      publish.sent.add(count.sequenced - Math.max(0, before))
      if (before > 0) publish.discarded.published!.add(before)
      if (count.gaps > 0) opened.add(count.gaps)
      if (count.fills > 0) filled.add(count.fills)
      if (count.lost > 0) lost.add(count.lost)
      if (count.epochs > 0) epochs.add(count.epochs)
      held.add(count.instruments)
      if (count.forgotten > 0) forgotten.add(count.forgotten)
      if (count.resets > 0) sessions.reset.add(count.resets)
      if (count.jumps > 0) sessions.jump.add(count.jumps)
      if (count.restarts > 0) sessions.conflict.add(count.restarts)
      const byFeed = { dma: 0, snapshot: 0, other: 0 }
      let newest: Batch["ticks"][number] | undefined
      for (const candidate of ticks) {
        if (candidate.run !== "") continue
        byFeed[feedLabel(candidate.tick.feed)]++
        newest = candidate
      }
      for (const feed of FEEDS) if (byFeed[feed] > 0) wins[feed].add(byFeed[feed])
      // One tick a batch is sample enough, and keeps the histogram off the tick path.
      if (newest !== undefined && !newest.tick.old) {
        toReceived.add(Math.max(0, newest.tick.received_ts - newest.tick.exchange_ts) / 1e6)
        toPublished.add(Math.max(0, now - newest.tick.received_ts) / 1e6)
      }
    }
  }
}
