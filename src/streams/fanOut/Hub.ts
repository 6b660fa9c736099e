/**
 * Decides how ticks reach every client of a server: the hub of its channels and connections. Each client has its own
 * bounded queue and joins at an exact place; nothing here waits, so joining is one step.
 */
import { Clock, Context, Effect, Layer, Metric } from "effect"
import { fullSymbol, type Instrument } from "../../schema/Instrument.ts"
import { partitionOf } from "../../schema/Partition.ts"
import type { Quote } from "../../schema/Quote.ts"
import type { Segment } from "../../schema/Sessions.ts"
import { type Tick, tradingDay } from "../../schema/Tick.ts"
import * as metrics from "../metrics.ts"
import { Instruments } from "../ports/Instruments.ts"
import { RecentQuotes } from "../ports/RecentQuotes.ts"
import { RecentTicks } from "../ports/RecentTicks.ts"
import { TickStore } from "../ports/TickStore.ts"
import { inTurns } from "../run/slices.ts"
import { Channel, LIVE } from "./Channel.ts"
import { type ClientQueue, type ClientSocket, type Frame, type Held, MAX_FLUSH_CHARS } from "./ClientQueue.ts"
import { HubClient } from "./HubClient.ts"
import { type History, historyOf, quotesFrom, storedMinutesOf } from "./history.ts"
import type { ChannelHost, ClientHost, Follower, GivenUp, HubSettings, Origin } from "./parts.ts"
import { MAX_WAITING } from "./StoredBars.ts"

/** Looks outside memory at a time, of all clients together. */
const LOOKUPS = 4

/** What the sums are brought down to where they are above their limit, so that it need not be done at every step. */
const RELIEF = 0.9
/** Characters flushed in one turn for clients that wait for more. */
const TURN_CHARS = 2 * MAX_FLUSH_CHARS

/**
 * Why ticks were given up. `evict-oldest`: a queue was full; `conflate`: a newer one of the instrument took its place;
 * `pause`: nobody had them any more when the client read on; `evict-longest`: all queues together were full, and this was
 * among the longest.
 */
export type EvictionPolicy = "evict-oldest" | "conflate" | "pause" | "evict-longest"

/** What the hub tells whoever counts. */
export interface HubObserver {
  readonly evicted: (ticks: number, policy: EvictionPolicy) => void
  /** A client's streams wait, as it does not read. */
  readonly paused: () => void
  /** Seconds from the log to the socket. */
  readonly delivered: (seconds: number) => void
  /** An instrument's first tick in the live channel. */
  readonly seen: (token: number) => void
  /** The newest revision of a bar was given up. */
  readonly gaveUp: (why: GivenUp) => void
  /** Bars and states that waited for a client that reads too slowly. */
  readonly dropped: (frames: number) => void
}

const silent: HubObserver = {
  evicted: () => undefined,
  paused: () => undefined,
  delivered: () => undefined,
  seen: () => undefined,
  gaveUp: () => undefined,
  dropped: () => undefined
}

export interface HubOptions {
  readonly settings: HubSettings
  /** Absent: what is not in memory is not to be had. */
  readonly history?: History
  readonly observer?: Partial<HubObserver>
  /** Epoch microseconds. */
  readonly now?: () => number
  /** The same by the clock that REST judges bars by; `now` unless given. */
  readonly time?: () => number
  /** The segment whose hours an instrument has; none is known unless given. */
  readonly segment?: (token: number, day?: number) => Segment | undefined
  /** Whether a token still means what it meant when the quote was; so it is unless given. */
  readonly isCurrent?: (quote: Quote) => boolean
  /** How long after its connect a client's place may be ahead of what has come in here, in milliseconds. */
  readonly graceMs?: number
}

/** A server that was quicker is ahead by what is under way in the log; a place further off is nobody's. */
const GRACE_MS = 500

const untilDone = (step: () => boolean): void => {
  while (step());
}

