/**
 * Decides whether clients that read slowly cost those that keep up anything: a hundred of these, with and without one
 * of each policy beside them, in turns. What each slow one lost is exactly what it was told.
 */
import { setTimeout as sleep } from "node:timers/promises"
import WebSocket from "ws"
import { POLICIES, type Policy, type ServerMessage } from "../../src/schema/Protocol.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import { placesOf } from "./clients.ts"
import type { Places } from "./crowd.ts"
import { Ground, now, residentMb, type SoakOptions } from "./ground.ts"
import { LiveClient, latencies, type Range } from "./latency.ts"
import type { Report } from "./report.ts"

const SYMBOLS = 50
const FAST = 100
const TOKENS_EACH = 10
const TURNS = 5
/** Until the rings hold more than a socket takes without being read. */
const WARM_UP_S = 40
/** A slow one falls asleep over its backfill, and reads for a moment now and then. */
const SLEEP_MS = 4000
const WAKE_MS = 50
const QUEUE = 100
const BACKFILL = 1000
const AGAIN_MS = 100
const SETTLES_WITHIN_MS = 60_000
/** Where a p99 counts as unchanged. */
const FACTOR = 1.25
const SLACK_MS = 2
const FLAT = 1.15

/** A client that reads now and then, and comes back with its places where it is ended. */
class Sleeper {
  readonly policy: Policy
  readonly checker = new RuleChecker({ keep: true })
  broken: unknown
  closings = 0
  /** Lost of what had begun. */
  lost = 0
  /** Where each stream began. */
  readonly #from = new Map<number, number>()
  readonly #had = new Set<number>()
  readonly #url: string
  readonly #tokens: ReadonlyArray<number>
  #socket: WebSocket | undefined
  #isOver = false
  #isAwake = false

  constructor(url: string, tokens: ReadonlyArray<number>, policy: Policy) {
    this.#url = url
    this.#tokens = tokens
    this.policy = policy
    this.#connect()
    void this.#sleep()
  }

