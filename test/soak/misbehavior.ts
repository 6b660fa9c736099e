/**
 * Decides how a misbehaving client or feed of each kind behaves, in a process of its own at the lowest priority:
 * `node test/soak/misbehavior.ts KIND URL`. It goes on until it is ended, within bounds of its own.
 */
import { Agent, request } from "node:http"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { constants, setPriority } from "node:os"
import { setTimeout as sleep } from "node:timers/promises"
import WebSocket from "ws"

const [kind = "", url = ""] = process.argv.slice(2)
const { hostname, port } = new URL(url)
const live = `${url.replace("http:", "ws:")}/ws`

/**
 * An address of its own, as a stranger has one: what one address may take at most is not the good clients', and what it
 * has to wait for not the next kind's.
 */
const localAddress = `127.0.0.${2 + [...kind].reduce((sum, character) => (sum * 31 + character.charCodeAt(0)) % 250, 0)}`

setPriority(constants.priority.PRIORITY_LOW)

const raw = (): Socket => {
  const socket = connect({ port: Number(port), host: hostname, localAddress })
  socket.on("error", () => {})
  return socket
}

/** A socket of ours that the other side may end whenever it likes. */
const open = (): Promise<WebSocket | undefined> =>
  new Promise((resolve) => {
    const socket = new WebSocket(live, { perMessageDeflate: false, localAddress })
    socket.on("open", () => resolve(socket))
    socket.on("error", () => resolve(undefined))
    socket.on("unexpected-response", () => resolve(undefined))
  })

const isOpen = (socket: WebSocket | undefined): socket is WebSocket => socket?.readyState === WebSocket.OPEN

/** Sends again and again on sockets that are opened anew when they are ended; each as fast as its own queue drains. */
const onSockets = async (sockets: number, everyMs: number, send: (socket: WebSocket) => void): Promise<never> => {
  const held: Array<WebSocket | undefined> = Array.from({ length: sockets })
  for (;;) {
    for (let i = 0; i < sockets; i++) {
      if (!isOpen(held[i])) held[i] = await open()
      const socket = held[i]
      if (isOpen(socket) && socket.bufferedAmount < 4_000_000) send(socket)
    }
    await sleep(everyMs)
  }
}

const tokens = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i)

/** Asks again and again, so many at a time. */
const requests = async (atOnce: number, ask: (n: number) => Promise<unknown>): Promise<never> => {
  let n = 0
  const one = async (): Promise<never> => {
    for (;;) {
      await ask(n++).catch(() => sleep(20))
      await sleep(1)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, one))
  throw new Error("unreachable")
}

const agent = new Agent({ keepAlive: true, localAddress })
const ask = (method: string, path: string, body?: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "content-type": "application/x-ndjson" }
    const asked = request(`${url}${path}`, { method, agent, headers }, (answer) => {
      answer.resume()
      answer.on("end", resolve)
      answer.on("error", reject)
    })
    asked.on("error", reject)
    asked.end(body)
  })

const got = (path: string) => ask("GET", path)
const ingest = (body: string) => ask("POST", "/api/v1/ingest", body)

