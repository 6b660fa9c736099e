/**
 * Decides what clients are like that read too slowly, one of each policy in a process of their own: each reads for a
 * moment now and then, comes back with its places where it is ended, and keeps account of what it lost.
 */
import { setTimeout as sleep } from "node:timers/promises"
import WebSocket from "ws"
import { POLICIES, type Policy, type ServerMessage } from "../../src/schema/Protocol.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import type { Order, Places, Sighted } from "./crowd.ts"

/** Once its queue is full each reads for a moment after so long, one after the other. */
const SLEEP_MS = 8_000
const WAKE_MS = 50
/** With this a socket that was never read is nearly full: some 8,000 ticks. */
const BACKFILL = 160
const QUEUE = 100
const AGAIN_MS = 100
const SETTLES_WITHIN_MS = 60_000
/** Bars beside the ticks: as much again to be read. */
const CHANNELS = ["tick", "candle_1m", "candle_5m"]

class Sleeper {
  readonly policy: Policy
  readonly checker = new RuleChecker()
  broken: unknown
  /** Times that it was ended; where it slept on, without having read why. */
  closed = 0
  /** Where each stream began. */
  readonly #from = new Map<number, number>()
  readonly #url: string
  readonly #tokens: ReadonlyArray<number>
  #socket: WebSocket | undefined
  #isAsleep = true
  #isAwake = false

  constructor(url: string, tokens: ReadonlyArray<number>, policy: Policy) {
    this.#url = url
    this.#tokens = tokens
    this.policy = policy
    this.#connect()
  }

  #connect(): void {
    const socket = new WebSocket(`${this.#url.replace("http:", "ws:")}/ws`)
    this.#socket = socket
    socket.on("open", () => {
      const since = this.checker.since()
      const subscribe = { action: "subscribe", tokens: this.#tokens, channels: CHANNELS, policy: this.policy }
      socket.send(JSON.stringify({ ...subscribe, capacity: QUEUE, backfill: BACKFILL, since }))
      if (this.#isAsleep) socket.pause()
    })
    socket.on("message", (data: Buffer) => {
      if (this.broken !== undefined) return
      try {
        this.#take(JSON.parse(data.toString()) as ServerMessage)
      } catch (error) {
        this.broken = error
      }
    })
    socket.on("error", () => {})
    socket.on("close", () => {
      this.closed++
      setTimeout(() => this.#connect(), AGAIN_MS)
    })
  }

  #take(message: ServerMessage): void {
    // What `closing` says is held against what came.
    this.checker.take(message)
    if (message.type !== "tick" && message.type !== "evicted" && message.type !== "backfill") return
    const { instrument_token: token } = message
    if (this.#from.has(token) || this.checker.place(token) === undefined) return
    this.#from.set(token, message.type === "tick" ? message.position : message.from)
  }

  /** Reads for a moment now and then, from `firstMs` on. */
  async doze(firstMs: number): Promise<void> {
    await sleep(firstMs)
    while (!this.#isAwake) {
      this.#isAsleep = false
      this.#socket?.resume()
      await sleep(WAKE_MS)
      if (this.#isAwake) return
      this.#isAsleep = true
      this.#socket?.pause()
      await sleep(SLEEP_MS)
    }
  }

  /** Reads all there is; answers what of its account does not close. */
  async settle(places: Places): Promise<string | undefined> {
    this.#isAwake = true
    this.#isAsleep = false
    this.#socket?.resume()
    const stands = () =>
      this.#tokens.every((token) => {
        const place = this.checker.place(token)
        return places[token] === undefined || String([place?.epoch, place?.position]) === String(places[token])
      })
    const until = Date.now() + SETTLES_WITHIN_MS
    while (!stands() && this.broken === undefined && Date.now() < until) {
      this.#socket?.resume()
      await sleep(50)
    }
    if (this.broken !== undefined) return `${this.policy}: ${String(this.broken)}`
    if (!stands()) return `${this.policy}: it does not come to where the log ends`
    const { ticks, backfilled, evicted } = this.checker
    let meant = 0
    for (const token of this.#tokens) {
      const first = this.#from.get(token)
      if (first !== undefined && places[token] !== undefined) meant += places[token][1] - first + 1
    }
    const had = ticks + backfilled + evicted
    return had === meant ? undefined : `${this.policy}: it had ${had} ticks, those told as lost included, of ${meant}`
  }
}

const [url = "", symbolsText = "50", firstText = "1"] = process.argv.slice(2)
const tokens = Array.from({ length: Number(symbolsText) }, (_, i) => Number(firstText) + i)
const sleepers = POLICIES.map((policy) => new Sleeper(url, tokens, policy))

/** Ticks that clients under the first policy were told as lost. */
const evictions = async (): Promise<number> => {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Number(/^topology_evictions_total\{policy="evict-oldest"\} (\S+)$/m.exec(text)?.[1] ?? 0)
}

const begin = async (): Promise<void> => {
  const before = await evictions()
  // What a socket takes is full then, and so is everybody's queue behind it: sockets differ by what they take.
  while ((await evictions()) < before + 40 * QUEUE) await sleep(100)
  process.send!("full")
  sleepers.forEach((sleeper, i) => {
    void sleeper.doze((i * SLEEP_MS) / sleepers.length)
  })
}

process.on("message", (order: Order) => {
  if (!("settle" in order)) return
  void Promise.all(sleepers.map((sleeper) => sleeper.settle(order.settle))).then((found) => {
    const counts: Record<string, number> = {}
    for (const { policy, checker, closed } of sleepers) {
      counts[`${policy} had`] = checker.ticks + checker.backfilled
      counts[`${policy} lost`] = checker.evicted
      counts[`${policy} told of losses`] = checker.evictedFrames
      counts[`${policy} closed`] = closed
    }
    const unsettled = found.filter((text) => text !== undefined)
    const sighted: Sighted = { violations: [], unsettled, counts, bars: {} }
    process.send!(sighted, undefined, undefined, () => process.exit(0))
  })
})
process.on("disconnect", () => process.exit(0))
void begin()
