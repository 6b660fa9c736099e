/** How the page comes by its key: its own modules, against a real server, with what a browser has around them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { beforeEach, vi } from "vitest"
import { EPOCH, tickOf } from "../support/hub.ts"
import { accessBy, keyAccess, keysFile, makeKey } from "../support/keys.ts"
import { serve as serveWebSocket } from "../support/webSocketServer.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { serve, ask as serverAnswers } from "./serving.ts"

interface KeyModule {
  readonly apiKey: () => string | undefined
  readonly showAsking: (shown: (why: string | undefined) => void) => void
  readonly giveKey: (text: string) => void
  readonly isAsking: () => boolean
}
interface Rest {
  readonly ask: (path: string, options?: RequestInit) => Promise<unknown>
  readonly send: (method: string, path: string, body?: object) => Promise<unknown>
}
interface Message {
  readonly type: string
  readonly position?: number
}
type Stream = new (
  replay: undefined,
  on: {
    readonly state: (state: string, detail: { readonly reason?: string }) => void
    readonly message: (message: Message) => void
    readonly run: () => void
    readonly gone: () => void
  }
) => {
  readonly add: (tokens: ReadonlyArray<number>, backfill: number) => void
  readonly close: () => void
}

const load = async (file: string): Promise<unknown> =>
  import(new URL(`../../src/http/dashboard/${file}`, import.meta.url).href)

/** What the page finds in a browser: a tab's storage, where it is, and a fetch that knows it. */
const tab = new Map<string, string>()
const browserAt = (port: number) => {
  const { fetch } = globalThis
  const seen: Array<string> = []
  vi.stubGlobal("sessionStorage", {
    getItem: (name: string) => tab.get(name) ?? null,
    setItem: (name: string, value: string) => tab.set(name, value),
    removeItem: (name: string) => tab.delete(name)
  })
  vi.stubGlobal("location", { protocol: "http:", host: `127.0.0.1:${port}` })
  vi.stubGlobal("fetch", (path: string, options: RequestInit) => {
    seen.push(path)
    return fetch(`http://127.0.0.1:${port}${path}`, options)
  })
  return seen
}

beforeEach(() => {
  tab.clear()
  vi.resetModules()
  vi.unstubAllGlobals()
})

const until = (condition: () => boolean) =>
  Effect.repeat(Effect.sync(condition), { until: (holds) => holds, schedule: Schedule.spaced("5 millis") })

describe("the page, where keys are asked for,", () => {
  it.live(
    "asks a person, asks again for a wrong key, keeps the right one for its tab and sends it with every request",
    () =>
      Effect.gen(function* () {
        const key = makeKey("desk")
        const { path } = yield* keysFile([key])
        const { port } = yield* serve({ store: memoryStore(new Rows()), access: accessBy(path) })
        const seen = browserAt(port)
        const page = (yield* Effect.promise(() => load("key.js"))) as KeyModule
        const { ask, send } = (yield* Effect.promise(() => load("rest.js"))) as Rest
        const shown: Array<string | undefined> = []
        page.showAsking((why) => shown.push(why))
        assert.isFalse(page.isAsking())

        const answers = [ask("/api/v1/replays"), ask("/topology"), send("DELETE", "/api/v1/replays/none").catch(String)]
        yield* until(() => page.isAsking())
        const asked = seen.length
        // Nothing is sent meanwhile.
        const later = ask("/api/v1/replays")
        for (let i = 0; i < 5; i++) yield* serverAnswers(port, "/healthz")
        assert.deepStrictEqual([seen.length, asked], [3, 3])
        page.giveKey(makeKey("x").text)
        yield* until(() => page.isAsking() && seen.length > asked)
        page.giveKey(` ${key.text}\n`)
        assert.deepStrictEqual(yield* Effect.promise(() => answers[0]!), { replays: [] })
        assert.deepStrictEqual(yield* Effect.promise(() => later), { replays: [] })
        assert.isObject(yield* Effect.promise(() => answers[1]!))
        assert.include(yield* Effect.promise(() => answers[2]!), "no replay is called none")
        assert.deepStrictEqual(shown, [undefined, "", undefined, "Authorization: the API key is not known", undefined])
        assert.deepStrictEqual([...tab.values()], [key.text])
        for (const asked of seen) assert.notInclude(asked, "mdp_")

        // The page is loaded again in its tab.
        vi.resetModules()
        const again = (yield* Effect.promise(() => load("rest.js"))) as Rest
        assert.deepStrictEqual(yield* Effect.promise(() => again.ask("/api/v1/replays")), { replays: [] })
      }).pipe(Effect.scoped)
  )

  it.live("shows it first on its WebSocket, and goes on with the next one where it was once that is revoked", () =>
    Effect.gen(function* () {
      const [first, next] = [makeKey("first"), makeKey("next")]
      const { path, write } = yield* keysFile([first])
      const { hub, port } = yield* serveWebSocket({ access: yield* keyAccess(path) })
      browserAt(port)
      const page = (yield* Effect.promise(() => load("key.js"))) as KeyModule
      const { Stream } = (yield* Effect.promise(() => load("stream.js"))) as { readonly Stream: Stream }
      const whenGiven = (page as unknown as { readonly whenGiven: (given: () => void) => void }).whenGiven
      const heard: Array<Message> = []
      const reasons: Array<string | undefined> = []
      const stream = new Stream(undefined, {
        state: (_, { reason }) => reasons.push(reason),
        message: (message) => heard.push(message),
        run: () => undefined,
        gone: () => undefined
      }) as InstanceType<Stream> & { readonly now: () => void; readonly breaches: number }
      yield* Effect.addFinalizer(() => Effect.sync(() => stream.close()))
      whenGiven(() => stream.now())
      stream.add([7], 5)
      // Without a key the server refuses what comes first.
      yield* until(() => page.isAsking())
      page.giveKey(first.text)
      const isHeard = (type: string, count = 1) => heard.filter((message) => message.type === type).length >= count
      yield* until(() => isHeard("subscribed"))
      hub.publish([tickOf(7, EPOCH, 1)])
      yield* until(() => isHeard("tick"))
      assert.deepStrictEqual([...tab.values()], [first.text])

      write([next])
      yield* until(() => reasons.includes("the API key was revoked"))
      yield* until(() => page.isAsking())
      assert.strictEqual(tab.size, 0)
      hub.publish([tickOf(7, EPOCH, 2)])
      page.giveKey(next.text)
      yield* until(() => isHeard("subscribed", 2))
      hub.publish([tickOf(7, EPOCH, 3)])
      yield* until(() => isHeard("tick", 2))
      assert.strictEqual(stream.breaches, 0)
      assert.isFalse(heard.some(({ type }) => type === "authorized" || type === "error"))
    }).pipe(Effect.scoped)
  )
})
