/**
 * Decides what a crowd of clients does, each by a seed: subscribes, again and otherwise, unsubscribes, reads slowly,
 * goes and comes back with its places, under its own policy. Every message is held to the rule, every bar noted.
 */
import WebSocket from "ws"
import { POLICIES, type Policy, type ServerMessage } from "../../src/schema/Protocol.ts"
import { type Random, random } from "../crash/random.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import type { Order, Places, Sighted } from "./crowd.ts"

const ACT_EVERY_MS = 1000
const AGAIN_MS = 100
const MOST_TOKENS = 20
const LONGEST_SLEEP_MS = 4000
/** So long that what a socket takes without being read is full: about 1.4 MB on one host. */
const DEEP_SLEEP_MS = 20_000
const AWAKE_MS = 4000
const DEEP_BACKFILL = 1000
/** The first of a crowd hear bars alone, whatever happens; those after them sleep deeply, some of each policy. */
const STEADY = 2
const DEEP = 4 * POLICIES.length
/** A queue that a client fills while it sleeps. */
const SMALL_QUEUE = 64
const SETTLES_WITHIN_MS = 60_000

const [seedText = "1", countText = "250", symbolsText = "200", firstText = "1"] = process.argv.slice(2)
const seed = Number(seedText)
const first = Number(firstText)
const tokens = Array.from({ length: Number(symbolsText) }, (_, i) => first + i)

let urls: ReadonlyArray<string> = []
const violations: Array<string> = []
const counts: Record<string, number> = {}
const bars: Record<string, Record<string, string>> = {}
const count = (name: string, n = 1): void => {
  counts[name] = (counts[name] ?? 0) + n
}
const violate = (text: string): void => {
  count("violations")
  if (violations.length < 20) violations.push(text)
}

class Wanderer {
  readonly #random: Random
  readonly #name: string
  readonly #policy: Policy
  readonly #channels: ReadonlyArray<string>
  readonly #batch: boolean
  readonly #deflate: boolean
  readonly #kind: "steady" | "deep" | "wandering"
  #checker = new RuleChecker()
  #socket: WebSocket | undefined
  /** Tokens that the server says it sends. */
  readonly #held = new Set<number>()
  /** Those that ticks have come of. */
  readonly #has = new Set<number>()
  #isSettling = false
  /** As soon as it has asked. */
  #fallsAsleep = false

