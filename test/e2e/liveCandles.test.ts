import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { CandleFrame } from "../../src/schema/Protocol.ts"
import { LONG_MS } from "../support/guards.ts"
import { randomFrom } from "../support/hub.ts"
import { withinOneDay } from "../support/oneDay.ts"
import { folder, getJson, getLines, type Mdp, start, startInstance } from "../support/processes.ts"
import { isInstalled, ownKafka, ownPostgres, ownRedis } from "../support/services.ts"
import { connect, type TestClient } from "../support/webSocketServer.ts"

const isMissing = !(["kafka", "redis", "postgres"] as const).map(isInstalled).every((is) => is)
const TOKENS = [738_561, 256_265, 408_065]
const MINUTE = 60_000_000
const ALL = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
/** A guard against a hang: what is waited for comes within seconds. */
const GUARD = "2 minutes"

interface RawTick {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly price: number
  readonly volume: number
  readonly sequence_id: number
}

/** A feed whose ticks come in time, a few seconds late and out of order, minutes late, a day late, and twice. */
class Feed {
  readonly sent: Array<RawTick> = []
  private readonly random = randomFrom(7)
  private readonly numbers = new Map<number, number>(TOKENS.map((token) => [token, 0]))

  tick(token: number, exchange_ts: number): RawTick {
    const sequence_id = this.numbers.get(token)! + 1
    this.numbers.set(token, sequence_id)
    const { random } = this
    return {
      instrument_token: token,
      exchange_ts,
      price: 100 + random.below(400) / 20,
      volume: random.below(9),
      sequence_id
    }
  }

  batch(): ReadonlyArray<RawTick> {
    const { random } = this
    const now = Date.now() * 1000
    const ticks = TOKENS.flatMap((token) =>
      Array.from({ length: random.below(6) }, () => {
        // Whole milliseconds and few of them: some stamps are the same.
        const late = random.chance(0.2) ? random.below(8) * 1_000_000 : 0
        const later = random.chance(0.03) ? (1 + random.below(40)) * MINUTE : random.chance(0.005) ? 1440 * MINUTE : 0
        return this.tick(token, Math.floor((now - late - later) / 50_000) * 50_000)
      })
    )
    const again = random.chance(0.2) && this.sent.length > 0 ? [this.sent[random.below(this.sent.length)]!] : []
    this.sent.push(...ticks)
    return [...ticks, ...again]
  }
}

const post = (url: string, ticks: ReadonlyArray<RawTick>) =>
  Effect.promise(async () => {
    const answer = await fetch(`${url}/api/v1/ingest`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: ticks.map((tick) => JSON.stringify(tick)).join("\n")
    })
    const text = await answer.text()
    assert.strictEqual(answer.status, 200, text)
    assert.deepInclude(JSON.parse(text), { accepted: ticks.length })
  })

const feedFor = (feed: Feed, url: string, batches: number) =>
  Effect.forEach(
    Array.from({ length: batches }),
    () =>
      Effect.suspend(() => {
        const ticks = feed.batch()
        return ticks.length === 0 ? Effect.void : post(url, ticks)
      }).pipe(Effect.andThen(Effect.sleep("40 millis"))),
    { discard: true }
  )

/** Waits until the store has every tick once. */
const untilStored = (url: string, feed: Feed) =>
  Effect.forEach(TOKENS, (token) =>
    getLines(`${url}/api/v1/historical/ticks?instrument_token=${token}&${ALL}`).pipe(
      Effect.map((ticks) => ticks.length),
      Effect.orElseSucceed(() => 0)
    )
  ).pipe(
    Effect.repeat({
      until: (counts) => counts.reduce((sum, count) => sum + count, 0) === feed.sent.length,
      schedule: Schedule.spaced("200 millis")
    }),
    Effect.timeout(GUARD)
  )

type Bars = ReadonlyMap<string, Omit<CandleFrame, "type">>

/** Every bar as REST answers it, with the number of its ticks. */
const restOf = (url: string): Effect.Effect<Bars, Error> =>
  Effect.gen(function* () {
    const bars = new Map<string, Omit<CandleFrame, "type">>()
    for (const token of TOKENS) {
      const ticks = yield* getLines(`${url}/api/v1/historical/ticks?instrument_token=${token}&${ALL}`)
      for (const interval of ["1m", "5m"] as const) {
        const width = interval === "1m" ? MINUTE : 5 * MINUTE
        const query = `instrument_token=${token}&interval=${interval}&${ALL}`
        const { candles } = (yield* getJson(`${url}/api/v1/historical/candles?${query}`)) as {
          readonly candles: ReadonlyArray<CandleFrame>
        }
        for (const { ts, open, high, low, close, volume, final } of candles) {
          const revision = ticks.filter((tick) => {
            const at = tick.exchange_ts as number
            return at >= ts && at < ts + width
          }).length
          const bar = { instrument_token: token, interval, ts, open, high, low, close, volume, revision, final }
          bars.set(`${token} ${interval} ${ts}`, bar)
        }
      }
    }
    return bars
  })

const sentTo = (client: TestClient): Bars =>
  new Map([...client.checker.candles].map(([key, { type, ...bar }]) => [key, bar]))

