import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import {
  decodeFrame,
  divisorOf,
  encodeFrame,
  HEARTBEAT,
  isIndexToken,
  type KitePacket,
  MAX_FRAME_PACKETS
} from "../../../src/schema/kite/packets.ts"
import {
  type WireFull,
  type WireIndex,
  type WireLevel,
  wireFrame,
  wireFull,
  wireIndexFull,
  wireIndexQuote,
  wireLtp,
  wireQuote
} from "./referenceFrames.ts"

/** A token of each segment, with the parts that its rupee has. */
const segments: ReadonlyArray<readonly [name: string, token: number, divisor: number]> = [
  ["nse", (1594 << 8) | 1, 100],
  ["nfo", (35_010 << 8) | 2, 100],
  ["cds", (1_033 << 8) | 3, 10_000_000],
  ["bse", (500_209 << 8) | 4, 100],
  ["bfo", (820_001 << 8) | 5, 100],
  ["bcd", (7_001 << 8) | 6, 10_000],
  ["mcx", (430_106 << 8) | 7, 100],
  ["mcxsx", (21 << 8) | 8, 100],
  ["indices", (1_001 << 8) | 9, 100],
  ["nco", (900 << 8) | 12, 10_000],
  ["one that nobody names", (77 << 8) | 200, 100]
]

const level = (quantity: number, price: number, orders: number): WireLevel => ({ quantity, price, orders })
const full: WireFull = {
  last_price: 157_370,
  last_quantity: 7,
  average_price: 157_037,
  volume: 3_000_000_000,
  buy_quantity: 256_443,
  sell_quantity: 4_294_967_295,
  open: 156_915,
  high: 157_500,
  low: 156_105,
  close: 156_780,
  last_trade_time: 1_768_448_700,
  oi: 2_147_483_648,
  oi_day_high: 12,
  oi_day_low: 11,
  exchange_time: 1_768_448_701,
  buy: [level(5, 157_340, 1), level(140, 157_300, 2), level(2, 157_295, 65_535), level(0, 0, 0), level(0, 0, 0)],
  sell: [level(172, 157_370, 3), level(44, 157_375, 4), level(302, 157_385, 5), level(141, 157_390, 6), level(7, 1, 8)]
}
const index: WireIndex = {
  last_price: 2_450_015,
  high: 2_460_000,
  low: 2_440_000,
  open: 2_445_005,
  close: 2_449_900,
  change: -115
}

const frameOf = (bytes: Uint8Array) => {
  const frame = decodeFrame(bytes)
  assert.isDefined(frame)
  return frame
}
const onlyPacket = (bytes: Uint8Array): KitePacket => {
  const { packets, skipped } = frameOf(bytes)
  assert.deepStrictEqual(skipped, [])
  assert.strictEqual(packets.length, 1)
  return packets[0]!
}

const silent = {
  lastQuantity: 0,
  averagePrice: 0,
  volume: 0,
  buyQuantity: 0,
  sellQuantity: 0,
  open: 0,
  high: 0,
  low: 0,
  close: 0,
  change: 0,
  lastTradeSeconds: 0,
  oi: 0,
  oiDayHigh: 0,
  oiDayLow: 0,
  exchangeSeconds: 0,
  bid: [],
  ask: []
}
const tradable = (divisor: number) => ({
  ...silent,
  isIndex: false,
  lastPrice: 157_370 / divisor,
  lastQuantity: 7,
  averagePrice: 157_037 / divisor,
  volume: 3_000_000_000,
  buyQuantity: 256_443,
  sellQuantity: 4_294_967_295,
  open: 156_915 / divisor,
  high: 157_500 / divisor,
  low: 156_105 / divisor,
  close: 156_780 / divisor
})
const ofIndex = (divisor: number) => ({
  ...silent,
  isIndex: true,
  lastPrice: 2_450_015 / divisor,
  high: 2_460_000 / divisor,
  low: 2_440_000 / divisor,
  open: 2_445_005 / divisor,
  close: 2_449_900 / divisor,
  change: -115 / divisor
})
const inRupees = (levels: ReadonlyArray<WireLevel>, divisor: number) =>
  levels.map(({ orders, price, quantity }) => [price / divisor, quantity, orders] as const)

