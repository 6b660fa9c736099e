import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import {
  backfillFrame,
  candleFrame,
  clockFrame,
  decodeClientMessage,
  errorFrame,
  evictedFrame,
  gapFilledFrame,
  gapFrame,
  MAX_BACKFILL,
  POLICIES,
  pongFrame,
  quoteFrame,
  stateFrame,
  subscribedFrame,
  tickFrame
} from "../../src/schema/Protocol.ts"
import { unknownQuote } from "../../src/schema/Quote.ts"
import { EPOCH, tickOf } from "../support/hub.ts"

const refused = (message: unknown) => {
  const decoded = decodeClientMessage(typeof message === "string" ? message : JSON.stringify(message))
  assert.isTrue(Result.isFailure(decoded), `was taken: ${JSON.stringify(message)}`)
  return Result.isFailure(decoded) ? decoded.failure : assert.fail()
}

describe("client messages", () => {
  it("are taken as the contract writes them", () => {
    for (const message of [
      { action: "subscribe", tokens: [738561] },
      {
        action: "subscribe",
        symbols: ["NSE:RELIANCE"],
        since: { "738561": [EPOCH, 12] },
        backfill: 100,
        channels: ["tick", "gap"],
        policy: "evict-oldest",
        capacity: 1000,
        batch: true,
        replay: "r1",
        id: { any: ["thing", 1, null] }
      },
      { action: "unsubscribe", tokens: [1, 2] },
      { action: "unsubscribe", symbols: ["NSE:RELIANCE", "TCS"], id: 7 },
      ...POLICIES.map((policy) => ({ action: "subscribe", tokens: [1], policy })),
      { action: "auth", key: "k" },
      { action: "subscribe", tokens: [1], since: {}, backfill: 5 },
      { action: "subscribe", tokens: [1], since: { "1": [0, 0] } },
      { action: "ping", id: '[[[[[[[[[[[[[[[[[[[[ \\" {' },
      { action: "ping" }
    ]) {
      const decoded = decodeClientMessage(JSON.stringify(message))
      assert.isTrue(Result.isSuccess(decoded), JSON.stringify(message))
    }
  })

  it("are refused with the field and the value", () => {
    const cases: ReadonlyArray<readonly [unknown, string]> = [
      ["not json", `input: expected JSON, got "not json"`],
      ["[1]", "input: expected an object, got [1]"],
      ["null", "input: expected an object, got null"],
      [{}, `action: expected "subscribe" | "unsubscribe" | "auth" | "ping", got nothing`],
      [{ action: "toString" }, `action: expected "subscribe" | "unsubscribe" | "auth" | "ping", got "toString"`],
      [{ action: "subscribe" }, "tokens: expected tokens or symbols, got nothing"],
      [
        { action: "subscribe", tokens: [1], symbols: ["A"] },
        `symbols: expected tokens or symbols, not both, got ["A"]`
      ],
      [
        { action: "subscribe", tokens: [1], since: { x: [1, 2] } },
        `since: expected an instrument token, a whole number from 1 to 2147483647, got "x"`
      ],
      [{ action: "subscribe", tokens: [1], since: { "2147483648": [1, 2] } }, "since: expected an instrument token"]
    ]
    for (const [message, expected] of cases) {
      const { code, message: told } = refused(message)
      assert.strictEqual(code, "bad_message")
      assert.isTrue(told.startsWith(expected), told)
    }
    const fields: ReadonlyArray<readonly [object, string, string]> = [
      [{ tokens: [1, 0] }, "tokens.1: ", "got 0"],
      [{ tokens: [1.5] }, "tokens.0: ", "got 1.5"],
      [{ tokens: ["1"] }, "tokens.0: ", 'got "1"; it goes without quotes'],
      [{ tokens: ["NSE:TCS"] }, "tokens.0: ", 'got "NSE:TCS"; names go in symbols'],
      [{ symbols: [738561] }, "symbols.0: ", "got 738561; numbers go in tokens"],
      [{ tokens: [2 ** 31] }, "tokens.0: ", "got 2147483648"],
      [{ tokens: [] }, "tokens: expected 1 to 10000 in one message, ", "got 0"],
      [{ symbols: [""] }, "symbols.0: ", 'got ""'],
      [
        { symbols: ["NSE:INFY", "mdp_99fc62d0_BLWYj9y0UGfwR5rX9oC5X-hTv1jJqsf8ICZSotkc_Qx"] },
        "symbols.1: ",
        'got "mdp_99fc62d0_…"; a key goes in {"action":"auth"}'
      ],
      [{ tokens: [1], since: { "1": [-1, 2] } }, "since.1.0: ", "got -1"],
      [{ tokens: [1], since: { "1": [1] } }, "since.1: ", "got [1]"],
      [{ tokens: [1], since: { "1": [EPOCH, "5"] } }, "since.1.1: ", 'got "5"'],
      [{ tokens: [1], since: { "1": [1768449600, 1] } }, "since.1.0: ", "which looks like seconds since 1970"],
      [{ tokens: [1], since: { "1": [1768449600123, 1] } }, "since.1.0: ", "looks like milliseconds since 1970"],
      [{ tokens: [1], since: { "1": [1768449600123456, 1] } }, "since.1.0: ", "looks like microseconds since 1970"],
      [{ tokens: [1], since: { "1": [1.768449600123456e18, 1] } }, "since.1.0: ", "looks like nanoseconds since 1970"],
      [{ tokens: [1], channels: ["gap"], since: {} }, 'since: goes with the channel "tick"', "as channels"],
      [{ tokens: [1], channels: ["gap"], backfill: 5 }, 'backfill: goes with the channel "tick"', "as channels"],
      [{ token: [1] }, "unknown key token: ", "did you mean tokens?"],
      [{ tokens: [1], back_fill: 5 }, "unknown key back_fill: ", "did you mean backfill?"],
      [{ tokens: [1], __proto__x: 5 }, "unknown key __proto__x: ", "replay, id"],
      [{ tokens: [1], backfill: MAX_BACKFILL + 1 }, "backfill: ", `got ${MAX_BACKFILL + 1}`],
      [{ tokens: [1], capacity: 0 }, "capacity: ", "got 0"],
      [{ tokens: [1], batch: 1 }, "batch: ", "got 1"],
      [{ tokens: [1], channels: ["book"] }, "channels.0: ", 'got "book"'],
      [{ tokens: [1], policy: "drop" }, "policy: ", 'got "drop"'],
      [{ tokens: [1], replay: "" }, "replay: ", 'got ""']
    ]
    for (const [rest, path, got] of fields) {
      const { code, message: told, id } = refused({ action: "subscribe", id: 7, ...rest })
      assert.strictEqual(code, "bad_message")
      assert.strictEqual(id, 7)
      assert.isTrue(told.startsWith(path) && told.endsWith(got), told)
    }
    const many = refused({ action: "subscribe", tokens: Array.from({ length: 10_001 }, (_, i) => i + 1) })
    assert.strictEqual(many.message, "tokens: expected 1 to 10000 in one message, got 10001; send the rest in another")
    assert.strictEqual(
      refused({ action: "subscribe", tokens: Array.from({ length: 47_000 }, (_, i) => i + 1) }).message,
      "input: expected at most 10000 instruments in one message, got 47001 values; send the rest in another"
    )
    const since = Object.fromEntries(Array.from({ length: 2_100 }, (_, i) => [i + 1, [EPOCH, 1]]))
    assert.strictEqual(
      refused({ action: "subscribe", tokens: [1], since }).message,
      "since: expected at most 2000 places in one message, got 2103 lists or keys; send the rest in another"
    )
    assert.match(refused({ action: "unsubscribe" }).message, /^tokens: .*got nothing$/)
    assert.match(
      refused({ action: "unsubscribe", tokens: [1], symbols: ["A"] }).message,
      /^symbols: expected tokens or symbols, not both/
    )
    assert.match(
      refused({ action: "unsubscribe", symbols: [5] }).message,
      /^symbols\.0: .*got 5; numbers go in tokens$/
    )
    assert.match(refused({ action: "auth", key: 5 }).message, /^key: .*got 5$/)
  })

  it("are refused wherever they nest without end, and cost no more than they are long", () => {
    const deep = `${"[".repeat(4500)}${"]".repeat(4500)}`
    const objects = `${'{"a":'.repeat(4500)}1${"}".repeat(4500)}`
    for (const nested of [deep, objects, "[".repeat(500_000)]) {
      for (const text of [
        nested,
        `{"action":${nested}}`,
        `{"action":"ping","id":${nested}}`,
        `{"action":"subscribe","tokens":${nested}}`,
        `{"action":"subscribe","tokens":[1],"since":{"1":${nested}}}`,
        `{"action":"subscribe","tokens":[1],"since":${nested}}`
      ]) {
        const { code, message, id } = refused(text)
        assert.deepStrictEqual([code, id], ["bad_message", undefined])
        assert.strictEqual(message, "input: expected at most 16 levels of arrays and objects, got more")
      }
    }
  })

  it("have an id that is sent back, and so is bounded", () => {
    const { message, id } = refused({ action: "ping", id: ["x".repeat(2000)] })
    assert.isTrue(message.startsWith("id: expected at most 1024 characters of JSON, got "), message)
    assert.isUndefined(id)
  })
})