const behaviors: Readonly<Record<string, () => Promise<unknown>>> = {
  // No misbehaviour: a core and the loopback are as busy as with one, and the platform has nothing to do with it.
  bystander: async () => {
    const echo = createServer((socket) => {
      socket.on("data", (data) => socket.write(data))
    })
    await new Promise<void>((resolve) => {
      echo.listen(0, localAddress, resolve)
    })
    const { port } = echo.address() as AddressInfo
    const talker = connect({ port, host: localAddress })
    talker.on("data", (data) => talker.write(data))
    talker.write(Buffer.alloc(16_384, "x"))
    return new Promise(() => {})
  },
  "pings-unread": () =>
    onSockets(4, 1, (socket) => {
      socket.pause()
      const bytes = Buffer.alloc(125, "p")
      for (let i = 0; i < 2000; i++) socket.ping(bytes)
      for (let i = 0; i < 500; i++) socket.send('{"action":"ping"}')
    }),
  "since-storm": () => {
    const since = Object.fromEntries(tokens(1, 2_000).map((token) => [token, [20468000033300, 1]]))
    const message = JSON.stringify({ action: "subscribe", tokens: tokens(1, 2_000), since })
    return onSockets(100, 50, (socket) => socket.send(message))
  },
  "many-tokens": () => {
    let from = 1
    return onSockets(4, 50, (socket) => {
      socket.send(JSON.stringify({ action: "subscribe", tokens: tokens(from, 9_000), backfill: 100 }))
      from += 9_000
    })
  },
  "never-reads": () => {
    const message = JSON.stringify({
      action: "subscribe",
      tokens: tokens(9_000_001, 50),
      backfill: 1000,
      capacity: 100_000
    })
    return onSockets(60, 200, (socket) => {
      if (socket.isPaused) return
      socket.send(message)
      socket.pause()
    })
  },
  "connect-flood": async () => {
    const held: Array<WebSocket> = []
    for (;;) {
      const socket = await open()
      if (socket === undefined) await sleep(5)
      else held.push(socket)
      if (held.length > 12_000) held.shift()!.terminate()
    }
  },
  "broken-frames": () => {
    const deep = `${"[".repeat(4500)}${"]".repeat(4500)}`
    const frames = [
      deep,
      `{"action":${deep}}`,
      `{"action":"subscribe","tokens":${deep}}`,
      "{",
      '{"action":"subscribe","tokens":[1],"since":{"1":"x"}}'
    ]
    return onSockets(4, 1, (socket) => {
      for (const frame of frames) socket.send(frame)
    })
  },
  "half-sent": async () => {
    const head = `POST /api/v1/ingest HTTP/1.1\r\nHost: ${hostname}:${port}\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n{`
    const held = new Set<Socket>()
    for (;;) {
      while (held.size < 1100) {
        const socket = raw()
        held.add(socket)
        socket.on("close", () => held.delete(socket))
        socket.write(head)
      }
      await sleep(50)
    }
  },
  "unread-streams": async () => {
    const span = `from=${(Date.now() - 86_400_000) * 1000}&to=${(Date.now() + 3_600_000) * 1000}`
    const held = new Set<Socket>()
    for (;;) {
      while (held.size < 300) {
        const socket = raw()
        held.add(socket)
        socket.on("close", () => held.delete(socket))
        socket.on("data", () => socket.pause())
        const path = `/api/v1/historical/ticks?instrument_token=${9_000_001 + (held.size % 50)}&${span}`
        socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAccept: application/x-ndjson\r\n\r\n`)
      }
      await sleep(50)
    }
  },
  searches: () => requests(50, () => got("/api/v1/instruments/search?query=e&limit=10000")),
  "unknown-names": () => {
    const span = `from=${(Date.now() - 3_600_000) * 1000}&to=${Date.now() * 1000}`
    return requests(8, (n) => got(`/api/v1/historical/candles?symbol=NSE:NOSUCH${n}&interval=1m&${span}`))
  },
  "huge-fields": () => {
    const junk = "x".repeat(900_000)
    return requests(2, (n) =>
      ingest(
        `{"instrument_token":${8_000_000 + (n % 100)},"exchange_ts":${Date.now() * 1000},"price":1,"sequence_id":${n},"junk":"${junk}"}\n`
      )
    )
  },
  // No flood, which would be load: what is held against it is what a token costs that nobody ever heard of.
  "unheard-tokens": () => {
    const first = 10_000_000 + (Date.now() % 1_000_000_000)
    return requests(1, async (n) => {
      await ingest(
        tokens(first + n * 500, 500)
          .map(
            (token) => `{"instrument_token":${token},"exchange_ts":${Date.now() * 1000},"price":1,"sequence_id":${n}}`
          )
          .join("\n")
      )
      await sleep(250)
    })
  }
}

const behave = behaviors[kind]
if (behave === undefined) {
  process.stderr.write(`kind: expected one of ${Object.keys(behaviors).join(", ")}, got ${kind}\n`)
  process.exit(2)
}
process.on("disconnect", () => process.exit(0))
await behave()
