/** Decides what is counted of a partition of `process`: what each stage says of itself, and what happened to the states. */
import type { Context } from "effect"
import * as metrics from "../metrics.ts"
import type { Quoted, StageCount } from "./batch.ts"

/** Feeds told apart in counters; any other name counts as `other`, so that names cannot grow the metrics. */
const FEEDS = ["dma", "snapshot", "other"] as const
const feedLabel = (feed: string): (typeof FEEDS)[number] => (feed === "dma" || feed === "snapshot" ? feed : "other")

type Counter = { readonly add: (value: number) => void }

/** A counter each by label, bound when it is first met: the labels are the stages' own, and few. */
const byLabel = (bind: (label: string) => Counter): ((label: string) => Counter) => {
  const bound = new Map<string, Counter>()
  return (label) => {
    let counter = bound.get(label)
    if (counter === undefined) {
      counter = bind(label)
      bound.set(label, counter)
    }
    return counter
  }
}

export interface Counters {
  /** The later of two copies from different feeds: which feed won, and by how many µs. */
  readonly lead: (winner: string, micros: number) => void
  readonly held: (instruments: number) => void
  /** A batch through all stages, once it is published: what of it now, the rest before a recovery; `now` in µs. */
  readonly published: (batch: Quoted, written: Written, now: number) => void
}

/** What went to `normalized_ticks`. */
export interface Written {
  readonly records: number
  /** Of the records. */
  readonly quotes: number
}

/** The count of a stage some of whose output was published before a recovery. */
const notAgain = (count: StageCount, published: number): StageCount =>
  ({ ...count, sent: count.sent - published, discarded: { ...count.discarded, published } }) as StageCount

export const counters = (context: Context.Context<never>, partition: number): Counters => {
  const received = byLabel((stage) => metrics.bind(metrics.stageReceived, { stage }, context))
  const sent = byLabel((stage) => metrics.bind(metrics.stageSent, { stage }, context))
  const discardsOf = new Map<string, (reason: string) => Counter>()
  const discard = (stage: string, reason: string, ticks: number): void => {
    let reasons = discardsOf.get(stage)
    if (reasons === undefined) {
      reasons = byLabel((reason) => metrics.bind(metrics.stageDiscarded, { stage, reason }, context))
      discardsOf.set(stage, reasons)
    }
    reasons(reason).add(ticks)
  }
  const opened = metrics.bind(metrics.gaps, {}, context)
  const filled = metrics.bind(metrics.gapFills, {}, context)
  const lost = metrics.bind(metrics.lostTicks, {}, context)
  const epochs = metrics.bind(metrics.newEpochs, {}, context)
  const resets = metrics.bind(metrics.newSessions, { reason: "reset" }, context)
  const jumps = metrics.bind(metrics.newSessions, { reason: "jump" }, context)
  const restarts = metrics.bind(metrics.newSessions, { reason: "conflict" }, context)
  const forgotten = metrics.bind(metrics.processForgotten, {}, context)
  // A figure that nothing has moved yet is 0, not absent.
  for (const counter of [opened, filled, lost, epochs, resets, jumps, restarts, forgotten]) counter.add(0)
  const held = metrics.bind(metrics.processInstruments, { partition: String(partition) }, context)
  const toReceived = metrics.bind(metrics.tickLatency, { edge: "exchange_to_received" }, context)
  const toPublished = metrics.bind(metrics.tickLatency, { edge: "received_to_published" }, context)
  const perFeed = <I, S>(metric: Parameters<typeof metrics.bind<I, S>>[0]) => {
    const bound = FEEDS.map((feed) => [feed, metrics.bind(metric, { feed }, context)] as const)
    return Object.fromEntries(bound) as Record<(typeof FEEDS)[number], { readonly add: (value: I) => void }>
  }
  const wins = perFeed(metrics.feedWins)
  const leads = perFeed(metrics.feedLead)

  const countStages = ({ passed, dead, ticks, quotes, watermarks }: Quoted, written: Written): void => {
    const published = Math.max(0, ticks.length + watermarks.length - (written.records - written.quotes))
    const last: StageCount = {
      stage: "publish",
      received: ticks.length,
      sent: ticks.length - published,
      discarded: { published }
    }
    for (const count of [...passed, last]) {
      const stage = count.stage === "quote" ? notAgain(count, quotes.length - written.quotes) : count
      received(stage.stage).add(stage.received)
      sent(stage.stage).add(stage.sent)
      const discarded: Readonly<Record<string, number>> = stage.discarded
      for (const reason in discarded) {
        if (discarded[reason]! > 0) discard(stage.stage, reason, discarded[reason]!)
      }
    }
    for (const { stage, kind } of dead) discard(stage, kind, 1)
  }

  const countStates = ({ count }: Quoted): void => {
    if (count.gaps > 0) opened.add(count.gaps)
    if (count.fills > 0) filled.add(count.fills)
    if (count.lost > 0) lost.add(count.lost)
    if (count.epochs > 0) epochs.add(count.epochs)
    if (count.resets > 0) resets.add(count.resets)
    if (count.jumps > 0) jumps.add(count.jumps)
    if (count.restarts > 0) restarts.add(count.restarts)
    if (count.forgotten > 0) forgotten.add(count.forgotten)
    held.add(count.instruments)
  }

  const countTicks = ({ ticks }: Quoted, now: number): void => {
    const byFeed = { dma: 0, snapshot: 0, other: 0 }
    let newest: Quoted["ticks"][number] | undefined
    for (const candidate of ticks) {
      if (candidate.run !== "") continue
      byFeed[feedLabel(candidate.tick.feed)]++
      newest = candidate
    }
    for (const feed of FEEDS) if (byFeed[feed] > 0) wins[feed].add(byFeed[feed])
    // One tick a batch is sample enough, and keeps the histogram off the tick path.
    if (newest === undefined || newest.tick.old) return
    toReceived.add(Math.max(0, newest.tick.received_ts - newest.tick.exchange_ts) / 1e6)
    toPublished.add(Math.max(0, now - newest.tick.received_ts) / 1e6)
  }

  return {
    lead: (winner, micros) => leads[feedLabel(winner)].add(micros / 1e6),
    held: held.add,
    published: (batch, written, now) => {
      countStages(batch, written)
      countStates(batch)
      countTicks(batch, now)
    }
  }
}
