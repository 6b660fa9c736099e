import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { StoreError } from "../../../src/schema/Errors.ts"
import { type Quote, unknownQuote } from "../../../src/schema/Quote.ts"
import { type Tick, tradingDayStart } from "../../../src/schema/Tick.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { NothingStored } from "../../../src/streams/replay/Replays.ts"
import { tickOf } from "../../support/hub.ts"
import { instrumentOf } from "../../support/instruments.ts"
import { accessBy, keysFile, makeKey } from "../../support/keys.ts"
import { memoryStore, OPEN, Rows, storedTick } from "../memoryStore.ts"
import { ask } from "../serving.ts"
import { FORMER_PRICE, PRICE, REUSED, REUSED_NAME, reusedRows } from "./reusedToken.ts"
import { serveKite } from "./serving.ts"
import { connectTicker, openTicker, Ticker } from "./tickerClient.ts"

const INFY = 408_065
const TCS = 2_953_217
const NIFTY = 256_265
const DAY_EPOCH = 20_469_000_033_300

/** Of INFY ten ticks of today and a day before; of the index one; of TCS none. */
const filled = (): Rows => {
  const rows = new Rows()
  for (const one of [
    instrumentOf(INFY, "INFY"),
    instrumentOf(TCS, "TCS"),
    instrumentOf(NIFTY, "NIFTY 50", "NSE", { asset_class: "INDEX" })
  ]) {
    rows.instruments.set(one.instrument_token, one)
  }
  const of = (token: number, more: Partial<Tick>) =>
    rows.ticks.push(storedTick({ instrument_token: token, ...more } as Partial<ReturnType<typeof storedTick>>))
  of(INFY, { exchange_ts: OPEN - 86_400_000_000, price: 90, sequence_id: 1, position: 1, epoch: DAY_EPOCH - 1e9 })
  for (let i = 1; i <= 10; i++) {
    of(INFY, { exchange_ts: OPEN + i * 1_000_000, price: 100 + i, volume: i, sequence_id: i, position: i })
  }
  of(NIFTY, { exchange_ts: OPEN + 1_000_000, price: 25_000.5, volume: 0 })
  return rows
}
const live = (token: number, position: number, price: number, more: Partial<Tick> = {}) =>
  tickOf(token, DAY_EPOCH, position, { exchange_ts: OPEN + position * 1_000_000, price, volume: 5, ...more })

const served = Effect.map(serveKite({ store: memoryStore(filled()) }), (all) => ({
  ...all,
  open: openTicker(all.port)
}))

const bookOf = (more: Partial<Quote> = {}): Quote => ({
  ...unknownQuote(),
  instrument_token: INFY,
  exchange_ts: OPEN + 12_000_000,
  feed: "snapshot",
  received_ts: OPEN + 12_000_000,
  source: ["raw", 7, 1] as const,
  old: false,
  ...more
})

/** Lets time pass, and whatever waits for it go on. */
const pass = (seconds: number) =>
  Effect.gen(function* () {
    for (let quarters = 0; quarters < seconds * 4; quarters++) {
      yield* TestClock.adjust(250)
      yield* Effect.promise(() => new Promise(setImmediate))
    }
  })

/** A store that answers nothing until it is there, and has come to an offset of the log. */
class Late {
  readonly rows = filled()
  isThere = true
  offset = 0
  bookmarks = 0
  days = 0
  readonly layer = memoryStore(this.rows, {
    bookmarks: (incarnation) =>
      Effect.sync(() => {
        this.bookmarks++
        return [{ partition: 0, incarnation, offset: this.offset }] as never
      }),
    daysSoFar: (tokens) =>
      Effect.gen({ self: this }, function* () {
        this.days++
        if (!this.isThere) return yield* new StoreError({ operation: "daysSoFar", message: "away", transient: true })
        return yield* Effect.flatMap(TickStore, (store) => store.daysSoFar(tokens)).pipe(
          Effect.provide(memoryStore(this.rows))
        )
      })
  })

  /** Puts ticks of INFY there up to a position. */
  write(from: number, to: number): void {
    for (let n = from; n <= to; n++) {
      const { price, volume, exchange_ts } = later(n)
      this.rows.ticks.push(
        storedTick({ instrument_token: INFY, exchange_ts, price, volume, sequence_id: n, position: n })
      )
    }
  }
}
/** A tick of INFY as the log and the store have it; the offset behind it is its position. */
const later = (position: number) => live(INFY, position, position === 500 ? 7 : 200, { volume: 1 })
const from = (offset: number) => ({ bookmark: { partition: 0, incarnation: "a", offset }, isBehind: false })

/** Waits for what the server does by itself. */
const holding = (holds: () => boolean) =>
  Effect.promise(async () => {
    while (!holds()) await new Promise<void>((resolve) => setImmediate(resolve))
  })

