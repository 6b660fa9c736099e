import { assert, describe, it } from "@effect/vitest"
import { isUnclear, momentOf, readingsOf, readTime } from "../../src/schema/WrittenTime.ts"

const day = (date: string) => Date.parse(`${date}T00:00:00Z`) / 86_400_000

describe("a written date", () => {
  it("is one day where it begins with its year or names its month", () => {
    for (const text of [
      "2026-01-05",
      "2026/1/5",
      "20260105",
      "05-JAN-2026",
      "5 Jan 26",
      "5Jan2026",
      "Jan 5, 2026",
      "January 5 2026",
      "2026-Jan-05"
    ]) {
      assert.deepStrictEqual([...readingsOf(text)], [["clear", day("2026-01-05")]], text)
    }
  })

  it("is each day that its numbers can mean", () => {
    assert.deepStrictEqual(
      [...readingsOf("03/04/2026")],
      [
        ["dmy", day("2026-04-03")],
        ["mdy", day("2026-03-04")]
      ]
    )
    assert.isTrue(isUnclear(readingsOf("03/04/2026")))
    assert.deepStrictEqual([...readingsOf("13/04/2026").keys()], ["dmy"])
    assert.deepStrictEqual([...readingsOf("04/13/2026").keys()], ["mdy"])
    assert.deepStrictEqual([...readingsOf("01022026").keys()], ["dmy", "mdy"])
    assert.isFalse(isUnclear(readingsOf("03/03/2026")))
    assert.deepStrictEqual([...readingsOf("26-01-05").keys()], ["ymd", "dmy"])
    assert.strictEqual(readingsOf("31-12-99").get("dmy"), day("1999-12-31"))
  })

  it("is none where there is no such day", () => {
    for (const text of ["", "32/01/2026", "2026-02-30", "30 Feb 2026", "5 Foo 2026", "20261301", "1/2", "2026-01/05"]) {
      assert.strictEqual(readingsOf(text).size, 0, text)
    }
  })
})

describe("a written time of day", () => {
  const micros = (h: number, m: number, s = 0, us = 0) => ((h * 60 + m) * 60 + s) * 1_000_000 + us

  it("has seconds and fractions or not, twelve hours or twenty-four, and colons or not", () => {
    for (const [text, at] of [
      ["09:15", micros(9, 15)],
      ["9:15:01.123456789", micros(9, 15, 1, 123_456)],
      ["09:15:00:250", micros(9, 15, 0, 250_000)],
      ["03:30:05 PM", micros(15, 30, 5)],
      ["12:00 am", 0],
      ["12:05 p.m.", micros(12, 5)],
      ["091500", micros(9, 15)],
      ["91500", micros(9, 15)],
      ["0915", micros(9, 15)],
      ["091500.5", micros(9, 15, 0, 500_000)],
      ["091500123", micros(9, 15, 0, 123_000)]
    ] as const) {
      assert.strictEqual(readTime(text), at, text)
    }
    for (const text of ["", "24:00", "09:60", "09:15:60", "13:00 PM", "0:30 AM", "9", "nine"]) {
      assert.isUndefined(readTime(text), text)
    }
  })

  it("stands after its date, with an offset or without", () => {
    assert.deepStrictEqual(momentOf("05-Jan-2026, 9:15 AM"), {
      date: "05-Jan-2026",
      time: "9:15 AM",
      offset: undefined
    })
    assert.deepStrictEqual(momentOf("05/01/2026 09:15:00 +05:30"), {
      date: "05/01/2026",
      time: "09:15:00",
      offset: 330
    })
    assert.deepStrictEqual(momentOf("20260105091500"), { date: "20260105", time: "091500", offset: undefined })
    assert.deepStrictEqual(momentOf("05-Jan-2026"), { date: "05-Jan-2026", time: "", offset: undefined })
    assert.isUndefined(momentOf("2026-01-05 09:15:00+19:00"))
  })
})
