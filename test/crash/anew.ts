/**
 * Decides what is played where a platform loses more than a process: topics deleted and recreated under load, and a day
 * whose own state is lost while Redis still has the claims.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Layer } from "effect"
import { Redis } from "ioredis"
import { Kafka, logLevel } from "kafkajs"
import * as RedisLayer from "../../src/layers/redis/connection.ts"
import * as RedisClaims from "../../src/layers/redis/RedisClaims.ts"
import { partitionOf } from "../../src/schema/Partition.ts"
import type { Tick } from "../../src/schema/Tick.ts"
import { decodeTick } from "../../src/schema/TickJson.ts"
import { type LogRecord, TickLog, type Topic } from "../../src/streams/log/TickLog.ts"
import { Claims } from "../../src/streams/ports/Claims.ts"
import type { Mdp } from "../support/processes.ts"
import { PARTITIONS } from "./cluster.ts"
import { INJECTED_TOKENS } from "./injector.ts"
import { startWorkers } from "./nemesis.ts"
import { all, drained, type Fields, keyOf, type TakenAway } from "./oracle.ts"
import type { RunOptions } from "./scenario.ts"
import { onStage, type Report, type Stage } from "./stage.ts"

const WITHIN_MS = 600_000
/** A tick sent longer ago is in the topic it was sent to, and looked at there. */
const SENT_WITHIN_MS = 2000
/** A topic that was deleted takes nothing more after this. */
const DELETED_WITHIN_MS = 1000
const DRAINS_WITHIN_MS = 90_000
/** Ticks of each instrument that come once more, late. */
const LATE = 3

const admin = async <A>(stage: Stage, use: (open: ReturnType<Kafka["admin"]>) => Promise<A>): Promise<A> => {
  const brokers = [`127.0.0.1:${stage.cluster.kafka.port}`]
  const open = new Kafka({ clientId: "nemesis", brokers, logLevel: logLevel.NOTHING }).admin()
  await open.connect()
  try {
    return await use(open)
  } finally {
    await open.disconnect()
  }
}

const committed = (stage: Stage, groupId: string, topic: Topic): Promise<ReadonlyMap<number, number>> =>
  admin(stage, async (open) => {
    const [found] = await open.fetchOffsets({ groupId, topics: [topic] })
    return new Map((found?.partitions ?? []).map(({ partition, offset }) => [partition, Number(offset)]))
  })

/** What the topics hold just before something is done to them. */
const look = async (stage: Stage) => {
  const at = Date.now()
  const store = await committed(stage, "store", "normalized_ticks")
  const archive = await committed(stage, "archive", "normalized_ticks")
  const [raw, normalized, incarnation] = await stage.injector.runtime.runPromise(
    Effect.all([all("raw_ticks"), all("normalized_ticks"), Effect.map(TickLog, (log) => log.incarnation("raw_ticks"))])
  )
  return { at, store, archive, raw, normalized, incarnation }
}
type Seen = Awaited<ReturnType<typeof look>>

const ticksOf = (partitions: ReadonlyArray<ReadonlyArray<LogRecord>>): ReadonlyArray<Tick> =>
  partitions.flat().flatMap(({ value }) => {
    const tick = value === null ? undefined : decodeTick(value)
    return tick === undefined ? [] : [tick]
  })

/** The newest few published ticks of each instrument. */
const newest = (ticks: ReadonlyArray<Tick>): ReadonlyArray<Tick> =>
  [...Map.groupBy(ticks, ({ instrument_token }) => instrument_token).values()].flatMap((mine) => mine.slice(-LATE))

const identityOf = (value: Uint8Array | null): string | undefined => {
  try {
    const { instrument_token, exchange_ts, sequence_id } = JSON.parse(Buffer.from(value ?? "").toString()) as Fields
    const micros = typeof exchange_ts === "number" ? exchange_ts : Number.NaN
    return Number.isNaN(micros) ? undefined : keyOf({ instrument_token, exchange_ts: micros, sequence_id })
  } catch {
    return undefined
  }
}

/** Lowest offset of each identity in the partition that it belongs to. */
const firstOffsets = (
  partitions: ReadonlyArray<ReadonlyArray<LogRecord>>,
  read: (value: Uint8Array | null) => string | undefined
): ReadonlyMap<string, number> => {
  const found = new Map<string, number>()
  for (const [partition, records] of partitions.entries()) {
    for (const { value, offset } of records) {
      const key = read(value)
      if (key === undefined || found.has(key)) continue
      if (partitionOf(Number(key.split("/")[0]), PARTITIONS) === partition) found.set(key, offset)
    }
  }
  return found
}

/**
 * What may be lost with deleted topics. With `raw_ticks` what nobody had processed: it lies above the highest source
 * published. With `normalized_ticks` nothing: the raw ticks are there. With both what no sink had committed.
 */
