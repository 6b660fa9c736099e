import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import {
  dayReplayOf,
  kiteBarTime,
  kiteIntervalOf,
  kiteStamp,
  kiteTimeOf,
  shiftToToday
} from "../../../src/schema/kite/asked.ts"
import { readSettings } from "../../../src/schema/Settings.ts"

/** 2026-01-16 09:15 in India. */
const OPEN = 1_768_535_100_000_000

describe("Kite's own words", () => {
  it("of a time are India's, with or without seconds, and a date alone is its whole day", () => {
    assert.strictEqual(kiteTimeOf("from", "2026-01-16 09:15:00"), OPEN)
    assert.strictEqual(kiteTimeOf("from", "2026-01-16+09:15"), OPEN)
    assert.strictEqual(kiteTimeOf("from", "2026-01-16T09:15:00"), OPEN)
    assert.strictEqual(kiteTimeOf("from", "2026-01-16"), OPEN - 33_300_000_000)
    assert.strictEqual(kiteTimeOf("to", "2026-01-16", true), OPEN - 33_300_000_000 + 86_399_000_000)
    for (const wrong of [
      "",
      "yesterday",
      "2026-02-30",
      "2026-01-16 24:00",
      "2026-01-16 09:60",
      "2026-01-16T09:15:00Z"
    ]) {
      assert.match(String(kiteTimeOf("from", wrong)), /^invalid from date: expected a time in India such as/, wrong)
    }
  })

  it("are written as every client reads them", () => {
    assert.strictEqual(kiteBarTime(OPEN), "2026-01-16T09:15:00+0530")
    assert.strictEqual(kiteStamp(OPEN / 1_000_000), "2026-01-16 09:15:00")
    assert.isNull(kiteStamp(0))
  })

  it("of an interval, a replay and a shift are read or refused", () => {
    assert.strictEqual(kiteIntervalOf("hour"), "60minute")
    assert.isUndefined(kiteIntervalOf("toString"))
    assert.deepStrictEqual(dayReplayOf("2026-01-15@60"), { date: "2026-01-15", speed: 60 })
    assert.deepStrictEqual(dayReplayOf("2026-01-15@inf"), { date: "2026-01-15", speed: "inf" })
    assert.deepStrictEqual(dayReplayOf("2026-01-15"), { date: "2026-01-15", speed: 1 })
    for (const wrong of ["2026-01-32", "2026-01-15@", "2026-01-15@0", "2026-01-15@-1", "15-01-2026"]) {
      assert.isUndefined(dayReplayOf(wrong), wrong)
    }
    assert.strictEqual(shiftToToday(20_469, OPEN + 3 * 86_400_000_000), 3 * 86_400_000_000)
  })

  it("of days are a setting of every interval", () => {
    const { KITE_HISTORICAL_DAYS } = Result.getOrThrow(readSettings({}))
    assert.deepStrictEqual(KITE_HISTORICAL_DAYS, {
      minute: 60,
      "3minute": 100,
      "5minute": 100,
      "10minute": 100,
      "15minute": 200,
      "30minute": 200,
      "60minute": 400,
      day: 2000
    })
    for (const wrong of ["minute=60", "minute=0,3minute=1", "minute=60,minute=60"]) {
      assert.isTrue(Result.isFailure(readSettings({ KITE_HISTORICAL_DAYS: wrong })), wrong)
    }
  })
})
