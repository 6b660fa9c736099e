/** Decides what an application has of the platform in one object: the market live, replays, and history by REST. */
import type {
  AssetClass,
  Bar,
  CalendarDay,
  HistoricalTick,
  Instrument,
  Interval,
  Quote,
  ReplayChange,
  ReplayRequest,
  ReplayStatus,
  Time
} from "./answers.ts"
import { RECONNECT, type Reconnect } from "./backoff.ts"
import { ClientClosed, RequestFailed, Unsupported } from "./errors.ts"
import { Feed, type FeedOptions } from "./Feed.ts"
import { HEARTBEAT, type Heartbeat, type Key, type LinkState, type SocketConstructor } from "./Link.ts"
import type { InstrumentName, Policy } from "./messages.ts"
import { Replay } from "./Replay.ts"
import { Keys, type RequestOptions, Rest } from "./Rest.ts"
import { checkBuffer, Source, shown } from "./Source.ts"
import type { WhenFull } from "./Subscription.ts"

export interface ConnectOptions {
  /** `http://127.0.0.1:8080`, or `ws://127.0.0.1:8080/ws`; a page's own server unless given. */
  readonly url?: string
  /** An API key, or what gives one: asked on each connection, and again where one was refused. */
  readonly key?: Key
  /** What the server does where this client reads too slowly; `evict-oldest` unless given, and of replays for `pause`. */
  readonly policy?: Policy
  /** Ticks that the server queues for this client. */
  readonly capacity?: number
  /** False: one message a frame. */
  readonly batch?: boolean
  /** Messages that wait for the application in each of its streams; 10,000 unless given. */
  readonly bufferSize?: number
  /** What becomes of more; `evict-oldest` unless given. */
  readonly whenFull?: WhenFull
  readonly reconnect?: Partial<Reconnect>
  readonly heartbeat?: Partial<Heartbeat>
  /** How long a connection may take to be open, authorized included. */
  readonly connectTimeoutMs?: number
  /** How long one try of a REST request may take. */
  readonly timeoutMs?: number
  /** How often a REST request that changes nothing is sent again where it fails for now. */
  readonly retries?: number
  /** Closes the client. */
  readonly signal?: AbortSignal
  /** Another WebSocket than the runtime's, such as that of the package `ws`. */
  readonly WebSocket?: SocketConstructor
  /** Another fetch than the runtime's. */
  readonly fetch?: typeof globalThis.fetch
}

/** Of history: one instrument, by symbol or token, and a half-open range of time. */
export interface RangeOptions extends RequestOptions {
  /** `YYYY-MM-DD`: the day on which a symbol means the instrument; by default those of the range. */
  readonly asOf?: string
  readonly from?: Time
  readonly to?: Time
  /** Rows asked for at a time. */
  readonly pageSize?: number
}

export interface CandleOptions extends RangeOptions {
  readonly interval: Interval
  readonly fill?: "none" | "previous"
  readonly session?: "all" | "regular"
}

export interface AsOfOptions extends RequestOptions {
  /** `YYYY-MM-DD`: as it was on that trading day. */
  readonly asOf?: string
}

export interface SearchOptions extends AsOfOptions {
  readonly exchange?: string
  readonly assetClass?: AssetClass
  readonly limit?: number
}

const BUFFER_SIZE = 10_000
const CONNECT_TIMEOUT_MS = 10_000
const TIMEOUT_MS = 30_000
const RETRIES = 2
/** As the server bounds them. */
const MAX_PAGE = 10_000
const MAX_QUOTES = 300
const EXACT_LIMIT = 20

/** Makes a client. Its socket is opened by the first subscription, and closed when nothing is subscribed any more. */
export const connect = (options: ConnectOptions = {}): Client => new Client(options)

export class Client extends Source {
  /** Where it connects to. */
  readonly url: string
  readonly instruments: {
    /** Words in any order, each the beginning of a word of symbol, name, exchange, expiry, strike or kind; best first. */
    readonly search: (query: string, options?: SearchOptions) => Promise<ReadonlyArray<Instrument>>
    readonly get: (token: number, options?: AsOfOptions) => Promise<Instrument>
    /** The one that is called so, such as `NSE:INFY`; fails with the tag `NotFound` where none is. */
    readonly find: (symbol: string, options?: AsOfOptions) => Promise<Instrument>
  }
  readonly history: {
    /** Ticks of a range, ascending, page after page as they are taken. */
    readonly ticks: (instrument: InstrumentName, options?: RangeOptions) => AsyncGenerator<HistoricalTick, undefined>
    /** Bars of a range, ascending. */
    readonly candles: (instrument: InstrumentName, options: CandleOptions) => AsyncGenerator<Bar, undefined>
  }
  readonly replays: {
    readonly create: (request: ReplayRequest, options?: RequestOptions) => Promise<ReplayStatus>
    /** Newest first. */
    readonly list: (options?: RequestOptions) => Promise<ReadonlyArray<ReplayStatus>>
    readonly get: (id: string, options?: RequestOptions) => Promise<ReplayStatus>
    readonly change: (id: string, change: ReplayChange, options?: RequestOptions) => Promise<ReplayStatus>
    readonly delete: (id: string, options?: RequestOptions) => Promise<void>
  }
  /** @internal */
  protected override readonly feed: Feed
  readonly #rest: Rest
  readonly #open = new Set<Replay>()
  readonly #closing = new AbortController()
  readonly #feedOptions: FeedOptions
  readonly #options: ConnectOptions