  constructor(index: number) {
    this.#random = random(seed * 10_007 + index)
    this.#policy = POLICIES[index % POLICIES.length]!
    this.#kind = index < STEADY ? "steady" : index < STEADY + DEEP ? "deep" : "wandering"
    this.#channels = this.#chosen()
    this.#batch = index % 3 === 0
    this.#deflate = index % 5 !== 0
    this.#name = `client ${seed}/${index} (${this.#policy}${this.#batch ? ", batch" : ""})`
    for (const token of this.#kind === "wandering" ? this.#some() : tokens) this.#held.add(token)
    this.#connect()
    if (this.#kind === "wandering") this.#soon()
    else if (this.#kind === "deep") this.#sleepDeeply()
  }

  #chosen(): ReadonlyArray<string> {
    if (this.#kind === "steady") return ["candle_1m", "candle_5m"]
    if (this.#kind === "deep") return ["tick"]
    if (this.#random() < 0.2) return ["candle_1m", "state"]
    return this.#random() < 0.5 ? ["tick", "gap", "candle_1m", "candle_5m", "state"] : ["tick", "gap"]
  }

  /** Reads nothing for long, then for a moment. */
  #sleepDeeply(): void {
    if (this.#isSettling) return
    count("deep sleeps")
    // Half of them fall asleep over all that they asked for when they came.
    if (this.#random() < 0.5) {
      this.#forget()
      for (const token of tokens) this.#held.add(token)
      this.#fallsAsleep = true
      this.#socket?.terminate()
    } else this.#socket?.pause()
    setTimeout(
      () => {
        this.#socket?.resume()
        setTimeout(() => this.#sleepDeeply(), AWAKE_MS)
      },
      (0.5 + this.#random() / 2) * DEEP_SLEEP_MS
    )
  }

  get #wantsTicks(): boolean {
    return this.#channels.includes("tick")
  }

  #some(): Array<number> {
    const n = 1 + Math.floor(this.#random() * MOST_TOKENS)
    return [...new Set(Array.from({ length: n }, () => tokens[Math.floor(this.#random() * tokens.length)]!))]
  }

  #soon(): void {
    setTimeout(
      () => {
        if (this.#isSettling) return
        try {
          this.#act()
        } catch (error) {
          violate(`${this.#name}: ${String(error)}`)
        }
        this.#soon()
      },
      this.#random() * 2 * ACT_EVERY_MS
    )
  }

  #send(message: object): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  #act(): void {
    const dice = this.#random()
    if (dice < 0.35) this.#subscribe(this.#some())
    else if (dice < 0.55) {
      const some = [...this.#held].filter(() => this.#random() < 0.3)
      if (some.length > 0) this.#send({ action: "unsubscribe", tokens: some })
    } else if (dice < 0.7) {
      // Again, and otherwise: honoured or refused by name.
      const some = [...this.#held].filter(() => this.#random() < 0.3)
      if (some.length > 0) this.#subscribe(some, true)
    } else if (dice < 0.85) {
      const socket = this.#socket
      if (socket?.readyState !== WebSocket.OPEN) return
      count("sleeps")
      socket.pause()
      setTimeout(() => socket.resume(), this.#random() * LONGEST_SLEEP_MS)
    } else if (dice < 0.95) this.#socket?.terminate()
    else this.#send({ action: "ping" })
  }

  #options(): object {
    return {
      channels: this.#channels,
      policy: this.#policy,
      batch: this.#batch,
      capacity: SMALL_QUEUE
    }
  }

  #subscribe(some: ReadonlyArray<number>, again = false): void {
    if (this.#held.size > MOST_TOKENS * 3) return
    const dice = this.#random()
    const backfill = this.#wantsTicks && dice < 0.5 ? { backfill: Math.floor(this.#random() * 300) } : {}
    const since: Record<string, readonly [number, number]> = {}
    if (this.#wantsTicks && again && dice >= 0.5) {
      for (const token of some) {
        const place = this.#checker.place(token)
        if (place !== undefined) since[token] = [place.epoch, place.position]
      }
    }
    count(again ? "second subscribes" : "subscribes")
    this.#send({
      action: "subscribe",
      tokens: some,
      ...this.#options(),
      ...(Object.keys(since).length > 0 ? { since } : backfill)
    })
  }

  #connect(): void {
    if (urls.length === 0) {
      setTimeout(() => this.#connect(), AGAIN_MS)
      return
    }
    const at = this.#kind === "steady" ? 0 : Math.floor(this.#random() * urls.length)
    const socket = new WebSocket(`${urls[at]!.replace("http:", "ws:")}/ws`, { perMessageDeflate: this.#deflate })
    this.#socket = socket
    socket.on("open", () => {
      count("connections")
      this.#resume()
    })
    socket.on("message", (data: Buffer) => {
      if (socket !== this.#socket) return
      try {
        this.#take(data.toString())
      } catch (error) {
        violate(`${this.#name}: ${error instanceof Error ? error.message : String(error)}`)
        this.#forget()
        socket.terminate()
      }
    })
    socket.on("unexpected-response", (_request, response) => {
      count(`upgrade ${response.statusCode}`)
      socket.terminate()
    })
    socket.on("error", () => {})
    socket.on("close", (code) => {
      count(`close ${code}`)
      if (socket === this.#socket) setTimeout(() => this.#connect(), AGAIN_MS)
    })
  }

  #resume(): void {
    const held = [...this.#held]
    this.#held.clear()
    if (this.#kind === "wandering" && !this.#isSettling && this.#random() < 0.15) {
      this.#forget()
      this.#subscribe(this.#some())
      return
    }
    // What is not asked for again begins anew where it is.
    for (const token of [...this.#checker.places.keys()]) if (!held.includes(token)) this.#checker.places.delete(token)
    if (held.length === 0) {
      this.#subscribe(this.#some())
      return
    }
    const since = this.#wantsTicks ? { since: this.#checker.since() } : {}
    const backfill = this.#kind === "deep" ? { backfill: DEEP_BACKFILL } : {}
    this.#send({ action: "subscribe", tokens: held, ...this.#options(), ...backfill, ...since })
    if (this.#fallsAsleep) this.#socket!.pause()
    this.#fallsAsleep = false
    // A server that is gone before it answers is not one that refused.
    for (const token of held) this.#held.add(token)
  }

  #forget(): void {
    this.#has.clear()
    this.#checker = new RuleChecker()
    this.#held.clear()
  }

  #take(text: string): void {
    const parsed = JSON.parse(text) as ServerMessage | ReadonlyArray<ServerMessage>
    const isArray = Array.isArray(parsed)
    if (isArray !== this.#batch) count(isArray ? "arrays unasked" : "single frames")
    for (const message of (isArray ? parsed : [parsed]) as ReadonlyArray<ServerMessage>) this.#hear(message)
  }

  #hear(message: ServerMessage): void {
    count(message.type)
    switch (message.type) {
      case "candle": {
        const { instrument_token: token, interval, ts, revision, open, high, low, close, volume } = message
        const key = `${token}/${interval}/${ts}`
        const revisions = bars[key] ?? {}
        bars[key] = revisions
        const said = JSON.stringify({ open, high, low, close, volume })
        const known = revisions[revision]
        if (known === undefined) revisions[revision] = said
        else if (known !== said) violate(`${this.#name}: revision ${revision} of a bar is ${said} and ${known}`)
        return
      }
      case "subscribed":
        for (const answer of message.tokens) {
          if (answer.accepted) this.#held.add(answer.instrument_token)
          else {
            count(`refused ${answer.reason}`)
            if (answer.reason !== "already_subscribed") this.#held.delete(answer.instrument_token!)
          }
        }
        break
      case "unsubscribed":
        for (const { instrument_token: token } of message.tokens) if (token !== undefined) this.#held.delete(token)
        if (message.held.length !== this.#held.size) count("held otherwise")
        return
      case "closing": {
        const own = this.#checker.since()
        for (const [token, place] of Object.entries(message.since)) {
          // Of what was asked for nothing may have come yet: it stands before that.
          if (own[token] !== undefined && JSON.stringify(own[token]) !== JSON.stringify(place)) {
            violate(`${this.#name}: closing says ${token} stands at ${String(place)}, it had ${String(own[token])}`)
          }
        }
        return
      }
      case "quote":
      case "state":
      case "authorized":
        return
      case "error":
        count(`error ${message.code}`)
        return
    }
    // Where no ticks are wanted, an answer says where the stream stands, and nothing is to follow from there.
    if (message.type === "backfill" && !this.#wantsTicks) return
    // What lies before the first tick was never this client's: more was asked for than there is.
    const hadSome = message.type === "evicted" && this.#has.has(message.instrument_token)
    this.#checker.take(message)
    if (message.type === "evicted" && hadSome) count(`evicted ${this.#kind} ${this.#policy}`, message.count)
    else if (message.type === "tick") this.#has.add(message.instrument_token)
    else if (message.type === "backfill" && message.data.length > 0) this.#has.add(message.instrument_token)
  }

  /** What is missing of where the streams are to stand. */
  #lacking(places: Places): string | undefined {
    if (!this.#wantsTicks) return undefined
    for (const token of this.#held) {
      const meant = places[token]
      const place = this.#checker.place(token)
      if (meant === undefined || (place?.epoch === meant[0] && place.position === meant[1])) continue
      return `${this.#name}: ${token} stands at ${place?.epoch}/${place?.position} instead of ${String(meant)}`
    }
    return undefined
  }

  /** Reads all there is; answers what did not come. */
  async settle(places: Places): Promise<string | undefined> {
    this.#isSettling = true
    this.#socket?.resume()
    const until = Date.now() + SETTLES_WITHIN_MS
    while (this.#lacking(places) !== undefined && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    return this.#lacking(places)
  }

  close(): void {
    this.#socket?.removeAllListeners("close")
    this.#socket?.terminate()
  }
}

const clients: Array<Wanderer> = []

process.on("message", (order: Order) => {
  if ("urls" in order) {
    urls = order.urls
    if (clients.length === 0) for (let i = 0; i < Number(countText); i++) clients.push(new Wanderer(i))
    return
  }
  void Promise.all(clients.map((client) => client.settle(order.settle))).then((found) => {
    const unsettled = found.filter((text) => text !== undefined)
    for (const client of clients) client.close()
    const sighted: Sighted = { violations, unsettled, counts, bars }
    process.send!(sighted, undefined, undefined, () => process.exit(0))
  })
})
