/**
 * Decides whether the account is closed: everything that was sent, settled against `raw_ticks`, `normalized_ticks` as a
 * reader with the mark filter sees it, PostgreSQL, the candles that REST answers, Redis's rings, the archive, the DLQ and
 * a client. One oracle for every fault.
 */
import { createReadStream } from "node:fs"
import { createInterface } from "node:readline"
import { Effect, Layer, type ManagedRuntime, Stream } from "effect"
import { Redis } from "ioredis"
import pg from "pg"
import * as S3 from "../../src/layers/archive/S3.ts"
import { decodeQuote, type Quote } from "../../src/schema/Quote.ts"
import { type Tick, tradingDate, tradingDay } from "../../src/schema/Tick.ts"
import { decodeTick } from "../../src/schema/TickJson.ts"
import { MarkTracker } from "../../src/streams/log/bookmark.ts"
import { BATCH_HEADER, KIND_HEADER, QUOTE_KIND } from "../../src/streams/log/headers.ts"
import { type LogRecord, TickLog, type Topic } from "../../src/streams/log/TickLog.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import { keysIn, optionsFor } from "../support/buckets.ts"
import { type Bar, type BarTick, barsOf } from "../support/candles.ts"
import type { S3Access } from "../support/services.ts"
import type { Cluster } from "./cluster.ts"
import { POISON_HEADER } from "./injector.ts"
import { Problems } from "./problems.ts"
import { settleQuotePlaces } from "./quotePlaces.ts"
import { meantQuotes, settlePublished } from "./quotes.ts"
import type { Witness } from "./witness.ts"

/** A tick that was meant, and the feeds that it reached. */
export interface Meant {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly price: number
  readonly volume: number
  readonly sequence_id: number
  readonly reached: ReadonlyArray<string>
  /** What the snapshot feed had beside it, `day_volume` among its members where that feed says one. */
  readonly quote?: Readonly<Record<string, unknown>>
}

export const readLedger = async (path: string): Promise<ReadonlyArray<Meant>> => {
  const meant: Array<Meant> = []
  for await (const line of createInterface({ input: createReadStream(path) })) meant.push(JSON.parse(line) as Meant)
  return meant
}

/** What is told apart of a tick. */
export type Fields = Pick<Meant, "instrument_token" | "exchange_ts" | "sequence_id" | "price" | "volume">
export const keyOf = (tick: Pick<Meant, "instrument_token" | "exchange_ts" | "sequence_id">): string =>
  `${tick.instrument_token}/${tick.sequence_id}/${tick.exchange_ts}`

/** All that a topic holds, by partition. */
export const all = (topic: Topic) =>
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

export type Place = "normalized_ticks" | "store" | "archive"

/** What topics held when they were taken away: what nobody had processed by then may be lost, and nothing else. */
export interface TakenAway {
  /** Given all that `normalized_ticks` holds now: whether a tick that was meant need not be there, or in a sink. */
  readonly mayLack: (published: ReadonlyArray<Tick>) => (where: Place, tick: Meant) => boolean
  /**
   * Set where `normalized_ticks` is gone: the life that `raw_ticks` was in. What was under way from it may come into the
   * new `normalized_ticks`, in the midst of its epoch, where the broker knows topics by their names only.
   */
  readonly underWayFrom?: string | undefined
  /** Both are gone: what was published before, nobody knows any more but the claims. */
  readonly isForgotten?: boolean
  /** Raw records that are not held any more. */
  readonly raw: ReadonlyArray<ReadonlyArray<LogRecord>>
  /** Whether a poison record among them need not be in the DLQ. */
  readonly mayLackPoison: (record: LogRecord) => boolean
}

/** Who reads the log, and knows what poison was sent, if any was. */
export interface Reader {
  readonly runtime: ManagedRuntime.ManagedRuntime<TickLog, unknown>
  readonly wasSent?: (value: Uint8Array | null) => boolean
}

