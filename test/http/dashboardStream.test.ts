/** How the page listens: its own module, against what a server would say. */
import { afterEach, assert, describe, it, vi } from "@effect/vitest"

interface Stream {
  readonly add: (tokens: ReadonlyArray<number>, backfill: number) => void
  readonly remove: (token: number) => void
  readonly take: (message: object) => void
  readonly close: () => void
  readonly breaches: number
}

afterEach(() => {
  vi.unstubAllGlobals()
  vi.resetModules()
})

describe("the page's stream", () => {
  it("says where it stands on a new connection, and leaves it to the server where it left an instrument on this one", async () => {
    const sockets: Array<Socket> = []
    class Socket {
      static readonly OPEN = 1
      readonly readyState = 1
      readonly sent: Array<Record<string, unknown>> = []
      onopen = (): void => undefined
      onclose = (_: object): void => undefined

      constructor() {
        sockets.push(this)
      }

      send(text: string): void {
        this.sent.push(JSON.parse(text))
      }

      close(): void {
        this.onclose({ code: 1000, reason: "" })
      }
    }
    vi.useFakeTimers()
    vi.stubGlobal("WebSocket", Socket)
    vi.stubGlobal("location", { protocol: "http:", host: "127.0.0.1:1" })
    vi.stubGlobal("sessionStorage", { getItem: () => null })
    const module = await import(new URL("../../src/http/dashboard/stream.js", import.meta.url).href)
    const nothing = () => undefined
    const stream: Stream = new module.Stream(undefined, {
      state: nothing,
      message: nothing,
      run: nothing,
      gone: nothing
    })
    const tick = (position: number) => ({ type: "tick", instrument_token: 7, epoch: 5, position })
    sockets[0]!.onopen()
    stream.add([7], 10)
    stream.take(tick(1))
    stream.remove(7)
    // On its way when it was left, and more than this may be.
    stream.take(tick(2))
    stream.add([7], 10)
    // What it has goes on.
    stream.add([7], 10)
    stream.take(tick(3))
    stream.take({ type: "evicted", instrument_token: 7, epoch: 5, from: 4, to: 6 })
    sockets[0]!.onclose({ code: 1006, reason: "" })
    vi.runOnlyPendingTimers()
    sockets[1]!.onopen()
    const asked = ({ sent }: Socket) => sent.map(({ action, tokens, since }) => [action, tokens, since])
    assert.deepStrictEqual(asked(sockets[0]!), [
      ["subscribe", [7], {}],
      ["unsubscribe", [7], undefined],
      ["subscribe", [7], {}]
    ])
    assert.deepStrictEqual(asked(sockets[1]!), [["subscribe", [7], { 7: [5, 6] }]])
    assert.strictEqual(stream.breaches, 0)
    stream.close()
    vi.useRealTimers()
  })
})
