import { assert, describe, it } from "@effect/vitest"
import { udfSession } from "../../src/http/udfSession.ts"
import { SEGMENTS, sessionDay } from "../../src/schema/Sessions.ts"
import { tradingDate, tradingDayStart } from "../../src/schema/Tick.ts"
import { dayOfDate } from "../../src/schema/Time.ts"

const MINUTE = 60_000_000
const minuteOf = (hhmm: string): number => Number(hhmm.slice(0, 2)) * 60 + Number(hhmm.slice(2))

/** A day's minutes, those of the parts set. */
const minutesOf = (parts: ReadonlyArray<readonly [from: number, to: number]>): Buffer => {
  const minutes = Buffer.alloc(1440)
  for (const [from, to] of parts) minutes.fill(1, from, to)
  return minutes
}

const TODAY = dayOfDate("2026-11-27")!

/** The hours that a charting library takes a date to have: its correction, or none on a holiday, or the string's. */
const reader = (told: ReturnType<typeof udfSession>) => {
  if (told.session === "24x7") return () => "0000-2400"
  const [hours, weekdays] = told.session.split(":") as [string, string]
  const corrections = new Map(
    told.corrections
      .split(";")
      .filter((part) => part !== "")
      .flatMap((part) => {
        const [own, dates] = part.split(":") as [string, string]
        return dates.split(",").map((date) => [date, own] as const)
      })
  )
  const holidays = new Set(told.session_holidays.split(","))
  return (day: number): string => {
    const date = tradingDate(day).replaceAll("-", "")
    const weekday = String(new Date(day * 86_400_000).getUTCDay() + 1)
    return corrections.get(date) ?? (holidays.has(date) || !weekdays.includes(weekday) ? "" : hours)
  }
}

describe("the session that charting libraries are told", () => {
  it("has every minute of continuous trading and closing auction of every segment's days, and no other", () => {
    for (const segment of SEGMENTS) {
      const read = reader(udfSession(segment, TODAY))
      for (let day = TODAY - 12 * 365; day <= TODAY + 365; day++) {
        const start = tradingDayStart(day)
        const charted = sessionDay(segment, day).phases.filter(({ phase }) => phase === "CONTINUOUS" || phase === "CAS")
        const minutes = minutesOf(charted.map(({ from, to }) => [(from - start) / MINUTE, (to - start) / MINUTE]))
        const parts = read(day)
          .split(",")
          .filter((text) => text !== "")
        const told = minutesOf(parts.map((part) => part.split("-").map(minuteOf) as [number, number]))
        assert.isTrue(told.equals(minutes), `${segment} ${tradingDate(day)}: ${read(day)}`)
      }
    }
  })

  it("has older hours, Muhurat trading and special Saturdays as corrections, and holidays apart", () => {
    const { session, corrections, session_holidays } = udfSession("NSE_EQ_CAS", TODAY)
    assert.strictEqual(session, "0915-1535:23456")
    assert.include(corrections, "1345-1445:20251021")
    assert.match(corrections, /0915-1530:[\d,]*20240120/)
    assert.include(corrections, "0915-1000,1130-1230:20240302,20240518")
    assert.include(session_holidays.split(","), "20260126")
    assert.notInclude(session_holidays, "20251021")
  })
})