describe("a packet of Kite's ticker", () => {
  for (const [segment, token, divisor] of segments) {
    it(`reads field by field in every mode: ${segment}`, () => {
      assert.strictEqual(divisorOf(token), divisor)
      assert.strictEqual(isIndexToken(token), segment === "indices")
      assert.deepStrictEqual(onlyPacket(wireFrame([wireLtp(token, 157_370)])), {
        ...silent,
        token,
        mode: "ltp",
        isIndex: segment === "indices",
        lastPrice: 157_370 / divisor
      })
      assert.deepStrictEqual(onlyPacket(wireFrame([wireQuote(token, full)])), {
        ...tradable(divisor),
        token,
        mode: "quote"
      })
      assert.deepStrictEqual(onlyPacket(wireFrame([wireFull(token, full)])), {
        ...tradable(divisor),
        token,
        mode: "full",
        lastTradeSeconds: 1_768_448_700,
        oi: 2_147_483_648,
        oiDayHigh: 12,
        oiDayLow: 11,
        exchangeSeconds: 1_768_448_701,
        bid: inRupees(full.buy, divisor),
        ask: inRupees(full.sell, divisor)
      })
      assert.deepStrictEqual(onlyPacket(wireFrame([wireIndexQuote(token, index)])), {
        ...ofIndex(divisor),
        token,
        mode: "quote"
      })
      assert.deepStrictEqual(onlyPacket(wireFrame([wireIndexFull(token, index, 1_768_448_702)])), {
        ...ofIndex(divisor),
        token,
        mode: "full",
        exchangeSeconds: 1_768_448_702
      })
    })
  }

  it("has prices that print as they are meant, and such below 0", () => {
    const token = segments[2]![1]
    assert.strictEqual(String(onlyPacket(wireFrame([wireLtp(token, 845_012_345)])).lastPrice), "84.5012345")
    assert.strictEqual(onlyPacket(wireFrame([wireLtp(segments[6]![1], -288_400)])).lastPrice, -2884)
  })

  it("reads what the broker publishes as one of its own", () => {
    const published =
      "AAY6AQACZroAAAAHAAJlbQASMhcAA+m7AAWKAQACZPMAAmc8AAJhyQACZGxg4pR/AAAAAAAAAAAAAAAAYOKUfwAAAAUAAmacAAEAAAAAAIwAAmZ0" +
      "AAIAAAAAAAIAAmZvAAEAAAAAANsAAmZqAAcAAAAAADIAAmZlAAEAAAAAAKwAAma6AAMAAAAAACwAAma/AAMAAAAAAS4AAmbJAAMAAAAAAI0AAmbO" +
      "AAIAAAAAAtQAAmbTAAUAAA=="
    assert.deepStrictEqual(onlyPacket(wireFrame([[...Buffer.from(published, "base64")]])), {
      ...silent,
      token: 408_065,
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
      lastTradeSeconds: Date.parse("2021-07-05T10:41:27+05:30") / 1000,
      exchangeSeconds: Date.parse("2021-07-05T10:41:27+05:30") / 1000,
      bid: [
        [1573.4, 5, 1],
        [1573, 140, 2],
        [1572.95, 2, 1],
        [1572.9, 219, 7],
        [1572.85, 50, 1]
      ],
      ask: [
        [1573.7, 172, 3],
        [1573.75, 44, 3],
        [1573.85, 302, 3],
        [1573.9, 141, 2],
        [1573.95, 724, 5]
      ]
    })
  })
})

const every = segments.flatMap(([, token]) => [
  wireLtp(token, 157_370),
  wireQuote(token, full),
  wireFull(token, full),
  wireIndexQuote(token, index),
  wireIndexFull(token, index, 1_768_448_702)
])

