/**
 * Decides what the client knows of REST's answers and requests. `test/client/messages.test.ts` holds these types to those
 * of the server. Times in answers are epoch microseconds, prices rupees.
 */
import type { QuoteFields, TickFrame } from "./messages.ts"

/** Epoch microseconds, ISO-8601 with an offset such as `2026-01-15T09:15:00+05:30`, or a Date. */
export type Time = number | string | Date

export type AssetClass = "EQ" | "FUT" | "OPT" | "INDEX"
export type Interval = "1m" | "5m" | "15m" | "30m" | "1h" | "1d"

export interface Instrument {
  readonly instrument_token: number
  readonly tradingsymbol: string
  readonly exchange: string
  readonly asset_class: AssetClass
  readonly tick_size: number
  readonly name: string | null
  /** `YYYY-MM-DD`. */
  readonly expiry: string | null
  readonly strike: number | null
  readonly option_type: "CE" | "PE" | null
  readonly lot_size: number | null
  /** The day asked for is after its expiry. */
  readonly expired: boolean
  /** `YYYY-MM-DD`: the days on which its token means it; null where no other meaning is known before, or after. */
  readonly valid_from: string | null
  readonly valid_through: string | null
}

/** A tick as history has it; `epoch` and `position` are null where a replay added it. */
export interface HistoricalTick
  extends Pick<TickFrame, "instrument_token" | "exchange_ts" | "price" | "volume" | "sequence_id" | "status"> {
  readonly session: number
  readonly sequencing: "contiguous" | "monotonic" | "none"
  readonly epoch: number | null
  readonly position: number | null
  readonly feed: string
  readonly received_ts: number
}

/** A bar of history. */
export interface Bar {
  /** The bar's start. */
  readonly ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
  /** The last open interest that quotes of the bar's time told; absent where none did. */
  readonly oi?: number
  /** The trading phase at the bar's start, or the one it has where nothing trades there; null where the exchange's hours are not known. */
  readonly phase: "PRE_OPEN" | "CONTINUOUS" | "CAS" | "POST_CLOSE" | "CLOSED" | null
  /** The bar's time is over. */
  readonly final: boolean
}

/** The last tick and its trading day so far, made of ticks; null where the token has no tick. */
export interface Quote {
  readonly instrument_token: number
  readonly last: HistoricalTick | null
  readonly open: number | null
  readonly high: number | null
  readonly low: number | null
  readonly volume: number | null
  /** What is known of its book and day; absent where nothing is. */
  readonly quote?: QuoteFields & { readonly exchange_ts: number }
}

export interface Phase {
  readonly phase: string
  readonly from: number
  readonly to: number
}

export interface CalendarDay {
  readonly exchange: string
  readonly date: string
  /** Why the day is not a regular one: a holiday, a weekend, or a special session's name. */
  readonly holiday: string | null
  readonly phases: ReadonlyArray<Phase>
  readonly segments: Readonly<Record<string, ReadonlyArray<Phase>>>
  /** False beyond the calendar's years: then a weekday counts as open. */
  readonly known: boolean
}

/** Times the market's own pace; `inf`: as fast as it goes. */
export type Speed = number | "inf"

/** One of `symbols`, `tokens` and `all: true`; `from` and `to` such as `09:15` narrow the trading day, in IST. */
export interface ReplayRequest {
  readonly symbols?: ReadonlyArray<string>
  readonly tokens?: ReadonlyArray<number>
  readonly all?: boolean
  /** The trading day, `YYYY-MM-DD`. */
  readonly date: string
  readonly speed?: Speed
  readonly from?: string
  readonly to?: string
  readonly source?: "store" | "archive"
  readonly paused?: boolean
  readonly loop?: boolean
  /** It goes on where nobody listens. */
  readonly detached?: boolean
}

/** So many ticks, or bars of an interval. */
export type Step = { readonly ticks: number } | { readonly bars: number; readonly interval: Interval }

export interface ReplayChange {
  readonly state?: "paused" | "running"
  readonly speed?: Speed
  readonly seek?: Time
  readonly step?: Step
}

export interface ReplayStatus {
  readonly id: string
  readonly state: "running" | "paused" | "ended" | "failed"
  readonly speed: Speed
  /** How far its market has come; before a run's first tick the time that was sought, else null. */
  readonly clock: number | null
  /** Counts from 1; a seek begins a new one. */
  readonly run: number
  readonly from: number
  readonly to: number
  /** Ticks of this run that have come out. */
  readonly sent: number
  /** Ticks from `from` to `to`, wherever the run began. */
  readonly total: number
  readonly failure?: { readonly _tag: string; readonly message: string }
}