export interface Expected {
  /** All that reached a feed. */
  readonly meant: ReadonlyArray<Meant>
  /** Set where the instruments' days began anew, and so have more than one epoch. */
  readonly takenAway?: TakenAway | undefined
  /** Whose bars are asked for; all unless said. */
  readonly hasBars?: (token: number) => boolean
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
  found: Iterable<Fields>,
  mayLack: (tick: Meant) => boolean
): { readonly lacking: number } => {
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
  let lacking = 0
  for (const [key, tick] of expected) {
    if (seen.has(key)) continue
    if (mayLack(tick)) lacking++
    else problems.add(`${what}: lost`, key)
  }
  return { lacking }
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

const byToken = (ticks: ReadonlyArray<Tick>): ReadonlyMap<number, ReadonlyArray<Tick>> =>
  Map.groupBy(ticks, ({ instrument_token }) => instrument_token)

/** Ticks that a ring keeps; a list may be a little longer before it is cut. */
const RING_TICKS = 1000

/**
 * Each instrument's ring: its newest ticks in the order in which they were published, none left out. It reaches back
 * 1,000 ticks, or to the time at which Redis forgot all (`since`), or at least to the oldest that `normalized_ticks` has.
 */
const settleRings = async (
  problems: Problems,
  url: string,
  published: ReadonlyArray<Tick>,
  publishedAt: { readonly get: (tick: Tick) => number | undefined },
  since: number | undefined,
  isAnew: boolean
): Promise<number> => {
  const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 1 })
  let kept = 0
  try {
    await redis.connect()
    for (const [token, ticks] of byToken(published.filter(({ old }) => !old))) {
      const ring = (await redis.lrangeBuffer(`ring:${token}`, -RING_TICKS, -1)).map(decodeTick)
      kept += ring.length
      for (let back = 1; back <= ring.length; back++) {
        const found = ring.at(-back)
        const meant = ticks.at(-back)
        const place = `${token} ${found?.epoch}/${found?.position}, ${back} before the end`
        if (found === undefined) problems.add("ring: unreadable", place)
        else if (meant === undefined) {
          // What a topic held that is gone: in order, and before what it holds now.
          const after = ring.at(1 - back)
          const isBefore =
            after !== undefined &&
            (found.epoch < after.epoch || (found.epoch === after.epoch && found.position < after.position))
          if (!isAnew || !isBefore) problems.add("ring: never published", place)
        } else if (
          keyOf(found) !== keyOf(meant) ||
          found.epoch !== meant.epoch ||
          found.position !== meant.position ||
          found.price !== meant.price ||
          found.volume !== meant.volume ||
          found.status !== meant.status
        ) {
          problems.add("ring: another tick", `${place}: published ${keyOf(meant)} ${meant.epoch}/${meant.position}`)
          break
        }
      }
      const sinceErased = since === undefined ? ticks : ticks.filter((tick) => publishedAt.get(tick)! > since)
      const least = Math.min(RING_TICKS, sinceErased.length)
      if (ring.length < least) problems.add("ring: too short", `${token} has ${ring.length} of ${least}`)
    }
  } catch (error) {
    problems.add("ring: not to be read", String(error))
  } finally {
    redis.disconnect()
  }
  return kept
}

const INTERVALS = [
  ["1m", 1],
  ["5m", 5]
] as const

const ASKS = 5

