import { assert, describe, it } from "@effect/vitest"
import { LastRows, MAX_INSTRUMENTS } from "../../../src/layers/feeds/LastRows.ts"
import { type RawRecord, readRawRecord } from "../../../src/schema/RawTick.ts"

const AT = 1_768_448_700_000_000

const row = (token: number, price: number, volume = 0, bid: ReadonlyArray<unknown> = [[1, 1, 0]], ts = AT): RawRecord =>
  readRawRecord({ instrument_token: token, exchange_ts: ts, price, volume, quote: { bid } }) as RawRecord

describe("the row before of an instrument", () => {
  it("tells what is a trade: a quantity, or another price; the same without either is a quote alone", () => {
    const last = new LastRows()
    const isTick = (record: RawRecord) => last.take(record, "quote").tick !== undefined
    assert.deepStrictEqual(
      [row(1, 10), row(1, 10, 5), row(1, 10), row(1, 11), row(2, 11), row(1, 11), row(1, 11, 1)].map(isTick),
      [false, true, false, true, false, false, true]
    )
    assert.isTrue(isTick(row(1, 11, 0, [])))
    const record = row(1, 11)
    assert.strictEqual(last.take(record, "tick"), record)
  })

  it("tells another price from the first row's, though that was no trade", () => {
    const last = new LastRows()
    assert.isUndefined(last.take(row(1, 10), "quote").tick)
    assert.isDefined(last.take(row(1, 11), "quote").tick)
  })

  it("is remembered of a bounded number of instruments", () => {
    const last = new LastRows()
    for (let token = 1; token <= MAX_INSTRUMENTS; token++) last.take(row(token, 10, 1), "quote")
    assert.isDefined(last.take(row(1, 11), "quote").tick)
    last.take(row(MAX_INSTRUMENTS + 1, 10, 1), "quote")
    assert.isUndefined(last.take(row(1, 12), "quote").tick)
  })

  it("dates quotes: those behind a newer one of the same day are counted, and another day's are not", () => {
    const last = new LastRows()
    const day = 86_400_000_000
    for (const ts of [AT, AT + 1, AT, AT - day, AT - day - 1, AT - day, AT]) last.take(row(1, 10, 1, [], ts), "quote")
    assert.strictEqual(last.outdated, 2)
  })
})
