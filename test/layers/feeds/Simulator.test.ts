import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Simulator from "../../../src/layers/feeds/Simulator.ts"
import { FeedError, Overloaded } from "../../../src/schema/Errors.ts"
import { type QuoteState, readQuote } from "../../../src/schema/Quote.ts"
import { type RawTick, readRawTick } from "../../../src/schema/RawTick.ts"
import { defaultSimulation } from "../../../src/schema/Simulation.ts"
import { RawSink } from "../../../src/streams/ports/RawSink.ts"

const BEGUN_AT_MS = 1_768_448_700_000

/** A sink that keeps what it takes, after `each` says so. */
const collecting = (each: (publishes: number) => Effect.Effect<void, FeedError | Overloaded> = () => Effect.void) => {
  const ticks: Array<RawTick> = []
  /** By instrument and number. */
  const quotes = new Map<string, QuoteState>()
  let publishes = 0
  const layer = Layer.succeed(RawSink, {
    publish: (batch) =>
      Effect.map(
        Effect.suspend(() => each(publishes++)),
        () => {
          for (const { token, value } of batch) {
            const record = JSON.parse(Buffer.from(value).toString())
            const tick = readRawTick(record)
            if (typeof tick === "string") throw new Error(tick)
            assert.strictEqual(tick.instrument_token, token)
            ticks.push(tick)
            if (record.quote === undefined) continue
            const quote = readQuote(record.quote, record.day_volume)
            if (typeof quote === "string") throw new Error(quote)
            quotes.set(`${token} ${tick.sequence_id}`, quote)
          }
        }
      )
  })
  return { ticks, quotes, layer }
}

const tempFile = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-ledger-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
).pipe(Effect.map((folder) => join(folder, "ledger.ndjson")))

interface LedgerLine {
  readonly instrument_token: number
  readonly sequence_id: number
  readonly exchange_ts: number
  readonly price: number
  readonly volume: number
  readonly reached: ReadonlyArray<string>
  readonly quote?: { readonly day_volume?: number }
}
const readLedger = (path: string) =>
  readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as LedgerLine)

const settle = (
  ledger: ReadonlyArray<LedgerLine>,
  { quotes, ticks }: { readonly quotes: ReadonlyMap<string, QuoteState>; readonly ticks: ReadonlyArray<RawTick> },
  summary: { readonly ticks: number }
) => {
  const key = (t: { instrument_token: number; sequence_id?: number | undefined; price: number; exchange_ts: number }) =>
    `${t.instrument_token} ${t.sequence_id} ${t.price} ${t.exchange_ts}`
  assert.strictEqual(ledger.length, summary.ticks)
  for (const feed of ["dma", "snapshot"]) {
    assert.deepStrictEqual(
      new Set(ledger.filter((line) => line.reached.includes(feed)).map(key)),
      new Set(ticks.filter((tick) => tick.feed === feed).map(key))
    )
  }
  const said = ledger.flatMap(({ instrument_token, quote, reached, sequence_id }) =>
    quote === undefined || !reached.includes("snapshot")
      ? []
      : [[`${instrument_token} ${sequence_id}`, readQuote(quote, quote.day_volume)] as const]
  )
  assert.deepStrictEqual(new Map<string, QuoteState | string>(said), new Map(quotes))
}