  /** @internal */
  constructor(options: ConnectOptions) {
    const sourceOptions = {
      bufferSize: options.bufferSize ?? BUFFER_SIZE,
      whenFull: options.whenFull ?? "evict-oldest"
    }
    super(sourceOptions)
    this.#options = options
    const { socket, base } = addressesOf(options.url)
    this.url = socket
    const WebSocket = options.WebSocket ?? (globalThis as { readonly WebSocket?: SocketConstructor }).WebSocket
    if (WebSocket === undefined) {
      throw new Unsupported("WebSocket: this runtime has none; Node has from 22 on, or give that of the package ws")
    }
    const keys = new Keys(options.key)
    this.#feedOptions = {
      link: {
        url: socket,
        key: keys.isFixed ? options.key : keys.renewed,
        WebSocket,
        reconnect: { ...RECONNECT, ...options.reconnect },
        heartbeat: { ...HEARTBEAT, ...options.heartbeat },
        connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS
      },
      policy: options.policy,
      capacity: options.capacity,
      batch: options.batch ?? true,
      replay: undefined
    }
    this.feed = new Feed(this.#feedOptions, {
      emit: (event, value) => this.emit(event, value),
      hears: (event) => this.hears(event)
    })
    checkBuffer(sourceOptions.bufferSize, sourceOptions.whenFull, this.feed.link.canHold)
    const rest = new Rest({
      base,
      keys,
      // Bound to nothing: some runtimes ask for that.
      fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
      timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
      retries: options.retries ?? RETRIES,
      closed: this.#closing.signal
    })
    this.#rest = rest
    this.instruments = instrumentRoutes(rest)
    this.history = historyRoutes(rest)
    this.replays = replayRoutes(rest)
    const { signal } = options
    if (signal?.aborted === true) this.close()
    else signal?.addEventListener("abort", () => this.close(), { once: true, signal: this.#closing.signal })
  }

  /** What becomes of the socket: `idle` where nothing is subscribed. */
  get state(): LinkState {
    return this.feed.state
  }

  /** The last tick of each instrument and its trading day so far, and what is known of its book. */
  async quotes(tokens: ReadonlyArray<number>, options: RequestOptions = {}): Promise<ReadonlyArray<Quote>> {
    const quotes: Array<Quote> = []
    for (let i = 0; i < tokens.length; i += MAX_QUOTES) {
      const part = tokens.slice(i, i + MAX_QUOTES).join(",")
      const answer = await this.#rest.get<{ readonly quotes: ReadonlyArray<Quote> }>(
        "/quotes",
        { tokens: part },
        options
      )
      quotes.push(...answer.quotes)
    }
    return quotes
  }

  /** The trading phases of a day, `YYYY-MM-DD`, or its holiday. */
  calendar(exchange: string, date: string, options: RequestOptions = {}): Promise<CalendarDay> {
    return this.#rest.get("/calendar", { exchange, date }, options)
  }

  /**
   * Makes a replay and listens to it. Unless it is to be `paused` it runs once what is subscribed of it first has been
   * answered, so that it is told from its first tick on.
   */
  async replay(request: ReplayRequest, options: RequestOptions = {}): Promise<Replay> {
    const status = await this.replays.create({ ...request, paused: true }, options)
    const { bufferSize = BUFFER_SIZE, whenFull = "evict-oldest", policy } = this.#options
    const replay = new Replay(status, {
      bufferSize,
      whenFull,
      // A replay keeps nothing to go on from where a client pauses.
      feed: { ...this.#feedOptions, replay: status.id, policy: policy === "pause" ? undefined : policy },
      routes: this.replays,
      named: request.symbols ?? request.tokens,
      runs: request.paused !== true,
      closed: (one) => this.#open.delete(one)
    })
    if (this.#closing.signal.aborted) replay.leave(new ClientClosed())
    else this.#open.add(replay)
    return replay
  }

  /** Ends everything that it has: streams, replays' streams, requests under way. Replays themselves go on until they are left too long. */
  close(): void {
    if (this.#closing.signal.aborted) return
    this.#closing.abort(new ClientClosed())
    this.feed.close(new ClientClosed())
    for (const replay of this.#open) replay.leave(new ClientClosed())
    this.#open.clear()
  }
}

/** Where `/ws` and `/api/v1` are, with whatever path a proxy puts before them. */
const addressesOf = (given: string | undefined): { readonly socket: string; readonly base: string } => {
  const { location } = globalThis as { readonly location?: { readonly origin?: string } }
  const text = given ?? location?.origin
  if (text === undefined)
    throw new Unsupported("url: expected the server's address such as http://127.0.0.1:8080, got nothing")
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new Unsupported(`url: expected the server's address such as http://127.0.0.1:8080, got ${shown(text)}`)
  }
  const isSecure = url.protocol === "https:" || url.protocol === "wss:"
  if (!isSecure && url.protocol !== "http:" && url.protocol !== "ws:") {
    throw new Unsupported(`url: expected http, https, ws or wss, got ${shown(text)}`)
  }
  const path = url.pathname.replace(/\/+$/, "").replace(/\/ws$/, "")
  return {
    socket: `${isSecure ? "wss" : "ws"}://${url.host}${path}/ws`,
    base: `${isSecure ? "https" : "http"}://${url.host}${path}/api/v1`
  }
}

/** As a request carries it. */
const timeOf = (time: Time | undefined): string | number | undefined =>
  time instanceof Date ? time.getTime() * 1000 : time

const nameOf = (instrument: InstrumentName) =>
  typeof instrument === "number" ? { instrument_token: instrument } : { symbol: instrument }

const segment = (text: string | number): string => encodeURIComponent(String(text))

const instrumentRoutes = (rest: Rest): Client["instruments"] => {
  const search: Client["instruments"]["search"] = async (query, options = {}) => {
    const { asOf, exchange, assetClass, limit } = options
    const answer = await rest.get<{ readonly instruments: ReadonlyArray<Instrument> }>(
      "/instruments/search",
      { query, exchange, asset_class: assetClass, as_of: asOf, limit },
      options
    )
    return answer.instruments
  }
  return {
    search,
    get: (token, options = {}) => rest.get(`/instruments/${segment(token)}`, { as_of: options.asOf }, options),
    find: async (symbol, options) => {
      const near = await search(symbol, { ...options, limit: EXACT_LIMIT })
      const found = near.filter(
        ({ exchange, tradingsymbol }) => symbol === `${exchange}:${tradingsymbol}` || symbol === tradingsymbol
      )
      const [only] = found
      if (only !== undefined && found.length === 1) return only
      const names = found.map(({ exchange, tradingsymbol }) => `${exchange}:${tradingsymbol}`).join(", ")
      const [best] = near
      const hint = best === undefined ? "" : `: did you mean ${best.exchange}:${best.tradingsymbol}?`
      throw new RequestFailed(symbol, {
        _tag: only === undefined ? "NotFound" : "BadRequest",
        message:
          only === undefined
            ? `symbol: no instrument is called ${shown(symbol)}${hint}`
            : `symbol: ${names} are all called ${shown(symbol)}`,
        status: only === undefined ? 404 : 400,
        parameter: "symbol",
        retryAfter: undefined
      })
    }
  }
}

const historyRoutes = (rest: Rest): Client["history"] => ({
  ticks: (instrument, options = {}) => {
    const { asOf, from, to, pageSize = MAX_PAGE } = options
    const query = { ...nameOf(instrument), as_of: asOf, from: timeOf(from), to: timeOf(to), limit: pageSize }
    return rest.pages<HistoricalTick>("/historical/ticks", "ticks", query, options)
  },
  candles: (instrument, options) => {
    const { asOf, from, to, pageSize = MAX_PAGE, interval, fill, session } = options
    const query = {
      ...nameOf(instrument),
      as_of: asOf,
      from: timeOf(from),
      to: timeOf(to),
      limit: pageSize,
      interval,
      fill,
      session
    }
    return rest.pages<Bar>("/historical/candles", "candles", query, options)
  }
})

const replayRoutes = (rest: Rest): Client["replays"] => ({
  create: (request, options) => rest.send("POST", "/replays", request, options),
  list: async (options) =>
    (await rest.get<{ readonly replays: ReadonlyArray<ReplayStatus> }>("/replays", {}, options)).replays,
  get: (id, options) => rest.get(`/replays/${segment(id)}`, {}, options),
  change: (id, { seek, ...change }, options) =>
    rest.send(
      "PATCH",
      `/replays/${segment(id)}`,
      { ...change, ...(seek === undefined ? {} : { seek: timeOf(seek) }) },
      options
    ),
  delete: (id, options) => rest.send("DELETE", `/replays/${segment(id)}`, undefined, options)
})