describe("a frame of Kite's ticker", () => {
  it("is none of what has no count: a server's sign of life", () => {
    assert.isUndefined(decodeFrame(HEARTBEAT))
    assert.isUndefined(decodeFrame(new Uint8Array(0)))
    assert.isUndefined(decodeFrame(Uint8Array.of(7)))
  })

  it("may have no packets", () => {
    assert.deepStrictEqual(frameOf(wireFrame([])), { packets: [], skipped: [] })
  })

  it("has its packets in order, of all kinds and segments", () => {
    const { packets, skipped } = frameOf(wireFrame(every))
    assert.deepStrictEqual(skipped, [])
    assert.deepStrictEqual(
      packets.map(({ isIndex, mode, token }) => [token, mode, isIndex]),
      segments.flatMap(([name, token]) => [
        [token, "ltp", name === "indices"],
        [token, "quote", false],
        [token, "full", false],
        [token, "quote", true],
        [token, "full", true]
      ])
    )
  })

  it("passes packets of a length that no kind has, and says which; the others stand", () => {
    const strange = [4, 7, 9, 29, 43, 45, 164, 183, 185, 2000].map((length) => new Array<number>(length).fill(1))
    const { packets, skipped } = frameOf(wireFrame(strange.flatMap((packet, i) => [packet, every[i]!])))
    assert.deepStrictEqual(packets, frameOf(wireFrame(every.slice(0, strange.length))).packets)
    assert.deepStrictEqual(
      skipped.map(({ bytes, reason }) => [bytes, reason]),
      strange.map(({ length }) => [length, "unknown length"])
    )
    assert.strictEqual(skipped[1]!.message, "no packet has 7 bytes")
    assert.strictEqual(skipped[0]!.offset, 4)
    assert.strictEqual(skipped[1]!.offset, 4 + 4 + 2 + every[0]!.length + 2)
  })

  it("is refused whole where it does not add up: cut anywhere, more than it says, fewer, or lengths that lie", () => {
    const whole = wireFrame(every)
    for (let size = 2; size < whole.length; size++) {
      const { packets, skipped } = frameOf(whole.subarray(0, size))
      assert.deepStrictEqual(packets, [], `${size} bytes`)
      assert.deepStrictEqual([skipped.length, skipped[0]!.reason, skipped[0]!.bytes], [1, "broken", size])
    }
    for (const count of [0, every.length - 1, every.length + 1, 65_535]) {
      const { packets, skipped } = frameOf(wireFrame(every, count))
      assert.deepStrictEqual([packets.length, skipped[0]!.reason], [0, "broken"], String(count))
    }
    const lying = wireFrame([every[1]!, every[1]!])
    lying[3] = 60
    assert.strictEqual(frameOf(lying).skipped[0]!.message, "it says 2 packets, and ends after 94 bytes within packet 2")
    const empty = wireFrame([every[1]!, []])
    assert.strictEqual(frameOf(empty).skipped[0]!.message, "packet 2 of 2 has 0 bytes, too few for its token")
    assert.strictEqual(
      frameOf(wireFrame([every[0]!, every[0]!], 1)).skipped[0]!.message,
      "it says 1 packets, which take 12 of its 22 bytes"
    )
  })

  it("says the same wherever its bytes lie", () => {
    const whole = wireFrame(every)
    const around = new Uint8Array(whole.length + 300).fill(0xff)
    around.set(whole, 131)
    assert.deepStrictEqual(decodeFrame(around.subarray(131, 131 + whole.length)), decodeFrame(whole))
    assert.deepStrictEqual(
      decodeFrame(around.subarray(131, 130 + whole.length)),
      decodeFrame(whole.subarray(0, whole.length - 1))
    )
  })
})

/** Bytes of a frame that say nothing: two of padding after each level's orders. */
const withoutPadding = (bytes: Uint8Array): Uint8Array => {
  const copy = Uint8Array.from(bytes)
  const view = new DataView(copy.buffer)
  for (let at = 2; at < copy.length; at += 2 + view.getUint16(at)) {
    if (view.getUint16(at) !== 184) continue
    for (let i = 0; i < 10; i++) copy.fill(0, at + 2 + 64 + 12 * i + 10, at + 2 + 64 + 12 * (i + 1))
  }
  return copy
}

/** The frame without its packets of unknown lengths, its count set right. */
const withoutUnknown = (bytes: Uint8Array): Uint8Array => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const kept: Array<ReadonlyArray<number>> = []
  for (let at = 2; at < bytes.length; at += 2 + view.getUint16(at)) {
    const length = view.getUint16(at)
    if ([8, 28, 32, 44, 184].includes(length)) kept.push([...bytes.subarray(at + 2, at + 2 + length)])
  }
  return wireFrame(kept)
}

