import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Result, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { layerOfStore } from "../../../src/layers/history/History.ts"
import { layer as instrumentsLayer } from "../../../src/layers/instruments/Instruments.ts"
import { type ReplaySettings, layer as replayService } from "../../../src/layers/replays/ReplayService.ts"
import type { Interval } from "../../../src/schema/Candle.ts"
import { LogError, type Overloaded } from "../../../src/schema/Errors.ts"
import { partitionOf } from "../../../src/schema/Partition.ts"
import type { Quote } from "../../../src/schema/Quote.ts"
import { type Tick, tradingDate, tradingDay } from "../../../src/schema/Tick.ts"
import type { TickBatch } from "../../../src/streams/log/follow.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import type { History } from "../../../src/streams/ports/History.ts"
import type { Instruments } from "../../../src/streams/ports/Instruments.ts"
import { type StoredTick, TickStore } from "../../../src/streams/ports/TickStore.ts"
import { ReplayAudience, type ReplayClock } from "../../../src/streams/replay/ReplayAudience.ts"
import { type Replay, type ReplayRequest, Replays } from "../../../src/streams/replay/Replays.ts"
import { compareGlobally } from "../../../src/streams/replay/reorderByWatermark.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import {
  claims,
  DATE,
  DAY_START,
  dump,
  fixedLog,
  keysetQuotes,
  keysetTicks,
  OPEN,
  PARTITIONS,
  pipeline,
  recordedQuotes,
  recordedTicks
} from "../../streams/replay/replaying.ts"
import { instrumentOf } from "../../support/instruments.ts"

const SETTINGS: ReplaySettings = {
  REPLAY_WINDOW_TICKS: 64,
  REPLAY_IDLE_MS: 600_000,
  REPLAY_STORE_LAG_RECORDS: 1000,
  MAX_REPLAYS: 3
}
const TOKENS = [1, 2, 3, 408065, 738561]
const RECORDED = recordedTicks({ seed: 3, tokens: TOKENS, ticks: 400, spanMicros: 4_000_000 })
const QUOTED = recordedQuotes({ seed: 4, tokens: TOKENS, quotes: 100, spanMicros: 4_000_000 })

const KNOWN = [
  ...[
    instrumentOf(408065, "INFY"),
    instrumentOf(738561, "RELIANCE"),
    instrumentOf(1, "TCS"),
    instrumentOf(2, "TCS", "BSE"),
    instrumentOf(3, "OLDNAME")
  ].map((instrument) => ({ instrument, first: 0 })),
  // From the day after the one that is replayed on.
  { instrument: instrumentOf(3, "NEWNAME"), first: tradingDay(OPEN) + 1 }
]

/** Some minutes. */
const SPAN = 420_000_000
const LONG = recordedTicks({ seed: 5, tokens: TOKENS, ticks: 600, spanMicros: SPAN })
const QUOTED_LONG = recordedQuotes({ seed: 6, tokens: TOKENS, quotes: 100, spanMicros: SPAN })
const WHOLE = { all: true, date: DATE, from: "09:15", to: "10:00", speed: 1 } as const
const minute = (n: number) => OPEN + n * 60_000_000
const since = (from: number) => LONG.filter((t) => t.exchange_ts >= from)
const longWorld = () => Object.assign(new World(), { stored: LONG, quotes: QUOTED_LONG })

/** What a client has of a run: all but where its records lie in the log, which is of no run. */
const toldOf = ({ ticks, quotes }: Pick<Heard, "ticks" | "quotes">) =>
  JSON.stringify([ticks.map(({ source, ...tick }) => tick), quotes.map(({ source, ...quote }) => quote)])

/** What the clients of a replay were told. */
interface Heard {
  readonly ticks: Array<Tick>
  readonly quotes: Array<Quote>
  readonly clocks: Array<ReplayClock>
  /** Of the runs before. */
  readonly before: Array<Pick<Heard, "ticks" | "quotes">>
  isOpen: boolean
  clients: number
}

/** A server with its pipeline: the real stages on the embedded log, ticks in memory, and what its clients hear. */
class World {
  readonly heard = new Map<string, Heard>()
  readonly live: Array<Tick> = []
  /** Replayed ticks appended and not yet back. */
  onTheWay = 0
  /** Replayed ticks appended and not yet told, and the most there were. */
  untold = 0
  mostUntold = 0
  /** While closed, what comes back waits here. */
  isOpen = true
  readonly waiting: Array<() => void> = []
  refusedRun: string | undefined
  stored: ReadonlyArray<StoredTick> = RECORDED
  quotes: ReadonlyArray<Quote> = []
  storeLag = 0

  of(replay: Replay): Heard {
    return this.heard.get(replay.id)!
  }

