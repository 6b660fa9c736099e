/** Decides how tests make ticks and sockets for the hub: small, seeded, and with a peer that reads when told. */

import { type Quote, unknownQuote } from "../../src/schema/Quote.ts"
import type { Tick } from "../../src/schema/Tick.ts"
import type { ClientSocket } from "../../src/streams/fanOut/ClientQueue.ts"
import type { HubSettings } from "../../src/streams/fanOut/parts.ts"
import { RuleChecker } from "./RuleChecker.ts"

/** 2026-01-15, 09:15 IST. */
export const EPOCH = 20_468_000_033_300
export const NOW = 1_768_449_600_000_000

export const hubSettings: HubSettings = {
  RING_TICKS: 1000,
  HUB_TICKS: 300_000,
  CLIENT_CAPACITY: 1000,
  CLIENT_BUFFER_BYTES: 65_536,
  CLIENT_PAUSE_MS: 300_000,
  MAX_CLIENT_TOKENS: 10_000,
  MAX_SUBSCRIPTIONS: 1_000_000,
  CLIENTS_TICKS: 2_000_000,
  CLIENTS_BYTES: 268_435_456,
  HUB_INSTRUMENTS: 100_000,
  HUB_QUOTES: 50_000,
  HUB_BARS: 100_000,
  CANDLE_MS: 0,
  MAX_FUTURE_SKEW_MS: 5000
}

/** The price tells which tick it is, so that a test sees when one was taken for another. */
export const priceOf = (token: number, epoch: number, position: number): number =>
  ((token * 31 + (epoch % 1000) * 7 + position) % 100_000) / 20

export const tickOf = (token: number, epoch: number, position: number, fields: Partial<Tick> = {}): Tick => ({
  instrument_token: token,
  exchange_ts: NOW + position * 1000,
  price: priceOf(token, epoch, position),
  volume: position % 50,
  sequence_id: position,
  status: "LIVE",
  gap_from: 0,
  session: 0,
  sequencing: "contiguous",
  epoch,
  position,
  feed: "dma",
  received_ts: NOW + position * 1000 + 500,
  source: ["raw", position, 0],
  old: false,
  ...fields
})

/** A quote whose raw record has an offset. */
export const quoteAt = (token: number, exchange_ts: number, offset: number, fields: Partial<Quote> = {}): Quote => ({
  ...unknownQuote(),
  instrument_token: token,
  exchange_ts,
  feed: "snapshot",
  received_ts: exchange_ts,
  source: ["raw", offset, 1],
  old: false,
  ...fields
})

/** A small generator of numbers that repeats itself from a seed. */
export const randomFrom = (seed: number) => {
  let state = seed >>> 0 || 1
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  return {
    next,
    /** A whole number in [0, below). */
    below: (below: number): number => Math.floor(next() * below),
    chance: (share: number): boolean => next() < share
  }
}

/** A socket in memory: `room` bytes until somebody reads. */
export class FakeSocket implements ClientSocket {
  readonly frames: Array<string> = []
  readonly checker: RuleChecker
  ended: { readonly code: number; readonly reason: string } | undefined
  /** What the hub caught while it served this socket, such as a breach of the rule. */
  broken: unknown
  waiting = 0
  /** Bytes that the kernel took and the peer has not read, and how many of them it may have; any unless given. */
  unread = 0
  private readonly window: number
  sends = 0
  corks = 0
  /** The peer takes everything at once. */
  isFast: boolean

  constructor(options: { readonly fast: boolean; readonly checker?: RuleChecker; readonly window?: number }) {
    this.window = options.window ?? Number.POSITIVE_INFINITY
    this.isFast = options.fast
    this.checker = options.checker ?? new RuleChecker()
  }

  readonly send = (text: string): boolean => {
    this.sends++
    this.frames.push(text)
    this.checker.frame(text)
    if (this.isFast) return true
    if (this.window < Number.POSITIVE_INFINITY) {
      this.unread += text.length
      return true
    }
    this.waiting += text.length
    return false
  }

  readonly buffered = (): number => this.waiting

  readonly isBehind = (): boolean => this.unread >= this.window

  readonly isSlow = (): boolean => this.unread * 2 >= this.window

  readonly cork = (sends: () => void): void => {
    this.corks++
    sends()
  }

  readonly end = (code: number, reason: string, _why?: string, error?: unknown): void => {
    this.ended = { code, reason }
    this.broken = error
  }

  /** The peer reads; the hub is to be told by `client.flush()`. */
  read(bytes: number): void {
    this.unread = Math.max(0, this.unread - bytes)
    this.waiting = Math.max(0, this.waiting - bytes)
  }

  messages(): ReadonlyArray<{ readonly type: string } & Record<string, unknown>> {
    if (this.broken !== undefined) throw this.broken
    return this.frames.flatMap((text) => JSON.parse(text))
  }
}