describe("frames", () => {
  it("are the JSON of the contract, field by field", () => {
    const tick = tickOf(1, EPOCH, 501, {
      price: 2500.5,
      volume: 100,
      sequence_id: 42,
      exchange_ts: 1_768_449_600_123_456
    })
    const tickText = `{"type":"tick","instrument_token":1,"price":2500.5,"volume":100,"status":"LIVE","exchange_ts":1768449600123456,"sequence_id":42,"epoch":20468000033300,"position":501}`
    assert.strictEqual(tickFrame(tick), tickText)
    assert.strictEqual(
      backfillFrame(1, EPOCH, 501, 502, true, [tickText, tickText]),
      `{"type":"backfill","instrument_token":1,"epoch":20468000033300,"from":501,"to":502,"recovered":true,"data":[${tickText},${tickText}]}`
    )
    assert.strictEqual(
      evictedFrame(1, EPOCH, 502, 530),
      `{"type":"evicted","instrument_token":1,"epoch":20468000033300,"from":502,"to":530,"count":29}`
    )
    assert.strictEqual(gapFrame(1, 43, 44), `{"type":"gap","instrument_token":1,"from":43,"to":44}`)
    assert.strictEqual(gapFilledFrame(1, 43, 43), `{"type":"gap_filled","instrument_token":1,"from":43,"to":43}`)
    assert.strictEqual(
      subscribedFrame('a"b', false, [
        { instrument_token: 1, accepted: true, known: true },
        { instrument_token: 2, accepted: false, reason: "forbidden" }
      ]),
      `{"type":"subscribed","id":"a\\"b","simulated":false,"tokens":[{"instrument_token":1,"accepted":true,"known":true},{"instrument_token":2,"accepted":false,"reason":"forbidden"}]}`
    )
    assert.strictEqual(subscribedFrame(undefined, true, []), `{"type":"subscribed","simulated":true,"tokens":[]}`)
    assert.strictEqual(
      clockFrame("r", 1, 5, "running"),
      `{"type":"clock","replay":"r","run":1,"ts":5,"state":"running"}`
    )
    assert.strictEqual(
      clockFrame("r", 1, null, "paused"),
      `{"type":"clock","replay":"r","run":1,"ts":null,"state":"paused"}`
    )
    assert.strictEqual(
      errorFrame({ code: "bad_message", message: 'x: got "y"', id: 3 }),
      `{"type":"error","id":3,"code":"bad_message","message":"x: got \\"y\\""}`
    )
    assert.strictEqual(
      candleFrame(
        1,
        "5m",
        { ts: 300_000_000, open: 2500.5, high: 2501, low: -0.05, close: 2500, volume: 170 },
        17,
        false
      ),
      `{"type":"candle","instrument_token":1,"interval":"5m","ts":300000000,"open":2500.5,"high":2501,"low":-0.05,"close":2500,"volume":170,"revision":17,"final":false}`
    )
    assert.strictEqual(
      candleFrame(1, "1m", { ts: 60_000_000, open: 1, high: 1, low: 1, close: 1, volume: 2, oi: 0 }, 3, true),
      `{"type":"candle","instrument_token":1,"interval":"1m","ts":60000000,"open":1,"high":1,"low":1,"close":1,"volume":2,"oi":0,"revision":3,"final":true}`
    )
    assert.strictEqual(
      quoteFrame(1, 5, { ...unknownQuote(), bid: [[2500.5, 3, 1]], ask: [], oi: 0, day_volume: 9 }),
      `{"type":"quote","instrument_token":1,"exchange_ts":5,"bid":[[2500.5,3,1]],"ask":[],"oi":0,"day_volume":9}`
    )
    assert.strictEqual(
      stateFrame(1, "stale", 1_768_449_600_123_456),
      `{"type":"state","instrument_token":1,"state":"stale","since":1768449600123456}`
    )
    assert.strictEqual(pongFrame, `{"type":"pong"}`)
  })
})
