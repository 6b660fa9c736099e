/**
 * Decides whether the account is closed: everything that was sent, settled against `raw_ticks`, `normalized_ticks` as a
 * reader with the mark filter sees it, PostgreSQL, the archive, the DLQ and a client. One oracle for every fault.
 */
import { createReadStream } from "node:fs"
import { createInterface } from "node:readline"
import { Effect, Layer, type ManagedRuntime, Stream } from "effect"
import pg from "pg"
import * as S3 from "../../src/layers/S3.ts"
import { type Tick, tradingDate, tradingDay } from "../../src/schema/Tick.ts"
import { decodeTick } from "../../src/schema/TickJson.ts"
import { Archive } from "../../src/streams/Archive.ts"
import { MarkTracker } from "../../src/streams/bookmark.ts"
import { type LogRecord, TickLog, type Topic } from "../../src/streams/TickLog.ts"
import { keysIn, optionsFor } from "../support/buckets.ts"
import type { S3Access } from "../support/services.ts"
import type { Cluster } from "./cluster.ts"
import { POISON_HEADER } from "./injector.ts"
import type { Witness } from "./witness.ts"

/** A tick that was meant, and the feeds that it reached. */
export interface Meant {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly price: number
  readonly volume: number
  readonly sequence_id: number
  readonly reached: ReadonlyArray<string>
}

export const readLedger = async (path: string): Promise<ReadonlyArray<Meant>> => {
  const meant: Array<Meant> = []
  for await (const line of createInterface({ input: createReadStream(path) })) meant.push(JSON.parse(line) as Meant)
  return meant
}

type Fields = Pick<Meant, "instrument_token" | "exchange_ts" | "sequence_id" | "price" | "volume">
const keyOf = (tick: Pick<Meant, "instrument_token" | "exchange_ts" | "sequence_id">): string =>
  `${tick.instrument_token}/${tick.sequence_id}/${tick.exchange_ts}`

/** Problems, a few of each kind and how many more. */
class Problems {
  readonly #counts = new Map<string, { count: number; examples: Array<string> }>()

  add(kind: string, example = ""): void {
    const known = this.#counts.get(kind)
    if (known === undefined) this.#counts.set(kind, { count: 1, examples: [example] })
    else {
      known.count++
      if (known.examples.length < 4) known.examples.push(example)
    }
  }

  get list(): ReadonlyArray<string> {
    return [...this.#counts].map(([kind, { count, examples }]) => `${kind}: ${count}, such as ${examples.join("; ")}`)
  }
}

const all = (topic: Topic) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const partitions: Array<ReadonlyArray<LogRecord>> = []
    for (let partition = 0; partition < log.partitions; partition++) {
      const { start, end } = yield* log.bounds(topic, partition)
      if (start === end) {
        partitions.push([])
        continue
      }
      const arrays = yield* log.read(topic, partition, start).pipe(
        Stream.takeUntil((records) => records[records.length - 1]!.offset >= end - 1),
        Stream.runCollect
      )
      partitions.push(arrays.flat().filter(({ offset }) => offset < end))
    }
    return partitions
  })

export interface Expected {
  /** All that reached a feed since the topics were made. */
  readonly inLog: ReadonlyArray<Meant>
  /** All that reached a feed ever: what the store and the archive hold. */
  readonly ever: ReadonlyArray<Meant>
  /** Whether the instruments' days began anew, and so have more than one epoch. */
  readonly anew: boolean
}

export interface Settled {
  readonly problems: ReadonlyArray<string>
  /** For the report. */
  readonly figures: Readonly<Record<string, number>>
}

const holds = (
  problems: Problems,
  what: string,
  expected: ReadonlyMap<string, Meant>,
  found: Iterable<Fields>
): number => {
  const seen = new Set<string>()
  for (const tick of found) {
    const key = keyOf(tick)
    const meant = expected.get(key)
    if (seen.has(key)) problems.add(`${what}: twice`, key)
    seen.add(key)
    if (meant === undefined) problems.add(`${what}: not meant`, key)
    else if (meant.price !== tick.price || meant.volume !== tick.volume) {
      problems.add(`${what}: altered`, `${key} ${tick.price}x${tick.volume}, meant ${meant.price}x${meant.volume}`)
    }
  }
  for (const key of expected.keys()) if (!seen.has(key)) problems.add(`${what}: lost`, key)
  return seen.size
}

const byKey = (meant: ReadonlyArray<Meant>): ReadonlyMap<string, Meant> =>
  new Map(meant.filter(({ reached }) => reached.length > 0).map((tick) => [keyOf(tick), tick]))

interface Row {
  readonly instrument_token: number
  readonly exchange_ts: string
  readonly sequence_id: string
  readonly price: string
  readonly volume: string
  readonly epoch: string | null
  readonly position: string | null
}