  layer(settings: Partial<ReplaySettings> = {}) {
    const ticks = keysetTicks(this.stored)
    const within = (tokens: ReadonlyArray<number>, from: number, to: number) =>
      this.stored.filter((t) => tokens.includes(t.instrument_token) && t.exchange_ts >= from && t.exchange_ts < to)
    const log = Layer.effect(
      TickLog,
      Effect.map(TickLog, (inner) =>
        TickLog.of({
          ...inner,
          append: (topic, partition, records) => {
            if (topic === "raw_ticks") {
              if (records.some(({ headers }) => headers?.replay === this.refusedRun && this.refusedRun !== undefined)) {
                return Effect.fail(
                  new LogError({ operation: "append", topic, partition, outcome: "failed", message: "no room on disk" })
                )
              }
              const replayed = records.filter(
                ({ key, headers }) => key !== null && headers?.replay !== undefined
              ).length
              this.onTheWay += replayed
              this.untold += replayed
              this.mostUntold = Math.max(this.mostUntold, this.untold)
            }
            return inner.append(topic, partition, records)
          },
          lag: Effect.sync(() => [
            { group: "store", topic: "normalized_ticks" as const, partition: 0, records: this.storeLag }
          ])
        })
      )
    ).pipe(Layer.provide(fixedLog))
    const store = Layer.mock(TickStore)({
      ticks,
      quotePage: keysetQuotes(this.quotes),
      count: (tokens, from, to) => Effect.succeed(within(tokens, from, to).length),
      tokens: (from, to) => Effect.succeed([...new Set(within(TOKENS, from, to).map((t) => t.instrument_token))]),
      quoteTokens: (from, to) =>
        Effect.sync(() => [
          ...new Set(
            this.quotes
              .filter(({ exchange_ts }) => exchange_ts >= from && exchange_ts < to)
              .map((q) => q.instrument_token)
          )
        ]),
      newestDays: (limit) =>
        Effect.succeed(
          [...new Set([...this.stored, ...this.quotes].map((row) => tradingDay(row.exchange_ts)))]
            .sort((a, b) => b - a)
            .slice(0, limit)
        ),
      instruments: () => Effect.succeed(KNOWN),
      instrumentsVersion: Effect.succeed("1")
    })
    const instruments = instrumentsLayer.pipe(Layer.provide(Layer.merge(store, Readiness.layer)))
    const audience = Layer.succeed(ReplayAudience, {
      open: (id) => {
        const known = this.heard.get(id)
        if (known === undefined) {
          this.heard.set(id, { ticks: [], quotes: [], clocks: [], before: [], isOpen: true, clients: 0 })
        } else known.before.push({ ticks: known.ticks.splice(0), quotes: known.quotes.splice(0) })
      },
      publish: (id, published, quotes) => {
        this.heard.get(id)!.ticks.push(...published)
        this.heard.get(id)!.quotes.push(...quotes)
        this.untold -= published.length
      },
      clock: (id, clock) => {
        this.heard.get(id)!.clocks.push(clock)
      },
      close: (id) => {
        this.heard.get(id)!.isOpen = false
      },
      clients: (id) => this.heard.get(id)!.clients
    })
    const taken = (replays: Replays["Service"]) => (batch: TickBatch) => {
      this.live.push(...batch.ticks)
      this.onTheWay -= batch.replays.filter((item) => !("watermark" in item)).length
      if (this.isOpen) replays.returned(batch.partition, batch.replays)
      else for (const item of batch.replays) this.waiting.push(() => replays.returned(batch.partition, [item]))
    }
    const reader = Layer.effectDiscard(Effect.flatMap(Replays, (replays) => pipeline(taken(replays))))
    return Layer.fresh(
      reader.pipe(
        Layer.provideMerge(replayService({ ...SETTINGS, ...settings })),
        Layer.provideMerge(Layer.mergeAll(log, Layer.provideMerge(layerOfStore, store), instruments, audience, claims))
      )
    )
  }
}

/** Lets everything happen that needs no time. */
const settle = Effect.forEach(Array.from({ length: 30 }), () => Effect.yieldNow, { discard: true })

const ended = Effect.fnUntraced(function* (replay: Replay) {
  const replays = yield* Replays
  for (;;) {
    const now = yield* replays.get(replay.id)
    if (now.state === "ended" || now.state === "failed") return now
    yield* Effect.yieldNow
  }
})

const shape = (t: Pick<Tick, "exchange_ts" | "instrument_token" | "sequence_id">) => [
  t.exchange_ts,
  t.instrument_token,
  t.sequence_id
]

