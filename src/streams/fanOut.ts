/**
 * Decides how ticks reach every client of a server: the hub of its channels and connections. Each client has its own
 * bounded queue and joins at an exact place; nothing here waits, so joining is one step.
 */
import { Context, Effect, Layer, Metric } from "effect"
import type { Tick } from "../schema/Tick.ts"
import { Channel, LIVE } from "./channel.ts"
import type { ClientQueue, ClientSocket, Frame } from "./clientQueue.ts"
import { type History, historyOf } from "./history.ts"
import { HubClient } from "./hubClient.ts"
import { Instruments } from "./Instruments.ts"
import * as metrics from "./metrics.ts"
import { RecentTicks } from "./RecentTicks.ts"
import { TickStore } from "./TickStore.ts"

/** Looks outside memory at a time, of all clients together. */
const LOOKUPS = 16

export interface HubSettings {
  /** Newest ticks kept of each instrument. */
  readonly RING_TICKS: number
  /** Newest ticks kept of all instruments of a channel together. */
  readonly HUB_TICKS: number
  readonly CLIENT_CAPACITY: number
  readonly CLIENT_BUFFER_BYTES: number
  readonly MAX_CLIENT_TOKENS: number
}

/** What the hub tells whoever counts. */
export interface HubObserver {
  readonly evicted: (ticks: number) => void
  /** Seconds from the log to the socket. */
  readonly delivered: (seconds: number) => void
  /** An instrument's first tick in the live channel. */
  readonly seen: (token: number) => void
}

const silent: HubObserver = { evicted: () => undefined, delivered: () => undefined, seen: () => undefined }

export interface HubOptions {
  readonly settings: HubSettings
  /** Absent: what is not in memory is not to be had. */
  readonly history?: History
  readonly observer?: HubObserver
  /** Epoch microseconds. */
  readonly now?: () => number
}

/** All channels and all clients of one server. */
export class Hub {
  readonly settings: HubSettings
  readonly history: History | undefined
  readonly observer: HubObserver
  readonly now: () => number
  /** The market itself. */
  readonly live: Channel
  private readonly channels = new Map<string, Channel>()
  private readonly connected = new Set<HubClient>()
  private looking = 0
  private readonly lookers: Array<() => void> = []

  constructor(options: HubOptions) {
    this.settings = options.settings
    this.history = options.history
    this.observer = options.observer ?? silent
    this.now = options.now ?? (() => (performance.timeOrigin + performance.now()) * 1000)
    this.live = new Channel(LIVE, this)
    this.channels.set(LIVE, this.live)
  }

  /** Takes live ticks; see `Channel.publish`. */
  publish(ticks: ReadonlyArray<Tick>, publishedAt?: number): void {
    this.live.publish(ticks, publishedAt)
  }

  channel(key: string): Channel | undefined {
    return this.channels.get(key)
  }

  /** Opens a replay's channel; one that is open begins a run anew. */
  open(key: string): Channel {
    const known = this.channels.get(key)
    if (known !== undefined) {
      if (key !== LIVE) known.restart()
      return known
    }
    const channel = new Channel(key, this)
    this.channels.set(key, channel)
    return channel
  }

  /** Ends a replay's channel and frees its memory; its clients stay connected, with nothing subscribed. */
  close(key: string): void {
    if (key === LIVE) return
    this.channels.get(key)?.close()
    this.channels.delete(key)
  }

  /** How many clients are on a channel. */
  clients(key: string): number {
    return this.channels.get(key)?.clients.size ?? 0
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

  connect(socket: ClientSocket): HubClient {
    const client = new HubClient(this, socket)
    this.connected.add(client)
    return client
  }

  /** The connection is gone. */
  disconnect(client: HubClient): void {
    if (!this.connected.delete(client)) return
    client.leave()
    this.account(client.queue)
    client.queue.close()
  }

  /** Sends what the sockets still take, then ends every connection. */
  shutdown(code: number, reason: string): void {
    for (const client of [...this.connected]) {
      client.flush()
      client.queue.end(code, reason)
    }
  }

  deliver(queues: ReadonlyArray<ClientQueue>, frames: ReadonlyArray<Frame>): void {
    let published = 0
    for (let i = 0; i < queues.length; i++) {
      const queue = queues[i]!
      queue.deliver(frames)
      if (queue.evicted !== 0) this.account(queue)
      if (queue.lastPublished !== 0) {
        published = queue.lastPublished
        queue.lastPublished = 0
      }
    }
    // The last client of a publish waited longest: its time stands for all.
    if (published !== 0) this.observer.delivered((this.now() - published) / 1_000_000)
  }

  flushClient(queue: ClientQueue): void {
    queue.flush()
    if (queue.evicted !== 0) this.account(queue)
    if (queue.lastPublished === 0) return
    this.observer.delivered((this.now() - queue.lastPublished) / 1_000_000)
    queue.lastPublished = 0
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

  private account(queue: ClientQueue): void {
    if (queue.evicted === 0) return
    this.observer.evicted(queue.evicted)
    queue.evicted = 0
  }
}

/** The hub of a server, with its figures. */
export class FanOut extends Context.Service<FanOut, Hub>()("market-data-platform/streams/FanOut") {
  static readonly layer = (settings: HubSettings): Layer.Layer<FanOut, never, RecentTicks | TickStore | Instruments> =>
    Layer.effect(
      FanOut,
      Effect.gen(function* () {
        const recent = yield* RecentTicks
        const store = yield* TickStore
        const instruments = yield* Instruments
        const context = yield* Effect.context<never>()
        const evicted = metrics.bind(metrics.evictions, { policy: "evict-oldest" }, context)
        const latency = metrics.bind(metrics.tickLatency, { edge: "published_to_client" }, context)
        const now = () => (performance.timeOrigin + performance.now()) * 1000
        const hub = new Hub({
          settings,
          history: historyOf(recent, store, now),
          observer: {
            evicted: evicted.add,
            delivered: latency.add,
            seen: (token) => instruments.seen([token])
          },
          now
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
        yield* figure(Metric.withAttributes(metrics.bufferSize, client), () => hub.fullest.size)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, client), () => hub.fullest.capacity)
        return hub
      })
    )
}
