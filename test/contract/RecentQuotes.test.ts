/** Decides, for whatever keeps latest quotes, which of several it keeps. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Schema } from "effect"
import * as MemoryRecentQuotes from "../../src/layers/memory/MemoryRecentQuotes.ts"
import { RedisConnection } from "../../src/layers/redis/connection.ts"
import * as RedisRecentQuotes from "../../src/layers/redis/RedisRecentQuotes.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import type { Quote } from "../../src/schema/Quote.ts"
import { RecentQuotes } from "../../src/streams/ports/RecentQuotes.ts"
import { redisLayer } from "../support/redis.ts"
import { redisUrl } from "../support/services.ts"
import { makeQuote, OPEN } from "./ticks.ts"

const url = await redisUrl()
const redis = redisLayer(url ?? "")
const inRedis = RedisRecentQuotes.layer({ keep: "1 hour" })

const layers: ReadonlyArray<{
  readonly name: string
  readonly isMissing: boolean
  readonly layer: Layer.Layer<RecentQuotes, StartError>
}> = [
  { name: "memory", isMissing: false, layer: MemoryRecentQuotes.layer() },
  { name: "Redis", isMissing: url === undefined, layer: Layer.provide(inRedis, redis) }
]

const at = (stamp: number, source: Quote["source"], given: Partial<Quote> = {}): Quote =>
  makeQuote({ instrument_token: 1, exchange_ts: OPEN + stamp, source, ...given })

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Put = Schema.Struct({
  token: int(1, 2),
  stamp: int(0, 2),
  offset: int(0, 3),
  old: Schema.Boolean
})
/** From so many quotes on they are of another incarnation of the log: one that was left never comes back. */
const anew = Arbitrary.schema(int(0, 30))
const puts = Arbitrary.array(Schema.Array(Put).pipe(Arbitrary.schema), { maxLength: 20 })

for (const { name, layer, isMissing } of layers) {
  describe.skipIf(isMissing)(`RecentQuotes on ${name}`, () => {
    it.effect("answers the quotes of the instruments asked for, whole as they were put", () =>
      Effect.gen(function* () {
        const { put, latest } = yield* RecentQuotes
        const full = at(0, ['raw "☂"', 9_007_199_254_740_991, 1], {
          bid: [
            [83.1234567, 5_000_000_000, 2],
            [83.1, 1, 0]
          ],
          ask: [],
          oi: 0,
          last_trade_ts: OPEN - 1,
          day_volume: 7,
          feed: 'snapshot "☂"'
        })
        const other = at(5, ["raw-1", 3, 1], { instrument_token: 2 })
        yield* put([full, other])
        assert.deepStrictEqual(
          yield* latest([1, 3, 2]),
          new Map([
            [1, full],
            [2, other]
          ])
        )
        assert.deepStrictEqual(yield* latest([3]), new Map())
        assert.deepStrictEqual(yield* latest([]), new Map())
        yield* put([])
      }).pipe(Effect.provide(layer))
    )

    it.effect(
      "never goes back: a later stamp stays, of one stamp the higher source, and nothing of old days comes",
      () =>
        Effect.gen(function* () {
          const { put, latest } = yield* RecentQuotes
          const kept = at(2, ["raw-1", 5, 1])
          yield* put([kept])
          yield* put([at(1, ["raw-1", 9, 1]), at(1, ["raw-2", 9, 1])])
          yield* put([at(2, ["raw-1", 4, 1])])
          yield* put([at(9, ["raw-1", 9, 1], { old: true })])
          assert.deepStrictEqual((yield* latest([1])).get(1), kept)
          const higher = at(2, ["raw-1", 6, 1])
          yield* put([higher])
          assert.deepStrictEqual((yield* latest([1])).get(1), higher)
          // Sources of two topics do not compare: what comes is the newer.
          const anew = at(2, ["raw-2", 0, 1])
          yield* put([anew])
          assert.deepStrictEqual((yield* latest([1])).get(1), anew)
        }).pipe(Effect.provide(layer))
    )

    it.effect.prop(
      "keeps what it would keep of them one by one, however they are put together",
      [puts, anew],
      ([batches, another]) =>
        Effect.gen(function* () {
          const [together, apart] = [yield* RecentQuotes, yield* RecentQuotes]
          let made = 0
          // Instruments of two worlds, of which one gets them in batches and one alone.
          const quote = (q: typeof Put.Type) =>
            at(q.stamp, [made++ < another ? "raw-1" : "raw-2", q.offset, 1], {
              instrument_token: q.token,
              old: q.old,
              last_quantity: made
            })
          const elsewhere = (q: Quote): Quote => ({ ...q, instrument_token: q.instrument_token + 100 })
          for (const batch of batches) {
            const quotes = batch.map(quote)
            yield* together.put(quotes)
            for (const one of quotes) yield* apart.put([elsewhere(one)])
          }
          const [both, alone] = [yield* together.latest([1, 2]), yield* apart.latest([101, 102])]
          assert.deepStrictEqual([...both.values()].map(elsewhere), [...alone.values()])
        }).pipe(Effect.provide(layer, { local: true })),
      { arbitrary: { runs: 30 } }
    )
  })
}

describe("RecentQuotes in memory", () => {
  it.effect("is full at so many instruments: those silent longest go", () =>
    Effect.gen(function* () {
      const { put, latest } = yield* RecentQuotes
      const of = (token: number, stamp = 0) => at(stamp, ["raw-1", stamp, 1], { instrument_token: token })
      yield* put([of(1), of(2)])
      yield* put([of(1, 1)])
      yield* put([of(3)])
      assert.deepStrictEqual([...(yield* latest([1, 2, 3])).keys()], [1, 3])
    }).pipe(Effect.provide(MemoryRecentQuotes.layer({ instruments: 2 })))
  )
})

describe.skipIf(url === undefined)("RecentQuotes in Redis", () => {
  it.effect("takes the place of what is no quote, passes it over when asked, and lets each key end", () =>
    Effect.gen(function* () {
      const { ask, prefix } = yield* RedisConnection
      const { put, latest } = yield* RecentQuotes
      yield* ask("foreign", async ({ client }) => {
        await client.set(`${prefix}quote:1`, "no quote")
        await client.rpush(`${prefix}quote:2`, "a list")
        await client.set(`${prefix}quote:3`, "{}")
      })
      assert.deepStrictEqual(yield* latest([1, 2, 3]), new Map())
      const [one, two] = [at(0, ["raw-1", 0, 1]), at(0, ["raw-1", 0, 1], { instrument_token: 2 })]
      yield* put([one, two])
      assert.deepStrictEqual(
        yield* latest([1, 2, 3]),
        new Map([
          [1, one],
          [2, two]
        ])
      )
      const left = yield* ask("ttl", ({ client }) => client.ttl(`${prefix}quote:2`))
      assert.isTrue(left > 0 && left <= 3600, `${left}`)
    }).pipe(Effect.provide(Layer.provideMerge(inRedis, redis)))
  )
})
