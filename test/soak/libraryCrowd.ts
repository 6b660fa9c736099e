/**
 * Decides what an application sees of the TypeScript client library while its servers are killed: many clients, under
 * every policy, each holding what it is given to the rule by itself.
 */
import { type Client, connect, type Message, type Stream } from "../../src/client/index.ts"
import { POLICIES } from "../../src/schema/Protocol.ts"
import type { Order, Places, Sighted } from "./crowd.ts"

const TOKENS_EACH = 10
const BUFFER = 100_000
const SETTLES_WITHIN_MS = 60_000

class Application {
  readonly #name: string
  readonly #client: Client
  readonly #stream: Stream<Message>
  readonly #tokens: ReadonlyArray<number>
  readonly problems: Array<string> = []
  readonly counts: Record<string, number> = {}
  /** Where each stream stands by what was given, held against the library's own word. */
  readonly #stood = new Map<number, readonly [number, number]>()

  constructor(index: number, url: string, tokens: ReadonlyArray<number>) {
    const policy = POLICIES[index % POLICIES.length]!
    this.#name = `library client ${index} (${policy})`
    this.#tokens = Array.from({ length: TOKENS_EACH }, (_, i) => tokens[(index * 7 + i * 3) % tokens.length]!)
    this.#client = connect({ url, policy, batch: index % 2 === 0, bufferSize: BUFFER })
    this.#client.on("error", (error) => this.problems.push(`${this.#name}: ${String(error)}`))
    this.#client.on("connected", () => this.#count("library connections"))
    this.#stream = this.#client.messages(this.#tokens, { channels: ["tick", "gap", "candle_1m"], backfill: 100 })
    void this.#read()
  }

  #count(name: string, n = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + n
  }

  async #read(): Promise<void> {
    try {
      for await (const message of this.#stream) {
        this.#count(`library ${message.type}`)
        if (message.type === "tick")
          this.#advance(message.instrument_token, message.epoch, message.position, message.position)
        else if (message.type === "missed" && message.from !== null && message.to !== null) {
          this.#count("library missed ticks", message.to - message.from + 1)
          this.#advance(message.instrument_token, message.epoch, message.from, message.to)
        }
      }
    } catch (error) {
      this.problems.push(`${this.#name}: its stream ended: ${String(error)}`)
    }
  }

  #advance(token: number, epoch: number, from: number, to: number): void {
    const [stoodEpoch, stoodAt] = this.#stood.get(token) ?? [epoch, from - 1]
    const isNext = epoch > stoodEpoch ? from === 1 : epoch === stoodEpoch && from === stoodAt + 1
    if (!isNext) this.problems.push(`${this.#name}: ${token} stood at ${stoodEpoch}/${stoodAt}: ${epoch}/${from}`)
    this.#stood.set(token, [epoch, to])
  }

  #lacking(places: Places): string | undefined {
    for (const token of this.#tokens) {
      const meant = places[token]
      if (meant === undefined || String(this.#stood.get(token)) === String(meant)) continue
      return `${this.#name}: ${token} stands at ${String(this.#stood.get(token))} instead of ${String(meant)}`
    }
    return undefined
  }

  async settle(places: Places): Promise<string | undefined> {
    const until = Date.now() + SETTLES_WITHIN_MS
    while (this.#lacking(places) !== undefined && Date.now() < until) await new Promise((go) => setTimeout(go, 100))
    const lacking = this.#lacking(places)
    this.#client.close()
    return lacking
  }
}

const [urlsText = "", countText = "0", symbolsText = "0", firstText = "1"] = process.argv.slice(2)
const urls = urlsText.split(",")
const tokens = Array.from({ length: Number(symbolsText) }, (_, i) => Number(firstText) + i)
const applications = Array.from(
  { length: Number(countText) },
  (_, i) => new Application(i, urls[i % urls.length]!, tokens)
)

process.on("message", (order: Order) => {
  if (!("settle" in order)) return
  void Promise.all(applications.map((application) => application.settle(order.settle))).then((found) => {
    const counts: Record<string, number> = {}
    for (const application of applications) {
      for (const [name, n] of Object.entries(application.counts)) counts[name] = (counts[name] ?? 0) + n
    }
    const violations = applications.flatMap(({ problems }) => problems)
    const sighted: Sighted = { violations, unsettled: found.filter((text) => text !== undefined), counts, bars: {} }
    process.send!(sighted, undefined, undefined, () => process.exit(0))
  })
})
process.on("disconnect", () => process.exit(0))