/** All channels and all clients of one server. */
export class Hub implements ChannelHost, ClientHost {
  readonly settings: HubSettings
  readonly history: History | undefined
  readonly now: () => number
  readonly time: () => number
  readonly segment: (token: number, day?: number) => Segment | undefined
  readonly isCurrent: (quote: Quote) => boolean
  readonly graceMs: number
  /** Of the log that live ticks are read from; 0 where there is none. */
  partitions = 0
  private readonly observer: HubObserver
  /** The market itself. */
  readonly live: Channel
  private readonly channels = new Map<string, Channel>()
  private readonly connected = new Set<HubClient>()
  private following: ((channel: Channel) => Follower) | undefined
  /** What waits for all clients together. */
  readonly held: Held = { ticks: 0, bytes: 0 }
  /** Instruments that clients subscribe to or have left, all clients together. */
  subscriptions = 0
  /** More that were granted, and are yet to be made. */
  granted = 0
  private readonly unfinished = new Set<ClientQueue>()
  private isGoingOn = false
  private looking = 0
  private readonly lookers: Array<() => void> = []

  constructor(options: HubOptions) {
    this.settings = options.settings
    this.history = options.history
    this.observer = { ...silent, ...options.observer }
    this.graceMs = options.graceMs ?? GRACE_MS
    this.now = options.now ?? (() => (performance.timeOrigin + performance.now()) * 1000)
    this.time = options.time ?? this.now
    this.segment = options.segment ?? (() => undefined)
    this.isCurrent = options.isCurrent ?? (() => true)
    this.live = new Channel(LIVE, this)
    this.channels.set(LIVE, this.live)
  }

  /** Takes live ticks and quotes; see `Channel.publish`. */
  publish(ticks: ReadonlyArray<Tick>, publishedAt?: number, origin?: Origin, quotes?: ReadonlyArray<Quote>): void {
    this.live.publish(ticks, publishedAt, origin, quotes)
  }

  /** The partition that an instrument's live ticks lie in. */
  partitionOf(token: number): number {
    return this.partitions === 0 ? 0 : partitionOf(token, this.partitions)
  }

  channel(key: string): Channel | undefined {
    return this.channels.get(key)
  }

  /** Opens the channel of a replay of a trading day (since 1970); one that is open begins a run anew. */
  open(key: string, day?: number): Channel {
    const known = this.channels.get(key)
    if (known !== undefined) {
      if (key !== LIVE) known.restart()
      return known
    }
    const channel = new Channel(key, this, day)
    this.channels.set(key, channel)
    if (this.following !== undefined) channel.follower = this.following(channel)
    return channel
  }

  /** Has somebody follow the market, and every replay from where it begins. */
  follow(following: (channel: Channel) => Follower): void {
    this.following = following
    this.live.follower = following(this.live)
  }

  /** Ends a replay's channel and frees its memory; its clients stay connected, with nothing subscribed. */
  close(key: string): void {
    if (key === LIVE) return
    this.channels.get(key)?.close()
    this.channels.delete(key)
  }

  /** How many clients are on a channel, its follower's included. */
  clients(key: string): number {
    const channel = this.channels.get(key)
    return channel === undefined ? 0 : channel.clients.size + channel.guests
  }

  /** All connections. */
  get size(): number {
    return this.connected.size
  }

  /** What waits in the fullest client's queue, and the most it holds. */
  get fullest(): { readonly size: number; readonly capacity: number } {
    let fullest = { size: 0, capacity: this.settings.CLIENT_CAPACITY }
    for (const { queue } of this.connected) {
      if (queue.size / queue.capacity > fullest.size / fullest.capacity) fullest = queue
    }
    return { size: fullest.size, capacity: fullest.capacity }
  }

  /** Clients whose streams wait. */
  get pausedClients(): number {
    let paused = 0
    for (const { queue } of this.connected) if (queue.missedSince !== undefined) paused++
    return paused
  }