/** What is read of any bytes says what they say: written again, it is the same bytes, or it is refused and none is taken. */
const holds = (bytes: Uint8Array): "read" | "refused" => {
  const frame = decodeFrame(bytes)
  if (frame === undefined) {
    assert.isBelow(bytes.length, 2)
    return "refused"
  }
  if (frame.skipped.some(({ reason }) => reason === "broken")) {
    assert.strictEqual(frame.packets.length, 0)
    return "refused"
  }
  const known = frame.skipped.length === 0 ? bytes : withoutUnknown(bytes)
  const again = encodeFrame(frame.packets)
  assert.strictEqual(again.clamped.length, 0)
  assert.strictEqual(Buffer.compare(again.bytes, withoutPadding(known)), 0)
  return "read"
}

/** Corrupt frames of the long run: 20,000 with the tests, or so many as this says. */
const FRAMES = Number(process.env.KITE_FRAMES ?? 20_000)
const SEED = Number(process.env.SEED ?? 1)

const randomOf = (seed: number) => {
  let state = seed >>> 0
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 4_294_967_296) * below)
  }
}

describe("corrupt bytes", () => {
  it("of one packet change nothing but the field that they are of, whichever byte and value", () => {
    const parts = [every[0]!, every[2]!, every[3]!, every[1]!, every[4]!]
    const whole = wireFrame(parts)
    const meant = frameOf(whole).packets.map((packet) => JSON.stringify(packet))
    const ofShape = new Set([0, 1])
    for (let at = 2, i = 0; i < parts.length; at += 2 + parts[i++]!.length) ofShape.add(at).add(at + 1)
    let addsUp = 0
    for (let at = 0; at < whole.length; at++) {
      for (let value = 0; value < 256; value++) {
        if (value === whole[at]) continue
        const corrupt = Uint8Array.from(whole)
        corrupt[at] = value
        const outcome = holds(corrupt)
        if (ofShape.has(at)) {
          if (outcome === "read") addsUp += 1
          continue
        }
        assert.strictEqual(outcome, "read", `byte ${at} = ${value}`)
        const { packets } = frameOf(corrupt)
        const differing = packets.filter((packet, i) => JSON.stringify(packet) !== meant[i])
        assert.strictEqual(packets.length, meant.length)
        assert.isAtMost(differing.length, 1, `byte ${at} = ${value}`)
      }
    }
    // With another count or length than was meant a frame does not add up, unless a field happens to read as a length.
    assert.isAtMost(addsUp, (ofShape.size * 255) / 1000)
  })

  it(`in any number, cut, joined and with lengths that lie, are read as they are or not at all: ${FRAMES} frames`, () => {
    const random = randomOf(SEED)
    let read = 0
    for (let n = 0; n < FRAMES; n++) {
      const packets = Array.from({ length: random(6) }, () => every[random(every.length)]!)
      let bytes: Uint8Array = wireFrame(packets)
      switch (random(6)) {
        case 0:
          for (let i = 0; i <= random(4) && bytes.length > 0; i++) bytes[random(bytes.length)] = random(256)
          break
        case 1:
          bytes = bytes.subarray(0, random(bytes.length + 1))
          break
        case 2:
          bytes = Uint8Array.from([...bytes, ...wireFrame([every[random(every.length)]!]).subarray(random(3))])
          break
        case 3: {
          // Another length where a length stands.
          const at = packets.length === 0 ? 0 : 2
          if (bytes.length > at + 1) bytes[at + random(2)] = random(256)
          break
        }
        case 4:
          bytes = wireFrame([...packets, new Array<number>(random(300)).fill(random(256))])
          break
        default:
          bytes = Uint8Array.from({ length: random(400) }, () => random(256))
      }
      try {
        if (holds(bytes) === "read") read += 1
      } catch (error) {
        throw new Error(`seed ${SEED}, frame ${n}: ${Buffer.from(bytes).toString("hex")}`, { cause: error })
      }
    }
    assert.isAbove(read, FRAMES / 20)
    assert.isBelow(read, FRAMES)
  }, 600_000)
})

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const I32 = between(-(2 ** 31), 2 ** 31 - 1)
const U32 = between(0, 2 ** 32 - 1)
const WireLevelOf = Schema.Struct({ quantity: U32, price: I32, orders: between(0, 65_535) })
const FiveLevels = Schema.Array(WireLevelOf).check(Schema.isBetweenLength(5, 5))
const AnyWire = Schema.Struct({
  kind: Schema.Literals(["ltp", "quote", "full", "index quote", "index full"]),
  token: U32,
  full: Schema.Struct({
    last_price: I32,
    last_quantity: U32,
    average_price: I32,
    volume: U32,
    buy_quantity: U32,
    sell_quantity: U32,
    open: I32,
    high: I32,
    low: I32,
    close: I32,
    last_trade_time: U32,
    oi: U32,
    oi_day_high: U32,
    oi_day_low: U32,
    exchange_time: U32,
    buy: FiveLevels,
    sell: FiveLevels
  }),
  change: I32
})

