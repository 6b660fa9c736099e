/**
 * Decides what the parts of the fan-out need of one another: a channel of its hub and its members, a client of its hub.
 * The parts import this and not each other, but in one direction: channel <- client <- hub.
 */
import type { Quote } from "../../schema/Quote.ts"
import type { Segment } from "../../schema/Sessions.ts"
import type { Tick } from "../../schema/Tick.ts"
import type { Bookmark } from "../log/bookmark.ts"
import type { ClientQueue, Frame, Held } from "./ClientQueue.ts"
import type { History } from "./history.ts"

/** Why the newest revision of a bar is not told, as its figure is labelled: see `StoredBars.ts`. */
export type GivenUp = "full" | "unanswered" | "failed"

/** Where a publish comes from. */
export interface Origin {
  /** Where its partition is read on from. */
  readonly bookmark: LogPlace
  /** It was published before this server began: the reader is yet to catch up. */
  readonly isBehind: boolean
}

/** A place in `normalized_ticks`: all before `offset`. */
export type LogPlace = Pick<Bookmark, "partition" | "incarnation" | "offset">

export interface HubSettings {
  /** Newest ticks kept of each instrument. */
  readonly RING_TICKS: number
  /** Newest ticks kept of all instruments of a channel together. */
  readonly HUB_TICKS: number
  readonly CLIENT_CAPACITY: number
  readonly CLIENT_BUFFER_BYTES: number
  /** How long a client with policy `pause` may be behind, in milliseconds. */
  readonly CLIENT_PAUSE_MS: number
  readonly MAX_CLIENT_TOKENS: number
  /** Instruments that all clients together subscribe to or have left and may come back to. */
  readonly MAX_SUBSCRIPTIONS: number
  /** Ticks queued for all clients together. */
  readonly CLIENTS_TICKS: number
  /** Bytes that wait for all clients together: their messages, answers, and what sockets have not sent. */
  readonly CLIENTS_BYTES: number
  /** Instruments remembered in a channel; those that were silent longest go. */
  readonly HUB_INSTRUMENTS: number
  /** Newest one-minute bars kept of all instruments of a channel together. */
  readonly HUB_BARS: number
  /** Newest quotes kept in a channel, one an instrument; those of who was silent longest go. */
  readonly HUB_QUOTES: number
  /** Changed bars are told at most this often. */
  readonly CANDLE_MS: number
  /** How far ahead of the log's clock a tick may be stamped. */
  readonly MAX_FUTURE_SKEW_MS: number
}

/** Who follows a channel beside its clients, by plain calls that never wait. */
export interface Follower {
  /** What was published, each in order, what the channel has passed over included. */
  readonly published: (ticks: ReadonlyArray<Tick>, quotes: ReadonlyArray<Quote>) => void
  /** Something may have been lost on its way here: of which instruments nobody knows. */
  readonly missed: () => void
  /** A run begins anew: what came before counts no more. */
  readonly restart: () => void
  /** Nothing more comes. */
  readonly close: () => void
}

/** What a channel needs of the hub that it belongs to. */
export interface ChannelHost {
  readonly settings: HubSettings
  /** An instrument's first tick in the live channel has come. */
  readonly seen: (token: number) => void
  /** Sends what was marked for these clients. */
  readonly deliver: (queues: ReadonlyArray<ClientQueue>, frames: ReadonlyArray<Frame>) => void
  /** Sends what waits in these clients' slots. */
  readonly handOver: (queues: ReadonlyArray<ClientQueue>) => void
  /** Epoch microseconds, by the clock that says when a bar is final: REST's. */
  readonly time: () => number
  /** The partition that an instrument's live ticks lie in. */
  readonly partitionOf: (token: number) => number
  /** Undefined where no trading hours are known. */
  readonly segment: (token: number, day?: number) => Segment | undefined
  /** Whether a token still means what it meant when the quote was. */
  readonly isCurrent: (quote: Quote) => boolean
  /** Undefined: what is not in memory is not to be had. */
  readonly history: History | undefined
  readonly look: <A>(ask: (history: History) => Promise<A>, otherwise: A) => Promise<A>
  /** The newest revision of a bar was given up. */
  readonly gaveUp: (why: GivenUp) => void
}

/** What a channel needs of a client in it. */
export interface Member {
  readonly queue: ClientQueue
  /** The channel begins a run anew. */
  readonly restart: () => void
  /** The channel ends. */
  readonly leave: () => void
}

/** What a client needs of the hub that it is connected to. */
export interface ClientHost {
  readonly settings: HubSettings
  /** What waits for all clients together. */
  readonly held: Held
  /** Undefined: what is not in memory is not to be had. */
  readonly history: History | undefined
  /** Milliseconds after its connect within which a client's place may be ahead of what has come in here. */
  readonly graceMs: number
  /** Instruments that clients subscribe to or have left, all clients together. */
  subscriptions: number
  /** Epoch microseconds. */
  readonly now: () => number
  readonly look: <A>(ask: (history: History) => Promise<A>, otherwise: A) => Promise<A>
  readonly flushClient: (queue: ClientQueue) => void
  /** A client does not read, and its streams wait. */
  readonly paused: () => void
  /** Ticks of a client that was to lose none are not to be had any more, and told. */
  readonly lost: (ticks: number) => void
  /** Ends a client that something broke for. */
  readonly fail: (queue: ClientQueue, error: unknown) => void
}
