/**
 * Decides how fast a stored day is replayed at `inf` through a whole embedded instance: read by keyset from PGlite,
 * merged, through the log and every stage, into every sink, and back in one order. There is no bare loop to hold it
 * against: what it may not be slower than is the pipeline itself.
 */
import { Context, Effect, Layer } from "effect"
import { instance } from "../src/commands/instance.ts"
import { readSettings } from "../src/schema/Settings.ts"
import type { Tick } from "../src/schema/Tick.ts"
import { TickStore } from "../src/streams/ports/TickStore.ts"
import { Replays } from "../src/streams/replay/Replays.ts"
import { cleanTick } from "./clean.ts"
import { figures, type Row } from "./row.ts"

const TICKS = 200_000
const INSTRUMENTS = 50
const RUNS = 5
const BATCH = 5000
const DATE = "2026-01-15"
/** The session's 22,500 s hold them all. */
const SPACING_MICROS = Math.floor(22_500_000_000 / TICKS)

const day = (): ReadonlyArray<Tick> =>
  Array.from({ length: TICKS }, (_, i) =>
    cleanTick(i, 1000 + (i % INSTRUMENTS), Math.floor(i / INSTRUMENTS) + 1, SPACING_MICROS)
  )

export const run = (): Promise<Row> => {
  const settings = Effect.fromResult(readSettings({ ...process.env, PORT: "0", DATABASE_URL: "", DATA_DIR: "" }))
  return Effect.gen(function* () {
    const services = yield* Layer.build(instance(yield* settings, undefined))
    const store = Context.get(services, TickStore)
    const replays = Context.get(services, Replays)
    const ticks = day()
    for (let i = 0; i < TICKS; i += BATCH) {
      yield* store.write({
        ticks: ticks.slice(i, i + BATCH),
        replayed: [],
        quotes: [],
        replayedQuotes: [],
        bookmarks: []
      })
    }
    let peak = 0
    const once = Effect.gen(function* () {
      const started = performance.now()
      const { id, total } = yield* replays.start({ all: true, date: DATE, speed: "inf" })
      for (;;) {
        yield* Effect.sleep(5)
        peak = Math.max(peak, process.memoryUsage.rss())
        const now = yield* replays.get(id)
        if (now.state === "ended") break
        if (now.state === "failed") throw new Error(now.failure?.message)
      }
      if (total !== TICKS) throw new Error(`${total} ticks were stored, not ${TICKS}`)
      return total / ((performance.now() - started) / 1000)
    })
    yield* once
    const cpu = process.cpuUsage()
    const rates: Array<number> = []
    for (let i = 0; i < RUNS; i++) rates.push(yield* once)
    const used = process.cpuUsage(cpu)
    return {
      name: "replay",
      ...figures({ product: rates, bare: [] }),
      unit: "ticks/s",
      cpu_s_per_million: ((used.user + used.system) / 1e6 / (RUNS * TICKS)) * 1e6,
      peak_rss_mb: peak / 2 ** 20
    } satisfies Row
  }).pipe(Effect.scoped, Effect.runPromise)
}