  /** Clients that do not read what is on its way to them, of which there is enough. */
  get behindClients(): number {
    let behind = 0
    for (const { queue } of this.connected) if (queue.isBehind) behind++
    return behind
  }

  connect(socket: ClientSocket): HubClient {
    const client = new HubClient(this, socket)
    this.connected.add(client)
    return client
  }

  /** The connection is gone: nothing more goes to it. Its subscriptions are ended at once, or by whoever takes the steps. */
  disconnect(client: HubClient, later: (step: () => boolean) => void = untilDone): void {
    if (!this.connected.delete(client)) return
    this.account(client.queue)
    this.unfinished.delete(client.queue)
    client.queue.close()
    client.gone()
    later(() => client.leaveSome())
  }

  /** Sends what the sockets still take, then ends every connection. */
  shutdown(code: number, reason: string): void {
    for (const client of [...this.connected]) {
      client.flush()
      client.queue.end(code, reason, "stopping")
    }
  }

  readonly paused = (): void => this.observer.paused()

  readonly lost = (ticks: number): void => this.observer.evicted(ticks, "pause")

  seen(token: number): void {
    this.observer.seen(token)
  }

  deliver(queues: ReadonlyArray<ClientQueue>, frames: ReadonlyArray<Frame>): void {
    let published = 0
    for (let i = 0; i < queues.length; i++) {
      const queue = queues[i]!
      try {
        queue.deliver(frames)
      } catch (error) {
        this.fail(queue, error)
        continue
      }
      if (queue.evicted !== 0) this.account(queue)
      if (queue.unfinished) this.goOn(queue)
      if (queue.lastPublished !== 0) {
        published = queue.lastPublished
        queue.lastPublished = 0
      }
    }
    // The last client of a publish waited longest: its time stands for all.
    if (published !== 0) this.observer.delivered((this.now() - published) / 1_000_000)
    this.relieve()
  }

  flushClient(queue: ClientQueue): void {
    queue.flush()
    const dropped = queue.takeDropped()
    if (dropped > 0) this.observer.dropped(dropped)
    if (queue.evicted !== 0) this.account(queue)
    if (queue.unfinished) this.goOn(queue)
    this.relieve()
    if (queue.lastPublished === 0) return
    this.observer.delivered((this.now() - queue.lastPublished) / 1_000_000)
    queue.lastPublished = 0
  }

  readonly handOver = (queues: ReadonlyArray<ClientQueue>): void => {
    for (const queue of queues) {
      try {
        this.flushClient(queue)
      } catch (error) {
        this.fail(queue, error)
      }
    }
  }

  gaveUp(why: GivenUp): void {
    this.observer.gaveUp(why)
  }

  /** Asks the history, a bounded number of questions at a time. */
  async look<A>(ask: (history: History) => Promise<A>, otherwise: A): Promise<A> {
    const { history } = this
    if (history === undefined) return otherwise
    if (this.looking >= LOOKUPS) await new Promise<void>((resolve) => this.lookers.push(resolve))
    else this.looking++
    try {
      return await ask(history)
    } catch {
      return otherwise
    } finally {
      const next = this.lookers.shift()
      if (next === undefined) this.looking--
      else next()
    }
  }

  /** A client that something broke for is ended, and nobody else notices. */
  fail(queue: ClientQueue, error: unknown): void {
    try {
      queue.end(1011, "internal error", "failed", error)
    } catch {
      // Its socket is beyond closing: the queue has let go of everything already.
    }
  }

  /** Flushes a client again in one of the next turns of the event loop, a bounded number of characters in each. */
  private goOn(queue: ClientQueue): void {
    this.unfinished.add(queue)
    if (this.isGoingOn) return
    this.isGoingOn = true
    setImmediate(this.goOnNow)
  }