const rowsOf = async (url: string): Promise<ReadonlyArray<Row>> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<Row>(
      `SELECT instrument_token, (extract(epoch FROM exchange_ts) * 1000000)::bigint::text AS exchange_ts,
              sequence_id::text, price::text, volume::text, epoch::text, position::text FROM ticks`
    )
    return rows
  } finally {
    await client.end()
  }
}

const archived = (access: S3Access, dates: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const archive = yield* Archive
    const found: Array<Fields> = []
    for (const date of dates) {
      yield* Stream.runForEach(archive.read(date, undefined), (ticks) =>
        Effect.sync(() => {
          for (const t of ticks) found.push(t)
        })
      )
    }
    return found
  }).pipe(Effect.provide(Layer.fresh(S3.layer(optionsFor(access)))), Effect.scoped)

/** Ranges of one partition that hold the same offset, and objects without their manifest. */
const overlaps = (keys: ReadonlyArray<string>): ReadonlyArray<string> => {
  const found: Array<string> = []
  const manifests = new Set(keys.filter((key) => key.startsWith("manifests/")))
  const ranges = new Map<string, Map<number, number>>()
  for (const key of keys) {
    const [, date, name, first, last] = /^ticks\/date=([^/]+)\/(.+)-(\d+)-(\d+)\.parquet$/.exec(key) ?? []
    if (date === undefined) continue
    if (!manifests.has(`manifests/${name}-${first}.json`)) found.push(`${key} has no manifest`)
    const known = ranges.get(`${name} ${date}`) ?? new Map<number, number>()
    ranges.set(`${name} ${date}`, known)
    if (known.has(Number(first))) found.push(`${key} and one to ${known.get(Number(first))}`)
    known.set(Number(first), Number(last))
  }
  for (const [name, known] of ranges) {
    let end = -1
    for (const [first, last] of [...known].sort(([a], [b]) => a - b)) {
      if (first <= end) found.push(`${name}: ${first}-${last} begins before ${end}`)
      end = Math.max(end, last)
    }
  }
  return found
}

const settleLog = async (
  problems: Problems,
  runtime: ManagedRuntime.ManagedRuntime<TickLog, unknown>,
  expected: ReadonlyMap<string, Meant>,
  isAnew: boolean
) => {
  const [raw, normalized, dlq] = await runtime.runPromise(
    Effect.all([all("raw_ticks"), all("normalized_ticks"), all("raw_ticks_dlq")])
  )

  const poison = new Map<string, Uint8Array | null>()
  raw.forEach((records, partition) => {
    for (const { offset, headers, value } of records) {
      if (headers?.[POISON_HEADER] !== undefined) poison.set(`${partition}/${offset}`, value)
    }
  })

  // Normalized: as any reader takes it in.
  const ticks: Array<Tick> = []
  let repeats = 0
  for (const [partition, records] of normalized.entries()) {
    const tracker = new MarkTracker(undefined)
    const bySource = new Map<string, string>()
    const places = new Map<string, { epoch: number; position: number }>()
    for (const { value, offset } of records) {
      const tick = value === null ? undefined : decodeTick(value)
      if (tick === undefined) {
        problems.add("normalized_ticks: unreadable", `${partition}/${offset}`)
        continue
      }
      const source = tick.source.join("/")
      const text = Buffer.from(value!).toString()
      const before = bySource.get(source)
      if (before !== undefined && before !== text) {
        problems.add("normalized_ticks: run again with another outcome", `${before} then ${text}`)
      }
      bySource.set(source, text)
      if (!tracker.take(tick.source)) {
        repeats++
        if (before === undefined)
          problems.add("normalized_ticks: a new source below the mark", `${partition}/${offset}`)
        continue
      }
      ticks.push(tick)
      const day = `${tick.instrument_token}/${tradingDay(tick.exchange_ts)}`
      const place = places.get(day)
      const at = `${day} ${tick.epoch}/${tick.position} after ${place?.epoch}/${place?.position}`
      if (place === undefined || tick.epoch > place.epoch) {
        if (tick.position !== 1) problems.add("normalized_ticks: an epoch does not begin at 1", at)
        if (place !== undefined && !isAnew) problems.add("normalized_ticks: a new epoch", at)
      } else if (tick.epoch !== place.epoch || tick.position !== place.position + 1) {
        problems.add("normalized_ticks: positions do not follow on", at)
      }
      places.set(day, { epoch: tick.epoch, position: tick.position })
    }
  }
  holds(problems, "normalized_ticks", expected, ticks)

  // DLQ: by where each came from, repeats of the same origin taken as one.
  const dead = new Map<string, number>()
  let letters = 0
  for (const record of dlq.flat()) {
    letters++
    const origin = `${record.headers?.partition}/${record.headers?.offset}`
    dead.set(origin, (dead.get(origin) ?? 0) + 1)
    const value = poison.get(origin)
    if (value === undefined) {
      problems.add("DLQ: no poison", `${origin} ${record.headers?.reason}`)
    } else if (
      (value === null) !== (record.value === null) ||
      Buffer.compare(value ?? Buffer.alloc(0), record.value ?? Buffer.alloc(0)) !== 0
    ) {
      problems.add("DLQ: other bytes", origin)
    }
  }
  for (const origin of poison.keys()) if (!dead.has(origin)) problems.add("DLQ: poison is missing", origin)
  return { ticks, repeats, raw: raw.flat().length, poison: poison.size, letters }
}

