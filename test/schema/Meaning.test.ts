import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import type { Instrument } from "../../src/schema/Instrument.ts"
import { inTurn, MAX_SIGHTINGS, meaningsOf, type Sighting, sighted } from "../../src/schema/Meaning.ts"
import { tradingDate } from "../../src/schema/Tick.ts"
import { instrumentOf } from "../support/instruments.ts"

const contract = (symbol: string, expiry: number): Instrument =>
  instrumentOf(7, symbol, "NFO", { asset_class: "FUT", expiry: tradingDate(expiry) })

const all = (said: ReadonlyArray<readonly [Instrument, number]>): ReadonlyArray<Sighting> =>
  said.reduce<ReadonlyArray<Sighting>>((before, [instrument, day]) => sighted(before, instrument, day), [])

const at = (sightings: ReadonlyArray<Sighting>, day: number): string | undefined =>
  meaningsOf(sightings).find(({ from, through }) => from <= day && day <= through)?.instrument.tradingsymbol

describe("what a token means", () => {
  const july = contract("JUL", 120)
  const august = contract("AUG", 500)

  it("is the contract of its day, whichever file came first, and again", () => {
    for (const said of [
      [[july, 100] as const, [august, 400] as const],
      [[august, 400] as const, [july, 100] as const],
      [[august, 400] as const, [july, 100] as const, [july, 100] as const, [august, 400] as const]
    ]) {
      const sightings = all(said)
      assert.strictEqual(sightings.length, 2)
      assert.deepStrictEqual(
        [0, 100, 120, 121, 399, 400, 500, 501].map((day) => at(sightings, day)),
        ["JUL", "JUL", "JUL", "AUG", "AUG", "AUG", "AUG", "AUG"]
      )
    }
  })

  it("is a contract until another is seen in its place, also where that comes before its expiry", () => {
    const sightings = all([
      [contract("LONG", 900), 100],
      [august, 400]
    ])
    assert.deepStrictEqual(
      [399, 400, 600, 900].map((day) => at(sightings, day)),
      ["LONG", "AUG", "AUG", "AUG"]
    )
  })

  it("is seen no later than it expires, whatever day its file is said to be of", () => {
    assert.deepStrictEqual(all([[july, 1000]]), [{ instrument: july, first: 120, last: 120 }])
    assert.strictEqual(
      at(
        all([
          [august, 400],
          [july, 1000]
        ]),
        110
      ),
      "JUL"
    )
  })

  it("changes with the tick size, not with a name, of which the newest is kept", () => {
    const named = (name: string, tick_size: number) => instrumentOf(7, "SBIN", "NSE", { name, tick_size })
    const sightings = all([
      [named("STATE BANK", 0.05), 100],
      [named("STATE BANK OF INDIA", 0.05), 200],
      [named("SBI", 0.05), 150],
      [named("STATE BANK OF INDIA", 0.1), 300]
    ])
    assert.deepStrictEqual(
      sightings.map(({ instrument, first, last }) => [instrument.name, instrument.tick_size, first, last]),
      [
        ["STATE BANK OF INDIA", 0.05, 100, 200],
        ["STATE BANK OF INDIA", 0.1, 300, 300]
      ]
    )
  })

  it("is what the last file of a day said of it", () => {
    const a = instrumentOf(7, "A")
    const b = instrumentOf(7, "B")
    assert.deepStrictEqual(
      all([
        [a, 100],
        [b, 100]
      ]),
      [{ instrument: b, first: 100, last: 100 }]
    )
    const between = all([
      [a, 100],
      [a, 110],
      [b, 105]
    ])
    assert.deepStrictEqual(
      [100, 104, 105, 106, 110].map((day) => at(between, day)),
      ["A", "A", "B", "A", "A"]
    )
  })

  it("is kept of a bounded number", () => {
    const names = Array.from({ length: 2 * MAX_SIGHTINGS }, (_, i) => [instrumentOf(7, `S${i}`), i] as const)
    const sightings = all(names)
    assert.strictEqual(sightings.length, MAX_SIGHTINGS)
    assert.strictEqual(sightings.at(-1)?.instrument.tradingsymbol, `S${2 * MAX_SIGHTINGS - 1}`)
  })

  it("of a name is one token at a time, until another is seen with it", () => {
    const always = (token: number, expiry: string | null = null) =>
      meaningsOf([{ instrument: instrumentOf(token, "X", "NSE", { expiry }), first: 0 }])[0]!
    const turns = (seen: ReadonlyArray<readonly [number, number]>) =>
      inTurn(seen.map(([token, first]) => ({ meaning: always(token), first }))).map(({ from, instrument, through }) => [
        instrument.instrument_token,
        from,
        through
      ])
    assert.deepStrictEqual(
      turns([
        [2, 400],
        [1, 100],
        [3, 600]
      ]),
      [
        [1, -Infinity, 399],
        [2, 400, 599],
        [3, 600, Infinity]
      ]
    )
    assert.deepStrictEqual(
      turns([
        [1, 100],
        [2, 100]
      ]),
      [
        [1, -Infinity, Infinity],
        [2, -Infinity, Infinity]
      ]
    )
    // A token that had the name only for some days gives it up for the days after them.
    const some = { ...always(1), through: 120 }
    assert.deepStrictEqual(
      inTurn([
        { meaning: some, first: 100 },
        { meaning: always(2), first: 400 }
      ]).map(({ from, through }) => [from, through]),
      [
        [-Infinity, 120],
        [121, Infinity]
      ]
    )
  })

  const Era = Schema.Struct({
    days: Schema.Array(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 30 })))).pipe(
      Schema.check(Schema.isBetweenLength(1, 4))
    ),
    /** Days from the last on which it is seen to its expiry; what has none is a share. */
    rest: Schema.NullOr(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 60 }))))
  })
  const Eras = Schema.Array(Era).pipe(Schema.check(Schema.isBetweenLength(1, 5)))

  it.prop(
    "does not depend on the order of files where no meaning comes back, and is one for every day",
    [Arbitrary.schema(Eras), Arbitrary.schema(Schema.Array(Schema.Int))],
    ([eras, weights]) => {
      const said: Array<readonly [Instrument, number]> = []
      let day = 1000
      for (const [i, { days, rest }] of eras.entries()) {
        const seen = days.map((step) => (day += step))
        const one = rest === null ? instrumentOf(7, `S${i}`) : contract(`S${i}`, day + rest)
        for (const on of seen) said.push([one, on])
      }
      const expected = all(said)
      const mixed = said
        .map((one, i) => [one, weights[i % Math.max(1, weights.length)] ?? -i] as const)
        .sort(([, a], [, b]) => a - b)
        .map(([one]) => one)
      assert.deepStrictEqual(all([...mixed, ...mixed]), expected)
      for (const [one, on] of said) assert.strictEqual(at(expected, on), one.tradingsymbol)
      const meanings = meaningsOf(expected)
      assert.strictEqual(meanings[0]?.from, -Infinity)
      assert.strictEqual(meanings.at(-1)?.through, Infinity)
      for (let i = 1; i < meanings.length; i++) assert.strictEqual(meanings[i]!.from, meanings[i - 1]!.through + 1)
    }
  )
})