const deleted = (topics: ReadonlyArray<Topic>, seen: Seen, until: number): TakenAway => {
  const inRaw = firstOffsets(seen.raw, identityOf)
  const inNormalized = firstOffsets(seen.normalized, (value) => {
    const tick = value === null ? undefined : decodeTick(value)
    return tick === undefined ? undefined : keyOf(tick)
  })
  const isRawGone = topics.includes("raw_ticks")
  const isNormalizedGone = topics.includes("normalized_ticks")
  return {
    underWayFrom: isNormalizedGone ? seen.incarnation : undefined,
    isForgotten: isRawGone && isNormalizedGone,
    raw: isRawGone ? seen.raw : [],
    mayLackPoison: ({ recordTime }) => recordTime >= (seen.at - SENT_WITHIN_MS) * 1000,
    mayLack: (published) => {
      const through = new Map<number, number>()
      for (const { instrument_token, source } of published) {
        if (source[0] !== seen.incarnation) continue
        const partition = partitionOf(instrument_token, PARTITIONS)
        through.set(partition, Math.max(through.get(partition) ?? -1, source[1]))
      }
      return (where, tick) => {
        if (tick.exchange_ts > until * 1000) return false
        const key = keyOf(tick)
        const partition = partitionOf(tick.instrument_token, PARTITIONS)
        const offset = inRaw.get(key)
        const isKnown = offset !== undefined || tick.exchange_ts < (seen.at - SENT_WITHIN_MS) * 1000
        // The retained raw ticks of the day are run again, and all of it is published into the new topic.
        if (isNormalizedGone && !isRawGone) return false
        // What was published and committed by a sink is in that sink.
        if (isNormalizedGone) {
          if (where === "normalized_ticks") return true
          const place = inNormalized.get(key)
          return place === undefined
            ? tick.exchange_ts >= (seen.at - SENT_WITHIN_MS) * 1000
            : place >= (seen[where].get(partition) ?? 0)
        }
        return isKnown ? offset !== undefined && offset > (through.get(partition) ?? -1) : true
      }
    }
  }
}

/** Claims ticks as a platform elsewhere would that has the same feeds. */
const claimElsewhere = (stage: Stage, ticks: ReadonlyArray<Fields>): Promise<ReadonlyArray<number>> =>
  Effect.runPromise(
    Effect.flatMap(Claims, (claims) =>
      claims.claim(
        { incarnation: "elsewhere", partition: 0, through: 0 },
        ticks.map((tick, i) => ({
          ...tick,
          status: "LIVE",
          gap_from: 0,
          session: 0,
          sequencing: "contiguous",
          epoch: 0,
          position: 0,
          feed: "dma",
          received_ts: tick.exchange_ts,
          source: ["elsewhere", i, 0],
          old: false
        }))
      )
    ).pipe(
      Effect.provide(
        RedisClaims.layer({ keep: "1 day" }).pipe(Layer.provide(RedisLayer.layer({ url: stage.cluster.redis.url() })))
      )
    )
  )

const again = async (stage: Stage, ticks: ReadonlyArray<Fields>): Promise<void> => {
  for (const tick of ticks) await stage.injector.again(tick)
}

/** Where the state is lost, the first one alone, until it has saved what it knows. */
const restartWorkers = async (stage: Stage, isLost: boolean): Promise<void> => {
  const { cluster, ground } = stage
  const first = isLost ? [await cluster.worker("worker, the first")] : []
  const redis = new Redis(cluster.redis.url())
  const until = Date.now() + DRAINS_WITHIN_MS
  try {
    while (isLost && (await redis.keys("state:*")).length < PARTITIONS) {
      if (Date.now() > until) throw new Error("the states were not saved")
      await sleep(100)
    }
  } finally {
    redis.disconnect()
  }
  const all = isLost ? [...first, await cluster.worker("worker, the second")] : await startWorkers(cluster)
  ground.workers.splice(0, Number.POSITIVE_INFINITY, ...all)
}

const TOPICS = {
  raw_ticks: ["raw_ticks"],
  normalized_ticks: ["normalized_ticks"],
  both: ["raw_ticks", "normalized_ticks"]
} as const

/** Topics deleted under load, and recreated by whoever notices first. */
const topicsAnew = async (
  stage: Stage,
  topics: ReadonlyArray<Topic>,
  tell: (line: string) => void
): Promise<TakenAway> => {
  await sleep(5000)
  stage.injector.jumps = false
  const seen = await look(stage)
  await admin(stage, (open) => open.deleteTopics({ topics: [...topics] }))
  const until = Date.now() + DELETED_WITHIN_MS
  tell(`${topics.join(" and ")} deleted`)
  await sleep(8000)
  // Those that were published before are known: by the partition's own state, or by their claims.
  await again(stage, newest(ticksOf(seen.normalized)))
  await stage.injector.stop()
  for (const token of INJECTED_TOKENS) await stage.injector.trade(token)
  stage.injector.jumps = true
  stage.injector.start()
  await sleep(2000)
  return deleted(topics, seen, until)
}

