import type { Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ClientLog } from "../../src/http/clientLog.ts"
import type { Hub } from "../../src/streams/fanOut/Hub.ts"
import { frameFrom, type Random, type WireFrame } from "../support/frames.ts"
import { EPOCH, randomFrom, tickOf } from "../support/hub.ts"
import { bearer, keyAccess, keysFile, makeKey } from "../support/keys.ts"
import { connect, serve, type TestClient } from "../support/webSocketServer.ts"

/** A long run is `FRAMES=200000 npx vitest run test/http/frames.test.ts`, another one with `SEED=…`. */
const FRAMES = Number(process.env.FRAMES ?? 2000)
const SEED = Number(process.env.SEED ?? 1)
/** Frames sent on one connection. */
const ON_ONE = 30
/** Connections at a time. */
const AT_ONCE = 4
/** What the server may close with: policy, too large, overload. */
const NAMED = [1008, 1009, 1013]

const write = (client: TestClient, { kind, data }: WireFrame): void => {
  const { ws } = client
  if (ws.readyState !== ws.OPEN) return
  if (kind === "raw") (ws as unknown as { readonly _socket: Socket })._socket.write(data)
  else if (kind === "ping") ws.ping(data)
  else if (kind === "pong") ws.pong(data)
  else ws.send(data, { binary: kind === "binary" })
}

/** Sends some frames; ends with everything answered, or the connection closed for a named reason. */
const visit = (url: string, random: Random, seen: Map<string, number>, headers: Record<string, string> = {}) =>
  Effect.scoped(
    Effect.gen(function* () {
      // The rule is not for those who claim places of their own making.
      const client = yield* connect(url, { checker: { frame: () => undefined } as never, headers })
      let breached = false
      let sent = 0
      const note = (what: string) => seen.set(what, (seen.get(what) ?? 0) + 1)
      while (sent < ON_ONE && client.closed === undefined) {
        const few = 1 + random.below(6)
        for (let i = 0; i < few; i++) {
          const frame = frameFrom(random)
          write(client, frame)
          sent++
          breached ||= frame.isBreach
          if (breached) break
        }
        if (breached) {
          // Bytes that are no frame may make the library wait for more: the client hangs up, some turns later.
          yield* Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, 5)))
          client.ws.terminate()
          break
        }
        // What was sent before is answered before this is.
        client.send({ action: "ping" })
        const asked = client.messages.length
        yield* client.until(
          ({ closed, messages }) =>
            closed !== undefined ||
            messages.slice(asked).some((m) => m.type === "pong" || (m.type === "error" && m.code === "unauthorized"))
        )
      }
      for (const m of client.messages) note(m.type === "error" ? m.code : m.type)
      if (client.closed !== undefined && !breached) {
        assert.include(NAMED, client.closed.code, client.closed.reason)
        note(`closed ${client.closed.code} ${client.closed.reason}`)
      }
      return sent
    })
  )

const published = (hub: Hub, position: number) =>
  hub.publish(Array.from({ length: 50 }, (_, i) => tickOf(i + 1, EPOCH, position)))

describe("frames made at random, without bound in depth and size", () => {
  it.live(
    "are answered, or close their connection with a named code, and nobody else notices",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const failures: Array<string> = []
          const log = new ClientLog((line) => {
            if (line.includes("failed")) failures.push(line)
          })
          const { hub, url } = yield* serve({ log })
          const good = yield* connect(url, { keep: false })
          good.send({ action: "subscribe", tokens: [1], capacity: 100_000 })
          yield* good.until(({ checker }) => checker.backfills === 1)
          const seen = new Map<string, number>()
          let sent = 0
          let position = 0
          let seed = SEED
          const lane = Effect.gen(function* () {
            while (sent < FRAMES) {
              const own = seed++
              sent += yield* visit(url, randomFrom(own), seen).pipe(
                Effect.catchDefect((defect) => Effect.die(new Error(`SEED=${own}: ${String(defect)}`)))
              )
              published(hub, ++position)
              const at = position
              yield* good.until(({ checker }) => (checker.place(1)?.position ?? 0) >= at)
            }
          })
          yield* Effect.all(
            Array.from({ length: AT_ONCE }, () => lane),
            { concurrency: "unbounded" }
          )
          yield* good.until(({ checker }) => checker.place(1)?.position === position)
          assert.deepStrictEqual(failures, [])
          assert.isUndefined(good.closed)
          for (const answer of ["bad_message", "subscribed", "backfill", "pong"]) {
            assert.isAbove(seen.get(answer) ?? 0, FRAMES / 100, JSON.stringify([...seen]))
          }
          yield* Effect.promise(async () => {
            while (hub.size > 1) await new Promise<void>((resolve) => setImmediate(resolve))
          })
          assert.deepStrictEqual(hub.held, { ticks: 0, bytes: 0 })
          assert.strictEqual(hub.subscriptions, 1)
          assert.strictEqual(hub.live.memory.instruments, 50)
          if (FRAMES > 10_000) process.stdout.write(`${sent} frames: ${JSON.stringify([...seen])}\n`)
        })
      ),
    FRAMES > 10_000 ? 7_200_000 : undefined
  )

  it.live(
    "are refused where keys are asked for and none was shown, and by a key let in to nothing it is not for",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const [desk, bot] = [makeKey("desk"), makeKey("bot", { instruments: ["999"] })]
          const { path } = yield* keysFile([desk, bot])
          const lines: Array<string> = []
          const { hub, url } = yield* serve({
            access: yield* keyAccess(path),
            log: new ClientLog((line) => lines.push(line))
          })
          const good = yield* connect(url, { keep: false, headers: bearer(desk) })
          good.send({ action: "subscribe", tokens: [1], capacity: 100_000 })
          yield* good.until(({ checker }) => checker.backfills === 1)
          const seen = new Map<string, number>()
          let sent = 0
          let position = 0
          for (let seed = SEED; sent < FRAMES / 2; seed++) {
            sent += yield* visit(url, randomFrom(seed), seen, seed % 3 === 0 ? bearer(bot) : {}).pipe(
              Effect.catchDefect((defect) => Effect.die(new Error(`SEED=${seed}: ${String(defect)}`)))
            )
            published(hub, ++position)
            const at = position
            yield* good.until(({ checker }) => (checker.place(1)?.position ?? 0) >= at)
          }
          assert.isUndefined(good.closed)
          assert.isAbove(seen.get("unauthorized") ?? 0, FRAMES / 100, JSON.stringify([...seen]))
          assert.isAbove(seen.get("subscribed") ?? 0, 0, JSON.stringify([...seen]))
          assert.isUndefined(seen.get("tick"))
          yield* Effect.promise(async () => {
            while (hub.size > 1) await new Promise<void>((resolve) => setImmediate(resolve))
          })
          assert.deepStrictEqual([hub.held, hub.subscriptions], [{ ticks: 0, bytes: 0 }, 1])
          for (const line of lines) {
            assert.notInclude(line, "failed")
            assert.notInclude(line, desk.text.slice(13))
          }
        })
      ),
    FRAMES > 10_000 ? 7_200_000 : undefined
  )
})