/** Waits until the last revision of every bar that a client was sent is what REST answers, and answers how many there are. */
const untilAsRest = (url: string, client: TestClient) =>
  Effect.gen(function* () {
    const rest = yield* restOf(url)
    const sent = sentTo(client)
    const wrong = [...sent].filter(([key, bar]) => JSON.stringify(bar) !== JSON.stringify(rest.get(key)))
    return { wrong: wrong.map(([key, bar]) => [bar, rest.get(key)]), bars: sent.size }
  }).pipe(
    Effect.repeat({ until: ({ wrong }) => wrong.length === 0, schedule: Schedule.spaced("200 millis") }),
    Effect.timeoutOrElse({
      duration: GUARD,
      orElse: () =>
        Effect.gen(function* () {
          const rest = yield* restOf(url)
          const sent = sentTo(client)
          for (const [key, bar] of sent) assert.deepStrictEqual(bar as unknown, rest.get(key), key)
          return { wrong: [], bars: sent.size }
        })
    })
  )

/** Every bar that a tick came to since a client listened was sent to it. */
const assertNoneMissing = (client: TestClient, ticks: ReadonlyArray<RawTick>) => {
  for (const { instrument_token: token, exchange_ts: at } of ticks) {
    assert.isTrue(client.checker.candles.has(`${token} 1m ${at - (at % MINUTE)}`), `1m of ${token} at ${at}`)
    assert.isTrue(client.checker.candles.has(`${token} 5m ${at - (at % (5 * MINUTE))}`), `5m of ${token} at ${at}`)
  }
}

const listen = (ws: string, channels = ["candle_1m", "candle_5m", "state"]) =>
  Effect.gen(function* () {
    const client = yield* connect(ws, { keep: false })
    client.send({ action: "subscribe", tokens: TOKENS, channels })
    yield* client.until(({ checker }) => checker.backfills === TOKENS.length)
    return client
  })

const urlOf = (mdp: Mdp) => mdp.until(() => /http:\/\/127\.0\.0\.1:\d+/.exec(mdp.stdout)?.[0], "its address")

// Long: bars go by real time, and instances are killed and started again.
describe("live candles", { timeout: LONG_MS }, () => {
  it.live("of an instance that is killed and started again are in the end what REST answers", () =>
    Effect.gen(function* () {
      yield* Effect.promise(() => withinOneDay(120_000))
      const settings = { DATA_DIR: join(yield* folder, "data") }
      const feed = new Feed()
      const first = yield* startInstance(["run"], settings)
      const early = yield* listen(first.ws)
      yield* feedFor(feed, first.url, 60)
      const joined = feed.sent.length
      const late = yield* listen(first.ws, ["tick", "gap", "candle_1m", "candle_5m"])
      yield* feedFor(feed, first.url, 60)
      yield* untilStored(first.url, feed)
      const { bars } = yield* untilAsRest(first.url, early)
      assert.isAbove(bars, TOKENS.length * 10)
      yield* untilAsRest(first.url, late)
      assertNoneMissing(early, feed.sent)
      assertNoneMissing(late, feed.sent.slice(joined))

      first.mdp.kill("SIGKILL")
      yield* first.mdp.ended
      const second = yield* startInstance(["run"], settings)
      const back = yield* listen(second.ws)
      const before = feed.sent.length
      // Its state is lost with it: what a feed sends again is published again, and the store has it already.
      yield* post(second.url, feed.sent.slice(-40))
      yield* feedFor(feed, second.url, 60)
      yield* untilStored(second.url, feed)
      yield* untilAsRest(second.url, back)
      assertNoneMissing(back, feed.sent.slice(before))
      for (const { broken } of [early, late, back]) assert.isUndefined(broken)
      assert.deepStrictEqual([...back.checker.states.keys()].sort(), [...TOKENS].sort())
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(isMissing)("of several servers are the same, and what REST answers, whichever is killed", () =>
    Effect.gen(function* () {
      yield* Effect.promise(() => withinOneDay(120_000))
      const kafka = yield* ownKafka
      const redis = yield* ownRedis
      const postgres = yield* ownPostgres()
      const settings = { ...kafka.settings(), ...redis.settings(), ...postgres.settings(), PARTITIONS: "3" }
      const serve = Effect.gen(function* () {
        const mdp = yield* start(["server"], { ...settings, PORT: "0" })
        const url = yield* urlOf(mdp)
        yield* getJson(`${url}/readyz`).pipe(Effect.retry({ schedule: Schedule.spaced("50 millis") }))
        return { mdp, url, ws: `${url.replace("http", "ws")}/ws` }
      })
      const [a, b] = [yield* serve, yield* serve]
      yield* start(["worker"], { ...settings, METRICS_PORT: "0" })
      const feed = new Feed()
      const onA = yield* listen(a.ws)
      const onB = yield* listen(b.ws)
      yield* feedFor(feed, a.url, 80)
      b.mdp.kill("SIGKILL")
      yield* b.mdp.ended
      yield* feedFor(feed, a.url, 40)
      const c = yield* serve
      const joined = feed.sent.length
      const onC = yield* listen(c.ws)
      yield* feedFor(feed, a.url, 80)
      yield* untilStored(a.url, feed)
      yield* untilAsRest(a.url, onA)
      yield* untilAsRest(c.url, onA)
      yield* untilAsRest(a.url, onC)
      assertNoneMissing(onA, feed.sent)
      assertNoneMissing(onC, feed.sent.slice(joined))
      const [ofA, ofC] = [sentTo(onA), sentTo(onC)]
      for (const [key, bar] of ofC) assert.deepInclude(ofA.get(key)!, { revision: bar.revision, close: bar.close }, key)
      for (const { broken } of [onA, onB, onC]) assert.isUndefined(broken)
    }).pipe(Effect.scoped)
  )
})
