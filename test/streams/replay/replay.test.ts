import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { StoreError } from "../../../src/schema/Errors.ts"
import type { Quote } from "../../../src/schema/Quote.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import type { QuotesQuery } from "../../../src/streams/ports/Archive.ts"
import type { StoredTick, TickQuery } from "../../../src/streams/ports/TickStore.ts"
import { makePace } from "../../../src/streams/replay/pace.ts"
import { compareGlobally, type Release, WatermarkReorder } from "../../../src/streams/replay/reorderByWatermark.ts"
import { endRun, makeWindow, pageRows, replay, storedPackets, storedTicks } from "../../../src/streams/replay/replay.ts"
import {
  claims,
  dump,
  fixedLog,
  keysetQuotes,
  keysetTicks,
  OPEN,
  PARTITIONS,
  pipeline,
  recordedQuotes,
  recordedTicks
} from "./replaying.ts"

const GOLDEN = new URL("golden/replay.ndjson", import.meta.url)
const TOKENS = [1, 2, 3, 408065, 738561, 2953217, 14_000_001]
const RECORDED = recordedTicks({ seed: 7, tokens: TOKENS, ticks: 240, spanMicros: 3_000_000 })
const QUOTED = recordedQuotes({ seed: 11, tokens: TOKENS, quotes: 200, spanMicros: 3_000_000 })
const WINDOW = 64

/** One run of the recorded ticks at `speed` through the real pipeline, until its end is back. */
const replayOnce = Effect.fnUntraced(function* (options: {
  readonly run: string
  readonly speed: number
  readonly quotes?: ReadonlyArray<Quote>
}) {
  const log = yield* TickLog
  const window = makeWindow(WINDOW)
  const reorder = new WatermarkReorder(log.partitions)
  reorder.open(options.run)
  const slices = new Map<number, number>()
  const released: Array<{ readonly at: number; readonly release: Release }> = []
  const clock = yield* Clock.Clock
  let used = 0
  yield* pipeline(({ partition, replays }) => {
    for (const release of reorder.take(partition, replays)) {
      window.freeUnsafe(options.run, slices.get(release.watermark)!)
      released.push({ at: clock.currentTimeMillisUnsafe(), release })
    }
    assert.isAtMost(reorder.held, WINDOW)
  })
  const pace = yield* makePace({ speed: options.speed, paused: false })
  const run = replay(
    storedPackets(
      { ticks: keysetTicks(RECORDED), quotePage: keysetQuotes(options.quotes ?? []) },
      { tokens: TOKENS, from: OPEN, to: OPEN + 60_000_000, arraySize: 16 }
    ),
    {
      run: options.run,
      log,
      window,
      pace,
      holdBack: Effect.void,
      onDue: () => {},
      onSlice: ({ watermark, packets, end }) => {
        reorder.sent(options.run, watermark, end)
        slices.set(watermark, packets)
        used = Math.max(used, window.usedUnsafe())
      }
    }
  )
  const fiber = yield* Effect.forkChild(run)
  yield* TestClock.adjust("1 minute")
  yield* Fiber.join(fiber)
  assert.isTrue(released.at(-1)?.release.end)
  assert.strictEqual(window.usedUnsafe(), 0)
  return { released, used, raw: yield* dump("raw_ticks"), normalized: yield* dump("normalized_ticks") }
})

const World = Layer.fresh(Layer.merge(fixedLog, claims))

/** What a client of the replay sees, with the clock's milliseconds at which each slice came out. */
const seen = (released: ReadonlyArray<{ readonly at: number; readonly release: Release }>): ReadonlyArray<string> =>
  released.map(({ at, release }) =>
    JSON.stringify({
      at,
      watermark: release.watermark,
      end: release.end,
      ticks: release.ticks.map((t) => [
        t.exchange_ts,
        t.instrument_token,
        t.sequence_id,
        t.status,
        t.session,
        t.position
      ])
    })
  )