describe("ReplayService", () => {
  it.effect("replays a day of named symbols in exact global order, and stays listed as ended", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const started = yield* replays.start({ symbols: ["INFY", "NSE:TCS", "NSE:RELIANCE"], date: DATE, speed: "inf" })
      const expected = RECORDED.filter((t) => [408065, 1, 738561].includes(t.instrument_token))
      assert.deepStrictEqual(started, {
        id: started.id,
        state: "running",
        speed: "inf",
        clock: null,
        run: 1,
        from: DAY_START,
        to: DAY_START + 86_400_000_000,
        sent: 0,
        total: expected.length
      })
      const over = yield* ended(started)
      assert.deepStrictEqual(over, {
        ...started,
        state: "ended",
        clock: expected.at(-1)!.exchange_ts,
        sent: expected.length
      })
      const { ticks, clocks, isOpen } = world.of(started)
      assert.deepStrictEqual(ticks.map(shape), expected.map(shape))
      assert.isFalse(isOpen)
      assert.deepStrictEqual(clocks.at(-1), { run: 1, ts: over.clock, state: "ended", isWhole: true })
      assert.deepStrictEqual(yield* replays.list, [over])
      assert.deepStrictEqual(world.live, [])
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("brings the quotes of its instruments beside the ticks, and counts ticks alone", () => {
    const world = new World()
    world.quotes = QUOTED
    return Effect.gen(function* () {
      const replays = yield* Replays
      const over = yield* ended(yield* replays.start({ tokens: [1, 408065], date: DATE, speed: "inf" }))
      const isAsked = ({ instrument_token }: { readonly instrument_token: number }) =>
        [1, 408065].includes(instrument_token)
      const { ticks, quotes } = world.of(over)
      assert.deepStrictEqual(ticks.map(shape), RECORDED.filter(isAsked).map(shape))
      assert.deepStrictEqual([over.sent, over.total], [ticks.length, ticks.length])
      assert.deepStrictEqual(
        quotes.map(({ source, ...quote }) => quote),
        QUOTED.filter(isAsked).map(({ source, ...quote }) => quote)
      )
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("names instruments as they were on its day, and says of others when they were", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const over = yield* ended(yield* replays.start({ symbols: ["oldname"], date: DATE, speed: "inf" }))
      assert.deepStrictEqual(new Set(world.of(over).ticks.map((t) => t.instrument_token)), new Set([3]))
      const refused = yield* Effect.flip(replays.start({ symbols: ["NSE:NEWNAME"], date: DATE }))
      assert.strictEqual(
        refused.message,
        `symbols: no instrument was NSE:NEWNAME on ${DATE}: it is NSE:NEWNAME (3) from ${tradingDate(tradingDay(OPEN) + 1)}`
      )
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("all instruments of a part of the day", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const over = yield* ended(
        yield* replays.start({ all: true, date: DATE, from: "09:15", to: "09:16", speed: "inf" })
      )
      assert.strictEqual(over.from, OPEN)
      assert.strictEqual(over.to, OPEN + 60_000_000)
      assert.deepStrictEqual(world.of(over).ticks.map(shape), RECORDED.map(shape))
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("reaches instruments that have quotes and never traded", () => {
    const world = new World()
    const silent = 99_000_001
    world.quotes = [...world.quotes, { ...QUOTED[0]!, instrument_token: silent }]
    return Effect.gen(function* () {
      const replays = yield* Replays
      for (const who of [{ all: true }, { tokens: [silent] }]) {
        const over = yield* ended(yield* replays.start({ ...who, date: DATE, speed: "inf" }))
        assert.strictEqual(over.state, "ended")
        const told = world.of(over).quotes.filter((quote) => quote.instrument_token === silent)
        assert.strictEqual(told.length, 1)
        // What is counted are ticks.
        assert.strictEqual(over.total, "all" in who ? world.stored.length : 0)
      }
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("says which instruments it is of: those that were named, or all, over or not", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const silent = 99_000_001
      const of = (id: string) => [...TOKENS, silent].filter(replays.holds(id))
      for (const [asked, held] of [
        [{ symbols: ["NSE:INFY", "oldname"] }, [3, 408065]],
        [{ tokens: [2] }, [2]],
        [{ all: true }, [...TOKENS, silent]]
      ] as const) {
        const replay = yield* replays.start({ ...asked, date: DATE, speed: "inf" })
        assert.deepStrictEqual(of(replay.id), [...held])
        const over = yield* ended(replay)
        assert.deepStrictEqual(of(over.id), [...held])
      }
      assert.deepStrictEqual(of("none"), [])
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("refuses a day, or a part of one, that nothing is stored of, and says which days there are", () => {
    const world = new World()
    const dayOf = (n: number) => tradingDate(tradingDay(OPEN) + n)
    return Effect.gen(function* () {
      const replays = yield* Replays
      const refusal = (asked: ReplayRequest) =>
        Effect.map(Effect.flip(replays.start(asked)), ({ _tag, message }) => [_tag, message])
      assert.deepStrictEqual(yield* refusal({ all: true, date: "2020-01-01" }), [
        "NothingStored",
        `date: no tick and no quote is stored of 2020-01-01; days there are: ${DATE}`
      ])
      assert.deepStrictEqual(yield* refusal({ symbols: ["INFY"], date: "2020-01-01", source: "store" }), [
        "NothingStored",
        `date: no tick and no quote of these instruments is in the store of 2020-01-01; days there are, of whichever instruments: ${DATE}`
      ])
      assert.deepStrictEqual(yield* refusal({ all: true, date: DATE, to: "09:15" }), [
        "NothingStored",
        `date: no tick and no quote is stored of ${DATE} from 00:00 to 09:15; days there are: ${DATE}`
      ])
      assert.deepStrictEqual(yield* replays.list, [])
      world.stored = Array.from({ length: 12 }, (_, n) => ({ ...RECORDED[0]!, exchange_ts: OPEN + n * 86_400_000_000 }))
      const [, many] = yield* refusal({ all: true, date: "2020-01-01" })
      const named = Array.from({ length: 10 }, (_, n) => dayOf(11 - n)).join(", ")
      assert.strictEqual(
        many,
        `date: no tick and no quote is stored of 2020-01-01; days there are: ${named}, and older ones`
      )
      world.stored = []
      const [, none] = yield* refusal({ all: true, date: DATE })
      assert.strictEqual(none, `date: no tick and no quote is stored of ${DATE}, nor of any other day`)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("refuses by name what it does not know or cannot do yet", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const refusal = <A>(asked: Effect.Effect<A, { readonly _tag: string; readonly message: string }>) =>
        Effect.map(Effect.result(asked), (result) =>
          Result.isFailure(result) ? `${result.failure._tag} ${result.failure.message}` : "accepted"
        )
      const day = { date: DATE } as const
      assert.strictEqual(
        yield* refusal(replays.start({ ...day, symbols: ["INFY", "NSE:NONE"] })),
        "UnknownSymbol symbols: no instrument is called NSE:NONE"
      )
      assert.strictEqual(
        yield* refusal(replays.start({ ...day, symbols: ["TCS"] })),
        "ReplayRefused symbols: TCS could be NSE:TCS, BSE:TCS: say which"
      )
      assert.strictEqual(
        yield* refusal(replays.start({ ...day, tokens: [3, 77] })),
        `UnknownSymbol tokens: no instrument and no tick or quote of ${DATE} has token 77`
      )
      assert.strictEqual(
        yield* refusal(replays.start(day)),
        'ReplayRefused symbols: expected one of symbols, tokens and "all":true, got 0 of them'
      )
      assert.strictEqual(
        yield* refusal(replays.start({ ...day, all: true, source: "archive" })),
        "ReplayRefused source: there is no archive here: expected store or none, got archive"
      )
      assert.strictEqual(
        yield* refusal(replays.start({ ...day, all: true, loop: true })),
        "ReplayRefused loop: a replay cannot loop yet, got true"
      )
      assert.strictEqual(
        yield* refusal(replays.start({ ...day, all: true, from: "15:30", to: "09:15" })),
        "ReplayRefused to: expected a time after 15:30, got 09:15"
      )
      assert.strictEqual(yield* refusal(replays.get("nope")), "UnknownReplay id: no replay is called nope")
      const { id } = yield* replays.start({ ...day, all: true, from: "09:15", to: "10:00", paused: true })
      const range = "from 2026-01-15T09:15:00+05:30 to before 2026-01-15T10:00:00+05:30"
      const sought = (seek: number | string) => refusal(replays.change(id, { seek }))
      assert.strictEqual(
        yield* sought(OPEN - 1),
        `ReplayRefused seek: expected a time of the replay, ${range}, got 2026-01-15T09:14:59.999999+05:30`
      )
      assert.strictEqual(
        yield* sought("10:00"),
        `ReplayRefused seek: expected a time of the replay, ${range}, got 10:00`
      )
      for (const [change, refused] of [
        [{}, "state: expected state, speed, seek or step"],
        [{ step: {} }, "step: expected one of ticks and bars, got neither"],
        [{ step: { ticks: 1, bars: 1, interval: "1m" } }, "step: expected one of ticks and bars, got both"],
        [{ step: { bars: 1 } }, 'step: expected bars with their interval, such as "1m", got none'],
        [{ step: { ticks: 1, interval: "1m" } }, "step: expected ticks without an interval, got 1m"],
        [{ step: { ticks: 1 }, seek: OPEN, speed: 2 }, "step: expected nothing beside it, got speed and seek"]
      ] as const) {
        assert.strictEqual(yield* refusal(replays.change(id, change)), `ReplayRefused ${refused}`)
      }
      assert.deepInclude(yield* replays.get(id), { state: "paused", run: 1 })
      yield* replays.stop(id)
      for (const change of [{ seek: OPEN }, { step: { ticks: 1 } }]) {
        assert.strictEqual(yield* refusal(replays.change(id, change)), `ReplayOver replay ${id} has ended`)
      }
      assert.strictEqual(yield* refusal(replays.change(id, { speed: 2 })), `ReplayOver replay ${id} has ended`)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("is paused, resumed and sped up while it runs", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const { id } = yield* replays.start({ all: true, date: DATE, paused: true })
      const first = RECORDED[0]!.exchange_ts
      const cameBy = (micros: number) => RECORDED.filter((t) => t.exchange_ts <= first + micros).map(shape)
      const heard = world.heard.get(id)!
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([heard.ticks.length, (yield* replays.get(id)).clock], [0, null])

      assert.strictEqual((yield* replays.change(id, { state: "running" })).state, "running")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(heard.ticks.map(shape), cameBy(1_000_000))
      assert.strictEqual((yield* replays.get(id)).sent, heard.ticks.length)

      yield* replays.change(id, { speed: 2 })
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(heard.ticks.map(shape), cameBy(2_000_000))

      assert.strictEqual((yield* replays.change(id, { state: "paused" })).state, "paused")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(heard.ticks.map(shape), cameBy(2_000_000))
      assert.isAtMost((yield* replays.get(id)).clock!, first + 2_000_000)

      assert.strictEqual((yield* replays.change(id, { state: "running", speed: "inf" })).speed, "inf")
      yield* ended(yield* replays.get(id))
      assert.deepStrictEqual(heard.ticks.map(shape), RECORDED.map(shape))
      assert.deepStrictEqual(
        heard.clocks.map(({ state }) => state).filter((state, i, all) => state !== all[i - 1]),
        ["running", "paused", "running", "ended"]
      )
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("a seek begins a run that is told as a replay started there, byte for byte, on and back", () => {
    const world = longWorld()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const alone = new Map<string, string>()
      for (const from of ["09:16", "09:18"]) {
        alone.set(from, toldOf(world.of(yield* ended(yield* replays.start({ ...WHOLE, from, speed: "inf" })))))
      }
      const { id } = yield* replays.start(WHOLE)
      const heard = world.heard.get(id)!
      yield* TestClock.adjust("90 seconds")
      const first = heard.ticks.length
      assert.isAbove(first, 0)
      for (const [i, [seek, from]] of (
        [
          ["09:18", "09:18"],
          [minute(1), "09:16"],
          ["09:18:00", "09:18"]
        ] as const
      ).entries()) {
        const to = minute(from === "09:18" ? 3 : 1)
        const changed = yield* replays.change(id, { seek, speed: 1 })
        assert.deepInclude(changed, { state: "running", run: i + 2, clock: to, sent: 0, total: LONG.length })
        assert.deepStrictEqual(heard.clocks.at(-1), { run: i + 2, ts: to, state: "running", isWhole: false })
        // Nothing of the run before comes after that.
        yield* TestClock.adjust("20 seconds")
        assert.isTrue(heard.ticks.every((t) => t.exchange_ts >= to))
        if (i < 2) continue
        yield* replays.change(id, { speed: "inf" })
        const over = yield* ended(yield* replays.get(id))
        assert.deepInclude(over, { run: 4, sent: since(to).length, total: LONG.length })
        assert.strictEqual(toldOf(heard), alone.get(from))
      }
      assert.strictEqual(heard.before.length, 3)
      assert.strictEqual(heard.before[0]!.ticks.length, first)
      const back = yield* replays.start({ ...WHOLE, speed: "inf", paused: true })
      yield* replays.change(back.id, { seek: minute(4) })
      yield* replays.change(back.id, { state: "running", seek: minute(1) })
      yield* ended(back)
      assert.strictEqual(toldOf(world.of(back)), alone.get("09:16"))
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("a paused replay stays paused where it is sought, and goes on from the first tick there", () => {
    const world = longWorld()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const { id } = yield* replays.start({ ...WHOLE, paused: true })
      const to = minute(2)
      assert.deepInclude(yield* replays.change(id, { seek: "09:17" }), { state: "paused", run: 2, clock: to })
      yield* TestClock.adjust("1 minute")
      const heard = world.heard.get(id)!
      assert.deepStrictEqual([heard.ticks, heard.quotes], [[], []])
      assert.strictEqual((yield* replays.get(id)).clock, to)
      yield* replays.change(id, { state: "running" })
      yield* TestClock.adjust("10 seconds")
      const first = [...LONG, ...QUOTED_LONG].reduce(
        (least, { exchange_ts }) => (exchange_ts >= to ? Math.min(least, exchange_ts) : least),
        Number.POSITIVE_INFINITY
      )
      const came = since(to).filter((t) => t.exchange_ts <= first + 10_000_000)
      assert.deepStrictEqual(heard.ticks.map(shape), came.map(shape))
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("of many seeks in a row the last counts, and two runs of a replay at most are in the pipeline", () => {
    const world = longWorld()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const { id } = yield* replays.start({ ...WHOLE, speed: "inf" })
      yield* settle
      world.isOpen = false
      yield* Effect.forEach(
        Array.from({ length: 50 }, (_, i) => minute(1) + i),
        (seek) => replays.change(id, { seek }),
        { concurrency: "unbounded" }
      )
      yield* replays.change(id, { seek: minute(3) })
      const other = yield* replays.start({ ...WHOLE, speed: "inf" })
      yield* settle
      world.isOpen = true
      while (world.waiting.length > 0) {
        world.waiting.shift()!()
        yield* settle
      }
      const over = yield* ended(yield* replays.get(id))
      assert.deepInclude(over, { state: "ended", run: 52, sent: since(minute(3)).length })
      assert.deepStrictEqual(world.heard.get(id)!.ticks.map(shape), since(minute(3)).map(shape))
      assert.deepInclude(yield* ended(other), { state: "ended", sent: LONG.length })
      const names = new Set(
        (yield* dump("raw_ticks")).map((line) => JSON.parse(line).headers.replay).filter((run) => run.startsWith(id))
      )
      assert.isAtMost(names.size, 3)
      assert.strictEqual(world.onTheWay, 0)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("a stop right after a seek ends it, and nothing more of either run comes", () => {
    const world = longWorld()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const { id } = yield* replays.start(WHOLE)
      yield* TestClock.adjust("30 seconds")
      yield* Effect.all([replays.change(id, { seek: minute(2) }), replays.stop(id)], { concurrency: "unbounded" })
      yield* TestClock.adjust("5 minutes")
      assert.deepInclude(yield* replays.get(id), { state: "ended", run: 2, sent: 0 })
      assert.deepStrictEqual(world.heard.get(id)!.ticks, [])
      assert.strictEqual(world.heard.get(id)!.isOpen, false)
      // Everything of the window has been given back.
      yield* ended(yield* replays.start({ ...WHOLE, speed: "inf" }))
      assert.strictEqual(world.onTheWay, 0)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("a seek while the end is on its way wins over it", () => {
    const world = longWorld()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const { id } = yield* replays.start({ ...WHOLE, speed: "inf", from: "09:19" })
      world.isOpen = false
      yield* settle
      yield* replays.change(id, { seek: "09:19" })
      world.isOpen = true
      while (world.waiting.length > 0) {
        world.waiting.shift()!()
        yield* settle
      }
      const over = yield* ended(yield* replays.get(id))
      assert.deepInclude(over, { state: "ended", run: 2, sent: since(minute(4)).length })
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("a step lets exactly so many ticks out, at once, and pauses: the same each time", () => {
    const tell = Effect.fnUntraced(function* (world: World) {
      const replays = yield* Replays
      const { id } = yield* replays.start({ ...WHOLE, paused: true })
      const heard = world.heard.get(id)!
      const told: Array<string> = []
      let sent = 0
      for (const ticks of [1, 1, 7, 100]) {
        sent += ticks
        const stepped = yield* replays.change(id, { step: { ticks } })
        assert.deepInclude(stepped, { state: "paused", sent, clock: LONG[sent - 1]!.exchange_ts })
        assert.deepStrictEqual(heard.ticks.map(shape), LONG.slice(0, sent).map(shape))
        told.push(toldOf(heard))
      }
      // One that runs pauses first.
      yield* replays.change(id, { state: "running" })
      yield* TestClock.adjust("3 seconds")
      const came = heard.ticks.length
      assert.deepInclude(yield* replays.change(id, { step: { ticks: 2 } }), { state: "paused", sent: came + 2 })
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(heard.ticks.length, came + 2)
      // Two asked for together are two.
      const step = replays.change(id, { step: { ticks: 3 } })
      yield* Effect.all([step, step], { concurrency: "unbounded" })
      assert.deepInclude(yield* replays.get(id), { state: "paused", sent: came + 8 })
      assert.deepInclude(yield* replays.change(id, { step: { ticks: 1_000_000 } }), {
        state: "ended",
        sent: LONG.length
      })
      return [...told, toldOf(heard)]
    })
    return Effect.gen(function* () {
      const [one, two] = [longWorld(), longWorld()]
      assert.deepStrictEqual(
        yield* tell(one).pipe(Effect.provide(one.layer())),
        yield* tell(two).pipe(Effect.provide(two.layer()))
      )
    })
  })

  it.effect("a step of bars goes to the end of the bar that has the next tick, and the clock stands there", () => {
    const world = longWorld()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const { id } = yield* replays.start({ ...WHOLE, paused: true })
      const heard = world.heard.get(id)!
      const until = (to: number) => LONG.filter((t) => t.exchange_ts < to)
      const step = Effect.fnUntraced(function* (bars: number, interval: Interval, to: number) {
        const stepped = yield* replays.change(id, { step: { bars, interval } })
        assert.deepInclude(stepped, { state: "paused", clock: to, sent: until(to).length })
        assert.deepStrictEqual(heard.ticks.map(shape), until(to).map(shape))
        assert.strictEqual(heard.quotes.length, QUOTED_LONG.filter((q) => q.exchange_ts < to).length)
        assert.deepStrictEqual(heard.clocks.at(-1), { run: 1, ts: to, state: "paused", isWhole: false })
      })
      yield* step(1, "1m", minute(1))
      yield* replays.change(id, { step: { ticks: 3 } })
      // The bar under way is the first.
      yield* step(1, "1m", minute(2))
      yield* step(2, "1m", minute(4))
      yield* step(1, "5m", minute(5))
      yield* replays.change(id, { seek: "09:16:30" })
      assert.deepInclude(yield* replays.change(id, { step: { bars: 1, interval: "1m" } }), { clock: minute(2), run: 2 })
      assert.deepInclude(yield* replays.change(id, { step: { bars: 1, interval: "1d" } }), { state: "ended" })
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("a step that is slow to come out is answered while it goes on; a pause or a seek ends it", () => {
    const world = longWorld()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const { id } = yield* replays.start({ ...WHOLE, paused: true })
      world.isOpen = false
      const asked = yield* Effect.forkChild(replays.change(id, { step: { ticks: 3 } }))
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(yield* Fiber.join(asked), { state: "running", sent: 0, clock: null })
      world.isOpen = true
      for (const back of world.waiting.splice(0)) back()
      assert.deepInclude(yield* replays.get(id), { state: "paused", sent: 3 })
      const long = yield* Effect.forkChild(replays.change(id, { step: { ticks: 1000 } }))
      yield* Effect.yieldNow
      yield* replays.change(id, { seek: minute(1) })
      assert.deepInclude(yield* Fiber.join(long), { state: "paused", run: 2, sent: 0, clock: minute(1) })
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("stops at once, frees its part of the window, and tells the pipeline so in every partition", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const stopped = yield* replays.start({ all: true, date: DATE, speed: 1 })
      const other = yield* replays.start({ all: true, date: DATE, speed: 1 })
      yield* TestClock.adjust("1 second")
      yield* replays.stop(stopped.id)
      const { sent } = yield* replays.get(stopped.id)
      assert.strictEqual((yield* replays.get(stopped.id)).state, "ended")
      assert.isFalse(world.of(stopped).isOpen)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* replays.get(stopped.id)).sent, sent)
      assert.strictEqual(world.of(stopped).ticks.length, sent)
      assert.deepStrictEqual(world.of(other).ticks.map(shape), RECORDED.map(shape))
      yield* replays.stop(stopped.id)
      const ends = (yield* dump("normalized_ticks"))
        .map((line) => JSON.parse(line))
        .filter(({ headers }) => headers.end !== undefined && headers.replay === `${stopped.id}.1`)
      assert.deepStrictEqual(
        ends.map(({ partition }) => partition),
        Array.from({ length: PARTITIONS }, (_, partition) => partition)
      )
      assert.strictEqual(world.onTheWay, 0)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("all replays together stay within the window, and take turns", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      world.isOpen = false
      const one = yield* replays.start({ all: true, date: DATE, speed: "inf" })
      const two = yield* replays.start({ all: true, date: DATE, speed: "inf" })
      yield* settle
      // What comes back is held: exactly the window has gone in.
      assert.strictEqual(world.untold, SETTINGS.REPLAY_WINDOW_TICKS)
      let apart = 0
      while (world.waiting.length > 0) {
        world.waiting.shift()!()
        yield* settle
        const [a, b] = [yield* replays.get(one.id), yield* replays.get(two.id)]
        if (a.state !== "ended" && b.state !== "ended") apart = Math.max(apart, Math.abs(a.sent - b.sent))
      }
      // The first came with the whole window and the slice after it; from there they take turns.
      assert.isAtMost(apart, (SETTINGS.REPLAY_WINDOW_TICKS * 5) / 4)
      assert.strictEqual(world.mostUntold, SETTINGS.REPLAY_WINDOW_TICKS)
      for (const replay of [one, two]) assert.deepStrictEqual(world.of(replay).ticks.map(shape), RECORDED.map(shape))
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect(
    "ends some time after its last client left, or after its start where none comes; a detached one does not",
    () => {
      const world = new World()
      return Effect.gen(function* () {
        const replays = yield* Replays
        const request = { all: true, date: DATE, speed: 0.001 }
        const alone = yield* replays.start(request)
        const listened = yield* replays.start(request)
        const detached = yield* replays.start({ ...request, detached: true, paused: true })
        world.of(listened).clients = 1
        const states = Effect.gen(function* () {
          const all = [alone, listened, detached]
          return yield* Effect.forEach(all, ({ id }) => Effect.map(replays.get(id), ({ state }) => state))
        })
        yield* TestClock.adjust("599 seconds")
        assert.deepStrictEqual(yield* states, ["running", "running", "paused"])
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* states, ["ended", "running", "paused"])
        world.of(listened).clients = 0
        yield* TestClock.adjust("598 seconds")
        assert.deepStrictEqual(yield* states, ["ended", "running", "paused"])
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(yield* states, ["ended", "ended", "paused"])
      }).pipe(Effect.provide(world.layer()))
    }
  )

  it.effect("refuses more replays than allowed, and takes one again once one has ended", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const request = { tokens: [1], date: DATE, paused: true }
      const [first] = yield* Effect.forEach([1, 2, 3], () => replays.start(request))
      const refused = yield* Effect.flip(replays.start(request))
      assert.strictEqual(refused._tag, "Overloaded")
      assert.isAbove((refused as Overloaded).retryAfterSeconds, 0)
      yield* replays.stop(first!.id)
      assert.strictEqual((yield* replays.start(request)).state, "paused")
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("lists a bounded number of replays that are over", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const kept = yield* replays.start({ tokens: [1], date: DATE, paused: true })
      let last = kept
      for (let i = 0; i < 60; i++) last = yield* ended(yield* replays.start({ tokens: [1], date: DATE, speed: "inf" }))
      const list = yield* replays.list
      assert.strictEqual(list.length, 51)
      assert.strictEqual(list[0]!.id, last.id)
      assert.strictEqual(list.at(-1)!.id, kept.id)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("fails with its reason where the log refuses it; live ticks and other replays go on", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      const log = yield* TickLog
      const failing = yield* replays.start({ all: true, date: DATE, speed: 1 })
      const other = yield* replays.start({ all: true, date: DATE, speed: 1 })
      yield* TestClock.adjust("1 second")
      world.refusedRun = `${failing.id}.1`
      yield* TestClock.adjust("200 millis")
      const failed = yield* replays.get(failing.id)
      assert.strictEqual(failed.state, "failed")
      assert.strictEqual(failed.failure?._tag, "LogError")
      assert.match(failed.failure?.message ?? "", /^raw_ticks\/\d: append failed: no room on disk$/)
      assert.isFalse(world.of(failing).isOpen)
      const live = JSON.stringify({ instrument_token: 9, exchange_ts: OPEN, price: 5, sequence_id: 1 })
      yield* log.append("raw_ticks", partitionOf(9, PARTITIONS), [{ key: "9", value: Buffer.from(live) }])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(world.of(other).ticks.map(shape), RECORDED.map(shape))
      assert.strictEqual((yield* replays.get(other.id)).state, "ended")
      assert.deepStrictEqual(world.live.map(shape), [[OPEN, 9, 1]])
    }).pipe(Effect.provide(world.layer()), (test) => Effect.andThen(TestClock.setTime(OPEN / 1000), test))
  })

  it.effect("waits while the store is too far behind", () => {
    const world = new World()
    return Effect.gen(function* () {
      const replays = yield* Replays
      world.storeLag = SETTINGS.REPLAY_STORE_LAG_RECORDS + 1
      const started = yield* replays.start({ all: true, date: DATE, speed: "inf" })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(world.of(started).ticks.length, 0)
      world.storeLag = SETTINGS.REPLAY_STORE_LAG_RECORDS
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* replays.get(started.id)).state, "ended")
      assert.deepStrictEqual(world.of(started).ticks.map(shape), [...RECORDED].sort(compareGlobally).map(shape))
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("ends its runs with the server", () => {
    const world = new World()
    return Effect.gen(function* () {
      const log = yield* TickLog
      const serving = yield* Scope.make()
      const parts = yield* Effect.context<TickLog | History | Instruments | ReplayAudience>()
      const server = yield* Layer.buildWithScope(
        Layer.fresh(replayService(SETTINGS)).pipe(Layer.provide(Layer.succeedContext(parts))),
        serving
      )
      const { id } = yield* Context.get(server, Replays).start({ all: true, date: DATE, speed: 1 })
      yield* TestClock.adjust("1 second")
      yield* Scope.close(serving, Exit.void)
      for (let partition = 0; partition < log.partitions; partition++) {
        const { end } = yield* log.bounds("raw_ticks", partition)
        const [last] = yield* log
          .read("raw_ticks", partition, end - 1)
          .pipe(Stream.flattenArray, Stream.take(1), Stream.runCollect)
        assert.deepInclude(last?.headers, { replay: `${id}.1`, end: "1" })
      }
    }).pipe(Effect.provide(world.layer()))
  })
})
