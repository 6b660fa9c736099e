import { assert, describe, it } from "@effect/vitest"
import {
  continuousOpen,
  dayPhases,
  phaseAt,
  SEGMENTS,
  type Segment,
  segmentOf,
  segmentOfToken,
  sessionDay
} from "../../src/schema/Sessions.ts"
import { HOLIDAYS, KNOWN_YEARS } from "../../src/schema/sessions/holidays.ts"
import { HOURS } from "../../src/schema/sessions/hours.ts"
import { SPECIAL_DAYS } from "../../src/schema/sessions/special.ts"
import { dayOfDate, parseIso } from "../../src/schema/Time.ts"

const ist = (date: string, clock: string): number => parseIso(`${date}T${clock}+05:30`)!

/** The phases of a day as `PHASE HH:MM-HH:MM` on the IST clock. */
const hoursOf = (segment: Segment, date: string): ReadonlyArray<string> => {
  const clock = (micros: number): string => new Date(micros / 1000 + 19_800_000).toISOString().slice(11, 16)
  return dayPhases(segment, date).phases.map(({ phase, from, to }) => `${phase} ${clock(from)}-${clock(to)}`)
}

describe("Sessions", () => {
  it("keeps 09:15 to 15:30 for every stock until the closing auction came", () => {
    for (const segment of ["NSE_EQ", "NSE_EQ_CAS", "BSE_EQ", "BSE_EQ_CAS"] as const) {
      assert.deepStrictEqual(hoursOf(segment, "2026-07-31"), [
        "PRE_OPEN 09:00-09:15",
        "CONTINUOUS 09:15-15:30",
        "POST_CLOSE 15:40-16:00"
      ])
    }
  })

  it("ends continuous trading at 15:15 for stocks with derivatives from 2026-08-03", () => {
    assert.deepStrictEqual(hoursOf("NSE_EQ_CAS", "2026-08-03"), [
      "PRE_OPEN 09:00-09:15",
      "CONTINUOUS 09:15-15:15",
      "CAS 15:15-15:35",
      "POST_CLOSE 15:50-16:00"
    ])
    assert.deepStrictEqual(hoursOf("NSE_EQ", "2026-08-03"), [
      "PRE_OPEN 09:00-09:15",
      "CONTINUOUS 09:15-15:30",
      "POST_CLOSE 15:50-16:00"
    ])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2026-07-31"), ["CONTINUOUS 09:15-15:30"])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2026-08-03"), ["CONTINUOUS 09:15-15:40"])
    assert.deepStrictEqual(hoursOf("BFO_FUT", "2026-08-03"), ["PRE_OPEN 09:00-09:15", "CONTINUOUS 09:15-15:40"])
    assert.deepStrictEqual(hoursOf("NFO_FUT", "2025-12-05"), ["CONTINUOUS 09:15-15:30"])
    assert.deepStrictEqual(hoursOf("NFO_FUT", "2025-12-08"), ["PRE_OPEN 09:00-09:15", "CONTINUOUS 09:15-15:30"])
  })

  it("answers the phase of an instant, the start of a phase being part of it and the end not", () => {
    const at = (segment: Segment, clock: string) => phaseAt(segment, ist("2026-08-03", clock))
    assert.strictEqual(at("NSE_EQ_CAS", "08:59:59.999999"), "CLOSED")
    assert.strictEqual(at("NSE_EQ_CAS", "09:00"), "PRE_OPEN")
    assert.strictEqual(at("NSE_EQ_CAS", "09:15"), "CONTINUOUS")
    assert.strictEqual(at("NSE_EQ_CAS", "15:14:59.999999"), "CONTINUOUS")
    assert.strictEqual(at("NSE_EQ_CAS", "15:15"), "CAS")
    assert.strictEqual(at("NSE_EQ", "15:15"), "CONTINUOUS")
    assert.strictEqual(at("NSE_EQ_CAS", "15:35"), "CLOSED")
    assert.strictEqual(at("NSE_EQ_CAS", "15:50"), "POST_CLOSE")
    assert.strictEqual(at("NSE_EQ_CAS", "16:00"), "CLOSED")
    assert.strictEqual(at("NFO_FUT", "15:39:59"), "CONTINUOUS")
  })

  it("knows the cash market's weekends with hours of their own since 2015", () => {
    const full = ["PRE_OPEN 09:00-09:15", "CONTINUOUS 09:15-15:30"]
    assert.deepStrictEqual(hoursOf("NSE_INDEX", "2015-02-28"), full)
    assert.deepStrictEqual(hoursOf("BSE_INDEX", "2020-02-01"), full)
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2015-11-11"), ["CONTINUOUS 17:45-18:45"])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2016-10-30"), ["CONTINUOUS 18:30-19:30"])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2017-10-19"), ["CONTINUOUS 18:30-19:30"])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2018-11-07"), ["CONTINUOUS 17:30-18:30"])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2019-10-27"), ["CONTINUOUS 18:15-19:15"])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2020-11-14"), ["CONTINUOUS 18:15-19:15"])
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2021-02-24"), ["CONTINUOUS 09:15-11:40", "CONTINUOUS 15:45-17:00"])
    assert.deepStrictEqual(dayPhases("NSE_EQ", "2018-10-18"), { holiday: "Dussehra", phases: [], known: true })
  })

  it("starts and ends phases on whole five minutes, which bars of a session are made of", () => {
    for (const segment of SEGMENTS) {
      for (let day = dayOfDate("2010-10-18")!; day < dayOfDate("2027-12-31")!; day++) {
        for (const { from, to } of sessionDay(segment, day).phases) {
          assert.deepStrictEqual([from % 300_000_000, to % 300_000_000], [0, 0], `${segment} ${day}`)
        }
      }
    }
  })

  it("knows that 2022-08-09 was Muharram, and 10 and 12 August trading days", () => {
    assert.deepStrictEqual(dayPhases("NSE_INDEX", "2022-08-09"), { holiday: "Muharram", phases: [], known: true })
    assert.deepStrictEqual(hoursOf("NSE_INDEX", "2022-08-10"), ["PRE_OPEN 09:00-09:15", "CONTINUOUS 09:15-15:30"])
    assert.strictEqual(continuousOpen("NSE_EQ", dayOfDate("2022-08-09")!), undefined)
    assert.strictEqual(continuousOpen("NSE_EQ", dayOfDate("2022-08-10")!), ist("2022-08-10", "09:15"))
    assert.strictEqual(continuousOpen("NSE_EQ", dayOfDate("2022-08-12")!), ist("2022-08-12", "09:15"))
  })

  it("opens Muhurat trading on a holiday, also on a Sunday, and weekend sessions", () => {
    assert.deepStrictEqual(hoursOf("NSE_EQ", "2025-10-21"), [
      "PRE_OPEN 13:30-13:45",
      "CONTINUOUS 13:45-14:45",
      "POST_CLOSE 14:55-15:05"
    ])
    assert.deepStrictEqual(hoursOf("MCX", "2023-11-12"), ["CONTINUOUS 18:15-19:15"])
    assert.strictEqual(continuousOpen("NSE_EQ", dayOfDate("2024-11-01")!), ist("2024-11-01", "18:00"))
    assert.deepStrictEqual(hoursOf("NFO_OPT", "2024-03-02"), ["CONTINUOUS 09:15-10:00", "CONTINUOUS 11:30-12:30"])
    assert.strictEqual(phaseAt("NSE_EQ", ist("2024-01-20", "11:00")), "CONTINUOUS")
    assert.strictEqual(phaseAt("CDS", ist("2024-01-20", "11:00")), "CLOSED")
    assert.strictEqual(phaseAt("NSE_EQ", ist("2026-02-01", "11:00")), "CONTINUOUS")
    assert.isFalse(dayPhases("NSE_EQ", "2026-11-08").known)
  })

  it("keeps commodities open in the evening of most holidays, and until 23:55 in the American winter", () => {
    assert.deepStrictEqual(hoursOf("MCX", "2022-08-09"), ["CONTINUOUS 17:00-23:30"])
    assert.deepStrictEqual(hoursOf("MCX", "2026-11-10"), ["CONTINUOUS 17:00-23:55"])
    assert.deepStrictEqual(hoursOf("MCX", "2026-01-26"), [])
    assert.deepStrictEqual(hoursOf("MCX", "2026-01-01"), ["CONTINUOUS 09:00-17:00"])
    assert.deepStrictEqual(hoursOf("MCX", "2026-10-30"), ["CONTINUOUS 09:00-23:30"])
    assert.deepStrictEqual(hoursOf("MCX", "2026-11-02"), ["CONTINUOUS 09:00-23:55"])
  })

  it("closes currency derivatives when the banks close, though stocks trade", () => {
    assert.strictEqual(dayPhases("CDS", "2026-04-01").holiday, "Annual bank closing")
    assert.isNull(dayPhases("NSE_EQ", "2026-04-01").holiday)
  })

  it("says what lies beyond the tables, where weekdays count as trading days", () => {
    const weekday = dayPhases("NSE_EQ", "2027-08-16")
    assert.isFalse(weekday.known)
    assert.isNull(weekday.holiday)
    assert.strictEqual(weekday.phases.length, 3)
    assert.deepStrictEqual(dayPhases("NSE_EQ", "2027-08-15"), { holiday: "Sunday", phases: [], known: false })
    assert.isFalse(dayPhases("NSE_EQ", "2014-12-31").known)
    assert.isFalse(dayPhases("MCX", "2021-06-01").known)
    assert.isFalse(dayPhases("CDS", "2022-06-01").known)
    assert.isTrue(dayPhases("NSE_EQ", "2026-12-31").known)
  })

  it("has the simulator open at all hours", () => {
    assert.strictEqual(phaseAt("SIM", ist("2026-11-08", "03:00")), "CONTINUOUS")
    assert.deepStrictEqual(dayPhases("SIM", "2026-11-08"), {
      holiday: null,
      phases: [{ phase: "CONTINUOUS", from: ist("2026-11-08", "00:00"), to: ist("2026-11-09", "00:00") }],
      known: true
    })
  })

  it("names the segment of an instrument", () => {
    const of = (exchange: string, asset_class: "EQ" | "FUT" | "OPT" | "INDEX", hasDerivatives = false) =>
      segmentOf({ exchange, asset_class, hasDerivatives })
    assert.strictEqual(of("NSE", "EQ"), "NSE_EQ")
    assert.strictEqual(of("NSE", "EQ", true), "NSE_EQ_CAS")
    assert.strictEqual(of("NSE", "INDEX", true), "NSE_INDEX")
    assert.strictEqual(of("BSE", "EQ", true), "BSE_EQ_CAS")
    assert.strictEqual(of("NFO", "FUT"), "NFO_FUT")
    assert.strictEqual(of("BFO", "OPT"), "BFO_OPT")
    assert.strictEqual(of("MCX", "FUT"), "MCX")
    assert.strictEqual(of("SIM", "EQ"), "SIM")
    assert.isUndefined(of("NYSE", "EQ"))
  })

  it("refuses what is no date", () => {
    for (const date of ["2026-02-31", "2026-2-3", "today", "2026-13-01"]) {
      assert.isUndefined(dayOfDate(date))
      assert.throws(() => dayPhases("NSE_EQ", date), RangeError)
    }
    assert.strictEqual(dayOfDate("1980-01-02"), 3653)
  })

  it("has tables that ascend, name each day once and stay in the years they claim", () => {
    for (const segment of SEGMENTS) {
      const froms = HOURS[segment].map(({ from }) => from)
      assert.deepStrictEqual(froms, froms.toSorted())
      for (const { phases } of HOURS[segment]) {
        for (const [i, [, from, to]] of phases.entries()) {
          assert.isBelow(from.localeCompare(to), 0)
          assert.isAtMost((phases[i - 1]?.[2] ?? "").localeCompare(from), 0)
        }
      }
    }
    for (const calendar of ["EQUITY", "CURRENCY", "COMMODITY"] as const) {
      const dates = HOLIDAYS[calendar].map(({ date }) => date)
      assert.strictEqual(new Set(dates).size, dates.length)
      for (const date of dates) {
        assert.isDefined(dayOfDate(date), date)
        assert.isAtMost(Number(date.slice(0, 4)), KNOWN_YEARS[calendar][1])
      }
    }
    for (const { date } of SPECIAL_DAYS) assert.isDefined(dayOfDate(date))
  })
})

describe("the segment that a token tells", () => {
  it("is that of its low byte, SIM for the simulator's, and NSE's where no code says another", () => {
    const of = (token: number) => segmentOfToken(token)
    assert.deepStrictEqual([738_561, 256_265, 53_505_799, 15_995_138, 128_083_204].map(of), [
      "NSE_EQ",
      "NSE_INDEX",
      "MCX",
      "NFO_FUT",
      "BSE_EQ"
    ])
    assert.deepStrictEqual([9_000_000, 9_000_001, 9_100_000, 9_100_001].map(of), ["NSE_EQ", "SIM", "SIM", "NSE_EQ"])
  })
})