describe("replay", () => {
  it.effect(
    "is exact to the byte under the test clock: the raw records, the normalized ones, and what a client sees",
    () =>
      Effect.gen(function* () {
        const once = Effect.scoped(replayOnce({ run: "golden.1", speed: 10 })).pipe(Effect.provide(World))
        const first = yield* once
        yield* TestClock.setTime(0)
        const second = yield* once
        const lines = (of: typeof first) => [...of.raw, ...of.normalized, ...seen(of.released)]
        assert.deepStrictEqual(lines(second), lines(first))

        const text = `${lines(first).join("\n")}\n`
        if (process.env.UPDATE_GOLDEN === "1") {
          mkdirSync(new URL("golden/", import.meta.url), { recursive: true })
          writeFileSync(GOLDEN, text)
        }
        assert.strictEqual(text, readFileSync(GOLDEN, "utf8"))
      })
  )

  it.effect("at inf nothing but the arrival differs: the same ticks, in exact global order, each once", () =>
    Effect.gen(function* () {
      const { released, used } = yield* Effect.scoped(
        replayOnce({ run: "fast.1", speed: Number.POSITIVE_INFINITY })
      ).pipe(Effect.provide(World))
      const ticks = released.flatMap(({ release }) => release.ticks)
      assert.deepStrictEqual(
        ticks.map((t) => [t.exchange_ts, t.instrument_token, t.sequence_id, t.price, t.volume, t.feed, t.received_ts]),
        RECORDED.map((t) => [
          t.exchange_ts,
          t.instrument_token,
          t.sequence_id,
          t.price,
          t.volume,
          t.feed,
          t.received_ts
        ])
      )
      assert.deepStrictEqual([...ticks].sort(compareGlobally), ticks)
      assert.isAtMost(used, WINDOW)
      // Fresh state: every instrument's positions are 1, 2, 3 …
      for (const token of TOKENS) {
        const positions = ticks.filter((t) => t.instrument_token === token).map((t) => t.position)
        assert.deepStrictEqual(
          positions,
          positions.map((_, i) => i + 1)
        )
      }
    })
  )

  it.effect("quotes go in among the ticks, each after those of its stamp, and come out as they were known then", () =>
    Effect.gen(function* () {
      const { released, raw } = yield* Effect.scoped(
        replayOnce({ run: "quoted.1", speed: Number.POSITIVE_INFINITY, quotes: QUOTED })
      ).pipe(Effect.provide(World))
      const quotes = released.flatMap((one) => one.release.quotes)
      assert.deepStrictEqual(
        quotes.map(({ source, ...quote }) => quote),
        QUOTED.map(({ source, ...quote }) => quote)
      )
      assert.strictEqual(released.flatMap((one) => one.release.ticks).length, RECORDED.length)
      // In each partition, in the order of the log.
      const times = new Map<number, readonly [at: number, isQuote: boolean]>()
      for (const line of raw) {
        const { partition, value } = JSON.parse(line)
        if (value === "") continue
        const { exchange_ts, price } = JSON.parse(value)
        const [at, isQuote] = times.get(partition) ?? [0, false]
        assert.isTrue(exchange_ts > at || (exchange_ts === at && (price === undefined || !isQuote)), line)
        times.set(partition, [exchange_ts, price === undefined])
      }
    })
  )

  it.effect("quotes leave the ticks of a run as they are without them", () =>
    Effect.gen(function* () {
      const ticksOf = (quotes: ReadonlyArray<Quote>) =>
        Effect.scoped(replayOnce({ run: "same.1", speed: 10, quotes })).pipe(
          Effect.provide(World),
          Effect.map(({ released }) =>
            released.flatMap(({ release }) => release.ticks.map(({ source, ...tick }) => tick))
          )
        )
      assert.deepStrictEqual(yield* ticksOf(QUOTED), yield* ticksOf([]))
    })
  )

  it.effect("archived quotes are one source, by time, and make the run that those of one instrument each make", () =>
    Effect.gen(function* () {
      const query = { tokens: TOKENS, from: OPEN, to: OPEN + 60_000_000, arraySize: 16 }
      const past = { ticks: keysetTicks(RECORDED), quotePage: keysetQuotes(QUOTED) }
      const alike = [...(yield* Stream.runCollect(storedPackets(past, query)))]
      const split = OPEN + 1_500_000
      for (const before of [Number.NEGATIVE_INFINITY, split, Number.POSITIVE_INFINITY]) {
        const isArchived = (quote: Quote): boolean => quote.exchange_ts < before
        let pages = 0
        const archivedQuotes = {
          before: Effect.succeed(before),
          page: (asked: QuotesQuery) =>
            Effect.sync(() => {
              pages++
              const { after = { exchange_ts: 0, instrument_token: 0 } } = asked
              return QUOTED.filter(
                (q) =>
                  isArchived(q) &&
                  asked.tokens.has(q.instrument_token) &&
                  q.exchange_ts >= asked.from &&
                  q.exchange_ts < asked.to &&
                  (q.exchange_ts - after.exchange_ts || q.instrument_token - after.instrument_token) > 0
              )
                .sort((a, b) => a.exchange_ts - b.exchange_ts || a.instrument_token - b.instrument_token)
                .slice(0, asked.limit)
            })
        }
        const quotePage = keysetQuotes(QUOTED.filter((quote) => !isArchived(quote)))
        const packets = yield* Stream.runCollect(storedPackets({ ...past, quotePage, archivedQuotes }, query))
        assert.deepStrictEqual([...packets], alike)
        assert.strictEqual(pages, before > OPEN ? 1 : 0)
      }
    })
  )

  it.effect("a run that is stopped is ended in every partition", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* endRun("stopped.1", 9, log)
      const records = (yield* dump("raw_ticks")).map((line) => JSON.parse(line))
      assert.deepStrictEqual(
        records.map(({ partition, key, value, headers }) => ({ partition, key, value, headers })),
        Array.from({ length: PARTITIONS }, (_, partition) => ({
          partition,
          key: null,
          value: "",
          headers: { replay: "stopped.1", watermark: "9", end: "1" }
        }))
      )
    }).pipe(Effect.provide(World))
  )

  it.effect("asks a store again that did not answer, and gives up on one that refuses", () =>
    Effect.gen(function* () {
      const failing = (transient: boolean, times: number) => {
        let asked = 0
        const inner = keysetTicks(RECORDED)
        const ticks = (query: TickQuery): Effect.Effect<ReadonlyArray<StoredTick>, StoreError> =>
          Effect.suspend(() =>
            ++asked <= times
              ? Effect.fail(new StoreError({ operation: "ticks", message: "connection lost", transient }))
              : inner(query)
          )
        const all = storedTicks({ ticks }, { tokens: [1], from: OPEN, to: OPEN + 60_000_000, arraySize: 10 })
        return { run: Effect.exit(Stream.runCollect(all)), asked: () => asked }
      }
      const lost = failing(true, 3)
      const fiber = yield* Effect.forkChild(lost.run)
      yield* TestClock.adjust("10 seconds")
      const exit = yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        Exit.isSuccess(exit) && exit.value,
        RECORDED.filter((t) => t.instrument_token === 1)
      )
      const refusing = failing(false, 1)
      assert.isTrue(Exit.isFailure(yield* refusing.run))
      assert.strictEqual(refusing.asked(), 1)
    })
  )

  it("pages get smaller where there are many instruments, so that their rows together stay bounded", () => {
    assert.strictEqual(pageRows(1), 5000)
    assert.strictEqual(pageRows(20), 5000)
    assert.strictEqual(pageRows(1000), 100)
    assert.strictEqual(pageRows(0), 5000)
  })
})