describe("Kite's ticker", () => {
  it.live("sends what is known at once, in the mode that is asked for, and then what changes", () =>
    Effect.gen(function* () {
      const { hub, open } = yield* served
      const ticker = yield* open
      ticker.say({ a: "subscribe", v: [INFY] })
      const [first] = yield* ticker.until(() => ticker.packets.length === 1 && ticker.packets)
      const known = {
        token: INFY,
        isIndex: false,
        lastPrice: 110,
        lastQuantity: 10,
        volume: 55,
        open: 101,
        high: 110,
        low: 101,
        close: 90,
        buyQuantity: 0,
        sellQuantity: 0
      }
      assert.containsSubset(first, { mode: "quote", ...known, exchangeSeconds: 0, bid: [] })
      ticker.say({ a: "mode", v: ["full", [INFY]] })
      yield* ticker.until(() => ticker.packets.length === 2)
      const at = OPEN / 1_000_000 + 10
      assert.containsSubset(ticker.packets[1], {
        mode: "full",
        ...known,
        lastTradeSeconds: at,
        exchangeSeconds: at,
        oi: 0
      })
      assert.strictEqual(ticker.packets[1]!.bid.length, 5)
      // What the store has already is not counted twice.
      hub.publish([live(INFY, 10, 110), live(INFY, 11, 99.05), live(INFY, 12, 120, { volume: 0 })])
      yield* ticker.until(() => ticker.packets.length === 4)
      assert.containsSubset(ticker.packets[2], { mode: "full", lastPrice: 99.05, volume: 60, low: 99.05, high: 110 })
      assert.containsSubset(ticker.packets[3], {
        lastPrice: 120,
        volume: 60,
        low: 99.05,
        high: 120,
        lastTradeSeconds: at + 2
      })
      ticker.say({ a: "mode", v: ["ltp", [INFY]] })
      yield* ticker.until(() => ticker.packets.length === 5)
      assert.containsSubset(ticker.packets[4], { mode: "ltp", lastPrice: 120 })
      ticker.say({ a: "unsubscribe", v: [INFY] })
      ticker.say({ a: "subscribe", v: [NIFTY] })
      yield* ticker.until(() => ticker.of(NIFTY).length === 1)
      hub.publish([live(INFY, 13, 1), live(NIFTY, 2, 25_100)])
      yield* ticker.until(() => ticker.of(NIFTY).length === 2)
      assert.strictEqual(ticker.packets.length, 7)
      assert.deepStrictEqual(ticker.texts, [])
    }).pipe(Effect.scoped)
  )

  it.live("sends what a packet said of book and day beside the last trade", () =>
    Effect.gen(function* () {
      const { hub, open } = yield* served
      const ticker = yield* open
      ticker.say({ a: "subscribe", v: [INFY] })
      ticker.say({ a: "mode", v: ["full", [INFY]] })
      yield* ticker.until(() => ticker.packets.some(({ mode }) => mode === "full"))
      const before = ticker.packets.length
      const quote = bookOf({
        bid: [[110, 5, 2]],
        ask: [[110.05, 6, 1]],
        total_buy_quantity: 50,
        oi: 1234,
        previous_close: 91,
        day_volume: 60
      })
      hub.publish([], undefined, undefined, [quote, { ...quote, old: true, oi: 1 }])
      yield* ticker.until(() => ticker.packets.length > before)
      const packet = ticker.packets.at(-1)!
      assert.containsSubset(packet, { lastPrice: 110, oi: 1234, close: 91, volume: 60, buyQuantity: 50 })
      assert.deepStrictEqual([packet.bid[0], packet.ask[0]], [quote.bid![0], quote.ask![0]])
      assert.deepStrictEqual(packet.bid[1], [0, 0, 0])
      // The same again changes nothing.
      hub.publish([], undefined, undefined, [quote])
      hub.publish([live(INFY, 11, 111)])
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.lastPrice === 111)
      assert.strictEqual(ticker.packets.length, before + 2)
    }).pipe(Effect.scoped)
  )

  it.live("sends an index in a packet of its own, and nothing of what nothing is known until there is", () =>
    Effect.gen(function* () {
      const { hub, open } = yield* served
      const ticker = yield* open
      // As JavaScript may send them.
      ticker.say({ a: "subscribe", v: [String(NIFTY), String(TCS)] })
      ticker.say({ a: "mode", v: ["full", [String(NIFTY)]] })
      yield* ticker.until(() => ticker.of(NIFTY).some(({ mode }) => mode === "full"))
      assert.containsSubset(ticker.packets.at(-1), { isIndex: true, lastPrice: 25_000.5, open: 25_000.5, close: 0 })
      assert.deepStrictEqual(ticker.of(TCS), [])
      hub.publish([live(TCS, 1, 3000)])
      yield* ticker.until(() => ticker.of(TCS).length === 1)
      assert.containsSubset(ticker.of(TCS)[0], {
        mode: "quote",
        isIndex: false,
        lastPrice: 3000,
        volume: 5,
        open: 3000
      })
    }).pipe(Effect.scoped)
  )

  it.live("says every two seconds that it is there, whatever comes or not", () =>
    Effect.gen(function* () {
      const { open, hub, replays } = yield* served
      const ticker = yield* open
      const before = yield* ticker.until(() => ticker.beats.length > 0 && ticker.beats.length)
      assert.strictEqual(before, 1)
      replays.put("abc1", OPEN, null, "paused")
      ticker.say({ a: "subscribe", v: [INFY] })
      hub.publish([live(INFY, 11, 111)])
      yield* ticker.until(() => ticker.beats.length === 3)
    }).pipe(Effect.scoped)
  )

  it.live("answers what it cannot do by a text whose data is text, and goes on", () =>
    Effect.gen(function* () {
      const { port, hub } = yield* serveKite({ store: memoryStore(filled()), settings: { KITE_INSTRUMENTS: 1 } })
      const ticker = yield* openTicker(port)
      for (const [message, expected] of [
        ["{", /expected JSON/],
        ["[]", /expected an object/],
        [{ a: "order", v: [] }, /^a: expected "subscribe"/],
        [{ a: "subscribe", v: ["x"] }, /^v\.0: expected an instrument token/],
        [{ a: "mode", v: ["depth", [1]] }, /^v\.0: expected "ltp", "quote" or "full"/],
        [{ a: "mode", v: ["full", [INFY]] }, /^mode: 408065: subscribe to them first/],
        [
          { a: "subscribe", v: [INFY, TCS] },
          /^subscribe: 1 instruments are subscribed to, and no more may be: not 2953217/
        ]
      ] as const) {
        const before = ticker.texts.length
        ticker.say(message)
        yield* ticker.until(() => ticker.texts.length === before + 1)
        const { data, type } = ticker.texts.at(-1)!
        assert.strictEqual(type, "error")
        assert.isString(data)
        assert.match(data as string, expected)
      }
      ticker.socket.send(Buffer.from([1, 2, 3]))
      yield* ticker.until(() => ticker.texts.length === 8)
      yield* ticker.until(() => ticker.of(INFY).length === 1)
      hub.publish([live(INFY, 11, 111)])
      yield* ticker.until(() => ticker.of(INFY).length === 2)
    }).pipe(Effect.scoped)
  )

  it.effect("sends what is live while the store does not answer, and the day so far once it does", () =>
    Effect.gen(function* () {
      const late = new Late()
      late.isThere = false
      const { hub, port } = yield* serveKite({ store: late.layer })
      const ticker = yield* openTicker(port)
      ticker.say({ a: "subscribe", v: [INFY] })
      ticker.say({ a: "mode", v: ["full", [INFY]] })
      yield* ticker.until(() => ticker.texts.length === 1)
      assert.match(String(ticker.texts[0]!.data), /^subscribe: the store: away/)
      hub.publish([live(INFY, 11, 99.05)])
      yield* ticker.until(() => ticker.of(INFY).some(({ mode }) => mode === "full"))
      // The trade as it is; of the day nothing is made up.
      const none = { volume: 0, open: 0, high: 0, low: 0, close: 0, averagePrice: 0 }
      assert.containsSubset(ticker.of(INFY).at(-1), { lastPrice: 99.05, lastQuantity: 5, ...none })
      const quote = bookOf({ oi: 1234, open: 98, day_volume: 77 })
      hub.publish([], undefined, undefined, [quote])
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.oi === 1234)
      assert.containsSubset(ticker.of(INFY).at(-1), { lastPrice: 99.05, open: 98, volume: 77, close: 0 })
      yield* pass(600)
      const tries = late.days
      assert.isBelow(tries, 200)
      hub.publish([live(INFY, 12, 98, { volume: 30 })])
      late.isThere = true
      yield* pass(10)
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.close === 90)
      const whole = { lastPrice: 98, volume: 90, open: 98, high: 110, low: 98, close: 90 }
      assert.containsSubset(ticker.of(INFY).at(-1), whole)
      // Then it is asked no more.
      const asked = late.days
      yield* pass(60)
      assert.strictEqual(late.days, asked)
      assert.strictEqual(ticker.texts.length, 1)
    }).pipe(Effect.scoped)
  )

  it.effect("counts what the store was behind by when somebody subscribed, however late it comes to it", () =>
    Effect.gen(function* () {
      const late = new Late()
      const { hub, port } = yield* serveKite({ store: late.layer })
      hub.live.begin({ partition: 0, incarnation: "a", offset: 0 }, 0)
      const ticker = yield* openTicker(port)
      const all = Array.from({ length: 90 }, (_, i) => later(11 + i))
      // The store has ten, the log a hundred, and this server has read them.
      hub.publish(all, undefined, from(100))
      ticker.say({ a: "subscribe", v: [INFY] })
      yield* ticker.until(() => ticker.of(INFY).length === 1)
      hub.publish([later(101)], undefined, from(101))
      yield* ticker.until(() => ticker.of(INFY).length === 2)
      assert.containsSubset(ticker.of(INFY)[1], { lastPrice: 200, volume: 55 + 1, open: 101 })
      yield* pass(600)
      // A question of where the store is, and none of the day until that is far enough.
      assert.strictEqual(late.days, 1)
      late.write(11, 100)
      late.offset = 100
      yield* pass(10)
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.volume === 55 + 91)
      const asked = late.bookmarks
      yield* pass(60)
      assert.strictEqual(late.bookmarks, asked)
    }).pipe(Effect.scoped)
  )

  it.effect("counts the whole day though more came than is kept before the store tells of it", () =>
    Effect.gen(function* () {
      const late = new Late()
      late.isThere = false
      const { hub, port } = yield* serveKite({ store: late.layer })
      hub.live.begin({ partition: 0, incarnation: "a", offset: 0 }, 0)
      const ticker = yield* openTicker(port)
      ticker.say({ a: "subscribe", v: [INFY] })
      yield* ticker.until(() => ticker.texts.length === 1)
      const publish = (first: number, last: number) =>
        hub.publish(
          Array.from({ length: last - first + 1 }, (_, i) => later(first + i)),
          undefined,
          from(last)
        )
      publish(11, 700)
      publish(701, 1500)
      late.isThere = true
      late.offset = 10
      yield* pass(10)
      // What was seen live is counted, whatever is kept of it.
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.close === 90)
      assert.containsSubset(ticker.of(INFY).at(-1), { open: 101, low: 7, high: 200 })
      assert.isAtLeast(ticker.of(INFY).at(-1)!.volume, 1490)
      publish(1501, 1600)
      late.write(11, 1550)
      late.offset = 1550
      yield* pass(10)
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.volume === 55 + 1590)
      publish(1601, 1602)
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.volume === 55 + 1592)
      assert.containsSubset(ticker.of(INFY).at(-1), { open: 101, low: 7, high: 200, close: 90 })
    }).pipe(Effect.scoped)
  )

  it.effect("finds an instrument's quote again once the store has come to where somebody subscribed", () =>
    Effect.gen(function* () {
      const late = new Late()
      const { hub, port } = yield* serveKite({ store: late.layer })
      hub.live.begin({ partition: 0, incarnation: "a", offset: 20 }, 0)
      late.rows.quotes.push(bookOf({ oi: 1 }))
      const ticker = yield* openTicker(port)
      ticker.say({ a: "subscribe", v: [INFY] })
      ticker.say({ a: "mode", v: ["full", [INFY]] })
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.oi === 1)
      yield* pass(60)
      late.rows.quotes.push(bookOf({ exchange_ts: OPEN + 13_000_000, oi: 2 }))
      late.offset = 20
      yield* pass(10)
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.oi === 2)
      const asked = late.bookmarks
      yield* pass(60)
      assert.strictEqual(late.bookmarks, asked)
    }).pipe(Effect.scoped)
  )

  it.effect("finds the day again where something was lost on its way here", () =>
    Effect.gen(function* () {
      const late = new Late()
      const { hub, port } = yield* serveKite({ store: late.layer })
      hub.live.begin({ partition: 0, incarnation: "a", offset: 10 }, 0)
      late.offset = 10
      const ticker = yield* openTicker(port)
      ticker.say({ a: "subscribe", v: [INFY] })
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.volume === 55)
      hub.live.begin({ partition: 0, incarnation: "a", offset: 20 }, 0)
      hub.publish([later(21)], undefined, from(21))
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.volume === 56)
      late.write(11, 20)
      late.offset = 20
      yield* pass(10)
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.volume === 66)
    }).pipe(Effect.scoped)
  )

  it.live("takes thousands of instruments one by one, each with its mode, at the cost of few questions", () =>
    Effect.gen(function* () {
      const tokens = Array.from({ length: 3000 }, (_, i) => 1 + 256 * (i + 1))
      let questions = 0
      const store = memoryStore(new Rows(), {
        daysSoFar: (asked) =>
          Effect.sync(() => {
            questions++
            const day = (token: number) => ({
              last: storedTick({ instrument_token: token, price: token }),
              open: 1,
              high: token,
              low: 1,
              volume: 7
            })
            return new Map(asked.map((token) => [token, day(token)]))
          })
      })
      const { port } = yield* serveKite({ store })
      const ticker = yield* openTicker(port)
      for (const token of tokens) {
        ticker.say({ a: "subscribe", v: [token] })
        ticker.say({ a: "mode", v: ["full", [token]] })
      }
      const isWhole = () => {
        const full = ticker.packets.filter(({ mode, volume }) => mode === "full" && volume === 7)
        return new Set(full.map(({ token }) => token)).size === tokens.length
      }
      yield* ticker.until(() => ticker.closed !== undefined || isWhole())
      assert.isUndefined(ticker.closed)
      assert.deepStrictEqual(ticker.texts, [])
      assert.isBelow(questions, tokens.length / 4)
    }).pipe(Effect.scoped)
  )

  it.live("ends one that says more than may wait, and names how much that is", () =>
    Effect.gen(function* () {
      const { open } = yield* served
      const [ticker, good] = [yield* open, yield* open]
      for (let n = 0; n < 20_000; n++) ticker.say({ a: "subscribe", v: [INFY] })
      const { code, reason } = yield* ticker.until(() => ticker.closed)
      assert.strictEqual(code, 1008)
      assert.match(reason, /10000 messages, .* at 1000 messages a second/)
      good.say({ a: "subscribe", v: [INFY] })
      yield* good.until(() => good.of(INFY).length === 1)
    }).pipe(Effect.scoped)
  )

  it.live("lets in who shows a pair, as many of one key as may be, and says no by a code", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      for (const query of [
        "",
        "?api_key=a",
        "?access_token=b",
        "?api_key=&access_token=b",
        "?api_key=replay:x&access_token=b"
      ]) {
        const refused = yield* connectTicker(port, query)
        if (refused instanceof Ticker) throw new Error(query)
        assert.strictEqual(refused.status, 403, query)
        assert.containsSubset(JSON.parse(refused.text), { status: "error", error_type: "TokenException" })
      }
      const mine = "?api_key=mine&access_token=b&uid=1768535100000"
      const all = [yield* openTicker(port, mine), yield* openTicker(port, mine), yield* openTicker(port, mine, "/ws")]
      const fourth = yield* connectTicker(port, mine)
      if (fourth instanceof Ticker) throw new Error("let in")
      assert.strictEqual(fourth.status, 429)
      yield* openTicker(port, "?api_key=other&access_token=b")
      all[0]!.socket.close()
      yield* all[0]!.until(() => all[0]!.closed)
      yield* openTicker(port, mine)
      assert.strictEqual((yield* ask(port, "/")).status, 426)
      const foreign = yield* ask(port, "/?api_key=a&access_token=b", {
        headers: {
          host: "evil.example",
          connection: "Upgrade",
          upgrade: "websocket",
          "sec-websocket-version": "13",
          "sec-websocket-key": Buffer.alloc(16).toString("base64")
        }
      })
      assert.strictEqual(foreign.status, 403)
    }).pipe(Effect.scoped)
  )

  it.live(
    "sends a client that does not read the newest of each instrument once it does, and holds little meanwhile",
    () =>
      Effect.gen(function* () {
        const { hub, open } = yield* served
        const [slow, good] = [yield* open, yield* open]
        for (const ticker of [slow, good]) {
          ticker.say({ a: "subscribe", v: [INFY, TCS] })
          ticker.say({ a: "mode", v: ["full", [INFY, TCS]] })
          hub.publish([live(TCS, 1, 1)])
          yield* ticker.until(() => ticker.of(INFY).some(({ mode }) => mode === "full"))
        }
        slow.socket.pause()
        const many = 60_000
        for (let n = 0; n < many; n += 500) {
          hub.publish(Array.from({ length: 500 }, (_, i) => live(INFY, 11 + n + i, 1000 + n + i)))
          // One that reads may be late for a moment too, where the machine is.
          yield* good.until(() => good.packets.at(-1)?.lastPrice === 1499 + n)
        }
        hub.publish([live(TCS, 2, 4242), live(INFY, 11 + many, 777)])
        yield* good.until(() => good.of(INFY).at(-1)?.lastPrice === 777 && good.of(TCS).at(-1)?.lastPrice === 4242)
        slow.socket.resume()
        yield* slow.until(() => slow.of(INFY).at(-1)?.lastPrice === 777 && slow.of(TCS).at(-1)?.lastPrice === 4242)
        assert.isBelow(slow.packets.length, good.packets.length)
        assert.isUndefined(slow.closed)
      }).pipe(Effect.scoped)
  )

  it.live(
    "begins the replay of a day with the first subscription, tells what comes of it, and begins anew once it is over",
    () =>
      Effect.gen(function* () {
        const { hub, port, replays } = yield* serveKite({
          store: memoryStore(filled()),
          settings: { KITE_REPLAY: "2026-01-16@60" }
        })
        const ticker = yield* openTicker(port)
        assert.deepStrictEqual(replays.asked, [{ all: true, date: "2026-01-16", speed: 60, paused: true }])
        ticker.say({ a: "subscribe", v: [INFY] })
        yield* ticker.until(() => ticker.of(INFY).length === 1)
        assert.containsSubset(ticker.packets[0], { lastPrice: 90, close: 90, volume: 0, open: 0 })
        assert.strictEqual(replays.all.get("da1")!.state, "running")
        assert.strictEqual(hub.clients("da1"), 1)
        hub.channel("da1")!.publish([live(INFY, 1, 101), live(INFY, 2, 102)])
        hub.publish([live(INFY, 11, 999)])
        yield* ticker.until(() => ticker.of(INFY).length === 3)
        assert.containsSubset(ticker.packets[2], { lastPrice: 102, volume: 10, open: 101, close: 90 })
        replays.put("da1", tradingDayStart(20_469), OPEN, "ended")
        hub.close("da1")
        yield* openTicker(port, "?api_key=second&access_token=b")
        assert.strictEqual(replays.asked.length, 2)
        assert.isUndefined(ticker.closed)
        assert.strictEqual(hub.clients("da2"), 1)
      }).pipe(Effect.scoped)
  )

  it.live("tells who asks for a day that nothing is stored of which days there are, and ends", () =>
    Effect.gen(function* () {
      const { port, replays } = yield* served
      const message = "date: no tick and no quote is stored of 2020-01-01; days there are: 2026-01-16"
      replays.refusal = new NothingStored({ parameter: "date", message })
      const ticker = yield* openTicker(port, "?api_key=replay:2020-01-01@inf&access_token=b")
      yield* ticker.until(() => ticker.closed !== undefined)
      assert.strictEqual(ticker.closed?.code, 1008)
      assert.deepStrictEqual(ticker.texts, [{ type: "error", data: `api_key: ${message}` }])
    }).pipe(Effect.scoped)
  )

  /** Somebody who has subscribed to a day that is replayed at 60 times its pace, which goes. */
  const listening = Effect.fnUntraced(function* ({ port, replays }: Effect.Success<typeof served>, id: string) {
    const ticker = yield* openTicker(port, "?api_key=replay:2026-01-16@60&access_token=b")
    ticker.say({ a: "subscribe", v: [INFY] })
    yield* holding(() => replays.all.get(id)?.state === "running")
    return ticker
  })

  it.effect(
    "has a day stand still when the last of its tickers goes, and go on where it was for who is soon back",
    () =>
      Effect.gen(function* () {
        const all = yield* served
        const { by, hub, replays } = all
        const first = yield* listening(all, "da1")
        const second = yield* listening(all, "da1")
        yield* first.until(() => first.of(INFY).length > 0)
        yield* holding(() => hub.clients("da1") === 2)
        hub.channel("da1")!.publish([live(INFY, 1, 104)])
        first.socket.terminate()
        yield* holding(() => hub.clients("da1") === 1)
        assert.strictEqual(replays.all.get("da1")!.state, "running")
        second.socket.terminate()
        yield* holding(() => replays.all.get("da1")!.state === "paused")
        yield* TestClock.adjust("9 seconds")
        // Asking alone has it not go on.
        assert.strictEqual((yield* by("replay:2026-01-16@60:b", "/quote/ltp?i=NSE:INFY")).status, 200)
        assert.strictEqual(replays.all.get("da1")!.state, "paused")
        const back = yield* listening(all, "da1")
        yield* back.until(() => back.of(INFY).at(-1)?.lastPrice === 104)
        assert.strictEqual(replays.asked.length, 1)
        // Who is there may be so for long.
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* by("replay:2026-01-16@60:b", "/quote/ltp?i=NSE:INFY")).status, 200)
        assert.strictEqual(replays.asked.length, 1)
      }).pipe(Effect.scoped)
  )

  it.effect("has a day begin anew for whoever comes ten seconds after the last of its tickers went", () =>
    Effect.gen(function* () {
      const all = yield* served
      const { by, hub, port, replays } = all
      for (const [asks, before, after] of [
        [false, "da1", "da2"],
        [true, "da2", "da3"]
      ] as const) {
        const ticker = yield* listening(all, before)
        ticker.socket.terminate()
        yield* holding(() => replays.all.get(before)!.state === "paused")
        yield* TestClock.adjust("10 seconds")
        // What a bot asks for before it listens is of the market that it will listen to.
        if (asks) assert.strictEqual((yield* by("replay:2026-01-16@60:b", "/quote/ltp?i=NSE:INFY")).status, 200)
        else {
          const next = yield* openTicker(port, "?api_key=replay:2026-01-16@60&access_token=b")
          yield* holding(() => hub.clients(after) === 1)
          next.socket.terminate()
          yield* holding(() => hub.clients(after) === 0)
        }
        assert.strictEqual(replays.all.get(before)!.state, "ended")
        assert.strictEqual(replays.all.get(after)!.state, "paused")
      }
    }).pipe(Effect.scoped)
  )

  it.effect(
    "has a day begin anew for a bot that is started again, which asks for the instruments before it listens",
    () =>
      Effect.gen(function* () {
        const all = yield* served
        const { by, replays } = all
        const instruments = by("replay:2026-01-16@60:b", "/instruments/NSE")
        yield* instruments
        const ticker = yield* listening(all, "da1")
        // One that runs may ask again.
        yield* instruments
        assert.strictEqual(replays.all.get("da1")!.state, "running")
        ticker.socket.terminate()
        yield* holding(() => replays.all.get("da1")!.state === "paused")
        yield* instruments
        assert.strictEqual(replays.all.get("da1")!.state, "ended")
        yield* listening(all, "da2")
        assert.strictEqual(replays.asked.length, 2)
      }).pipe(Effect.scoped)
  )

  it.effect("leaves a day paused that somebody has paused, whoever goes and comes", () =>
    Effect.gen(function* () {
      const all = yield* served
      const { hub, replays } = all
      const ticker = yield* listening(all, "da1")
      replays.put("da1", tradingDayStart(20_469), OPEN + 5_000_000, "paused")
      ticker.socket.terminate()
      yield* holding(() => hub.clients("da1") === 0)
      const back = yield* openTicker(all.port, "?api_key=replay:2026-01-16@60&access_token=b")
      back.say({ a: "subscribe", v: [INFY] })
      yield* back.until(() => back.of(INFY).length > 0)
      assert.strictEqual(replays.all.get("da1")!.state, "paused")
    }).pipe(Effect.scoped)
  )

  it.live("begins anew with a run that begins anew: nothing of the one before is counted", () =>
    Effect.gen(function* () {
      const { hub, port, replays } = yield* served
      replays.put("abc1", tradingDayStart(20_469), null, "running")
      const ticker = yield* openTicker(port, "?api_key=replay:abc1&access_token=b")
      ticker.say({ a: "subscribe", v: [INFY] })
      yield* ticker.until(() => ticker.of(INFY).length === 1)
      hub.channel("abc1")!.publish([live(INFY, 1, 500)])
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.high === 500)
      hub.open("abc1")
      hub.channel("abc1")!.publish([live(INFY, 1, 101)])
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.lastPrice === 101)
      assert.containsSubset(ticker.of(INFY).at(-1), { high: 101, volume: 5 })
    }).pipe(Effect.scoped)
  )

  it.live("goes on with the run that a seek begins, on and back: its figures are the day's up to there", () =>
    Effect.gen(function* () {
      const { hub, port, replays } = yield* served
      const start = tradingDayStart(20_469)
      replays.put("abc1", start, null, "running")
      const ticker = yield* openTicker(port, "?api_key=replay:abc1&access_token=b")
      ticker.say({ a: "subscribe", v: [INFY] })
      yield* ticker.until(() => ticker.of(INFY).length === 1)
      const play = (position: number, of: number) => {
        const stored = { price: 100 + of, exchange_ts: OPEN + of * 1_000_000, volume: of }
        hub.channel("abc1")!.publish([live(INFY, position, stored.price, stored)])
      }
      play(1, 1)
      play(2, 2)
      yield* ticker.until(() => ticker.of(INFY).at(-1)?.lastPrice === 102)
      const seek = (of: number) => {
        hub.open("abc1")
        replays.put("abc1", start, OPEN + of * 1_000_000)
      }
      // What of the day lies before is known at once, though nothing of the run has come; then the run counts on from it.
      for (const [of, before, volume] of [
        [8, 107, 28],
        [4, 103, 6]
      ] as const) {
        const told = ticker.of(INFY).length
        seek(of)
        yield* ticker.until(() => ticker.of(INFY).length > told)
        assert.containsSubset(ticker.of(INFY).at(-1), { lastPrice: before, volume, open: 101, high: before, close: 90 })
        play(1, of)
        yield* ticker.until(() => ticker.of(INFY).at(-1)?.lastPrice === 100 + of)
        const here = { volume: volume + of, open: 101, high: 100 + of, low: 101, close: 90 }
        assert.containsSubset(ticker.of(INFY).at(-1), here)
      }
    }).pipe(Effect.scoped)
  )

  it.live("takes without a word what nothing comes of: tokens that nobody has, or that a replay is not of", () =>
    Effect.gen(function* () {
      const { hub, open, port, replays } = yield* served
      const NOBODY = 7_777_793
      const start = tradingDayStart(20_469)
      replays.put("abc1", start, OPEN + 5_000_000)
      replays.named.set("abc1", new Set([INFY]))
      const ofReplay = yield* openTicker(port, "?api_key=replay:abc1&access_token=b")
      const ofLive = yield* open
      for (const ticker of [ofReplay, ofLive]) {
        ticker.say({ a: "subscribe", v: [NIFTY, NOBODY, TCS] })
        ticker.say({ a: "mode", v: ["full", [NIFTY, NOBODY, TCS]] })
        ticker.say({ a: "subscribe", v: [INFY] })
        yield* ticker.until(() => ticker.of(INFY).length === 1)
      }
      yield* ofLive.until(() => ofLive.of(NIFTY).length > 0)
      // A run that begins anew looks for what lies before it; nobody finds what it is not of.
      hub.open("abc1")
      replays.put("abc1", start, OPEN + 8_000_000)
      yield* ofReplay.until(() => ofReplay.of(INFY).length === 2)
      ofReplay.say({ a: "mode", v: ["ltp", [NIFTY, NOBODY]] })
      ofReplay.say({ a: "unsubscribe", v: [NOBODY, TCS] })
      ofReplay.say({ a: "mode", v: ["full", [TCS, INFY]] })
      yield* ofReplay.until(() => ofReplay.of(INFY).length === 3)
      assert.strictEqual(ofReplay.packets.length, 3)
      assert.deepStrictEqual(
        ofReplay.texts.map(({ data }) => data),
        [`mode: ${TCS}: subscribe to them first`]
      )
      assert.deepStrictEqual(ofLive.texts, [])
      hub.publish([live(TCS, 1, 3000)])
      yield* ofLive.until(() => ofLive.of(TCS).length === 1)
    }).pipe(Effect.scoped)
  )

  it.live("tells who asks for a replay that is not there why, and closes", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const ticker = yield* openTicker(port, "?api_key=replay:fff&access_token=b")
      const { code } = yield* ticker.until(() => ticker.closed)
      assert.strictEqual(code, 1008)
      assert.match(String(ticker.texts[0]?.data), /no replay is called fff/)
    }).pipe(Effect.scoped)
  )

  it.live("sends a key for what a token means now nothing of what it meant before, and others all", () =>
    Effect.gen(function* () {
      const [some, desk] = [makeKey("some", { instruments: [REUSED_NAME] }), makeKey("desk")]
      const file = yield* keysFile([some, desk])
      const { hub, port } = yield* serveKite({ store: memoryStore(reusedRows(false)), access: accessBy(file.path) })
      const own = yield* openTicker(port, `?api_key=a&access_token=${some.text}`)
      const all = yield* openTicker(port, `?api_key=b&access_token=${desk.text}`)
      for (const ticker of [own, all]) ticker.say({ a: "subscribe", v: [REUSED] })
      yield* all.until(() => all.packets.length === 1)
      hub.publish([live(REUSED, 2, PRICE)])
      yield* own.until(() => own.packets.length > 0)
      yield* all.until(() => all.packets.length === 2)
      for (const { close, lastPrice } of own.packets) assert.deepStrictEqual([lastPrice, close], [PRICE, 0])
      assert.deepStrictEqual(
        all.packets.map(({ close, lastPrice }) => [lastPrice, close]),
        [
          [FORMER_PRICE, 0],
          [PRICE, FORMER_PRICE]
        ]
      )
    }).pipe(Effect.scoped)
  )

  it.live("lets in by API keys where there are any, sends of their instruments alone, and ends with them", () =>
    Effect.gen(function* () {
      const some = makeKey("some", { instruments: [String(INFY)], scopes: ["read"] })
      const file = yield* keysFile([some])
      const { port, replays } = yield* serveKite({ store: memoryStore(filled()), access: accessBy(file.path) })
      for (const token of ["b", makeKey("nobody").text]) {
        const refused = yield* connectTicker(port, `?api_key=a&access_token=${token}`)
        if (refused instanceof Ticker) throw new Error("let in")
        assert.strictEqual(refused.status, 403)
      }
      replays.put("abc1", OPEN, OPEN)
      const replay = yield* connectTicker(port, `?api_key=replay:abc1&access_token=${some.text}`)
      if (replay instanceof Ticker) throw new Error("let in")
      assert.match(replay.text, /lacks replay/)
      const ticker = yield* openTicker(port, `?api_key=a&access_token=${some.text}`)
      ticker.say({ a: "subscribe", v: [NIFTY, INFY] })
      yield* ticker.until(() => ticker.texts.length === 1)
      assert.strictEqual(ticker.texts[0]!.data, "subscribe: your access_token is not for 256265")
      yield* ticker.until(() => ticker.of(INFY).length === 1)
      assert.deepStrictEqual(ticker.of(NIFTY), [])
      file.write([])
      const { code, reason } = yield* ticker.until(() => ticker.closed)
      assert.strictEqual(code, 1008)
      assert.match(reason, /the API key was revoked/)
    }).pipe(Effect.scoped)
  )
})
