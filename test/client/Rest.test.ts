import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { onTestFinished } from "vitest"
import { ClientClosed, NetworkFailed, RequestFailed, TimedOut } from "../../src/client/errors.ts"
import { client, failureOf } from "../support/clients.ts"

interface Asked {
  readonly method: string
  readonly url: string
  readonly authorization: string | undefined
  readonly body: unknown
}

/** A server that answers by a script; what it was asked is kept. */
const serving = async (
  answer: (asked: Asked, response: ServerResponse, count: number) => void
): Promise<{ readonly url: string; readonly asked: Array<Asked> }> => {
  const asked: Array<Asked> = []
  const server = createServer(async (request: IncomingMessage, response) => {
    const parts: Array<Buffer> = []
    for await (const part of request) parts.push(part)
    const text = Buffer.concat(parts).toString("utf8")
    const one = {
      method: request.method!,
      url: request.url!,
      authorization: request.headers.authorization,
      body: text === "" ? undefined : JSON.parse(text)
    }
    asked.push(one)
    answer(one, response, asked.length)
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}
const json = (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body))

describe("a request", () => {
  it("waits for a key no longer than it may take", async () => {
    const { url, asked } = await serving((_, response) => json(response, 200, {}))
    const { client: c } = client(url, { key: () => new Promise<string>(() => {}), timeoutMs: 20, retries: 0 })
    assert.instanceOf(await failureOf(c.instruments.search("a")), TimedOut)
    assert.deepStrictEqual(asked, [])
  })

  it("carries the key, and answers what the server does", async () => {
    const { url, asked } = await serving((_, response) => json(response, 200, { instruments: [{ name: "x" }] }))
    const { client: c } = client(`${url}/market`, { key: "k" })
    assert.deepStrictEqual(
      (await c.instruments.search("a&b", { exchange: "NSE", assetClass: "EQ", limit: 3 })) as unknown,
      [{ name: "x" }]
    )
    assert.deepStrictEqual(asked, [
      {
        method: "GET",
        url: "/market/api/v1/instruments/search?query=a%26b&exchange=NSE&asset_class=EQ&limit=3",
        authorization: "Bearer k",
        body: undefined
      }
    ])
  })

  it("fails with the server's tag, words, parameter and status", async () => {
    const { url } = await serving((_, response) =>
      json(response, 400, { _tag: "BadRequest", message: "date: expected a date", parameter: "date" })
    )
    const error = (await failureOf(client(url).client.calendar("NSE", "today"))) as RequestFailed
    assert.instanceOf(error, RequestFailed)
    assert.deepStrictEqual(
      [error._tag, error.name, error.message, error.parameter, error.status, error.retryAfter],
      ["BadRequest", "BadRequest", "date: expected a date", "date", 400, undefined]
    )
  })

  it("fails with a type also where what answers is not the platform", async () => {
    const { url } = await serving((_, response) => response.writeHead(404).end("<h1>nothing here</h1>"))
    const error = (await failureOf(client(url).client.calendar("NSE", "2026-01-15"))) as RequestFailed
    assert.deepStrictEqual([error._tag, error.status], ["RequestFailed", 404])
    assert.strictEqual(error.message, "answered 404 Not Found: <h1>nothing here</h1>")
  })

  it("that changes nothing is sent again where it fails for now, after the wait that is asked for", async () => {
    const { url, asked } = await serving((_, response, count) =>
      count < 3
        ? json(response, count === 1 ? 429 : 503, { _tag: "TooManyRequests", message: "full" }, { "retry-after": "0" })
        : json(response, 200, { replays: [] })
    )
    assert.deepStrictEqual(await client(url).client.replays.list(), [])
    assert.lengthOf(asked, 3)
  })

  it("is sent again no more often than the client is told, and says how long to wait", async () => {
    const { url, asked } = await serving((_, response) =>
      json(response, 503, { _tag: "Unavailable", message: "the server is stopping" }, { "retry-after": "7" })
    )
    const error = (await failureOf(client(url, { retries: 0 }).client.replays.list())) as RequestFailed
    assert.deepStrictEqual([error._tag, error.retryAfter], ["Unavailable", 7])
    assert.lengthOf(asked, 1)
  })

  it("is not sent again where the server asks for a longer wait than a try may take", async () => {
    const { url, asked } = await serving((_, response) => json(response, 503, {}, { "retry-after": "31" }))
    assert.strictEqual(((await failureOf(client(url).client.replays.list())) as RequestFailed).retryAfter, 31)
    assert.lengthOf(asked, 1)
  })

  it("that changes something is sent once", async () => {
    const { url, asked } = await serving((_, response) => json(response, 503, { _tag: "Unavailable", message: "no" }))
    await failureOf(client(url).client.replays.create({ tokens: [1], date: "2026-01-15" }))
    assert.deepStrictEqual(asked, [
      {
        method: "POST",
        url: "/api/v1/replays",
        authorization: undefined,
        body: { tokens: [1], date: "2026-01-15" }
      }
    ])
  })

  it("asks a key function once, and anew where the key is refused", async () => {
    const { url, asked } = await serving(({ authorization }, response) =>
      authorization === "Bearer k1"
        ? json(response, 401, { _tag: "Unauthorized", message: "expired" })
        : json(response, 200, { replays: [] })
    )
    let keys = 0
    const { client: c } = client(url, { key: () => `k${++keys}` })
    await c.replays.list()
    await c.replays.list()
    assert.deepStrictEqual(
      asked.map(({ authorization }) => authorization),
      ["Bearer k1", "Bearer k2", "Bearer k2"]
    )
    const { url: other, asked: refusals } = await serving((_, response) => json(response, 401, {}))
    const error = (await failureOf(client(other, { key: async () => "k" }).client.replays.list())) as RequestFailed
    assert.strictEqual(error.status, 401)
    assert.lengthOf(refusals, 2)
  })

  it("fails where it is not answered in time, and where nobody is there", async () => {
    const { url } = await serving(() => undefined)
    const { client: c } = client(url, { retries: 0 })
    const late = await failureOf(c.calendar("NSE", "2026-01-15", { timeoutMs: 30 }))
    assert.instanceOf(late, TimedOut)
    assert.strictEqual((late as TimedOut).message, "GET /calendar: no answer in 0.03 s")
    const nobody = await failureOf(client("http://127.0.0.1:1", { retries: 0 }).client.replays.list())
    assert.instanceOf(nobody, NetworkFailed)
    assert.match((nobody as NetworkFailed).message, /^GET \/replays: .*\w/)
  })

  it("ends with the reason of its signal, and where the client is closed, also while it waits to be sent again", async () => {
    const { url } = await serving((_, response) => json(response, 503, {}, { "retry-after": "20" }))
    const { client: c } = client(url)
    const reason = new Error("enough")
    const stop = new AbortController()
    const waiting = failureOf(c.replays.list({ signal: stop.signal }))
    const other = failureOf(c.replays.list())
    stop.abort(reason)
    assert.strictEqual(await waiting, reason)
    c.close()
    assert.instanceOf(await other, ClientClosed)
  })
})

describe("history", () => {
  it("is read page after page, as it is taken", async () => {
    const pages: Record<string, unknown> = {
      "": { ticks: [{ position: 1 }, { position: 2 }], next_cursor: "a+b" },
      "a+b": { ticks: [{ position: 3 }], next_cursor: "c" },
      c: { ticks: [], next_cursor: null }
    }
    const { url, asked } = await serving(({ url }, response) =>
      json(response, 200, pages[new URL(url, "http://h").searchParams.get("cursor") ?? ""])
    )
    const { client: c } = client(url)
    const from = new Date("2026-01-15T03:45:00Z")
    const all: Array<number | null> = []
    for await (const tick of c.history.ticks("NSE:A", { from, to: "2026-01-16T00:00:00+05:30", pageSize: 2 })) {
      all.push(tick.position)
    }
    assert.deepStrictEqual(all, [1, 2, 3])
    assert.lengthOf(asked, 3)
    assert.deepStrictEqual(Object.fromEntries(new URL(asked[0]!.url, "http://h").searchParams), {
      symbol: "NSE:A",
      from: "1768448700000000",
      to: "2026-01-16T00:00:00+05:30",
      limit: "2"
    })
    asked.length = 0
    for await (const tick of c.history.ticks(1)) if (tick.position === 1) break
    assert.lengthOf(asked, 1)
  })

  it("of bars takes an interval, what fills it and which hours", async () => {
    const { url, asked } = await serving((_, response) => json(response, 200, { candles: [], next_cursor: null }))
    const { client: c } = client(url)
    for await (const _ of c.history.candles(7, { interval: "1d", fill: "previous", session: "regular" }));
    assert.deepStrictEqual(Object.fromEntries(new URL(asked[0]!.url, "http://h").searchParams), {
      instrument_token: "7",
      interval: "1d",
      fill: "previous",
      session: "regular",
      limit: "10000"
    })
  })

  it("of quotes is asked for in parts that a server takes", async () => {
    const { url, asked } = await serving(({ url }, response) => {
      const tokens = new URL(url, "http://h").searchParams.get("tokens")!.split(",").map(Number)
      json(response, 200, { quotes: tokens.map((instrument_token) => ({ instrument_token })) })
    })
    const tokens = Array.from({ length: 650 }, (_, i) => i + 1)
    const quotes = await client(url).client.quotes(tokens)
    assert.deepStrictEqual(
      quotes.map((quote) => quote.instrument_token),
      tokens
    )
    assert.lengthOf(asked, 3)
  })

  it("finds the one instrument of a name, and says where there is none or are several", async () => {
    const list = [
      { exchange: "NSE", tradingsymbol: "TCS" },
      { exchange: "BSE", tradingsymbol: "TCS" },
      { exchange: "NSE", tradingsymbol: "TCSX" }
    ]
    const { url } = await serving((_, response) => json(response, 200, { instruments: list }))
    const { instruments } = client(url).client
    assert.strictEqual((await instruments.find("BSE:TCS")).exchange, "BSE")
    const none = (await failureOf(instruments.find("TC"))) as RequestFailed
    assert.deepStrictEqual(
      [none._tag, none.message],
      ["NotFound", 'symbol: no instrument is called "TC": did you mean NSE:TCS?']
    )
    const several = (await failureOf(instruments.find("TCS"))) as RequestFailed
    assert.strictEqual(several.message, 'symbol: NSE:TCS, BSE:TCS are all called "TCS"')
  })
})
