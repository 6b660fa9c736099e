/**
 * Decides how old a tick is when a live client has it: from the broker's stamp on the raw tick (its `received_ts`) to
 * the message in the client's hand, on the one clock of this host.
 */
import WebSocket from "ws"
import type { ServerMessage } from "../../src/schema/Protocol.ts"
import { decodeTick } from "../../src/schema/TickJson.ts"
import { type Ground, now } from "./ground.ts"

/** One client as anybody writes it: the default queue, all instruments. */
export class LiveClient {
  evicted = 0
  isSubscribed = false
  isClosed = false
  /** By token and epoch: when each position came, µs. */
  readonly came = new Map<string, Array<number>>()
  readonly #socket: WebSocket

  constructor(url: string, tokens: ReadonlyArray<number>) {
    const socket = new WebSocket(`${url.replace("http:", "ws:")}/ws`)
    this.#socket = socket
    socket.on("open", () => socket.send(JSON.stringify({ action: "subscribe", tokens, channels: ["tick"] })))
    socket.on("message", (data: Buffer) => {
      const at = now()
      const message = JSON.parse(data.toString()) as ServerMessage
      if (message.type === "tick") {
        const name = `${message.instrument_token}/${message.epoch}`
        let times = this.came.get(name)
        if (times === undefined) {
          times = []
          this.came.set(name, times)
        }
        times[message.position] = at
      } else if (message.type === "evicted") this.evicted += message.count
      else if (message.type === "subscribed") this.isSubscribed = true
    })
    socket.on("error", () => {})
    socket.on("close", () => {
      this.isClosed = true
    })
  }

  close(): void {
    this.#socket.terminate()
  }
}

/** Of the raw tick's arrival, µs; half-open. */
export interface Range {
  readonly from: number
  readonly to: number
}

export interface Span {
  readonly name: string
  /** One after the other. */
  readonly ranges: ReadonlyArray<Range>
}

export interface Percentiles {
  readonly count: number
  readonly p50: number
  readonly p99: number
  readonly p999: number
  readonly most: number
}

/** How long ticks took to the clients, ms, by when they came in. */
export const latencies = async (
  ground: Ground,
  clients: ReadonlyArray<LiveClient>,
  spans: ReadonlyArray<Span>
): Promise<ReadonlyArray<Percentiles>> => {
  const found = spans.map((): Array<number> => [])
  for (let partition = 0; partition < ground.settings.PARTITIONS; partition++) {
    const seen = new Set<string>()
    await ground.read(partition, (records) => {
      for (const { value } of records) {
        const tick = value === null ? undefined : decodeTick(value)
        if (tick === undefined) continue
        const name = `${tick.instrument_token}/${tick.epoch}`
        if (seen.has(`${name}/${tick.position}`)) continue
        seen.add(`${name}/${tick.position}`)
        spans.forEach(({ ranges }, i) => {
          if (!ranges.some(({ from, to }) => tick.received_ts >= from && tick.received_ts < to)) return
          for (const { came } of clients) {
            const at = came.get(name)?.[tick.position]
            if (at !== undefined) found[i]!.push((at - tick.received_ts) / 1000)
          }
        })
      }
    })
  }
  return found.map((list) => {
    const sorted = Float64Array.from(list).sort()
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
    return { count: sorted.length, p50: at(0.5), p99: at(0.99), p999: at(0.999), most: at(1) }
  })
}
