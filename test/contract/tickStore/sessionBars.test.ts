/** Decides, for the store on every database, that bars answered of a session are the roll-up of the finer ones. */
import { assert } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { bars } from "../../../src/http/bars.ts"
import { type Candle, type Interval, intervalMinutes } from "../../../src/schema/Candle.ts"
import { dayPhases, SEGMENTS, type Segment } from "../../../src/schema/Sessions.ts"
import { compareTicks, tradingDayStart } from "../../../src/schema/Tick.ts"
import { dayOfDate } from "../../../src/schema/Time.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { makeTick } from "../ticks.ts"
import { intervals, MINUTE, newToken, refreshAll, write } from "./rows.ts"
import { onEachStore } from "./stores.ts"

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/** Regular days of each time, Muhurat on weekdays and weekends, whole and split Saturdays, evenings alone, a holiday. */
const DATES = [
  "2015-11-11",
  "2016-10-30",
  "2020-02-01",
  "2021-02-24",
  "2024-03-02",
  "2024-11-01",
  "2025-10-21",
  "2026-01-15",
  "2026-01-16",
  "2026-01-26",
  "2026-02-01",
  "2026-08-04"
] as const

/** An instant beside an edge of a phase, or anywhere in the day. */
const Instant = Schema.Union([
  Schema.Struct({ edge: int(0, 9), off: Schema.Literals([-60_000_000, -1, 0, 1, 60_000_000]) }),
  Schema.Struct({ second: int(0, 86_399) })
])
const Asked = Schema.Struct({
  segment: Schema.Literals(SEGMENTS),
  date: Schema.Literals(DATES),
  ticks: Schema.Array(Schema.Struct({ at: Instant, price: int(1, 20), volume: int(0, 9) })).pipe(
    Schema.check(Schema.isBetweenLength(1, 30))
  ),
  refreshed: Schema.Boolean,
  limit: int(1, 6)
})

const MINUTES_OF_DAY = 1440
/** Where bars of 30 minutes and an hour start, in minutes after midnight. */
const opens = (segment: Segment): number => (segment === "MCX" || segment === "CDS" || segment === "BCD" ? 540 : 555)

/** Bars of an interval out of things that have a time, by clock arithmetic alone. */
const rollUp = (parts: ReadonlyArray<Candle>, interval: Interval, segment: Segment, day: number): Array<Candle> => {
  const width = intervalMinutes[interval] * MINUTE
  const origin = day + (interval === "1d" ? 0 : opens(segment) - 2 * MINUTES_OF_DAY) * MINUTE
  const made = new Map<number, Array<Candle>>()
  for (const part of parts) {
    const ts = origin + Math.floor((part.ts - origin) / width) * width
    made.set(ts, [...(made.get(ts) ?? []), part])
  }
  return [...made].map(([ts, held]) => ({
    ts,
    open: held[0]!.open,
    high: Math.max(...held.map(({ high }) => high)),
    low: Math.min(...held.map(({ low }) => low)),
    close: held.at(-1)!.close,
    volume: held.reduce((sum, { volume }) => sum + volume, 0)
  }))
}

onEachStore("bars of a session", (it) => {
  it.effect.prop(
    "are at every interval the roll-up of the minutes that stay in, in every segment and on special days",
    [Asked],
    ([{ segment, date, ticks, refreshed, limit }]) =>
      Effect.gen(function* () {
        const store = yield* TickStore
        const token = newToken()
        const day = tradingDayStart(dayOfDate(date)!)
        const { phases, known } = dayPhases(segment, date)
        const edges = phases.flatMap(({ from, to }) => [from, to])
        const rows = ticks
          .map(({ at, price, volume }, i) => {
            const exchange_ts =
              "second" in at ? day + at.second * 1_000_000 : (edges[at.edge % (edges.length || 1)] ?? day) + at.off
            return makeTick({
              instrument_token: token,
              exchange_ts: Math.min(Math.max(exchange_ts, day), day + MINUTES_OF_DAY * MINUTE - 1),
              sequence_id: i + 1,
              price: price / 4,
              volume,
              position: i + 1
            })
          })
          .sort(compareTicks)
        yield* write(rows)
        if (refreshed) yield* refreshAll

        const isRegular = ({ phase }: { readonly phase: string }) => phase === "CONTINUOUS" || phase === "CAS"
        const regular = phases.filter(isRegular)
        for (const session of ["all", "regular"] as const) {
          const counted = rows.flatMap(({ exchange_ts, price, volume }): ReadonlyArray<Candle> => {
            const minute = exchange_ts - (exchange_ts % MINUTE)
            const held = { ts: exchange_ts, open: price, high: price, low: price, close: price, volume }
            if (session === "all" || regular.some(({ from, to }) => from <= minute && minute < to)) return [held]
            return regular.some(({ to }) => to === exchange_ts) ? [{ ...held, ts: exchange_ts - 1 }] : []
          })
          const answered = (interval: Interval) =>
            Effect.gen(function* () {
              const found: Array<Candle> = []
              let from: number | undefined = day
              while (from !== undefined) {
                const page: Effect.Success<ReturnType<typeof bars>> = yield* bars(store, {
                  token,
                  segment,
                  interval,
                  // A bar of an hour may begin before midnight.
                  from: from === day && interval !== "1d" ? day - 60 * MINUTE : from,
                  to: day + MINUTES_OF_DAY * MINUTE,
                  limit,
                  fill: "none",
                  session,
                  now: day + 3 * MINUTES_OF_DAY * MINUTE
                })
                if (page.bars.length > 0) assert.strictEqual(page.known, known)
                for (const { phase, final, ...bar } of page.bars) {
                  assert.isTrue(final)
                  if (interval === "1d" && regular.length > 0) assert.notStrictEqual(phase, "CLOSED")
                  found.push(bar)
                }
                from = page.next
              }
              return found
            })
          const minutes = yield* answered("1m")
          assert.deepStrictEqual(minutes, rollUp(counted, "1m", segment, day))
          for (const interval of intervals) {
            const found = yield* answered(interval)
            const from = `${session} ${interval}`
            assert.deepStrictEqual(found, rollUp(counted, interval, segment, day), from)
            assert.deepStrictEqual(found, rollUp(minutes, interval, segment, day), from)
          }
        }
      })
  )
})
