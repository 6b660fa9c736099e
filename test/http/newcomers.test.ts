import { request } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { type ClientFields, ClientLog } from "../../src/http/clientLog.ts"
import { MAX_EARLY_FRAMES, MAX_EARLY_MESSAGES, MAX_NEWCOMER_BYTES } from "../../src/http/newcomers.ts"
import type { ErrorCode, ServerMessage } from "../../src/schema/Protocol.ts"
import { EPOCH, tickOf } from "../support/hub.ts"
import { instrumentOf } from "../support/instruments.ts"
import { bearer, keyAccess, keysFile, type MadeKey, makeKey } from "../support/keys.ts"
import { connect, serve as serveWebSocket, type TestClient } from "../support/webSocketServer.ts"

type Limits = NonNullable<NonNullable<Parameters<typeof serveWebSocket>[0]>["limits"]>

const instruments = [instrumentOf(7, "TCS"), instrumentOf(8, "INFY"), instrumentOf(9, "TCS26JANFUT", "NFO")]

/** `/ws` that only lets in some keys, with what it logs and counts. */
const serve = (
  keys: ReadonlyArray<MadeKey>,
  { requestsPerKey, ...limits }: Limits & { readonly requestsPerKey?: number } = {}
) =>
  Effect.gen(function* () {
    const file = yield* keysFile(keys)
    const access = yield* keyAccess(file.path, requestsPerKey === undefined ? {} : { REQUESTS_PER_KEY: requestsPerKey })
    const lines: Array<string> = []
    const said: Array<ClientFields> = []
    const ended: Array<string> = []
    const upgrades: Array<string> = []
    const served = yield* serveWebSocket({
      access,
      instruments,
      limits,
      log: new ClientLog((line, fields) => {
        lines.push(line)
        said.push(fields)
      }),
      counts: {
        ended: (why) => ended.push(why),
        upgradeRefused: (why) => upgrades.push(why),
        messageRefused: () => undefined
      }
    })
    return { ...file, ...served, access, ended, lines, said, upgrades }
  })

const has = (type: string) => (client: TestClient) => client.messages.some((message) => message.type === type)
const isClosed = ({ closed }: TestClient) => closed !== undefined
const errorsOf = (client: TestClient): ReadonlyArray<ErrorCode> =>
  client.messages.flatMap((message) => (message.type === "error" ? [message.code] : []))

const auth = ({ text }: MadeKey, id?: unknown) => ({ action: "auth", key: text, ...(id === undefined ? {} : { id }) })

/** The answer to a handshake that is refused. */
const refusal = (port: number, headers: Readonly<Record<string, string>>) =>
  Effect.callback<{ readonly status: number; readonly retryAfter: string | undefined; readonly text: string }>(
    (resume) => {
      const asked = request(
        {
          host: "127.0.0.1",
          port,
          path: "/ws",
          agent: false,
          headers: {
            connection: "Upgrade",
            upgrade: "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            ...headers
          }
        },
        (response) => {
          let text = ""
          response.on("data", (part: Buffer) => {
            text += part.toString()
          })
          response.on("end", () =>
            resume(
              Effect.succeed({
                status: response.statusCode ?? 0,
                retryAfter: response.headers["retry-after"],
                text
              })
            )
          )
        }
      )
      asked.on("upgrade", (_, socket) => {
        socket.destroy()
        resume(Effect.succeed({ status: 101, retryAfter: undefined, text: "" }))
      })
      asked.end()
    }
  )

const listen = (url: string, key: MadeKey, options: { readonly byMessage?: boolean } = {}) =>
  Effect.gen(function* () {
    if (options.byMessage !== true) return yield* connect(url, { headers: bearer(key) })
    const client = yield* connect(url)
    client.send(auth(key))
    yield* client.until(has("authorized"))
    return client
  })

