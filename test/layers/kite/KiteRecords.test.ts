import { assert, describe, it } from "@effect/vitest"
import { KiteRecords, type Origin } from "../../../src/layers/kite/KiteRecords.ts"
import type { KitePacket } from "../../../src/schema/kite/packets.ts"
import { readRawRecord } from "../../../src/schema/RawTick.ts"
import type { RawSinkTick } from "../../../src/streams/ports/RawSink.ts"

const INFY = 408_065
const NIFTY_FUT = (58_000 << 8) | 2
const NIFTY_50 = 256_265
/** 2026-01-16, a Friday, 10:00:00 IST. */
const TEN = Date.parse("2026-01-16T10:00:00+05:30") / 1000
const AT = TEN * 1_000_000
const MAX_AHEAD_MS = 5000
const NIGHT = (TEN + 12 * 3600) * 1_000_000

const packet = (more: Partial<KitePacket> = {}): KitePacket => ({
  token: INFY,
  mode: "full",
  isIndex: false,
  lastPrice: 1573.7,
  lastQuantity: 7,
  averagePrice: 1570.37,
  volume: 1_192_471,
  buyQuantity: 256_443,
  sellQuantity: 363_009,
  open: 1569.15,
  high: 1575,
  low: 1561.05,
  close: 1567.8,
  change: 0,
  lastTradeSeconds: TEN,
  oi: 0,
  oiDayHigh: 0,
  oiDayLow: 0,
  exchangeSeconds: TEN,
  bid: [
    [1573.4, 5, 1],
    [1573, 140, 2],
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0]
  ],
  ask: [
    [1573.7, 172, 3],
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0]
  ],
  ...more
})

const index = (more: Partial<KitePacket> = {}): KitePacket => ({
  ...packet({ volume: 0, lastQuantity: 0, averagePrice: 0, buyQuantity: 0, sellQuantity: 0, lastTradeSeconds: 0 }),
  token: NIFTY_50,
  isIndex: true,
  lastPrice: 24_500.15,
  change: 1.15,
  bid: [],
  ask: [],
  ...more
})

const reader = (mode: KitePacket["mode"] = "full") => {
  const records = new KiteRecords([INFY, NIFTY_FUT, NIFTY_50], mode, MAX_AHEAD_MS)
  /** What came by default as soon as it was stamped. */
  const take = (
    one: KitePacket,
    receivedTs = Math.max(TEN, one.exchangeSeconds, one.lastTradeSeconds) * 1_000_000 + 123_456
  ): ReadonlyArray<Record<string, unknown>> => {
    const into: Array<RawSinkTick> = []
    const isNews = records.take(one, receivedTs, into)
    assert.strictEqual(isNews, into.length > 0)
    return into.map(({ token, value }) => {
      const record = JSON.parse(Buffer.from(value).toString()) as Record<string, unknown>
      assert.isObject(readRawRecord(record))
      assert.strictEqual(record.instrument_token, token)
      return record
    })
  }
  const settle = () => {
    const { counts: c } = records
    assert.strictEqual(
      c.received,
      c.recorded + c.unchanged + c.outdated + c.unasked + c.otherMode + c.undated + c.ahead,
      JSON.stringify(c)
    )
    return c
  }
  return { take, settle }
}