const CLAIMED_WITHIN_MS = 60_000

/** A worker that dies once it has claimed, before it publishes: what it claimed is its successor's to ask for again. */
const claimAndDie = async (stage: Stage, number: number): Promise<void> => {
  const at = { MDP_CRASH_AT: "after-claim:1" }
  try {
    const worker = await stage.cluster.worker(`worker that claims and dies ${number}`, at)
    worker.isMeantToEnd = true
    if (!(await stage.cluster.over(worker, CLAIMED_WITHIN_MS))) stage.ground.missed.push("claims, nothing published")
    await stage.cluster.kill(worker)
  } catch (error) {
    if (!String(error).includes("was killed before")) throw error
  }
}

const drain = async (stage: Stage): Promise<void> => {
  const behind = await drained(stage.injector.runtime, DRAINS_WITHIN_MS)
  if (behind !== undefined) throw new Error(`not drained: ${behind}`)
}

/**
 * The day's own state is lost: the checkpoints are gone and the log no longer holds the day, while the claims are kept.
 * What was claimed and not published is published; what was published, or is claimed elsewhere, is not published
 * again. As long as the state is there, it decides, whatever is claimed elsewhere.
 */
const stateLost = async (stage: Stage, feed: Mdp, tell: (line: string) => void): Promise<TakenAway> => {
  const { cluster, injector } = stage
  await sleep(4000)
  await injector.stop()
  for (const token of INJECTED_TOKENS) await injector.trade(token)
  const own = INJECTED_TOKENS.map((token) => injector.draw(token))
  await claimElsewhere(stage, own)
  for (const tick of own) await injector.send(tick, true)
  // From here on the feed stands still: what it sent is processed, and what workers claim next has no other copy.
  feed.kill("SIGSTOP")
  await drain(stage)
  for (const worker of stage.ground.workers) await cluster.stop(worker)
  const processed = await committed(stage, "process", "raw_ticks")
  for (const token of INJECTED_TOKENS) await injector.trade(token)
  await claimAndDie(stage, 1)
  await claimAndDie(stage, 2)

  const seen = await look(stage)
  await admin(stage, async (open) => {
    // Without having asked for them the library does not know the topic's leaders.
    await open.fetchTopicOffsets("raw_ticks")
    await open.deleteTopicRecords({
      topic: "raw_ticks",
      partitions: [...processed].map(([partition, offset]) => ({ partition, offset: String(offset) }))
    })
  })
  const redis = new Redis(cluster.redis.url())
  const states = await redis.keys("state:*")
  const claims = await redis.keys("claim:*")
  if (states.length > 0) await redis.unlink(...states)
  redis.disconnect()
  tell(`${states.length} states deleted, ${claims.length} claims kept, raw records up to what was processed deleted`)
  const published = ticksOf(seen.normalized)
  await again(stage, newest(published))
  const foreign = INJECTED_TOKENS.map((token) => injector.draw(token))
  await claimElsewhere(stage, foreign)
  for (const tick of foreign) await injector.send(tick, false)
  for (const token of INJECTED_TOKENS) await injector.trade(token)
  const restarted = restartWorkers(stage, true)
  feed.kill("SIGCONT")
  injector.start()
  await restarted
  await sleep(4000)
  // That the day's state was lost is not forgotten with the next one that dies.
  await Promise.all(stage.ground.workers.map((worker) => cluster.kill(worker)))
  await again(stage, newest(published))
  await restartWorkers(stage, false)
  await sleep(3000)
  return { raw: seen.raw, mayLackPoison: () => false, mayLack: () => () => false }
}

export const ANEW = [...Object.keys(TOPICS), "state"] as ReadonlyArray<keyof typeof TOPICS | "state">

export const runAnew = (
  which: (typeof ANEW)[number],
  { seed, engine, rate = 600, tell = () => {} }: Omit<RunOptions, "faults">
): Promise<Report> =>
  onStage(engine, WITHIN_MS, tell, async (stage) => {
    let takenAway: TakenAway | undefined
    await stage.play(seed, rate, async (feed) => {
      takenAway = await (which === "state" ? stateLost(stage, feed, tell) : topicsAnew(stage, TOPICS[which], tell))
    })
    tell("drain")
    const settled = await stage.settle(takenAway)
    await stage.stopAll()
    return {
      ...settled,
      problems: [...new Set([...settled.problems, ...stage.cluster.alarms])],
      done: new Map([[`anew:${which}`, 1]])
    }
  })