describe("a client of /ws, where keys are asked for,", () => {
  it.live("is let in by its header, or by its first message, and told what its key is", () =>
    Effect.gen(function* () {
      const key = makeKey("desk", { scopes: ["read", "replay"], expires: "2099-01-01T00:00:00Z" })
      const { hub, url } = yield* serve([key])
      const authorized = (id: unknown): ServerMessage => ({
        type: "authorized",
        id,
        key: "desk",
        scopes: ["read", "replay"],
        expires: Date.parse("2099-01-01T00:00:00Z") * 1000
      })
      const byHeader = yield* connect(url, { headers: bearer(key) })
      byHeader.send(auth(key, "again"))
      const byMessage = yield* connect(url)
      // What comes right behind it has not to wait for the answer.
      byMessage.send(auth(key, { n: 1 }))
      for (const client of [byHeader, byMessage]) {
        client.send({ action: "subscribe", tokens: [7] })
        yield* client.until(has("subscribed"))
      }
      assert.deepInclude(byHeader.messages[0]!, authorized("again"))
      assert.deepInclude(byMessage.messages[0]!, authorized({ n: 1 }))
      hub.publish([tickOf(7, EPOCH, 1)])
      for (const client of [byHeader, byMessage]) yield* client.until(({ checker }) => checker.ticks === 1)
      assert.strictEqual(hub.size, 2)
    }).pipe(Effect.scoped)
  )

  it.live("is refused by its header: a wrong key, an expired one, a revoked one, and one that asks too often", () =>
    Effect.gen(function* () {
      const busy = makeKey("busy")
      const keys = [
        busy,
        makeKey("gone", { revoked: "2026-01-16T00:00:00Z" }),
        makeKey("late", { expires: "2026-01-16T00:00:00Z" })
      ]
      const { hub, port, said, upgrades } = yield* serve(keys, { requestsPerKey: 1 })
      for (const key of [makeKey("desk"), keys[1]!, keys[2]!]) {
        const { status, text } = yield* refusal(port, bearer(key))
        assert.deepStrictEqual([status, JSON.parse(text)._tag], [401, "Unauthorized"])
        assert.notInclude(text, key.text.slice(13))
      }
      assert.strictEqual((yield* refusal(port, { authorization: "Basic eDp5" })).status, 401)
      const statuses = yield* Effect.forEach([1, 2, 3, 4], () => refusal(port, bearer(busy)))
      assert.includeMembers(
        statuses.map(({ status }) => status),
        [101, 429]
      )
      assert.strictEqual(statuses.find(({ status }) => status === 429)!.retryAfter, "1")
      assert.includeMembers(upgrades, ["unauthorized", "key_rate"])
      const refused = { address: "127.0.0.1", path: "/ws" }
      const unauthorized = { ...refused, event: "unauthorized", status: 401, reason: "unauthorized" }
      assert.deepStrictEqual(said.slice(0, 3), [
        unauthorized,
        { ...unauthorized, key: "gone" },
        { ...unauthorized, key: "late" }
      ] as ReadonlyArray<object>)
      assert.deepInclude(said.at(-1), { ...refused, event: "refused", status: 429, reason: "key_rate", key: "busy" })
      assert.strictEqual(hub.size, 0)
    }).pipe(Effect.scoped)
  )

  it.live("that shows a wrong key is told so and closed with 1008", () =>
    Effect.gen(function* () {
      const gone = makeKey("gone", { revoked: "2026-01-16T00:00:00Z" })
      const late = makeKey("late", { expires: "2026-01-16T00:00:00Z" })
      const { ended, hub, lines, url } = yield* serve([gone, late])
      for (const [key, reason] of [
        [makeKey("desk"), "the API key is not known"],
        [gone, "the API key was revoked"],
        [late, "the API key has expired"],
        [{ ...gone, text: "hunter2" }, "expected Bearer and an API key as mdp keys add prints it"]
      ] as const) {
        const client = yield* connect(url)
        client.send(auth(key, 7))
        yield* client.until(isClosed)
        assert.deepStrictEqual(client.messages, [
          { type: "error", id: 7, code: "unauthorized", message: `key: ${reason}` }
        ])
        assert.deepStrictEqual(client.closed, { code: 1008, reason })
      }
      assert.deepStrictEqual([...new Set(ended)], ["unauthorized"])
      assert.strictEqual(hub.size, 0)
      assert.include(lines, "client 127.0.0.1 (key gone) unauthorized: key: the API key was revoked")
      for (const line of lines) assert.notMatch(line, /mdp_[0-9a-f]{8}_[A-Za-z0-9]|hunter2/)
    }).pipe(Effect.scoped)
  )

  it.live("that says anything else first is refused, and closed after a few", () =>
    Effect.gen(function* () {
      const { hub, lines, url } = yield* serve([makeKey("desk")])
      const inQuery = yield* connect(`${url}?api_key=hunter2`)
      inQuery.send({ action: "subscribe", tokens: [7] })
      yield* inQuery.until(has("error"))
      assert.match(JSON.stringify(inQuery.messages), /first; api_key= in the query is never read, [^"]*"/)
      assert.notInclude(JSON.stringify(inQuery.messages), "hunter2")
      const early = yield* connect(url)
      for (const message of [
        { action: "subscribe", tokens: [7], id: 1 },
        { action: "auth", key: ["mdp_99fc62d0_BLWYj9y0UGfwR5rX9oC5X-hTv1jJqsf8ICZSotkc_Qx"] },
        { action: "subscribe", tokens: Array.from({ length: MAX_NEWCOMER_BYTES }, (_, i) => i + 1) }
      ]) {
        early.send(message)
      }
      yield* early.until(isClosed)
      assert.deepStrictEqual(errorsOf(early), ["unauthorized", "bad_message", "unauthorized"])
      assert.strictEqual(errorsOf(early).length, MAX_EARLY_MESSAGES)
      assert.deepInclude(early.messages[0]!, { id: 1 })
      assert.deepStrictEqual(early.closed, { code: 1008, reason: "too many messages before a key was shown" })
      const pings = yield* connect(url)
      for (let i = 0; i <= MAX_EARLY_FRAMES; i++) pings.ws.ping()
      yield* pings.until(isClosed)
      assert.deepStrictEqual(pings.closed, { code: 1008, reason: "too many messages before a key was shown" })
      const binary = yield* connect(url)
      for (let i = 0; i < MAX_EARLY_MESSAGES; i++) binary.ws.send(Buffer.from("x"))
      yield* binary.until(isClosed)
      assert.deepStrictEqual(errorsOf(binary), ["unauthorized", "unauthorized", "unauthorized"])
      // What is larger than it has to be is not even parsed.
      assert.match(JSON.stringify(early.messages[2]), /expected .* first, got \d+ bytes/)
      assert.strictEqual(hub.size, 0)
      for (const text of [...lines, JSON.stringify(early.messages)]) assert.notInclude(text, "BLWY")
    }).pipe(Effect.scoped)
  )

  it.live("that shows none in time is closed with 1008, and holds its place no longer", () =>
    Effect.gen(function* () {
      const { ended, url } = yield* serve([makeKey("desk")], { AUTH_TIMEOUT_MS: 100 })
      const silent = yield* connect(url)
      yield* silent.until(isClosed)
      assert.deepStrictEqual(silent.closed, { code: 1008, reason: "no key was shown within 100 ms" })
      assert.deepStrictEqual(ended, ["unauthorized"])
    }).pipe(Effect.scoped)
  )

  it.live("that has yet to show one is one of few: the oldest of its address goes, and who has a key stays", () =>
    Effect.gen(function* () {
      const key = makeKey("desk")
      const { hub, url } = yield* serve([key], {
        MAX_KEYLESS_CLIENTS: 8,
        AUTH_TIMEOUT_MS: 600_000,
        MAX_CLIENTS: 2000
      })
      const good = yield* listen(url, key)
      good.send({ action: "subscribe", tokens: [7] })
      yield* good.until(has("subscribed"))
      // A quarter of them.
      const newcomers = yield* Effect.forEach(Array.from({ length: 6 }), () => connect(url))
      for (const oldest of newcomers.slice(0, 4)) yield* oldest.until(isClosed)
      for (const newest of newcomers.slice(4)) {
        newest.send(auth(key))
        yield* newest.until(has("authorized"))
      }
      assert.strictEqual(hub.size, 3)
      // Behind a proxy all have one address.
      const proxied = yield* serve([key], {
        MAX_KEYLESS_CLIENTS: 4,
        AUTH_TIMEOUT_MS: 600_000,
        CONNECTIONS_PER_ADDRESS: 1000,
        MAX_CLIENTS: 1000
      })
      const behind = yield* Effect.forEach(Array.from({ length: 5 }), () => connect(proxied.url))
      yield* behind[0]!.until(isClosed)
      for (const client of behind.slice(1)) {
        client.send(auth(key))
        yield* client.until(has("authorized"))
      }
    }).pipe(Effect.scoped)
  )

  it.live("whose key is revoked, expires or changes is closed with 1008 and why, read on or not; others stay", () =>
    Effect.gen(function* () {
      const [gone, late, changed, stays] = [
        makeKey("gone"),
        makeKey("late", { expires: "2099-01-01T00:00:00Z" }),
        makeKey("changed"),
        makeKey("stays")
      ]
      const { access, ended, hub, said, url, write } = yield* serve([gone, late, changed, stays])
      const byKey = yield* Effect.forEach([gone, late, changed, stays], (key, i) =>
        listen(url, key, { byMessage: i % 2 === 0 })
      )
      const deaf = yield* listen(url, gone)
      deaf.ws.pause()
      for (const client of byKey) {
        client.send({ action: "subscribe", tokens: [7] })
        yield* client.until(has("subscribed"))
      }
      const narrowed = { ...changed, stored: { ...changed.stored, instruments: ["8"] } }
      write([{ ...gone, stored: { ...gone.stored, revoked: "2026-01-16T00:00:00Z" } }, late, narrowed, stays])
      access.ring.expire(Date.parse("2099-01-01T00:00:00Z"))
      const reasons = ["the API key was revoked", "the API key has expired", "the API key has changed"]
      for (const [i, reason] of reasons.entries()) {
        yield* byKey[i]!.until(isClosed)
        assert.deepStrictEqual(byKey[i]!.closed, { code: 1008, reason })
      }
      assert.sameDeepMembers(
        said,
        ["gone", "gone", "late", "changed"].map(
          (key): ClientFields => ({ event: "ended", address: "127.0.0.1", code: 1008, reason: "key", path: "/ws", key })
        )
      )
      // Who does not read is cut off.
      yield* Effect.repeat(
        Effect.sync(() => hub.size === 1 && ended.length === 4),
        { until: (is) => is, schedule: Schedule.spaced("10 millis") }
      )
      assert.deepStrictEqual(ended, ["key", "key", "key", "key"])
      hub.publish([tickOf(7, EPOCH, 1)])
      yield* byKey[3]!.until(({ checker }) => checker.ticks === 1)
      assert.isUndefined(byKey[3]!.closed)
    }).pipe(Effect.scoped)
  )

  it.live("is sent nothing of instruments that its key is not for, however it asks", () =>
    Effect.gen(function* () {
      const key = makeKey("bot", { instruments: ["7", "NFO:*"] })
      const { hub, url } = yield* serve([key])
      const client = yield* listen(url, key)
      client.send({ action: "subscribe", tokens: [7, 8, 9, 10], backfill: 5, since: { 8: [EPOCH, 1] } })
      client.send({
        action: "subscribe",
        symbols: ["NSE:TCS", "INFY", "NFO:TCS26JANFUT", "nfo:NOSUCH", "NSE:NOSUCH", "NOSUCH"]
      })
      yield* client.until(({ messages }) => messages.filter(({ type }) => type === "subscribed").length === 2)
      const answers = client.messages.flatMap((message) => (message.type === "subscribed" ? message.tokens : []))
      assert.deepStrictEqual(
        answers.map((answer) => [answer.instrument_token, answer.accepted || answer.reason]),
        [
          [7, true],
          [8, "forbidden"],
          [9, true],
          [10, "forbidden"],
          [7, true],
          // Not even which token it has.
          [undefined, "forbidden"],
          [9, true],
          // Of what it may see all of, it is told that there is none.
          [undefined, "unknown_symbol"],
          [undefined, "forbidden"],
          [undefined, "forbidden"]
        ]
      )
      hub.publish([7, 8, 9, 10].map((token) => tickOf(token, EPOCH, 1)))
      yield* client.until(({ checker }) => checker.ticks === 2)
      assert.isUndefined(client.checker.place(8))
      assert.isUndefined(client.checker.place(10))
    }).pipe(Effect.scoped)
  )

  it.live("is refused what its scopes do not allow, and another key on the same connection", () =>
    Effect.gen(function* () {
      const [writer, other] = [makeKey("writer", { scopes: ["write"] }), makeKey("other")]
      const { lines, url } = yield* serve([writer, other])
      const client = yield* listen(url, writer)
      client.send({ action: "subscribe", tokens: [7], id: 1 })
      client.send(auth(other, 2))
      client.send(auth(makeKey("nobody"), 3))
      client.send({ action: "ping" })
      yield* client.until(has("pong"))
      const errors = client.messages.flatMap((message) => (message.type === "error" ? [message] : []))
      assert.deepStrictEqual(
        errors.map(({ code, id }) => [id, code]),
        [
          [1, "forbidden"],
          // A guess is told nothing of what it was.
          [2, "already_authorized"],
          [3, "already_authorized"]
        ]
      )
      assert.include(errors[0]!.message, 'key "writer" lacks read')
      assert.isUndefined(client.closed)
      assert.include(lines, 'client 127.0.0.1 (key writer) refused: scope: key "writer" lacks read, it has write')
    }).pipe(Effect.scoped)
  )

  it.live("is one of as many as its key may have, by header or by message; one that goes makes room", () =>
    Effect.gen(function* () {
      const [key, other] = [makeKey("desk"), makeKey("other")]
      const { port, upgrades, url } = yield* serve([key, other], { CONNECTIONS_PER_KEY: 2 })
      const first = yield* listen(url, key)
      yield* listen(url, key, { byMessage: true })
      const { retryAfter, status } = yield* refusal(port, bearer(key))
      assert.deepStrictEqual([status, retryAfter], [429, "5"])
      assert.deepStrictEqual(upgrades, ["key_full"])
      const third = yield* connect(url)
      third.send(auth(key, 3))
      yield* third.until(isClosed)
      assert.deepStrictEqual(errorsOf(third), ["too_many_connections"])
      assert.strictEqual(third.closed!.code, 1013)
      yield* listen(url, other)
      first.ws.close()
      yield* first.until(isClosed)
      yield* refusal(port, bearer(key)).pipe(
        Effect.repeat({ until: ({ status }) => status === 101, schedule: Schedule.spaced("10 millis") })
      )
    }).pipe(Effect.scoped)
  )

  it.live("waits at an address where keys are guessed only if its own is wrong", () =>
    Effect.gen(function* () {
      const key = makeKey("desk")
      const { port, url } = yield* serve([key])
      for (let i = 0; i < 7; i++) {
        const guesser = yield* connect(url)
        guesser.send(auth(makeKey("x")))
        yield* guesser.until(isClosed)
      }
      const { retryAfter, status } = yield* refusal(port, bearer(makeKey("x")))
      assert.strictEqual(status, 429)
      assert.isAtLeast(Number(retryAfter), 1)
      yield* listen(url, key)
      yield* listen(url, key, { byMessage: true })
    }).pipe(Effect.scoped)
  )

  it.live("is told that the server stops, also where it has yet to show its key", () =>
    Effect.gen(function* () {
      const { stop, url } = yield* serve([makeKey("desk")])
      const client = yield* connect(url)
      stop()
      yield* client.until(isClosed)
      assert.deepStrictEqual(client.closed, { code: 1001, reason: "the server is stopping" })
    }).pipe(Effect.scoped)
  )
})
