/**
 * Decides what the client knows of the wire: what it may send to `/ws`, what comes back, and what it makes of that for
 * the application. `test/client/messages.test.ts` holds these types to those of the server.
 */

export type Channel = "tick" | "gap" | "quote" | "candle_1m" | "candle_5m" | "state"
/** What the server does with a client that reads too slowly. */
export type Policy = "evict-oldest" | "conflate" | "pause" | "disconnect"
/** A trading symbol such as `NSE:INFY`, or an instrument's token. */
export type InstrumentName = string | number
/** Where an instrument's stream stands: the epoch, and the last position in it. */
export type Place = readonly [epoch: number, position: number]
/** Places by instrument token, as `since` takes them. */
export type Places = Readonly<Record<string, Place>>

/**
 * One entry of the answer to a subscription. `symbol` is there where it was asked for by name; `at` is where the stream
 * stands, there where it is not where `since` says.
 */
export type Answer =
  | {
      readonly instrument_token: number
      readonly symbol?: string
      readonly accepted: true
      readonly known: boolean
      readonly at?: Place
    }
  | {
      readonly instrument_token?: number
      readonly symbol?: string
      readonly accepted: false
      readonly reason: string
      readonly at?: Place
    }

/** A tick as the server sends it. Times are epoch microseconds, prices rupees. */
export interface TickFrame {
  readonly type: "tick"
  readonly instrument_token: number
  readonly price: number
  readonly volume: number
  /** `STALE`: it shows a gap, or came out of order. */
  readonly status: "LIVE" | "STALE"
  readonly exchange_ts: number
  readonly sequence_id: number
  readonly epoch: number
  readonly position: number
}

export interface BackfillFrame {
  readonly type: "backfill"
  readonly instrument_token: number
  readonly epoch: number
  readonly from: number
  readonly to: number
  /** False: something before `from` is not to be had. */
  readonly recovered: boolean
  readonly data: ReadonlyArray<TickFrame>
}

export interface EvictedFrame {
  readonly type: "evicted"
  readonly instrument_token: number
  readonly epoch: number
  readonly from: number
  readonly to: number
  readonly count: number
}

/** Sequence ids of the exchange that are missing, or that came after all. */
export interface Gap {
  readonly type: "gap" | "gap_filled"
  readonly instrument_token: number
  readonly from: number
  readonly to: number
}

/** A bar as it stands; a later one of the same `ts` replaces it. */
export interface Candle {
  readonly type: "candle"
  readonly instrument_token: number
  readonly interval: "1m" | "5m"
  /** The bar's start, epoch microseconds. */
  readonly ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
  /** The last open interest that a quote of its time said; absent where none did. */
  readonly oi?: number
  /** Ticks in the bar: the larger is the newer. */
  readonly revision: number
  /** The bar's time is over. A late tick may still bring a larger revision. */
  readonly final: boolean
}

/** One level of the book: rupees, and how much lies there in how many orders (0: not known). */
export type Level = readonly [price: number, quantity: number, orders: number]

/** What is known of an instrument's book and day; what is not known is absent. Times are epoch microseconds. */
export interface QuoteFields {
  /** Up to five levels, best first; empty where nobody bids. */
  readonly bid?: ReadonlyArray<Level>
  readonly ask?: ReadonlyArray<Level>
  readonly total_buy_quantity?: number
  readonly total_sell_quantity?: number
  /** Open interest. */
  readonly oi?: number
  readonly oi_day_high?: number
  readonly oi_day_low?: number
  /** The day's average by volume. */
  readonly average_price?: number
  readonly last_quantity?: number
  readonly last_trade_ts?: number
  /** The day's as the exchange has them. */
  readonly open?: number
  readonly high?: number
  readonly low?: number
  readonly previous_close?: number
  readonly lower_circuit?: number
  readonly upper_circuit?: number
  readonly day_volume?: number
}

/** The quote as it stands: a later one replaces all of it. */
export interface QuoteUpdate extends QuoteFields {
  readonly type: "quote"
  readonly instrument_token: number
  readonly exchange_ts: number
}