  #connect(): void {
    if (this.#isOver) return
    const socket = new WebSocket(`${this.#url.replace("http:", "ws:")}/ws`)
    this.#socket = socket
    socket.on("open", () => {
      const since = this.checker.since()
      const subscribe = { action: "subscribe", tokens: this.#tokens, channels: ["tick"], policy: this.policy }
      socket.send(JSON.stringify({ ...subscribe, capacity: QUEUE, backfill: BACKFILL, since }))
      if (!this.#isAwake) socket.pause()
    })
    socket.on("message", (data: Buffer) => {
      if (this.broken !== undefined) return
      const message = JSON.parse(data.toString()) as ServerMessage
      try {
        if (message.type === "closing") this.#closing(message.since)
        else this.checker.take(message)
      } catch (error) {
        this.broken = error
      }
      if (message.type !== "tick" && message.type !== "evicted" && message.type !== "backfill") return
      const { instrument_token: token } = message
      if (this.#from.has(token)) {
        if (message.type === "evicted" && this.#had.has(token)) this.lost += message.count
        else if (message.type !== "evicted") this.#had.add(token)
        return
      }
      const place = this.checker.place(token)
      if (place !== undefined) this.#from.set(token, message.type === "tick" ? message.position : message.from)
    })
    socket.on("error", () => {})
    socket.on("close", () => setTimeout(() => this.#connect(), AGAIN_MS))
  }

  #closing(since: Readonly<Record<string, readonly [number, number]>>): void {
    this.closings++
    const own = this.checker.since()
    for (const [token, place] of Object.entries(since)) {
      // Of what was asked for nothing may have come yet: it stands before that.
      if (own[token] !== undefined && String(own[token]) !== String(place)) {
        throw new Error(`closing says that ${token} stands at ${String(place)}, it had ${String(own[token])}`)
      }
    }
  }

  async #sleep(): Promise<void> {
    while (!this.#isOver && !this.#isAwake) {
      await sleep(SLEEP_MS)
      this.#socket?.resume()
      await sleep(WAKE_MS)
      if (!this.#isAwake) this.#socket?.pause()
    }
    this.#socket?.resume()
  }

  /** Reads all there is; answers what of its account does not close. */
  async settle(places: Places): Promise<string | undefined> {
    this.#isAwake = true
    const stands = () =>
      this.#tokens.every((token) => {
        const place = this.checker.place(token)
        return places[token] === undefined || String([place?.epoch, place?.position]) === String(places[token])
      })
    const until = Date.now() + SETTLES_WITHIN_MS
    while (!stands() && this.broken === undefined && Date.now() < until) await sleep(50)
    if (this.broken !== undefined) return String(this.broken)
    if (!stands()) return "it does not come to where the log ends"
    const { ticks, backfilled, evicted } = this.checker
    let meant = 0
    for (const token of this.#tokens) {
      const first = this.#from.get(token)
      if (first !== undefined && places[token] !== undefined) meant += places[token][1] - first + 1
    }
    const had = ticks + backfilled + evicted
    return had === meant ? undefined : `it had ${had} ticks, those told as lost included, of ${meant}`
  }

  close(): void {
    this.#isOver = true
    this.#socket?.terminate()
  }
}

const middle = (list: ReadonlyArray<number>): number => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]!
const mean = (list: ReadonlyArray<number>): number => list.reduce((sum, n) => sum + n, 0) / list.length

export const slow = async ({ engine, seconds, rate }: SoakOptions, report: Report): Promise<void> => {
  process.stdout.write(
    `slow, ${engine}: ${rate} ticks/s, ${FAST} clients that keep up, one of each policy that does not, ${TURNS} turns of ${seconds} s\n`
  )
  const ground = await Ground.set(engine, SYMBOLS)
  const { url } = ground.server
  const fast = Array.from({ length: FAST }, (_, i) => {
    const at = (i * TOKENS_EACH) % SYMBOLS
    return new LiveClient(url, ground.tokens.slice(at, at + TOKENS_EACH))
  })
  let sleepers: ReadonlyArray<Sleeper> = []
  const all: Array<Sleeper> = []
  try {
    while (!fast.every(({ isSubscribed }) => isSubscribed)) await sleep(20)
    const feed = await ground.play(rate)
    report.tell("the feed runs")
    await sleep(WARM_UP_S * 1000)
    const without: Array<Range> = []
    const beside: Array<Range> = []
    const memory: Array<number> = []
    for (let turn = 0; turn < TURNS; turn++) {
      without.push({ from: now(), to: now() + seconds * 1e6 })
      await sleep(seconds * 1000)
      sleepers = POLICIES.map((policy) => new Sleeper(url, ground.tokens, policy))
      all.push(...sleepers)
      const from = now()
      for (let i = 0; i < seconds; i++) {
        await sleep(1000)
        memory.push((await residentMb([ground.server]))[0]!)
      }
      beside.push({ from, to: now() })
      // Those of the last turn stay for the account.
      if (turn < TURNS - 1) for (const sleeper of sleepers) sleeper.close()
    }
    const meant = await feed.stop()
    report.tell(`the feed has ended after ${meant.length} ticks`)
    await ground.storeReaches(await ground.ends(), 60_000)
    const places = await placesOf(ground)
    const found = await latencies(ground, fast, [
      { name: "nobody", ranges: without },
      { name: "slow ones", ranges: beside },
      ...[...without, ...beside].map((range) => ({ name: "", ranges: [range] }))
    ])
    const p99s = found.slice(2).map(({ p99 }) => p99)
    const before = middle(p99s.slice(0, TURNS))
    const after = middle(p99s.slice(TURNS))
    report.table([
      ["beside", "deliveries", "p50 ms", "p99 ms", "p99.9 ms", "p99 by turn"],
      ...["nobody", "slow ones"].map((name, i) => [
        name,
        String(found[i]!.count),
        ...[found[i]!.p50, found[i]!.p99, found[i]!.p999].map((ms) => ms.toFixed(1)),
        p99s
          .slice(i * TURNS, (i + 1) * TURNS)
          .map((ms) => ms.toFixed(0))
          .join(" ")
      ])
    ])
    report.check(
      "the p99 of those that keep up is unchanged beside slow ones",
      after <= FACTOR * before + SLACK_MS,
      `${after.toFixed(1)} ms in the middle turn after ${before.toFixed(1)} ms`
    )
    for (const sleeper of sleepers) {
      const problem = await sleeper.settle(places)
      const { ticks, backfilled, evicted, evictedFrames } = sleeper.checker
      report.check(
        `${sleeper.policy}: it lost exactly what it was told`,
        problem === undefined,
        problem ??
          `${ticks + backfilled} ticks, ${evicted} told as lost in ${evictedFrames} frames, closed ${sleeper.closings} times`
      )
    }
    for (const policy of ["pause", "disconnect"]) {
      const { lost } = sleepers.find((sleeper) => sleeper.policy === policy)!
      report.check(`${policy}: nothing is lost`, lost === 0, `${lost} ticks`)
    }
    for (const policy of ["evict-oldest", "conflate"]) {
      const { lost } = sleepers.find((sleeper) => sleeper.policy === policy)!
      report.check(`${policy}: it was told of losses`, lost > 0, `${lost} ticks`)
    }
    const quarter = Math.max(1, Math.floor(memory.length / 4))
    const second = mean(memory.slice(quarter, 2 * quarter))
    const last = mean(memory.slice(-quarter))
    report.check(
      "the server's memory is flat",
      last <= FLAT * second,
      `${last.toFixed(0)} MB after ${second.toFixed(0)} MB`
    )
    const undisturbed = fast.filter(({ evicted, isClosed }) => evicted === 0 && !isClosed).length
    report.check("nobody that keeps up was evicted or closed", undisturbed === FAST, `${undisturbed} of ${FAST}`)
  } finally {
    for (const client of [...fast, ...all]) client.close()
    await ground.close()
  }
}
