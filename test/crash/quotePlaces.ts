/**
 * Decides whether every place that keeps quotes has the published ones once it is quiet, and as its newest none older than
 * the newest published: the store, Redis, the archive, and a server over REST and to a client that comes now.
 */
import { Effect, Layer, Stream } from "effect"
import { Redis } from "ioredis"
import pg from "pg"
import WebSocket from "ws"
import * as S3 from "../../src/layers/archive/S3.ts"
import { decodeQuote, type Quote, quoteFields } from "../../src/schema/Quote.ts"
import { tradingDate, tradingDay } from "../../src/schema/Tick.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import { optionsFor } from "../support/buckets.ts"
import type { S3Access } from "../support/services.ts"
import type { Problems } from "./problems.ts"
import { byStamp, isSame, newestQuotes, saidOf } from "./quotes.ts"

const ANSWERS_WITHIN_MS = 60_000

/** What a place has of one instrument and stamp; `said` where it keeps all that was said. */
interface Kept {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly said: Readonly<Record<string, string>>
}

const keptOf = (quote: Quote): Kept => ({ ...quote, said: saidOf({ ...quote }) })

/** Of a book the store keeps the best of each side, and of a side without one nothing. */
const bestOf = (said: Kept["said"]): Kept["said"] => {
  const best = (side: string | undefined): string | undefined => {
    const [level] = side === undefined ? [] : (JSON.parse(side) as ReadonlyArray<unknown>)
    return level === undefined ? undefined : JSON.stringify([level])
  }
  const { bid, ask, ...rest } = said
  const found = { bid: best(bid), ask: best(ask) }
  return {
    ...rest,
    ...(found.bid === undefined ? {} : { bid: found.bid }),
    ...(found.ask === undefined ? {} : { ask: found.ask })
  }
}

const inStore = async (url: string): Promise<ReadonlyArray<Kept>> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const micros = (column: string) => `(extract(epoch FROM ${column}) * 1000000)::bigint::text`
    const level = (side: string) =>
      `to_json(ARRAY[${side}_price, ${side}_quantity, ${side}_orders]::float8[]) AS ${side}`
    const others = Object.entries(quoteFields).flatMap(([name, { kind }]) =>
      kind === "levels" ? [] : [`${kind === "time" ? micros(name) : `${name}::text`} AS ${name}`]
    )
    const { rows } = await client.query<Record<string, unknown>>(
      `SELECT instrument_token, ${micros("exchange_ts")} AS exchange_ts, ${level("bid")}, ${level("ask")},
              ${others.join(", ")}, day_volume::text FROM quotes`
    )
    return rows.map(({ instrument_token, exchange_ts, bid, ask, ...rest }) => {
      const said = Object.entries(rest).filter(([, value]) => value !== null)
      const sides = Object.entries({ bid, ask }).filter(([, side]) => (side as ReadonlyArray<unknown>)[0] !== null)
      return {
        instrument_token: Number(instrument_token),
        exchange_ts: Number(exchange_ts),
        said: saidOf(
          Object.fromEntries([
            ...said.map(([name, value]) => [name, Number(value)]),
            ...sides.map(([name, side]) => [name, [side]])
          ])
        )
      }
    })
  } finally {
    await client.end()
  }
}

const inRedis = async (url: string, tokens: ReadonlyArray<number>): Promise<ReadonlyArray<Kept>> => {
  const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 1 })
  try {
    await redis.connect()
    const found: Array<Kept> = []
    for (const token of tokens) {
      const text = await redis.getBuffer(`quote:${token}`)
      const quote = text === null ? undefined : decodeQuote(text)
      if (quote !== undefined) found.push(keptOf(quote))
    }
    return found
  } finally {
    redis.disconnect()
  }
}

const inArchive = (access: S3Access, dates: ReadonlyArray<string>): Promise<ReadonlyArray<Kept>> =>
  Effect.gen(function* () {
    const archive = yield* Archive
    const found: Array<Kept> = []
    for (const date of dates) {
      yield* Stream.runForEach(archive.quotes(date, undefined), (quotes) =>
        Effect.sync(() => {
          for (const quote of quotes) found.push(keptOf(quote))
        })
      )
    }
    return found
  }).pipe(Effect.provide(Layer.fresh(S3.layer(optionsFor(access)))), Effect.scoped, Effect.runPromise)

interface Told {
  readonly instrument_token: number
  readonly exchange_ts: number
}

const toldOf = ({ instrument_token, exchange_ts, ...members }: Told): Kept => ({
  instrument_token,
  exchange_ts,
  said: saidOf(members)
})

/** Instruments of one request. */
const ASKED_AT_ONCE = 300

