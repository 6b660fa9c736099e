import { createHash } from "node:crypto"
import { type OutgoingHttpHeaders, request } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import WebSocket from "ws"
import type { SettledFrame } from "../../../src/http/kiteSim/KiteServer.ts"
import { readInstruments } from "../../../src/layers/kite/instruments.ts"
import { modeText, subscribeText, unsubscribeText } from "../../../src/schema/kite/messages.ts"
import { decodeFrame, type KitePacket } from "../../../src/schema/kite/packets.ts"
import { type Played, playedKite, until } from "../../support/kite.ts"

interface Client {
  readonly ws: WebSocket
  readonly packets: Array<KitePacket>
  readonly texts: Array<string>
  heartbeats: number
  skipped: number
  closed: number | undefined
}

/** A bare client: what it gets, as it comes. */
const client = (played: Played, query = "api_key=simulated&access_token=simulated-1") =>
  Effect.acquireRelease(
    Effect.sync((): Client => {
      const ws = new WebSocket(`ws://127.0.0.1:${played.server().port}/?${query}`)
      const one: Client = { ws, packets: [], texts: [], heartbeats: 0, skipped: 0, closed: undefined }
      ws.on("message", (data: Buffer, isBinary) => {
        if (!isBinary) one.texts.push(data.toString())
        else if (data.length === 1) one.heartbeats += 1
        else {
          const frame = decodeFrame(data)!
          one.packets.push(...frame.packets)
          one.skipped += frame.skipped.length
        }
      })
      ws.on("error", () => undefined)
      ws.on("close", (code) => {
        one.closed = code
      })
      return one
    }),
    ({ ws }) => Effect.sync(() => ws.terminate())
  )

const up = (one: Client) => until("open", () => one.ws.readyState === WebSocket.OPEN)

/** The status that a handshake is refused with. */
const refused = (played: Played, query: string): Effect.Effect<number> =>
  Effect.callback((resume) => {
    const ws = new WebSocket(`ws://127.0.0.1:${played.server().port}/?${query}`)
    ws.on("unexpected-response", (_request, response) => {
      resume(Effect.succeed(response.statusCode!))
      ws.terminate()
    })
    ws.on("open", () => resume(Effect.succeed(101)))
    ws.on("error", () => undefined)
  })