describe("the simulator", () => {
  it.effect("runs for its duration at its rate, stamped with the clock", () =>
    Effect.gen(function* () {
      const { ticks, layer } = collecting()
      yield* TestClock.setTime(BEGUN_AT_MS)
      const fiber = yield* Simulator.run({ ...defaultSimulation, rate: 1000, durationMs: 3000 }).pipe(
        Effect.provide(layer),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust(10_000)
      const summary = yield* Fiber.join(fiber)
      assert.strictEqual(summary.ticks, 3000 + defaultSimulation.symbols)
      assert.isAbove(summary.dmaLost, 0)
      assert.strictEqual(summary.dmaSent + summary.snapshotSent, ticks.length)
      const stamps = ticks.map((tick) => tick.exchange_ts)
      assert.isAtLeast(Math.min(...stamps), BEGUN_AT_MS * 1000)
      assert.isAtMost(Math.max(...stamps), BEGUN_AT_MS * 1000 + 3_020_000)
    })
  )

  it.live("leaves a ledger of every tick that was meant, and of the feeds that each reached", () =>
    Effect.gen(function* () {
      const ledger = yield* tempFile
      const { layer, ...taken } = collecting()
      const asked = { ...defaultSimulation, rate: 20_000, durationMs: 500, loss: 0.1, ledger }
      const summary = yield* Simulator.run(asked).pipe(Effect.provide(layer))
      settle(readLedger(ledger), taken, summary)
      assert.isAbove(readLedger(ledger).filter((line) => line.reached.length === 0).length, 0)
    })
  )

  it.effect("never stamps a tick later than the clock when it publishes it", () =>
    Effect.gen(function* () {
      const ahead: Array<number> = []
      const layer = Layer.effect(
        RawSink,
        Effect.sync(() => ({
          publish: (batch: ReadonlyArray<{ readonly value: Uint8Array }>) =>
            Effect.clockWith((clock) =>
              Effect.sync(() => {
                const now = Number(clock.currentTimeNanosUnsafe() / 1000n)
                for (const { value } of batch) {
                  const { exchange_ts } = JSON.parse(Buffer.from(value).toString()) as RawTick
                  if (exchange_ts > now) ahead.push(exchange_ts - now)
                }
              })
            )
        }))
      )
      yield* TestClock.setTime(BEGUN_AT_MS)
      const fiber = yield* Simulator.run({ ...defaultSimulation, durationMs: 2000 }).pipe(
        Effect.provide(layer),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust(5000)
      yield* Fiber.join(fiber)
      // The closing ticks come a microsecond after the last of their instrument.
      assert.isTrue(ahead.every((by) => by <= 2))
    })
  )

  it.live("interrupted, closes every instrument, sends what it held back and completes its ledger", () =>
    Effect.gen(function* () {
      const ledger = yield* tempFile
      const { layer, ...taken } = collecting()
      const { ticks } = taken
      let final: Simulator.Summary | undefined
      const fiber = yield* Simulator.run({
        ...defaultSimulation,
        delayMs: 10_000,
        reorder: 0.2,
        ledger,
        progress: (summary, isFinal) => {
          if (isFinal) final = summary
        }
      }).pipe(Effect.provide(layer), Effect.forkChild({ startImmediately: true }))
      while (ticks.length < 1000) yield* Effect.sleep(5)
      assert.strictEqual(ticks.filter((tick) => tick.feed === "snapshot").length, 0)
      yield* Fiber.interrupt(fiber)
      assert.isDefined(final)
      const lines = readLedger(ledger)
      settle(lines, taken, final as Simulator.Summary)
      for (const own of Map.groupBy(lines, (line) => line.instrument_token).values()) {
        const last = own.reduce((a, b) => (a.sequence_id > b.sequence_id ? a : b))
        assert.includeMembers([...last.reached], ["dma"])
      }
      assert.isAbove(ticks.filter((tick) => tick.feed === "snapshot").length, 0)
    })
  )

  it.effect("goes slower with a slow sink, and does not catch up for ever", () =>
    Effect.gen(function* () {
      const { layer } = collecting(() => Effect.sleep(2000))
      yield* TestClock.setTime(BEGUN_AT_MS)
      const fiber = yield* Simulator.run({ ...defaultSimulation, rate: 1000, durationMs: 20_000 }).pipe(
        Effect.provide(layer),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust(120_000)
      const summary = yield* Fiber.join(fiber)
      // Each publish of 2 s lets the market go on by half a second at most.
      assert.isBelow(summary.ticks, 7000)
      assert.isAbove(summary.ticks, 3000)
    })
  )

  it.effect("asks an overloaded sink again, and loses nothing by it", () =>
    Effect.gen(function* () {
      const { ticks, layer } = collecting((n) =>
        n % 3 === 1 ? new Overloaded({ message: "full", retryAfterSeconds: 1 }) : Effect.void
      )
      yield* TestClock.setTime(BEGUN_AT_MS)
      const fiber = yield* Simulator.run({ ...defaultSimulation, durationMs: 4000 }).pipe(
        Effect.provide(layer),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust(60_000)
      const summary = yield* Fiber.join(fiber)
      assert.strictEqual(summary.dmaSent + summary.snapshotSent, ticks.length)
    })
  )

  it.effect("ends with the sink's failure", () =>
    Effect.gen(function* () {
      const { layer } = collecting((n) => (n === 3 ? new FeedError({ message: "gone" }) : Effect.void))
      yield* TestClock.setTime(BEGUN_AT_MS)
      const fiber = yield* Simulator.run(defaultSimulation).pipe(
        Effect.provide(layer),
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust(10_000)
      const exit = yield* Fiber.await(fiber)
      assert.deepStrictEqual(exit, Exit.fail(new FeedError({ message: "gone" })))
    })
  )

  it.effect("refuses a ledger that it cannot write before it sends anything", () =>
    Effect.gen(function* () {
      const { ticks, layer } = collecting()
      const failed = yield* Effect.flip(
        Simulator.run({ ...defaultSimulation, ledger: "/nowhere/at/all.ndjson" }).pipe(Effect.provide(layer))
      )
      assert.match(failed.message, /^ledger \/nowhere\/at\/all\.ndjson: ENOENT/)
      assert.strictEqual(ticks.length, 0)
    })
  )
})
