/**
 * Decides whether a client's frames keep the rule a client can check: per instrument and epoch, positions over
 * `backfill` and `tick` go up by one, every hole is covered exactly by `evicted`, and the epoch only grows. Of a bar no
 * revision comes after a newer one.
 */
import type { CandleFrame, InstrumentState, Place, QuoteFrame, ServerMessage } from "../../src/schema/Protocol.ts"

export class RuleBroken extends Error {}

interface Seen {
  epoch: number
  position: number
}

export class RuleChecker {
  /** Where each instrument's stream stands, as `since` of the next connection. */
  readonly places = new Map<number, Seen>()
  /** Positions that came, by token; only where asked for. */
  readonly received = new Map<number, Array<{ readonly epoch: number; readonly position: number }>>()
  /** The last revision of each bar. */
  readonly candles = new Map<string, CandleFrame>()
  readonly states = new Map<number, InstrumentState>()
  /** The last quote of each instrument. */
  readonly quotes = new Map<number, QuoteFrame>()
  ticks = 0
  backfilled = 0
  backfills = 0
  evicted = 0
  evictedFrames = 0
  gaps = 0
  filled = 0
  unrecovered = 0
  readonly errors: Array<string> = []
  readonly messages: Array<string> = []
  private readonly keep: boolean
  private run = 0

  constructor(options: { readonly keep?: boolean } = {}) {
    this.keep = options.keep === true
  }

  /** Takes the text of one WebSocket frame: a message, or an array of them. */
  frame(text: string): void {
    const parsed = JSON.parse(text) as ServerMessage | ReadonlyArray<ServerMessage>
    if (Array.isArray(parsed)) for (const message of parsed as ReadonlyArray<ServerMessage>) this.take(message)
    else this.take(parsed as ServerMessage)
  }

  take(message: ServerMessage): void {
    switch (message.type) {
      case "backfill": {
        const { instrument_token: token, epoch, from, to, recovered, data } = message
        this.backfills++
        if (!recovered) this.unrecovered++
        if (data.length !== to - from + 1) this.broken(`backfill ${from}..${to} holds ${data.length} ticks`, token)
        if (data.length === 0) {
          this.stand(token, epoch, to, recovered)
          return
        }
        data.forEach((tick, i) => {
          if (tick.instrument_token !== token || tick.epoch !== epoch || tick.position !== from + i) {
            this.broken(`backfill from ${from}: entry ${i} is ${tick.epoch}/${tick.position}`, token)
          }
        })
        this.advance(token, epoch, from, to, "backfill")
        this.backfilled += data.length
        if (this.keep) for (const { position } of data) this.note(token, epoch, position)
        return
      }
      case "tick": {
        const { instrument_token: token, epoch, position } = message
        this.advance(token, epoch, position, position, "tick")
        this.ticks++
        if (this.keep) this.note(token, epoch, position)
        return
      }
      case "evicted": {
        const { instrument_token: token, epoch, from, to, count } = message
        if (count !== to - from + 1 || count < 1) this.broken(`evicted ${from}..${to} counts ${count}`, token)
        this.advance(token, epoch, from, to, "evicted")
        this.evicted += count
        this.evictedFrames++
        return
      }
      case "candle": {
        const { instrument_token: token, interval, ts, revision } = message
        const key = `${token} ${interval} ${ts}`
        const before = this.candles.get(key)
        if (before !== undefined && revision < before.revision) {
          this.broken(`${interval} bar at ${ts} goes back from revision ${before.revision} to ${revision}`, token)
        }
        this.candles.set(key, message)
        return
      }
      case "quote":
        this.quotes.set(message.instrument_token, message)
        return
      case "state":
        this.states.set(message.instrument_token, message.state)
        return
      case "gap":
        this.gaps++
        return
      case "gap_filled":
        this.filled++
        return
      case "clock":
        // A new run has positions of its own.
        if (message.run !== this.run) {
          this.run = message.run
          this.places.clear()
          this.candles.clear()
          this.quotes.clear()
        }
        return
      case "error":
        this.errors.push(message.message)
        return
      case "closing":
        for (const [token, [epoch, position]] of Object.entries(message.since)) {
          this.endsAt(Number(token), epoch, position)
        }
        this.messages.push(message.type)
        return
      case "subscribed":
      case "unsubscribed":
      case "pong":
        this.messages.push(message.type)
        return
    }
  }

  /** The resume tokens, as a subscribe message carries them. */
  since(): Record<string, [number, number]> {
    return Object.fromEntries([...this.places].map(([token, { epoch, position }]) => [token, [epoch, position]]))
  }

  place(token: number): Place | undefined {
    return this.places.get(token)
  }

  /** An empty backfill says where the stream goes on: nothing may be left out by it. */
  private stand(token: number, epoch: number, position: number, recovered: boolean): void {
    const seen = this.places.get(token)
    if (seen === undefined) {
      // Epoch 0: nothing is known of this instrument yet, the first tick says where it stands.
      if (epoch > 0) this.places.set(token, { epoch, position })
      return
    }
    if (epoch === 0 && position === 0) return
    // A place that nobody knows is given up, and told so; the stream may stand only behind it.
    if (!recovered && (epoch < seen.epoch || (epoch === seen.epoch && position < seen.position))) {
      this.places.set(token, { epoch, position })
      return
    }
    if (epoch < seen.epoch) this.broken(`empty backfill goes back to epoch ${epoch}`, token)
    const expected = epoch === seen.epoch ? seen.position : 0
    if (position !== expected) this.broken(`empty backfill stands at ${epoch}/${position}`, token)
    seen.epoch = epoch
    seen.position = position
  }

  /** Where a stream is said to go on from on another connection: right behind what came, or before all of a newer epoch. */
  private endsAt(token: number, epoch: number, position: number): void {
    const seen = this.places.get(token)
    if (seen === undefined || (epoch > seen.epoch && position === 0)) return
    if (epoch !== seen.epoch || position !== seen.position) this.broken(`closing at ${epoch}/${position}`, token)
  }

  private advance(token: number, epoch: number, from: number, to: number, what: string): void {
    const seen = this.places.get(token)
    if (seen === undefined) {
      this.places.set(token, { epoch, position: to })
      return
    }
    if (epoch < seen.epoch) this.broken(`${what} of epoch ${epoch}`, token)
    const expected = epoch === seen.epoch ? seen.position + 1 : 1
    if (from !== expected) this.broken(`${what} ${epoch}/${from}, expected ${expected}`, token)
    seen.epoch = epoch
    seen.position = to
  }

  private note(token: number, epoch: number, position: number): void {
    const list = this.received.get(token)
    if (list === undefined) this.received.set(token, [{ epoch, position }])
    else list.push({ epoch, position })
  }

  private broken(what: string, token: number): never {
    const seen = this.places.get(token)
    const stood = seen === undefined ? "nowhere" : `${seen.epoch}/${seen.position}`
    throw new RuleBroken(`instrument ${token} stood at ${stood}: ${what}`)
  }
}