/** Whether an instrument trades: `stale` is silent for longer than is usual for it, in trading hours. */
export interface InstrumentState {
  readonly type: "state"
  readonly instrument_token: number
  readonly state: "live" | "stale" | "closed"
  /** Epoch microseconds. */
  readonly since: number
}

/** The time of a replay's market. */
export interface Clock {
  readonly type: "clock"
  readonly replay: string
  /** Counts from 1; a later run has places of its own. */
  readonly run: number
  /** Epoch microseconds; null before the first tick. */
  readonly ts: number | null
  readonly state: string
}

export interface SubscribedFrame {
  readonly type: "subscribed"
  readonly id?: unknown
  readonly simulated: boolean
  readonly tokens: ReadonlyArray<Answer>
}

export interface UnsubscribedFrame {
  readonly type: "unsubscribed"
  readonly id?: unknown
  readonly tokens: ReadonlyArray<{
    readonly instrument_token?: number
    readonly symbol?: string
    readonly removed: boolean
  }>
  /** Tokens that are still subscribed. */
  readonly held: ReadonlyArray<number>
}

export interface AuthorizedFrame {
  readonly type: "authorized"
  readonly id?: unknown
  /** The key's name. */
  readonly key: string
  readonly scopes: ReadonlyArray<string>
  /** Epoch microseconds; null: never. */
  readonly expires: number | null
}

export interface ErrorFrame {
  readonly type: "error"
  readonly code: string
  readonly message: string
  readonly id?: unknown
}

/** What a client that is about to be closed is told. */
export interface Closing {
  readonly type: "closing"
  readonly code: number
  readonly reason: string
  readonly since: Places
}

export interface PongFrame {
  readonly type: "pong"
}

/** Every frame of the server; with `batch` a frame is an array of these. */
export type ServerMessage =
  | SubscribedFrame
  | UnsubscribedFrame
  | AuthorizedFrame
  | BackfillFrame
  | TickFrame
  | EvictedFrame
  | Gap
  | Candle
  | QuoteUpdate
  | InstrumentState
  | Clock
  | Closing
  | ErrorFrame
  | PongFrame

export type ClientMessage =
  | {
      readonly action: "subscribe"
      readonly tokens?: ReadonlyArray<number>
      readonly symbols?: ReadonlyArray<string>
      readonly since?: Places
      readonly backfill?: number
      readonly channels?: ReadonlyArray<Channel>
      readonly policy?: Policy
      readonly capacity?: number
      readonly batch?: boolean
      readonly replay?: string
      readonly id?: unknown
    }
  | {
      readonly action: "unsubscribe"
      readonly tokens?: ReadonlyArray<number>
      readonly symbols?: ReadonlyArray<string>
      readonly id?: unknown
    }
  | { readonly action: "auth"; readonly key: string; readonly id?: unknown }
  | { readonly action: "ping"; readonly id?: unknown }

// What the application gets ------------------------------------------------------------------------------------------

/** A tick as the application gets it; `live` is false where it came in a backfill. */
export interface Tick extends TickFrame {
  readonly live: boolean
}

/**
 * Ticks that the application does not get. `slow`: the server's queue for this client was full. `gone`: asked for, and
 * not to be had any more; the range is null where nobody knows it. `buffer`: the application left its own stream full.
 */
export interface Missed {
  readonly type: "missed"
  readonly instrument_token: number
  readonly epoch: number
  readonly from: number | null
  readonly to: number | null
  readonly count: number | null
  readonly reason: "slow" | "gone" | "buffer"
}

/**
 * Positions begin at 1 again. `day`: it is another trading day. `lost`: the platform lost its state; what it had
 * published after `from` and nobody took is not known. `behind`: this server knows only an older epoch.
 */
export interface EpochChange {
  readonly type: "epoch"
  readonly instrument_token: number
  readonly from: Place
  readonly to: Place
  readonly reason: "day" | "lost" | "behind"
}

/** A replay begins anew: epochs and positions as well. */
export interface RunChange {
  readonly type: "run"
  readonly replay: string
  readonly run: number
}

/** What a stream of everything gives, in the order in which it happened. */
export type Message = Tick | Missed | EpochChange | RunChange | Gap | Candle | QuoteUpdate | InstrumentState | Clock