describe("Window", () => {
  it.effect("serves runs in turn, and never gives more than it has", () =>
    Effect.gen(function* () {
      const window = makeWindow(10)
      const order: Array<string> = []
      const take = (run: string, ticks: number) =>
        Effect.forkChild(
          Effect.map(window.take(run, ticks), () => {
            order.push(`${run}:${ticks}`)
          })
        )
      yield* take("a", 8)
      yield* take("b", 6)
      yield* take("a", 2)
      yield* take("c", 99)
      yield* Effect.yieldNow
      // The small one waits behind the one that came before it.
      assert.deepStrictEqual(order, ["a:8"])
      window.freeUnsafe("a", 4)
      yield* Effect.yieldNow
      assert.deepStrictEqual(order, ["a:8", "b:6"])
      window.dropUnsafe("a")
      yield* Effect.yieldNow
      assert.deepStrictEqual(order, ["a:8", "b:6", "a:2"])
      assert.strictEqual(window.usedUnsafe(), 8)
      window.dropUnsafe("b")
      window.dropUnsafe("a")
      yield* Effect.yieldNow
      // More than the window is the whole window.
      assert.deepStrictEqual(order, ["a:8", "b:6", "a:2", "c:99"])
      assert.strictEqual(window.usedUnsafe(), 10)
    })
  )

  it.effect("a run that stops waiting lets the next one in", () =>
    Effect.gen(function* () {
      const window = makeWindow(10)
      yield* window.take("a", 6)
      const b = yield* Effect.forkChild(window.take("b", 8))
      const c = yield* Effect.forkChild(window.take("c", 4))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(b)
      yield* Fiber.join(c)
      assert.strictEqual(window.usedUnsafe(), 10)
    })
  )
})
