/** Measures live fan-out: ticks sent to 100 clients as a text frame each, beside a bare uWebSockets.js send loop. */

import * as uWS from "uWebSockets.js"
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Result } from "effect"
import { mountWebSocket } from "../src/http/WebSocket.ts"
import { tickFrame } from "../src/schema/Protocol.ts"
import { readSettings } from "../src/schema/Settings.ts"
import { epochOf, type Tick } from "../src/schema/Tick.ts"
import { Hub } from "../src/streams/fanOut/Hub.ts"
import { figures, median, type Row } from "./row.ts"

const CLIENTS = 100
const TOKENS = 500
/** Ticks a publish, as many as a batch of the log brings under load. */
const BATCH = 50
const TICKS = 40_000
/** Bytes that may be under way to all clients together: what the kernel holds, so that no socket pushes back. */
const WINDOW_BYTES = 16_000_000
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)

const NOW = 1_768_449_600_000_000
const EPOCH = epochOf(20_468, NOW)

const batches = (): ReadonlyArray<ReadonlyArray<Tick>> => {
  let made = 0
  return Array.from({ length: TICKS / BATCH }, () =>
    Array.from({ length: BATCH }, () => {
      const index = made++
      return {
        instrument_token: 1 + (index % TOKENS),
        exchange_ts: NOW + index * 100,
        price: 2500 + (index % 200) / 20,
        volume: 100,
        sequence_id: Math.floor(index / TOKENS) + 1,
        status: "LIVE" as const,
        gap_from: 0,
        session: 0,
        sequencing: "contiguous" as const,
        epoch: EPOCH,
        position: Math.floor(index / TOKENS) + 1,
        feed: "dma",
        received_ts: NOW + index * 100 + 50,
        source: ["bench", index, 0] as const,
        old: false
      }
    })
  )
}

/** Bytes a text of that many characters takes on the wire. */
const wireBytes = (length: number): number => length + (length < 126 ? 2 : length < 65_536 ? 4 : 10)

interface Run {
  readonly deliveriesPerSecond: number
  readonly cpuSecondsPerMillion: number
}

/** Starts the readers, lets `publish` send everything within the window, and waits until it has all arrived. */
const measure = async (
  listen: (app: uWS.TemplatedApp) => {
    readonly subscribe: string
    readonly publish: (ticks: ReadonlyArray<Tick>) => void
  }
): Promise<Run> => {
  const app = uWS.App()
  const { subscribe, publish } = listen(app)
  const port = await new Promise<number>((resolve, reject) =>
    app.listen("127.0.0.1", 0, (socket) =>
      socket === false
        ? reject(new Error("no port"))
        : resolve(uWS.us_socket_local_port(socket as unknown as uWS.us_socket))
    )
  )
  const child = fork(fileURLToPath(new URL("./websocketClients.ts", import.meta.url)), [
    String(port),
    String(CLIENTS),
    subscribe
  ])
  let received = 0
  let changed = () => {}
  await new Promise<void>((resolve) =>
    child.on("message", (message: { readonly opened?: number; readonly received?: number }) => {
      if (message.opened !== undefined) resolve()
      if (message.received !== undefined) received = message.received
      changed()
    })
  )
  // Answers to the subscriptions are no deliveries: they are let pass first.
  for (let before = -1; before !== received || (subscribe !== "" && received === 0); ) {
    before = received
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  const work = batches()
  const bytes = work.map((ticks) => CLIENTS * ticks.reduce((sum, t) => sum + wireBytes(tickFrame(t).length), 0))
  const start = received
  let sent = 0
  const cpu = process.cpuUsage()
  const began = performance.now()
  for (let i = 0; i < work.length; i++) {
    publish(work[i]!)
    sent += bytes[i]!
    // A turn of the loop after each batch, as between two batches of the log.
    await new Promise<void>((resolve) => setImmediate(resolve))
    while (sent - (received - start) > WINDOW_BYTES) {
      await new Promise<void>((resolve) => {
        changed = resolve
      })
    }
  }
  while (received - start < sent) {
    await new Promise<void>((resolve) => {
      changed = resolve
    })
  }
  const seconds = (performance.now() - began) / 1000
  const { user, system } = process.cpuUsage(cpu)
  if (received - start !== sent) throw new Error(`sent ${sent} bytes, ${received - start} came`)
  child.disconnect()
  await new Promise((resolve) => child.once("exit", resolve))
  app.close()
  const deliveries = TICKS * CLIENTS
  return { deliveriesPerSecond: deliveries / seconds, cpuSecondsPerMillion: (user + system) / deliveries }
}

const bare = () =>
  measure((app) => {
    const clients = new Set<uWS.WebSocket<object>>()
    app.ws<object>("/ws", {
      maxBackpressure: 0,
      open: (ws) => {
        clients.add(ws)
      },
      close: (ws) => {
        clients.delete(ws)
      }
    })
    return {
      subscribe: "",
      publish: (ticks) => {
        const texts = ticks.map(tickFrame)
        for (const ws of clients) {
          ws.cork(() => {
            for (const text of texts) ws.send(text, false, false)
          })
        }
      }
    }
  })

const product = () =>
  measure((app) => {
    const settings = Result.getOrThrow(readSettings({}))
    const hub = new Hub({ settings })
    mountWebSocket(app, () => undefined, {
      hub,
      instruments: { get: () => undefined, named: () => [], at: () => undefined, everNamed: () => [] },
      settings,
      isReady: () => true
    })
    const tokens = Array.from({ length: TOKENS }, (_, i) => i + 1)
    return {
      subscribe: JSON.stringify({ action: "subscribe", tokens, capacity: 100_000 }),
      publish: (ticks) => hub.publish(ticks)
    }
  })

/** Product and bare loop in turn; a row of their medians. */
export const run = async (): Promise<Row> => {
  const ours: Array<Run> = []
  const theirs: Array<Run> = []
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(await bare())
    ours.push(await product())
  }
  return {
    name: "websocket",
    ...figures({
      product: ours.map((r) => r.deliveriesPerSecond),
      bare: theirs.map((r) => r.deliveriesPerSecond)
    }),
    unit: "deliveries/s",
    cpu_s_per_million: Number(median(ours.map((r) => r.cpuSecondsPerMillion)).toFixed(3)),
    peak_rss_mb: Math.round(process.resourceUsage().maxRSS / 1024)
  }
}
