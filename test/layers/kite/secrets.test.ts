import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { getText } from "../../../src/layers/kite/rest.ts"
import { secretsOf } from "../../support/kite.ts"

let folder: string
let file: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mdp-kite-secrets-"))
  file = join(folder, "token")
})
afterEach(() => rmSync(folder, { recursive: true }))

/** Lets what reads files go on until it waits for the clock again. */
const turn = Effect.promise(async () => {
  for (let i = 0; i < 20; i++) await readFile(file)
})

describe("the secrets of a feed", () => {
  it.effect("are read anew for each connection", () =>
    Effect.gen(function* () {
      writeFileSync(file, "first\n")
      const secrets = secretsOf({ file })
      assert.strictEqual(yield* secrets.token, "first")
      writeFileSync(file, " second ")
      assert.strictEqual(yield* secrets.token, "second")
    })
  )

  it.effect("wait for another token than one that was refused, which is tried again after a minute", () =>
    Effect.gen(function* () {
      const told: Array<string> = []
      writeFileSync(file, "first")
      const secrets = secretsOf({ file }, { onRefused: (what) => told.push(what) })
      yield* secrets.refuse(yield* secrets.token)
      const waiting = yield* Effect.forkChild(secrets.token)
      yield* turn
      yield* TestClock.adjust("30 seconds")
      yield* turn
      assert.isUndefined(waiting.pollUnsafe())
      // Whoever writes it anew may have it empty for a moment.
      writeFileSync(file, "")
      yield* TestClock.adjust("1 second")
      yield* turn
      assert.isUndefined(waiting.pollUnsafe())
      writeFileSync(file, "second")
      yield* TestClock.adjust("1 second")
      yield* turn
      assert.strictEqual(yield* Fiber.join(waiting), "second")
      yield* secrets.refuse("second")
      yield* secrets.refuse("second")
      assert.strictEqual(told.length, 2)
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(yield* secrets.token, "second")
    })
  )

  it.effect(
    "tell of another token than the one in use as soon as the file has it, and once of one that has ended",
    () =>
      Effect.gen(function* () {
        const told: Array<string> = []
        writeFileSync(file, "first")
        const secrets = secretsOf({ file }, { onRefused: (what) => told.push(what) })
        assert.strictEqual(yield* secrets.token, "first")
        const waiting = yield* Effect.forkChild(secrets.another("first"))
        for (const text of ["first", "", "two words"]) {
          writeFileSync(file, text)
          yield* turn
          yield* TestClock.adjust("1 second")
        }
        yield* secrets.lapse("first")
        yield* secrets.lapse("first")
        yield* secrets.refuse("first")
        yield* turn
        assert.isUndefined(waiting.pollUnsafe())
        writeFileSync(file, "second")
        yield* TestClock.adjust("1 second")
        yield* turn
        assert.strictEqual(yield* Fiber.join(waiting), "second")
        assert.strictEqual(secrets.latest(), "second")
        yield* secrets.refuse("second")
        assert.strictEqual(secrets.latest(), "first")
        assert.strictEqual(told.length, 2)
        assert.match(
          told[0]!,
          /though the ticker has not ended yet: .* write the new token to .*it takes the place of this/
        )
        const only = secretsOf({ token: Redacted.make("only") }, { onRefused: (what) => told.push(what) })
        yield* only.lapse(yield* only.token)
        assert.match(told[2]!, /put the new token into KITE_ACCESS_TOKEN and start again before it does$/)
      })
  )

  for (const [name, source, waits] of [
    ["the environment has the token", { token: Redacted.make("only") }, true],
    ["it was asked not to wait", undefined, false]
  ] as const) {
    it.effect(`end the feed once they are refused, where ${name}`, () =>
      Effect.gen(function* () {
        writeFileSync(file, "only")
        const secrets = secretsOf(source ?? { file }, { waits })
        yield* secrets.refuse(yield* secrets.token)
        const exit = yield* Effect.exit(secrets.token)
        assert.isTrue(Exit.isFailure(exit))
        assert.match(JSON.stringify(exit), /Kite refuses the API key or the access token \(403\): it ends each morning/)
        assert.notMatch(JSON.stringify(exit), /"only|only"/)
      })
    )
  }

  it.effect("are refused by name where they are none", () =>
    Effect.gen(function* () {
      const fails = (secrets: ReturnType<typeof secretsOf>) => Effect.map(Effect.exit(secrets.token), JSON.stringify)
      assert.match(yield* fails(secretsOf({ file })), /KITE_ACCESS_TOKEN_FILE: cannot read .*token \(ENOENT\)/)
      writeFileSync(file, "two words")
      assert.match(yield* fails(secretsOf({ file })), /expected an access token, .*got another text/)
      assert.notMatch(yield* fails(secretsOf({ file })), /two words/)
      assert.match(yield* fails(secretsOf({ token: Redacted.make("") })), /KITE_ACCESS_TOKEN: .*got nothing/)
    })
  )

  it.effect("are in nothing that a server says", () =>
    Effect.gen(function* () {
      const secrets = secretsOf({ token: Redacted.make("to/ken+1") }, { apiKey: "the&key" })
      yield* secrets.token
      const said = "GET /?api_key=the%26key&access_token=to%2Fken%2B1 refused:\n the&key:to/ken+1 \u001b[31m"
      const hidden = secrets.hide(said)
      assert.strictEqual(hidden, "GET /?api_key=…&access_token=… refused: …:… \\u001b[31m")
      assert.isBelow(secrets.hide("x".repeat(10_000)).length, 400)
    })
  )

  it.effect("leave no part of themselves where a text was cut, nor where one is the beginning of another", () =>
    Effect.gen(function* () {
      writeFileSync(file, "abcd/efgh")
      const secrets = secretsOf({ file }, { apiKey: "the-key" })
      yield* secrets.token
      writeFileSync(file, "abcd/efghijkl")
      yield* secrets.token
      assert.strictEqual(secrets.hide("bad abcd/efghijkl, abcd/efgh"), "bad …, …")
      assert.strictEqual(secrets.hide(`{"message":"abcd\\/efghijkl"}`), `{"message":"…"}`)
      for (let cut = 4; cut <= 13; cut++) {
        assert.strictEqual(secrets.hide(`${" ".repeat(990)}bad ${"abcd/efghijkl".slice(0, cut)}`), "bad …", String(cut))
      }
      assert.strictEqual(secrets.hide("access_token=abcd%2Fef"), "access_token=…")
    })
  )
})