const overRest = async (url: string, tokens: ReadonlyArray<number>): Promise<ReadonlyArray<Kept>> => {
  const found: Array<Kept> = []
  for (let from = 0; from < tokens.length; from += ASKED_AT_ONCE) {
    const some = tokens.slice(from, from + ASKED_AT_ONCE)
    const answer = await fetch(`${url}/api/v1/quotes?tokens=${some.join()}`, {
      signal: AbortSignal.timeout(ANSWERS_WITHIN_MS)
    })
    if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`)
    const { quotes } = (await answer.json()) as {
      readonly quotes: ReadonlyArray<{ readonly instrument_token: number; readonly quote?: object }>
    }
    for (const { instrument_token, quote } of quotes) {
      if (quote !== undefined) found.push(toldOf({ ...quote, instrument_token } as Told))
    }
  }
  return found
}

/** What a client is told that subscribes now: the last of each instrument, once all have come or the time is over. */
const toClient = (url: string, tokens: ReadonlyArray<number>): Promise<ReadonlyArray<Kept>> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url.replace("http:", "ws:")}/ws`)
    const found = new Map<number, Kept>()
    const late = setTimeout(() => socket.close(), ANSWERS_WITHIN_MS)
    socket.on("open", () => socket.send(JSON.stringify({ action: "subscribe", tokens, channels: ["quote"] })))
    socket.on("message", (data: Buffer) => {
      const message = JSON.parse(data.toString()) as Told & { readonly type: string }
      if (message.type !== "quote") return
      found.set(message.instrument_token, toldOf(message))
      if (found.size === tokens.length) socket.close()
    })
    socket.on("error", reject)
    socket.on("close", () => {
      clearTimeout(late)
      resolve([...found.values()])
    })
  })

export interface QuotePlaces {
  readonly postgres: string
  readonly redis: string
  readonly s3: S3Access
  readonly server: string
  /** When Redis forgot all, ms; undefined: never. */
  readonly redisErasedAt: number | undefined
  /** The state of days was lost, or topics are gone: places may have more than is published now. */
  readonly isAnew: boolean
}

/** Settles every place; answers how many quotes each has. */
export const settleQuotePlaces = async (
  problems: Problems,
  published: ReadonlyArray<Quote>,
  publishedAt: { readonly get: (quote: Quote) => number | undefined },
  places: QuotePlaces
): Promise<Readonly<Record<string, number>>> => {
  const { isAnew, redisErasedAt } = places
  const all = byStamp(published)
  const newest = newestQuotes(published.filter(({ old }) => !old))
  const tokens = [...newest.keys()]
  const dates = [...new Set(published.map(({ exchange_ts }) => tradingDate(tradingDay(exchange_ts))))]
  const figures: Record<string, number> = {}

  const read = async (what: string, found: () => Promise<ReadonlyArray<Kept>>): Promise<ReadonlyArray<Kept>> => {
    try {
      const kept = await found()
      figures[what] = kept.length
      return kept
    } catch (error) {
      problems.add(`quotes, ${what}: not to be read`, String(error))
      return []
    }
  }

  /** Of a place that keeps each stamp. */
  const settleAll = async (
    what: string,
    found: () => Promise<ReadonlyArray<Kept>>,
    shown = (said: Kept["said"]) => said
  ) => {
    const seen = new Set<string>()
    const last = new Map<number, number>()
    for (const { instrument_token, exchange_ts, said } of await read(what, found)) {
      const key = `${instrument_token}/${exchange_ts}`
      if (seen.has(key)) problems.add(`quotes, ${what}: twice`, key)
      seen.add(key)
      last.set(instrument_token, Math.max(last.get(instrument_token) ?? 0, exchange_ts))
      const meant = all.get(key)
      if (meant === undefined) {
        if (!isAnew) problems.add(`quotes, ${what}: never published`, key)
      } else if (!isAnew && !isSame(said, shown(saidOf({ ...meant })))) {
        problems.add(`quotes, ${what}: altered`, `${key} ${JSON.stringify(said)}`)
      }
    }
    for (const key of all.keys()) if (!isAnew && !seen.has(key)) problems.add(`quotes, ${what}: lost`, key)
    for (const [token, { exchange_ts }] of newest) {
      if ((last.get(token) ?? 0) < exchange_ts)
        problems.add(`quotes, ${what}: an older one is the newest`, String(token))
    }
  }

  /** Of a place that keeps the newest alone; `mayLack`: it need not have it. */
  const settleNewest = async (
    what: string,
    found: () => Promise<ReadonlyArray<Kept>>,
    mayLack: (quote: Quote) => boolean = () => false
  ) => {
    const kept = new Map((await read(what, found)).map((one) => [one.instrument_token, one]))
    for (const [token, quote] of newest) {
      const one = kept.get(token)
      if (one === undefined) {
        if (!mayLack(quote)) problems.add(`quotes, ${what}: none`, String(token))
      } else if (one.exchange_ts < quote.exchange_ts) {
        problems.add(`quotes, ${what}: older than the newest`, `${token} ${one.exchange_ts} < ${quote.exchange_ts}`)
      } else if (!isAnew && !(one.exchange_ts === quote.exchange_ts && isSame(one.said, saidOf({ ...quote })))) {
        problems.add(`quotes, ${what}: altered`, `${token} ${one.exchange_ts} ${JSON.stringify(one.said)}`)
      }
    }
  }

  await settleAll("store", () => inStore(places.postgres), bestOf)
  await settleAll("archive", () => inArchive(places.s3, dates))
  const isErased = (quote: Quote) => redisErasedAt !== undefined && publishedAt.get(quote)! <= redisErasedAt
  await settleNewest("Redis", () => inRedis(places.redis, tokens), isErased)
  await settleNewest("REST", () => overRest(places.server, tokens))
  await settleNewest("a new client", () => toClient(places.server, tokens))
  return figures
}
