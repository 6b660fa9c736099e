import { assert, describe, it } from "@effect/vitest"
import { makeZone, type Zone } from "../../src/schema/NaiveTime.ts"
import { readTime } from "../../src/schema/WrittenTime.ts"

const zone = (name: string): Zone => {
  const made = makeZone(name)
  assert.isDefined(made)
  return made as Zone
}
/** Of `2026-01-15 09:15:00`, also with a fraction. */
const read = (subject: Zone, text: string): number | string => {
  const [date, time] = text.split(/[T ]/) as [string, string]
  return subject.at(Date.parse(`${date}T00:00:00Z`) / 86_400_000, readTime(time)!)
}
const micros = (iso: string) => Date.parse(iso) * 1000

describe("a naive time", () => {
  it("is five and a half hours ahead of UTC in India", () => {
    const ist = zone("Asia/Kolkata")
    assert.strictEqual(read(ist, "2022-08-10 09:00:01"), micros("2022-08-10T03:30:01Z"))
    assert.strictEqual(read(ist, "2022-08-10T09:00:01.000123"), micros("2022-08-10T03:30:01Z") + 123)
    assert.strictEqual(read(ist, "2022-08-10 09:00"), micros("2022-08-10T03:30:00Z"))
    assert.strictEqual(read(ist, "2022-01-01 00:00:00"), micros("2021-12-31T18:30:00Z"))
  })

  it("follows daylight saving, on either side of a change", () => {
    const newYork = zone("America/New_York")
    assert.strictEqual(read(newYork, "2026-03-08 01:59:59"), micros("2026-03-08T06:59:59Z"))
    assert.strictEqual(read(newYork, "2026-03-08 03:00:00"), micros("2026-03-08T07:00:00Z"))
    assert.strictEqual(read(newYork, "2026-11-01 00:59:59"), micros("2026-11-01T04:59:59Z"))
    assert.strictEqual(read(newYork, "2026-11-01 02:00:00"), micros("2026-11-01T07:00:00Z"))
    const lordHowe = zone("Australia/Lord_Howe")
    assert.strictEqual(read(lordHowe, "2026-01-15 12:00:00"), micros("2026-01-15T01:00:00Z"))
    assert.strictEqual(read(lordHowe, "2026-07-15 12:00:00"), micros("2026-07-15T01:30:00Z"))
  })

  it("is refused where clocks skip it or show it twice", () => {
    assert.strictEqual(
      read(zone("America/New_York"), "2026-03-08 02:30:00"),
      "2026-03-08 02:30 is skipped by the clocks of America/New_York"
    )
    assert.strictEqual(
      read(zone("Europe/London"), "2026-10-25 01:30:00"),
      "2026-10-25 01:30 comes twice on the clocks of Europe/London: write it with an offset"
    )
  })

  it("agrees with the zone's own clock for every hour of two years", () => {
    for (const name of ["Asia/Kolkata", "America/St_Johns", "Europe/London", "Pacific/Chatham", "UTC"]) {
      const subject = zone(name)
      const clock = new Intl.DateTimeFormat("sv-SE", {
        timeZone: name,
        dateStyle: "short",
        timeStyle: "medium"
      })
      let refused = 0
      for (let ms = Date.UTC(2025, 0, 1); ms < Date.UTC(2027, 0, 1); ms += 3_600_000) {
        const instant = read(subject, clock.format(ms))
        if (typeof instant === "string") refused += 1
        else assert.strictEqual(instant, ms * 1000)
      }
      assert.strictEqual(refused, name === "Asia/Kolkata" || name === "UTC" ? 0 : 4, name)
    }
  })

  it("has no zone by a name that does not exist", () => {
    assert.isUndefined(makeZone("Asia/Nowhere"))
  })
})