describe("writing a frame", () => {
  it.prop(
    "gives the bytes of the broker's tables, whatever is said",
    [Arbitrary.array(Arbitrary.schema(AnyWire), { maxLength: 8 })],
    ([wires]) => {
      const frame = wireFrame(
        wires.map(({ change, full: f, kind, token }) => {
          const i = { ...f, change }
          if (kind === "ltp") return wireLtp(token, f.last_price)
          if (kind === "quote") return wireQuote(token, f)
          if (kind === "full") return wireFull(token, f)
          return kind === "index quote" ? wireIndexQuote(token, i) : wireIndexFull(token, i, f.exchange_time)
        })
      )
      const { packets, skipped } = frameOf(frame)
      assert.deepStrictEqual(skipped, [])
      const written = encodeFrame(packets)
      assert.deepStrictEqual(written.clamped, [])
      assert.strictEqual(Buffer.compare(written.bytes, frame), 0)
    }
  )

  it("sends the nearest that a field has room for, and says what it sent", () => {
    const [, token] = segments[0]!
    const packet: KitePacket = {
      ...onlyPacket(wireFrame([wireFull(token, full)])),
      volume: 5_000_000_000,
      oi: -1,
      lastPrice: 30_000_000,
      low: -30_000_000,
      averagePrice: Number.NaN,
      bid: [[100, 9_000_000_000, 70_000]]
    }
    const { bytes, clamped } = encodeFrame([packet])
    assert.deepStrictEqual(
      clamped.map(({ field, sent, value }) => [field, value, sent]),
      [
        ["lastPrice", 30_000_000, 21_474_836.47],
        ["averagePrice", Number.NaN, 0],
        ["volume", 5_000_000_000, 4_294_967_295],
        ["low", -30_000_000, -21_474_836.48],
        ["oi", -1, 0],
        ["bid[0].quantity", 9_000_000_000, 4_294_967_295],
        ["bid[0].orders", 70_000, 65_535]
      ]
    )
    assert.isTrue(clamped.every((field) => field.token === token))
    const read = onlyPacket(bytes)
    assert.strictEqual(read.volume, 4_294_967_295)
    assert.strictEqual(read.lastPrice, 21_474_836.47)
    assert.deepStrictEqual(read.bid, [
      [100, 4_294_967_295, 65_535],
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 0]
    ])
  })

  it("rounds prices to what a rupee of the segment has", () => {
    const [, token] = segments[0]!
    const packet = { ...onlyPacket(wireFrame([wireLtp(token, 0)])), lastPrice: 1.005_1 }
    assert.strictEqual(onlyPacket(encodeFrame([packet]).bytes).lastPrice, 1.01)
  })

  it("takes no more packets than a count has room for", () => {
    const packet = onlyPacket(wireFrame([wireLtp(257, 1)]))
    assert.throws(
      () => encodeFrame(new Array<KitePacket>(MAX_FRAME_PACKETS + 1).fill(packet)),
      /at most 65535 packets, got 65536/
    )
    assert.strictEqual(
      frameOf(encodeFrame(new Array<KitePacket>(MAX_FRAME_PACKETS).fill(packet)).bytes).packets.length,
      MAX_FRAME_PACKETS
    )
  })
})