const ask = (played: Played, path: string, init: RequestInit = {}, token = "simulated-1") =>
  Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${played.server().port}${path}`, {
      ...init,
      headers: { authorization: `token simulated:${token}`, ...(init.headers ?? {}) }
    })
    const text = await response.text()
    return { status: response.status, type: response.headers.get("content-type"), text }
  })
/** Asks for a target as it is written, which `fetch` would put right. */
const askBare = (played: Played, path: string, headers: OutgoingHttpHeaders = {}) =>
  Effect.callback<readonly [status: number, text: string]>((resume) => {
    const asked = request({ host: "127.0.0.1", port: played.server().port, path, headers, agent: false })
    asked.on("response", (response) => {
      let text = ""
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString()
      })
      response.on("end", () => resume(Effect.succeed([response.statusCode!, text])))
    })
    asked.on("error", (error) => resume(Effect.die(error)))
    asked.end()
  })
const json = (text: string) => JSON.parse(text) as Readonly<Record<string, unknown>>

const control = (played: Played, fault: object, headers: Record<string, string> = {}) =>
  ask(played, "/sim/faults", {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(fault)
  })

describe("the ticker of a simulated Kite", () => {
  it.live("sends the last packet of an instrument at once, in the mode that was asked for, then on change", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(20)
      played.step(2000)
      const token = played.board.instruments[0]!.instrument_token
      const one = yield* client(played)
      yield* up(one)
      one.ws.send(subscribeText([token]))
      yield* until("quote", () => one.packets.length === 1)
      assert.strictEqual(one.packets[0]!.mode, "quote")
      one.ws.send(modeText("full", [token]))
      yield* until("full", () => one.packets.length === 2)
      assert.deepStrictEqual(one.packets[1], played.board.packet(token))
      one.ws.send(modeText("ltp", [token]))
      yield* until("ltp", () => one.packets.length === 3)
      assert.strictEqual(one.packets[2]!.lastPrice, played.board.packet(token)!.lastPrice)
      one.ws.send(unsubscribeText([token]))
      const [, other] = played.board.instruments
      one.ws.send(subscribeText([other!.instrument_token]))
      yield* until("other", () => one.packets.length === 4)
      played.step(2000)
      yield* until("changed", () => one.packets.length > 4)
      assert.isTrue(one.packets.slice(3).every((packet) => packet.token === other!.instrument_token))
      yield* until("signs of life", () => one.heartbeats > 1)
    })
  )

  it.live("has indices without trades, and no instrument that its packets have no room for", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(1000, { rate: 50_000 })
      played.step(1000)
      const { instruments } = played.board
      assert.strictEqual(instruments.length, 1000)
      const indices = instruments.filter(({ asset_class }) => asset_class === "INDEX")
      assert.isAbove(indices.length, 2)
      for (const { instrument_token } of indices) {
        assert.strictEqual(instrument_token & 0xff, 9)
        const packet = played.board.packet(instrument_token)!
        assert.deepStrictEqual([packet.isIndex, packet.volume, packet.bid.length], [true, 0, 0])
      }
      const one = yield* client(played)
      yield* up(one)
      const tokens = instruments.map(({ instrument_token }) => instrument_token)
      one.ws.send(subscribeText(tokens))
      one.ws.send(modeText("full", tokens))
      yield* until("all", () => one.packets.filter(({ mode }) => mode === "full").length >= 1000)
      for (const packet of one.packets.filter(({ mode }) => mode === "full").slice(0, 1000)) {
        assert.strictEqual(packet.lastPrice, played.board.packet(packet.token)!.lastPrice)
      }
    })
  )

  it.live("refuses a wrong key or token with 403, and the fourth connection of a key with 429", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(5)
      for (const query of [
        "",
        "api_key=simulated",
        "api_key=simulated&access_token=x",
        "api_key=x&access_token=simulated-1"
      ]) {
        assert.strictEqual(yield* refused(played, query), 403)
      }
      const three = yield* Effect.forEach([1, 2, 3], () => client(played))
      yield* Effect.forEach(three, up)
      assert.strictEqual(yield* refused(played, "api_key=simulated&access_token=simulated-1"), 429)
    })
  )

  it.live("tells what it does not understand, and what is over 3,000 instruments, and goes on", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(3100)
      const one = yield* client(played)
      yield* up(one)
      one.ws.send("no json")
      one.ws.send(`{"a":"mode","v":["all",[1]]}`)
      one.ws.send(subscribeText(played.board.instruments.map(({ instrument_token }) => instrument_token)))
      yield* until("told", () => one.texts.length === 3)
      assert.deepStrictEqual(
        one.texts.map((text) => (JSON.parse(text) as { readonly type: string }).type),
        ["error", "error", "error"]
      )
      assert.match(one.texts[0]!, /expected JSON/)
      assert.match(one.texts[1]!, /v\.0: expected/)
      assert.match(one.texts[2]!, /100 instruments are over the 3000/)
      assert.strictEqual(played.server().figures().subscriptions, 3000)
      assert.strictEqual(one.ws.readyState, WebSocket.OPEN)
    })
  )

  it.live("ends a token alone where it is asked to: what is connected goes on, and nobody comes in", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(5)
      const one = yield* client(played)
      yield* up(one)
      assert.strictEqual((yield* control(played, { fault: "lapse" })).status, 200)
      assert.strictEqual(yield* refused(played, "api_key=simulated&access_token=simulated-1"), 403)
      assert.strictEqual(json((yield* ask(played, "/user/profile")).text).error_type, "TokenException")
      one.ws.send(subscribeText([played.board.instruments[0]!.instrument_token]))
      played.step(2000)
      yield* until("ticks", () => one.packets.length > 0)
      assert.isUndefined(one.closed)
    })
  )

  it.live("ends a token and all its connections, until somebody logs in again", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(5)
      const one = yield* client(played)
      yield* up(one)
      assert.strictEqual((yield* control(played, { fault: "expire" })).status, 200)
      yield* until("closed", () => one.closed !== undefined)
      assert.strictEqual(yield* refused(played, "api_key=simulated&access_token=simulated-1"), 403)
      const profile = yield* ask(played, "/user/profile")
      assert.deepStrictEqual([profile.status, json(profile.text).error_type], [403, "TokenException"])
      const login = (secret: string) =>
        ask(played, "/session/token", {
          method: "POST",
          body: new URLSearchParams({
            api_key: "simulated",
            request_token: "r1",
            checksum: createHash("sha256").update(`simulatedr1${secret}`).digest("hex")
          })
        })
      assert.strictEqual((yield* login("wrong")).status, 403)
      const session = yield* login("simulated")
      const data = json(session.text).data as { readonly access_token: string; readonly login_time: string }
      assert.strictEqual(data.access_token, "simulated-2")
      assert.match(data.login_time, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/)
      assert.strictEqual(yield* refused(played, "api_key=simulated&access_token=simulated-1"), 403)
      assert.strictEqual(yield* refused(played, "api_key=simulated&access_token=simulated-2"), 101)
    })
  )
})

describe("the ledger of a simulated Kite", () => {
  it.live("has each packet that went out whole once, read where the client has said so", () =>
    Effect.gen(function* () {
      const frames: Array<SettledFrame> = []
      const played = yield* playedKite(50, { onSettled: (frame) => frames.push(frame) })
      const one = yield* client(played)
      yield* up(one)
      const tokens = played.board.instruments.map(({ instrument_token }) => instrument_token)
      one.ws.send(subscribeText(tokens))
      yield* until("asked", () => played.server().figures().subscriptions === 50)
      played.step(1000)
      yield* until("read", () => frames.flatMap(({ packets }) => packets).length === played.sent.length)
      assert.isTrue(frames.every(({ connection, isRead }) => connection === 1 && isRead))
      assert.deepStrictEqual(
        frames.flatMap(({ packets }) => packets),
        one.packets
      )
      const read = frames.length
      // What a client does not read it does not say that it has read.
      one.ws.pause()
      played.step(1000)
      played.server().fault({ fault: "cut" })
      played.step(1000)
      played.server().fault({ fault: "reset" })
      yield* until("settled", () => frames.flatMap(({ packets }) => packets).length === played.sent.length)
      assert.isAbove(frames.length, read)
      assert.isTrue(frames.slice(read).every(({ isRead }) => !isRead))
    })
  )
})

describe("a simulated Kite over REST", () => {
  it.live("has instruments as the broker's file has them, and quotes as its packets are", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(300)
      played.step(3000)
      const file = yield* ask(played, "/instruments")
      assert.strictEqual(file.type, "text/csv")
      const read = readInstruments(file.text)
      assert.isObject(read)
      if (typeof read === "string") return
      assert.strictEqual(read.rejected, 0)
      assert.deepStrictEqual(
        read.instruments.map(({ instrument_token, tradingsymbol, asset_class }) => [
          instrument_token,
          tradingsymbol,
          asset_class
        ]),
        played.board.instruments.map(({ instrument_token, tradingsymbol, asset_class }) => [
          instrument_token,
          tradingsymbol,
          asset_class
        ])
      )
      assert.strictEqual((yield* ask(played, "/instruments/sim")).text, file.text)
      assert.strictEqual((yield* ask(played, "/instruments/NSE")).text.split("\n").length, 1)

      const [first] = played.board.instruments
      const name = `SIM:${first!.tradingsymbol}`
      const packet = played.board.packet(first!.instrument_token)!
      const quote = json((yield* ask(played, `/quote?i=${encodeURIComponent(name)}&i=SIM:NONE`)).text)
      const data = quote.data as Readonly<Record<string, Readonly<Record<string, unknown>>>>
      assert.deepStrictEqual(Object.keys(data), [name])
      assert.deepInclude(data[name], {
        instrument_token: packet.token,
        last_price: packet.lastPrice,
        volume: packet.volume,
        buy_quantity: packet.buyQuantity,
        ohlc: { open: packet.open, high: packet.high, low: packet.low, close: packet.close }
      })
      const { buy } = data[name]!.depth as { readonly buy: ReadonlyArray<object> }
      assert.strictEqual(buy.length, 5)
      const prices = json((yield* ask(played, `/quote/ltp?i=${encodeURIComponent(name)}`)).text)
      assert.deepStrictEqual(prices.data, {
        [name]: { instrument_token: packet.token, last_price: packet.lastPrice }
      })
      const named = (count: number) => ask(played, `/quote/ltp?${"i=NFO%3ABANKNIFTY99DEC52000CE&".repeat(count)}`)
      assert.deepStrictEqual([(yield* named(1000)).status, (yield* named(1001)).status], [200, 400])
      const many = yield* ask(played, `/quote?${"i=SIM:A&".repeat(501)}`)
      assert.deepStrictEqual([many.status, json(many.text).error_type], [400, "InputException"])
      const none = yield* ask(played, "/orders")
      assert.deepStrictEqual([none.status, json(none.text).status], [500, "error"])
      assert.strictEqual((yield* ask(played, "/quote", {}, "wrong")).status, 403)
    })
  )

  it.live("lets in no page of another site, by its own name or by another", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(5)
      const foreign = yield* control(played, { fault: "reset" }, { origin: "https://example.com" })
      assert.strictEqual(foreign.status, 403)
      const form = yield* ask(played, "/sim/faults", { method: "POST", body: `{"fault":"reset"}` })
      assert.strictEqual(form.status, 400)
    })
  )

  it.live("refuses what is no address in its own words, of a handshake too, and goes on", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(5)
      const handshake = {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="
      }
      for (const headers of [{}, handshake]) {
        for (const path of ["//", "//elsewhere/quote", "/\\", "http://:x/"]) {
          const [status, text] = yield* askBare(played, path, headers)
          assert.deepStrictEqual([status, json(text).error_type], [400, "InputException"], path)
        }
        // Who is of another site learns no more than that.
        const [status] = yield* askBare(played, "//", { ...headers, origin: "https://example.com" })
        assert.strictEqual(status, 403)
      }
      assert.strictEqual((yield* ask(played, "/instruments")).status, 200)
    })
  )

  it.live("plays faults on request, and says which it does not know", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(20)
      const one = yield* client(played)
      yield* up(one)
      one.ws.send(subscribeText(played.board.instruments.map(({ instrument_token }) => instrument_token)))
      yield* until("asked", () => played.server().figures().subscriptions === 20)
      assert.strictEqual((yield* control(played, { fault: "strange", frames: 1 })).status, 200)
      played.step(1000)
      yield* until("strange", () => one.skipped === 5)
      assert.strictEqual((yield* control(played, { fault: "error", message: "out of order" })).status, 200)
      yield* until("text", () => one.texts.length === 1)
      assert.strictEqual((yield* control(played, { fault: "refuse", status: 502 })).status, 200)
      assert.strictEqual(yield* refused(played, "api_key=simulated&access_token=simulated-1"), 502)
      assert.strictEqual((yield* control(played, { fault: "close", code: 1013, reason: "later" })).status, 200)
      yield* until("closed", () => one.closed === 1013)
      for (const [fault, sentence] of [
        [{ fault: "halfopen" }, /unknown fault halfopen: did you mean half-open\?/],
        [{}, /fault: expected one of stall, /],
        [{ fault: "close", code: 1006 }, /code: expected one that a server may send, got 1006/],
        [{ fault: "close", code: 2000 }, /code: expected one that a server may send, got 2000/],
        [{ fault: "close", code: 1000, reason: "é".repeat(100) }, /reason: expected at most 123 bytes, got 200/],
        [{ fault: "close" }, /code: /],
        [{ fault: "late", by: 0 }, /by: .*got 0/],
        [{ fault: "refuse", status: 200 }, /status: .*got 200/]
      ] as const) {
        const { status, text } = yield* control(played, fault)
        assert.strictEqual(status, 400)
        assert.match(String(json(text).message), sentence)
      }
    })
  )
})