describe("a packet of Kite's ticker as raw records", () => {
  it("is one record with tick and quote where its trade has the packet's second; what only fills places is left out", () => {
    const { take, settle } = reader()
    assert.deepStrictEqual(take(packet()), [
      {
        feed: "snapshot",
        instrument_token: INFY,
        exchange_ts: AT,
        price: 1573.7,
        day_volume: 1_192_471,
        quote: {
          bid: [
            [1573.4, 5, 1],
            [1573, 140, 2]
          ],
          ask: [[1573.7, 172, 3]],
          total_buy_quantity: 256_443,
          total_sell_quantity: 363_009,
          average_price: 1570.37,
          last_quantity: 7,
          last_trade_ts: AT,
          open: 1569.15,
          high: 1575,
          low: 1561.05,
          previous_close: 1567.8
        },
        received_ts: AT + 123_456
      }
    ])
    const { ticks, quotes, records } = settle()
    assert.deepStrictEqual([ticks, quotes, records], [1, 1, 1])
  })

  it("is a tick at its trade's time and a quote at its own where they differ, whichever packet brings the trade", () => {
    const ticksOf = (records: ReadonlyArray<Record<string, unknown>>) =>
      records.filter(({ price }) => price !== undefined).map(({ quote: _, received_ts: __, ...tick }) => tick)
    const early = reader()
    const late = reader()
    const first = early.take(packet())
    const moved = packet({ exchangeSeconds: TEN + 9, buyQuantity: 1 })
    // Who was there sees no trade in it; who comes later sees the very same.
    assert.deepStrictEqual(ticksOf(early.take(moved)), [])
    const both = late.take(moved)
    assert.deepStrictEqual(ticksOf(both), ticksOf(first))
    assert.deepStrictEqual(
      both.map(({ exchange_ts, price, quote }) => [exchange_ts, price, quote !== undefined]),
      [
        [AT, 1573.7, false],
        [AT + 9_000_000, undefined, true]
      ]
    )
    assert.strictEqual(both[1]!.day_volume, 1_192_471)
  })

  it("says open interest of what has some, also where it is 0", () => {
    const { take } = reader()
    const [record] = take(packet({ token: NIFTY_FUT, oi: 0, oiDayHigh: 5, oiDayLow: 0 }))
    const quote = record!.quote as Record<string, unknown>
    assert.deepStrictEqual([quote.oi, quote.oi_day_high, quote.oi_day_low], [0, 5, 0])
  })

  it("says nothing again: the same packet, an older one, one of a smaller volume, another's", () => {
    const { take, settle } = reader()
    take(packet({ exchangeSeconds: TEN + 5, lastTradeSeconds: TEN + 5 }))
    assert.deepStrictEqual(take(packet({ exchangeSeconds: TEN + 5, lastTradeSeconds: TEN + 5 })), [])
    assert.deepStrictEqual(take(packet({ exchangeSeconds: TEN + 6, lastTradeSeconds: TEN + 5 })), [])
    assert.deepStrictEqual(take(packet({ exchangeSeconds: TEN + 4, volume: 2_000_000 })), [])
    assert.deepStrictEqual(take(packet({ exchangeSeconds: TEN + 6, volume: 5 })), [])
    assert.deepStrictEqual(take(packet({ token: 999_937 })), [])
    assert.deepStrictEqual(take(packet({ mode: "quote" })), [])
    const { recorded, unchanged, outdated, unasked, otherMode } = settle()
    assert.deepStrictEqual([recorded, unchanged, outdated, unasked, otherMode], [1, 2, 2, 1, 1])
  })

  it("has no tick before the first trade of an instrument, and none without a price", () => {
    const { take } = reader()
    const quiet = packet({ volume: 0, lastTradeSeconds: 0, lastQuantity: 0, averagePrice: 0 })
    const [before] = take(quiet)
    assert.isUndefined(before!.price)
    assert.strictEqual(before!.exchange_ts, AT)
    assert.notProperty(before!.quote, "average_price")
    const [zero] = take(packet({ lastPrice: 0, exchangeSeconds: TEN + 1 }))
    assert.isUndefined(zero!.price)
  })

  it("counts a day's volume anew on another day", () => {
    const { take } = reader()
    take(packet())
    const tomorrow = TEN + 86_400
    const [record] = take(packet({ volume: 10, lastTradeSeconds: tomorrow, exchangeSeconds: tomorrow }))
    assert.deepStrictEqual([record!.exchange_ts, record!.day_volume], [tomorrow * 1_000_000, 10])
  })

  it("is of an index without volume, and tells a value that came back within a second from one said twice", () => {
    const { take } = reader()
    const said = [24_500, 24_501, 24_500, 24_500, 24_501, 24_500].flatMap((lastPrice) => take(index({ lastPrice })))
    assert.deepStrictEqual(
      said.map(({ occurrence, price, day_volume }) => [price, occurrence, day_volume]),
      [
        [24_500, undefined, undefined],
        [24_501, undefined, undefined],
        [24_500, 1, undefined],
        [24_501, 1, undefined],
        [24_500, 2, undefined]
      ]
    )
    const [next] = take(index({ lastPrice: 24_500, exchangeSeconds: TEN + 1 }))
    assert.isUndefined(next!.occurrence)
    assert.deepStrictEqual(next!.quote, { open: 1569.15, high: 1575, low: 1561.05, previous_close: 1567.8 })
  })

  it("is of an index from one of two connections side by side, the later from where it says what is known", () => {
    const records = new KiteRecords([INFY, NIFTY_50], "full", MAX_AHEAD_MS)
    const from = (origin: Origin) => (lastPrice: number) => {
      const into: Array<RawSinkTick> = []
      records.take(index({ lastPrice }), AT + 1, into, origin)
      return into.map(({ value }) => {
        const { occurrence, price } = JSON.parse(Buffer.from(value).toString()) as Record<string, unknown>
        return [price, occurrence ?? 0]
      })
    }
    const [first, second] = [
      { number: 1, isBeside: false },
      { number: 2, isBeside: true }
    ]
    const [one, other] = [from(first), from(second)]
    assert.deepStrictEqual([one(100), one(101), one(102)], [[[100, 0]], [[101, 0]], [[102, 0]]])
    // What it was when it asked, then the same changes as the other had.
    assert.deepStrictEqual([other(101), other(102), one(103)], [[], [], []])
    assert.deepStrictEqual([other(103), other(101), one(101), other(104)], [[[103, 0]], [[101, 1]], [], [[104, 0]]])
    // It ends, and the one before it goes on.
    first.number = 3
    assert.deepStrictEqual([one(104), one(105)], [[], [[105, 0]]])
  })

  it("without a time is of the second that it came in, but not the first one, and not while its segment is closed", () => {
    for (const mode of ["ltp", "quote"] as const) {
      const { take, settle } = reader(mode)
      const of = (lastPrice: number, volume: number) =>
        packet({
          mode,
          lastPrice,
          volume: mode === "ltp" ? 0 : volume,
          lastTradeSeconds: 0,
          exchangeSeconds: 0,
          bid: [],
          ask: []
        })
      // It may be of last week.
      assert.deepStrictEqual(take(of(100, 10)), [])
      assert.deepStrictEqual(take(of(100, 10), AT + 5_500_000), [])
      const [second] = take(of(101, 12), AT + 7_900_000)
      assert.deepStrictEqual([second!.exchange_ts, second!.price], [AT + 7_000_000, 101])
      assert.strictEqual(second!.day_volume, mode === "ltp" ? undefined : 12)
      assert.strictEqual(second!.quote === undefined, mode === "ltp")
      assert.deepStrictEqual(take(of(102, 14), NIGHT), [])
      const { undated, recorded, unchanged } = settle()
      assert.deepStrictEqual([undated, recorded, unchanged], [2, 1, 1])
    }
  })

  it("passes over times that are none", () => {
    const { take } = reader()
    const [record] = take(packet({ lastTradeSeconds: 7, exchangeSeconds: TEN }))
    assert.strictEqual(record!.exchange_ts, AT)
    assert.notProperty(record!.quote, "last_trade_ts")
  })

  it("passes over a packet stamped too far ahead of the clock, and knows nothing of it", () => {
    const late = packet({ exchangeSeconds: TEN + 1, lastTradeSeconds: TEN + 1, volume: 1_192_500 })
    const received = AT + 1_500_000
    // 2094, and past the last time there is.
    for (const seconds of [TEN + 7, 3_913_056_000, 4_294_967_295]) {
      for (const ahead of [{ exchangeSeconds: seconds }, { lastTradeSeconds: seconds }]) {
        const fresh = reader()
        assert.deepStrictEqual(fresh.take(packet(ahead), received), [])
        assert.strictEqual(fresh.take(late, received).length, 1)
        const { take, settle } = reader()
        take(packet())
        assert.deepStrictEqual(take(packet({ ...ahead, lastPrice: 1, volume: 2_000_000 }), received), [])
        const [record] = take(late, received)
        assert.deepStrictEqual([record!.exchange_ts, record!.price], [AT + 1_000_000, 1573.7])
        const { ahead: passed, outdated } = settle()
        assert.deepStrictEqual([passed, outdated], [1, 0])
      }
    }
    const { take } = reader()
    assert.strictEqual(take(packet({ exchangeSeconds: TEN + 6 }), received).length, 2)
  })

  it("makes no tick anew of a trade without a time while only the book changes", () => {
    const { take } = reader()
    const at = (second: number, more: Partial<KitePacket> = {}) =>
      take(packet({ lastTradeSeconds: 0, exchangeSeconds: TEN + second, buyQuantity: second, ...more }))
    const ticks = [at(0), at(1), at(2), at(3, { volume: 1_192_472 }), at(4, { volume: 1_192_472 })].map((records) =>
      records.filter(({ price }) => price !== undefined).map(({ exchange_ts }) => exchange_ts)
    )
    assert.deepStrictEqual(ticks, [[AT], [], [], [AT + 3_000_000], []])
  })

  it("takes a later trade whose day's volume is less than one that was said, as after a damaged one", () => {
    const { take } = reader()
    take(packet({ volume: 4_000_000_000 }))
    const ofSecond = packet({ buyQuantity: 1 })
    assert.deepStrictEqual(take(ofSecond), [])
    const later = { lastTradeSeconds: TEN + 2, exchangeSeconds: TEN + 2 }
    const [record] = take(packet(later))
    assert.deepStrictEqual([record!.exchange_ts, record!.day_volume], [AT + 2_000_000, 1_192_471])
    const untimed = packet({ ...later, lastTradeSeconds: 0, exchangeSeconds: TEN + 3, volume: 1_192_470, lastPrice: 1 })
    assert.deepStrictEqual(
      take(untimed).filter(({ price }) => price !== undefined),
      []
    )
  })
})