/** Settles everything; the pipeline must be drained. */
export const settle = async (
  cluster: Cluster,
  runtime: ManagedRuntime.ManagedRuntime<TickLog, unknown>,
  { inLog, ever, anew }: Expected,
  witness: Witness,
  access: S3Access
): Promise<Settled> => {
  const problems = new Problems()
  const expectedInLog = byKey(inLog)
  const expectedEver = byKey(ever)
  const log = await settleLog(problems, runtime, expectedInLog, anew)

  // Store: each tick once, with the place that normalized_ticks gave it.
  const rows = await rowsOf(cluster.postgres.url())
  const stored = rows.map((row) => ({
    ...row,
    exchange_ts: Number(row.exchange_ts),
    sequence_id: Number(row.sequence_id),
    price: Number(row.price),
    volume: Number(row.volume)
  }))
  holds(problems, "store", expectedEver, stored)
  const places = new Map(stored.map((row) => [keyOf(row), `${row.epoch}/${row.position}`]))
  for (const tick of log.ticks) {
    const place = places.get(keyOf(tick))
    if (place !== undefined && place !== `${tick.epoch}/${tick.position}`) {
      problems.add("store: another position", `${keyOf(tick)} ${place}, published ${tick.epoch}/${tick.position}`)
    }
  }

  const dates = [...new Set(ever.map(({ exchange_ts }) => tradingDate(tradingDay(exchange_ts))))]
  holds(problems, "archive", expectedEver, await Effect.runPromise(archived(access, dates)))

  for (const problem of overlaps(await keysIn(access))) problems.add("archive: ranges", problem)

  // The client: every place of every instrument once, or told that it was evicted.
  if (witness.broken !== undefined) problems.add("witness: the rule is broken", String(witness.broken))
  for (const error of witness.checker.errors) problems.add("witness: an error", error)
  const published = new Map<string, Set<number>>()
  for (const { instrument_token, epoch, position } of log.ticks) {
    const name = `${instrument_token}/${epoch}`
    const positions = published.get(name) ?? new Set()
    published.set(name, positions.add(position))
  }
  let seen = 0
  for (const [token, received] of witness.checker.received) {
    for (const { epoch, position } of received) {
      seen++
      const positions = published.get(`${token}/${epoch}`)
      if (positions !== undefined && !positions.delete(position)) {
        problems.add("witness: twice or never published", `${token} ${epoch}/${position}`)
      }
      if (positions === undefined && !anew) problems.add("witness: an unknown epoch", `${token} ${epoch}/${position}`)
    }
  }
  const unseen = [...published.values()].reduce((n, positions) => n + positions.size, 0)
  if (unseen !== witness.checker.evicted) {
    const some = [...published].filter(([, positions]) => positions.size > 0).slice(0, 3)
    problems.add(
      "witness: not seen",
      `${unseen}, told evicted ${witness.checker.evicted}: ${some.map(([name, p]) => `${name} ${[...p].slice(0, 3)}`)}`
    )
  }

  const alarms = cluster.total("topology_order_alarms_total")
  if (alarms > 0) problems.add("order alarms", String(alarms))
  for (const alarm of cluster.alarms) problems.add("process", alarm)
  return {
    problems: problems.list,
    figures: {
      raw: log.raw,
      reached: expectedEver.size,
      published: log.ticks.length,
      repeats: log.repeats,
      rows: rows.length,
      poison: log.poison,
      letters: log.letters,
      seen,
      evicted: witness.checker.evicted,
      connections: witness.connections
    }
  }
}

/** Waits until every group has committed all there is, twice in a row; false where it does not come to that in time. */
export const drained = async (
  runtime: ManagedRuntime.ManagedRuntime<TickLog, unknown>,
  withinMs: number
): Promise<string | undefined> => {
  const until = Date.now() + withinMs
  let calm = 0
  let last = "nothing known"
  while (Date.now() < until) {
    const exit = await runtime.runPromiseExit(Effect.flatMap(TickLog, (log) => log.lag))
    const groups = exit._tag === "Success" ? exit.value : []
    const behind = groups.filter(({ records }) => records > 0)
    calm = groups.length > 0 && behind.length === 0 ? calm + 1 : 0
    if (calm >= 3) return undefined
    last = behind.map(({ group, partition, records }) => `${group}/${partition} ${records}`).join(", ")
    await new Promise((resolve) => setTimeout(resolve, 400))
  }
  return last
}