/** Asked again where there was no answer: the connection may be one to a server that was killed. */
const get = async (url: string): Promise<{ readonly status: number; readonly text: string }> => {
  for (let asked = 1; ; asked++) {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(30_000) })
      return { status: answer.status, text: await answer.text() }
    } catch (error) {
      if (asked === ASKS) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

/** What REST answers equals a recompute from what was meant, in the order of the places it was given. */
const settleCandles = async (problems: Problems, url: string, ticks: ReadonlyMap<number, ReadonlyArray<BarTick>>) => {
  let bars = 0
  for (const [token, mine] of ticks) {
    let [first, last] = [Number.POSITIVE_INFINITY, 0]
    for (const { exchange_ts } of mine) {
      if (exchange_ts < first) first = exchange_ts
      if (exchange_ts > last) last = exchange_ts
    }
    const range = `from=${first - 3_600_000_000}&to=${last + 3_600_000_000}`
    for (const [interval, minutes] of INTERVALS) {
      const path = `/api/v1/historical/candles?instrument_token=${token}&interval=${interval}&${range}&limit=10000`
      try {
        const { status, text } = await get(`${url}${path}`)
        if (status !== 200) throw new Error(`${status} ${text}`)
        const { candles } = JSON.parse(text) as { readonly candles: ReadonlyArray<Bar> }
        const found = candles.map(({ ts, open, high, low, close, volume }) => ({ ts, open, high, low, close, volume }))
        const meant = barsOf(mine, minutes)
        bars += found.length
        for (let i = 0; i < Math.max(found.length, meant.length); i++) {
          if (JSON.stringify(found[i]) === JSON.stringify(meant[i])) continue
          problems.add(
            `candles ${interval}: not a recompute`,
            `${token} ${JSON.stringify(found[i])}, recomputed ${JSON.stringify(meant[i])}`
          )
          break
        }
      } catch (error) {
        problems.add("candles: no answer", `${path} ${error}`)
      }
    }
  }
  return bars
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
    const [, kind, date, name, first, last] =
      /^(ticks|quotes)\/date=([^/]+)\/(.+)-(\d+)-(\d+)\.parquet$/.exec(key) ?? []
    // What was joined of a day that has closed is no range of its own.
    if (date === undefined || /^(joined|store)-/.test(name!)) continue
    if (!manifests.has(`manifests/${name}-${first}.json`)) found.push(`${key} has no manifest`)
    const known = ranges.get(`${kind} ${name} ${date}`) ?? new Map<number, number>()
    ranges.set(`${kind} ${name} ${date}`, known)
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

/** Poison by where it stood in `raw_ticks`. An offset may have been given twice, where the topic was recreated. */
const poisonIn = (topics: ReadonlyArray<ReadonlyArray<ReadonlyArray<LogRecord>>>) => {
  const found = new Map<string, Array<LogRecord>>()
  for (const raw of topics) {
    for (const [partition, records] of raw.entries()) {
      for (const record of records) {
        if (record.headers?.[POISON_HEADER] === undefined && record.unreadable === undefined) continue
        const origin = `${partition}/${record.offset}`
        const known = found.get(origin)
        if (known === undefined) found.set(origin, [record])
        else if (!known.some(({ recordTime }) => recordTime === record.recordTime)) known.push(record)
      }
    }
  }
  return found
}

const isSame = (a: Uint8Array | null, b: Uint8Array | null): boolean =>
  a === null || b === null ? a === b : Buffer.compare(a, b) === 0

const settleLog = async (
  problems: Problems,
  reader: Reader,
  expected: ReadonlyMap<string, Meant>,
  takenAway: TakenAway | undefined
) => {
  const isAnew = takenAway !== undefined
  const [raw, normalized, dlq] = await reader.runtime.runPromise(
    Effect.all([all("raw_ticks"), all("normalized_ticks"), all("raw_ticks_dlq")])
  )
  const gone = new Set((takenAway?.raw ?? []).flat())
  const poison = poisonIn([takenAway?.raw ?? [], raw])

  // Normalized: as any reader takes it in.
  const ticks: Array<Tick> = []
  const quotes: Array<Quote> = []
  const publishedAt = new Map<Tick | Quote, number>()
  let repeats = 0
  for (const [partition, records] of normalized.entries()) {
    const tracker = new MarkTracker(undefined)
    const bySource = new Map<string, string>()
    const places = new Map<string, { epoch: number; position: number }>()
    const ofPartition: Array<Quote> = []
    for (const { value, headers, offset, recordTime } of records) {
      const isQuote = headers?.[KIND_HEADER] === QUOTE_KIND
      const packet = value === null ? undefined : isQuote ? decodeQuote(value) : decodeTick(value)
      if (packet === undefined) {
        problems.add("normalized_ticks: unreadable", `${partition}/${offset}`)
        continue
      }
      const source = packet.source.join("/")
      const text = Buffer.from(value!).toString()
      const before = bySource.get(source)
      if (before !== undefined && before !== text) {
        problems.add("normalized_ticks: run again with another outcome", `${before} then ${text}`)
      }
      bySource.set(source, text)
      if (!tracker.take(packet.source)) {
        repeats++
        if (before === undefined)
          problems.add("normalized_ticks: a new source below the mark", `${partition}/${offset}`)
        continue
      }
      publishedAt.set(packet, recordTime / 1000)
      if (isQuote) {
        ofPartition.push(packet as Quote)
        continue
      }
      const tick = packet as Tick
      ticks.push(tick)
      const day = `${tick.instrument_token}/${tradingDay(tick.exchange_ts)}`
      const place = places.get(day)
      const at = `${day} ${tick.epoch}/${tick.position} after ${place?.epoch}/${place?.position}`
      if (place === undefined || tick.epoch > place.epoch) {
        const isUnderWay = place === undefined && tick.source[0] === takenAway?.underWayFrom
        if (tick.position !== 1 && !isUnderWay) problems.add("normalized_ticks: an epoch does not begin at 1", at)
        if (place !== undefined && !isAnew) problems.add("normalized_ticks: a new epoch", at)
      } else if (tick.epoch !== place.epoch || tick.position !== place.position + 1) {
        problems.add("normalized_ticks: positions do not follow on", at)
      }
      places.set(day, { epoch: tick.epoch, position: tick.position })
    }
    quotes.push(...ofPartition)
    // Where state was lost, what was known of the day before went with it.
    if (!isAnew) settlePublished(problems, partition, meantQuotes(raw[partition]!, partition, raw.length), ofPartition)
  }
  const mayLack = takenAway?.mayLack(ticks) ?? (() => false)
  const isUnderWay = ({ source }: Tick) => source[0] === takenAway?.underWayFrom
  const own = new Set(ticks.filter((tick) => !isUnderWay(tick)).map(keyOf))
  const again = new Set(takenAway?.isForgotten ? ticks.filter((tick) => isUnderWay(tick) && own.has(keyOf(tick))) : [])
  const { lacking } = holds(
    problems,
    "normalized_ticks",
    expected,
    ticks.filter((tick) => !again.has(tick)),
    (tick) => mayLack("normalized_ticks", tick)
  )

  // DLQ: by where each came from, repeats of the same origin taken as one.
  const dead = new Map<string, Array<Uint8Array | null>>()
  let letters = 0
  for (const record of dlq.flat()) {
    letters++
    const origin = `${record.headers?.partition}/${record.headers?.offset}`
    const known = dead.get(origin)
    if (known === undefined) dead.set(origin, [record.value])
    else known.push(record.value)
    const origins = poison.get(origin)
    if (origins?.some(({ value }) => isSame(value, record.value))) continue
    // It came into a topic after that was looked at for the last time.
    if (isAnew && (reader.wasSent?.(record.value) || record.headers?.[BATCH_HEADER] !== undefined)) continue
    if (origins === undefined) problems.add("DLQ: no poison", `${origin} ${record.headers?.reason}`)
    else problems.add("DLQ: other bytes", origin)
  }
  for (const [origin, origins] of poison) {
    for (const record of origins) {
      if (dead.get(origin)?.some((value) => isSame(value, record.value))) continue
      if (gone.has(record) && takenAway?.mayLackPoison(record)) continue
      problems.add("DLQ: poison is missing", origin)
    }
  }
  return {
    ticks,
    quotes,
    again,
    publishedAt,
    mayLack,
    repeats,
    raw: raw.flat().length,
    poison: poison.size,
    letters,
    lacking
  }
}

/** Settles everything; the pipeline must be drained. */
export const settle = async (
  cluster: Cluster,
  reader: Reader,
  { meant, takenAway, hasBars = () => true }: Expected,
  witness: Witness,
  access: S3Access,
  serverUrl: string
): Promise<Settled> => {
  const problems = new Problems()
  const expected = byKey(meant)
  const isAnew = takenAway !== undefined
  const log = await settleLog(problems, reader, expected, takenAway)

  // Store: each tick once, with the place that normalized_ticks gave it.
  const rows = await rowsOf(cluster.postgres.url())
  const stored = rows.map((row) => ({
    ...row,
    exchange_ts: Number(row.exchange_ts),
    sequence_id: Number(row.sequence_id),
    price: Number(row.price),
    volume: Number(row.volume)
  }))
  const { lacking } = holds(problems, "store", expected, stored, (tick) => log.mayLack("store", tick))
  const places = new Map(stored.map((row) => [keyOf(row), `${row.epoch}/${row.position}`]))
  const known = new Set([...log.again].map(keyOf))
  for (const tick of log.ticks) {
    if (known.has(keyOf(tick))) continue
    const place = places.get(keyOf(tick))
    if (takenAway?.isForgotten && Number(place?.split("/")[0]) < tick.epoch) continue
    if (place !== undefined && place !== `${tick.epoch}/${tick.position}`) {
      problems.add("store: another position", `${keyOf(tick)} ${place}, published ${tick.epoch}/${tick.position}`)
    }
  }

  // Candles: of what was meant and is stored, which was just seen to be the same.
  const placed = new Map(log.ticks.map((tick) => [keyOf(tick), tick]))
  const barTicks = new Map<number, Array<BarTick>>()
  for (const row of stored) {
    const tick = expected.get(keyOf(row))
    if (tick === undefined || !hasBars(tick.instrument_token)) continue
    const at = placed.get(keyOf(row))
    const epoch = at?.epoch ?? (row.epoch === null ? null : Number(row.epoch))
    const position = at?.position ?? (row.position === null ? null : Number(row.position))
    const mine = barTicks.get(tick.instrument_token)
    if (mine === undefined) barTicks.set(tick.instrument_token, [{ ...tick, epoch, position }])
    else mine.push({ ...tick, epoch, position })
  }
  const bars = await settleCandles(problems, serverUrl, barTicks)

  const inRings = await settleRings(
    problems,
    cluster.redis.url(),
    log.ticks,
    log.publishedAt,
    cluster.redisErasedAt,
    isAnew
  )

  const dates = [...new Set(meant.map(({ exchange_ts }) => tradingDate(tradingDay(exchange_ts))))]
  const rowsArchived = await Effect.runPromise(archived(access, dates))
  holds(problems, "archive", expected, rowsArchived, (tick) => log.mayLack("archive", tick))

  const inPlaces = await settleQuotePlaces(problems, log.quotes, log.publishedAt, {
    postgres: cluster.postgres.url(),
    redis: cluster.redis.url(),
    s3: access,
    server: serverUrl,
    redisErasedAt: cluster.redisErasedAt,
    isAnew
  })

  for (const problem of overlaps(await keysIn(access))) problems.add("archive: ranges", problem)

  // The client: every place of every instrument once, or told that it was evicted.
  if (witness.broken !== undefined) problems.add("witness: the rule is broken", String(witness.broken))
  for (const error of witness.checker.errors) problems.add("witness: an error", error)
  const published = new Map<string, Set<number>>()
  const begin = new Map<string, number>()
  for (const { instrument_token, epoch, position } of log.ticks) {
    const name = `${instrument_token}/${epoch}`
    const positions = published.get(name) ?? new Set()
    published.set(name, positions.add(position))
    if (!begin.has(name)) begin.set(name, position)
  }
  let seen = 0
  for (const [token, received] of witness.checker.received) {
    for (const { epoch, position } of received) {
      seen++
      const name = `${token}/${epoch}`
      const positions = published.get(name)
      if (takenAway?.underWayFrom !== undefined && position < (begin.get(name) ?? 1)) continue
      if (positions !== undefined && !positions.delete(position)) {
        problems.add("witness: twice or never published", `${token} ${epoch}/${position}`)
      }
      if (positions === undefined && !isAnew) problems.add("witness: an unknown epoch", `${token} ${epoch}/${position}`)
    }
  }
  const unseen = [...published.values()].reduce((n, positions) => n + positions.size, 0)
  // What only the deleted topic held it is told to have missed.
  const isTold = takenAway?.underWayFrom !== undefined && witness.checker.evicted > unseen
  if (unseen !== witness.checker.evicted && !isTold) {
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
      reached: expected.size,
      published: log.ticks.length,
      quotes: log.quotes.length,
      ...Object.fromEntries(Object.entries(inPlaces).map(([place, n]) => [`quotes in ${place}`, n])),
      repeats: log.repeats,
      rows: rows.length,
      bars,
      inRings,
      poison: log.poison,
      letters: log.letters,
      seen,
      evicted: witness.checker.evicted,
      connections: witness.connections,
      ...(isAnew ? { gone: log.lacking, goneFromStore: lacking } : {})
    }
  }
}

/**
 * Waits until every group has committed all there is, three times in a row; says who is behind where a group and
 * partition that is behind has come no further for so long: one that is slow gets there.
 */
export const drained = async (
  runtime: ManagedRuntime.ManagedRuntime<TickLog, unknown>,
  withinMs: number
): Promise<string | undefined> => {
  const least = new Map<string, { readonly records: number; readonly at: number }>()
  let heardAt = Date.now()
  let calm = 0
  let last = "nothing known"
  for (;;) {
    const exit = await runtime.runPromiseExit(Effect.flatMap(TickLog, (log) => log.lag))
    const groups = exit._tag === "Success" ? exit.value : []
    const behind = groups.filter(({ records }) => records > 0)
    calm = groups.length > 0 && behind.length === 0 ? calm + 1 : 0
    if (calm >= 3) return undefined
    const now = Date.now()
    if (groups.length > 0) {
      heardAt = now
      last = behind.map(({ group, partition, records }) => `${group}/${partition} ${records}`).join(", ")
    }
    const names = new Set<string>()
    for (const { group, partition, records } of behind) {
      const name = `${group}/${partition}`
      names.add(name)
      if (records < (least.get(name)?.records ?? Number.POSITIVE_INFINITY)) least.set(name, { records, at: now })
      if (now - least.get(name)!.at > withinMs) return last
    }
    for (const name of least.keys()) if (!names.has(name)) least.delete(name)
    if (now - heardAt > withinMs) return last
    await new Promise((resolve) => setTimeout(resolve, 400))
  }
}