describe("asking Kite over REST", () => {
  let server: Server
  let root: string
  let answers: Array<readonly [status: number, body: string]>
  let seen: Array<string>
  beforeEach(async () => {
    answers = []
    seen = []
    server = createServer((request, response) => {
      seen.push(`${request.url} ${request.headers.authorization} ${request.headers["x-kite-version"]}`)
      const [status, body] = answers.shift() ?? [500, ""]
      response.writeHead(status, { location: "http://127.0.0.1:1/elsewhere" }).end(body)
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    root = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterEach(() => new Promise<void>((resolve) => server.close(() => resolve())))

  const secrets = () => secretsOf({ token: Redacted.make("the-token") }, { apiKey: "the-key" })

  it.live("shows key and token in the header alone, and answers the text", () =>
    Effect.gen(function* () {
      answers.push([200, "instruments"])
      assert.strictEqual(yield* getText(root, "/instruments/NSE", secrets()), "instruments")
      assert.deepStrictEqual(seen, ["/instruments/NSE token the-key:the-token 3"])
    })
  )

  const refusals: ReadonlyArray<readonly [status: number, body: string, sentence: RegExp]> = [
    [403, `{"status":"error","error_type":"TokenException","message":"bad the-token"}`, /Kite refuses the API key/],
    [
      403,
      `{"status":"error","error_type":"PermissionException","message":"the-key may not"}`,
      /answered 403: PermissionException: … may not/
    ],
    [
      429,
      `{"status":"error","error_type":"NetworkException","message":"Too many requests"}`,
      /answered 429: NetworkExc/
    ],
    [
      429,
      JSON.stringify({ status: "error", error_type: "the-token", message: `${"x".repeat(193)} the-key` }),
      /answered 429: …: x{193} …$/
    ],
    [502, "<html>bad gateway</html>", /\/instruments answered 502$/],
    [302, "", /GET http:\/\/127\.0\.0\.1:\d+\/instruments: /]
  ]
  for (const [status, body, sentence] of refusals) {
    it.live(`fails with what it says: ${status} ${body.slice(0, 60)}`, () =>
      Effect.gen(function* () {
        answers.push([status, body])
        const exit = yield* Effect.exit(getText(root, "/instruments", secrets()))
        assert.isTrue(Exit.isFailure(exit))
        const message = (exit as unknown as { cause: { reasons: ReadonlyArray<{ error: Error }> } }).cause.reasons[0]!
          .error.message
        assert.match(message, sentence)
        assert.notMatch(message, /the-t|the-k/)
      })
    )
  }
})