  private readonly goOnNow = (): void => {
    this.isGoingOn = false
    let left = TURN_CHARS
    for (const queue of [...this.unfinished]) {
      if (left <= 0) break
      left -= MAX_FLUSH_CHARS
      this.unfinished.delete(queue)
      try {
        this.flushClient(queue)
      } catch (error) {
        this.fail(queue, error)
      }
    }
    if (this.unfinished.size > 0 && !this.isGoingOn) {
      this.isGoingOn = true
      setImmediate(this.goOnNow)
    }
  }

  /**
   * Where all clients together hold too much, those that hold most give first: the longest queues are evicted to one
   * length, the clients with most bytes are ended.
   */
  private relieve(): void {
    const { CLIENTS_TICKS, CLIENTS_BYTES } = this.settings
    if (this.held.ticks > CLIENTS_TICKS) this.relieveTicks(Math.floor(CLIENTS_TICKS * RELIEF))
    if (this.held.bytes > CLIENTS_BYTES) this.relieveBytes(CLIENTS_BYTES * RELIEF)
  }

  /** Cuts queues to the greatest length that all of them may have. */
  private relieveTicks(most: number): void {
    const queues = [...this.connected].map(({ queue }) => queue).sort((a, b) => b.size - a.size)
    // As the longest `i` are cut to the length of the next, until what they hold fits.
    let shorter = this.held.ticks
    let length = 0
    for (let i = 0; i < queues.length; i++) {
      shorter -= queues[i]!.size
      length = Math.max(0, Math.floor((most - shorter) / (i + 1)))
      if (length >= (queues[i + 1]?.size ?? 0)) break
    }
    for (const queue of queues) {
      if (queue.size <= length) break
      this.account(queue)
      queue.cut(length)
      this.account(queue, "evict-longest")
      if (queue.isDoomed) queue.flush()
    }
  }

  private relieveBytes(most: number): void {
    const queues = [...this.connected].map(({ queue }) => queue).sort((a, b) => b.bytes - a.bytes)
    for (const queue of queues) {
      if (this.held.bytes <= most) return
      queue.end(1013, "the clients of this server hold too much, and this one most", "overload")
    }
  }

  private account(
    queue: ClientQueue,
    policy: EvictionPolicy = queue.policy === "conflate" ? "conflate" : "evict-oldest"
  ): void {
    if (queue.evicted === 0) return
    this.observer.evicted(queue.evicted, policy)
    queue.evicted = 0
  }
}

/** Whether a token's two meanings are one: files write an instrument in their own ways, but for its name. */
const isSameName = (a: Instrument, b: Instrument | undefined): boolean =>
  a === b || (b !== undefined && fullSymbol(a) === fullSymbol(b))

/** Right after each second: bars end on one. */
const SWEEP_MS = 1_000

/** Has the market's bars and states told that change with time, for ever. */
export const sweep = (hub: Hub): Effect.Effect<never> =>
  Effect.forever(
    Effect.gen(function* () {
      yield* Effect.sleep(SWEEP_MS - ((yield* Clock.currentTimeMillis) % SWEEP_MS))
      yield* inTurns(hub.live.sweep())
    })
  )

/** The hub of a server, with its figures. */
export class FanOut extends Context.Service<FanOut, Hub>()("market-data-platform/streams/FanOut") {
  static readonly layer = (
    settings: HubSettings
  ): Layer.Layer<FanOut, never, RecentTicks | RecentQuotes | TickStore | Instruments> =>
    Layer.effect(
      FanOut,
      Effect.gen(function* () {
        const recent = yield* RecentTicks
        const recentQuotes = yield* RecentQuotes
        const store = yield* TickStore
        const instruments = yield* Instruments
        const context = yield* Effect.context<never>()
        const evictions = (policy: EvictionPolicy) => metrics.bind(metrics.evictions, { policy }, context)
        const evicted = {
          "evict-oldest": evictions("evict-oldest"),
          conflate: evictions("conflate"),
          pause: evictions("pause"),
          "evict-longest": evictions("evict-longest")
        }
        const pauses = metrics.bind(metrics.clientPauses, {}, context)
        const latency = metrics.bind(metrics.tickLatency, { edge: "published_to_client" }, context)
        const givenUp = (reason: GivenUp) => metrics.bind(metrics.barsGivenUp, { reason }, context)
        const gaveUp = { full: givenUp("full"), unanswered: givenUp("unanswered"), failed: givenUp("failed") }
        const dropped = metrics.bind(metrics.latestDropped, {}, context)
        for (const counter of [...Object.values(evicted), pauses, ...Object.values(gaveUp), dropped]) counter.add(0)
        const clock = yield* Clock.Clock
        const now = () => (performance.timeOrigin + performance.now()) * 1000
        const hub = new Hub({
          settings,
          history: {
            ...historyOf(recent, store, now),
            bars: storedMinutesOf(store),
            quotes: (tokens) => Effect.runPromise(quotesFrom(recentQuotes, store)(tokens))
          },
          observer: {
            evicted: (ticks, policy) => evicted[policy].add(ticks),
            paused: () => pauses.add(1),
            delivered: latency.add,
            seen: (token) => instruments.seen([token]),
            gaveUp: (why) => gaveUp[why].add(1),
            dropped: dropped.add
          },
          now,
          time: () => clock.currentTimeMillisUnsafe() * 1000,
          segment: instruments.segment,
          isCurrent: ({ exchange_ts, instrument_token: token }) => {
            const then = instruments.at(token, tradingDay(exchange_ts))
            return then === undefined || isSameName(then, instruments.get(token))
          }
        })
        // Read when somebody looks, so that the tick path does not write them.
        const figure = (gauge: Metric.Metric<number, Metric.GaugeState<number>>, get: () => number) =>
          Effect.acquireRelease(
            Effect.sync(() =>
              Metric.registerUnsafe(gauge, context, {
                get: () => ({ value: get() }),
                update: () => undefined,
                modify: () => undefined
              })
            ),
            (registration) => Effect.sync(registration.remove)
          )
        const client = { buffer: "client" }
        yield* figure(metrics.subscribers, () => hub.size)
        yield* figure(metrics.pausedClients, () => hub.pausedClients)
        yield* figure(metrics.behindClients, () => hub.behindClients)
        yield* figure(Metric.withAttributes(metrics.bufferSize, client), () => hub.fullest.size)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, client), () => hub.fullest.capacity)
        const all = { buffer: "clients" }
        yield* figure(Metric.withAttributes(metrics.bufferSize, all), () => hub.held.ticks)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, all), () => settings.CLIENTS_TICKS)
        yield* figure(Metric.withAttributes(metrics.bufferBytes, all), () => hub.held.bytes)
        yield* figure(Metric.withAttributes(metrics.bufferMaxBytes, all), () => settings.CLIENTS_BYTES)
        const subscribed = { buffer: "subscriptions" }
        yield* figure(Metric.withAttributes(metrics.bufferSize, subscribed), () => hub.subscriptions)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, subscribed), () => settings.MAX_SUBSCRIPTIONS)
        const remembered = { buffer: "hub_instruments" }
        yield* figure(Metric.withAttributes(metrics.bufferSize, remembered), () => hub.live.memory.seen)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, remembered), () => settings.HUB_INSTRUMENTS)
        const bars = { buffer: "hub_bars" }
        yield* figure(Metric.withAttributes(metrics.bufferSize, bars), () => hub.live.memory.bars)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, bars), () => settings.HUB_BARS)
        const quotes = { buffer: "hub_quotes" }
        yield* figure(Metric.withAttributes(metrics.bufferSize, quotes), () => hub.live.memory.quotes)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, quotes), () => settings.HUB_QUOTES)
        const waiting = { buffer: "stored_bars" }
        yield* figure(Metric.withAttributes(metrics.bufferSize, waiting), () => hub.live.memory.waiting)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, waiting), () => MAX_WAITING)
        yield* Effect.forkScoped(sweep(hub))
        return hub
      })
    )
}
