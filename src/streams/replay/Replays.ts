/** Decides what a replay is from outside: how one is asked for, what is told of it, and how it is steered. */
import { Context, type Effect, Schema } from "effect"
import type { Overloaded, StoreError } from "../../schema/Errors.ts"
import { InstrumentToken } from "../../schema/RawValues.ts"
import { TradingDate } from "../../schema/Time.ts"
import type { Replayed } from "../log/follow.ts"

/** Above this, pacing means nothing any more: ask for "inf". */
export const MAX_SPEED = 1_000_000
/** Below this a minute of the market takes most of a day. */
export const MIN_SPEED = 0.001
/** Symbols or tokens named in one request; for more there is `all`. */
export const MAX_REPLAY_SYMBOLS = 10_000

/** EXCHANGE:TRADINGSYMBOL is shorter. */
const MAX_SYMBOL_CHARS = 100

/** How many times faster than the market; `inf`: as fast as it goes. */
export const Speed = Schema.Union([
  Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: MIN_SPEED, maximum: MAX_SPEED }))),
  Schema.Literal("inf")
]).annotate({
  identifier: "Speed",
  expected: `a number from ${MIN_SPEED} to ${MAX_SPEED}, or "inf"`,
  description: "times the market's own pace; inf: as fast as it goes"
})
export type Speed = typeof Speed.Type

const TimeOfDay = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter(
      (text: string) => /^([01]\d|2[0-3]):[0-5]\d$|^24:00$/.test(text) || "Expected a time of day in IST such as 09:15"
    )
  )
)

const named = <S extends Schema.Constraint>(item: S) =>
  Schema.Array(item).pipe(Schema.check(Schema.isBetweenLength(1, MAX_REPLAY_SYMBOLS)))

/** One of `symbols`, `tokens` and `all: true`; `from` and `to` narrow the trading day, half-open, in IST. */
export const ReplayRequest = Schema.Struct({
  symbols: Schema.optionalKey(named(Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_SYMBOL_CHARS))))),
  tokens: Schema.optionalKey(named(InstrumentToken)),
  all: Schema.optionalKey(Schema.Boolean),
  date: TradingDate,
  speed: Schema.optionalKey(Speed),
  from: Schema.optionalKey(TimeOfDay),
  to: Schema.optionalKey(TimeOfDay),
  source: Schema.optionalKey(Schema.Literals(["store", "archive"])),
  paused: Schema.optionalKey(Schema.Boolean),
  loop: Schema.optionalKey(Schema.Boolean),
  detached: Schema.optionalKey(Schema.Boolean)
}).annotate({ identifier: "ReplayRequest" })
export type ReplayRequest = typeof ReplayRequest.Type

/** What PATCH may say. `seek` and `step` are known by name only so that they can be refused by name. */
export const ReplayChange = Schema.Struct({
  state: Schema.optionalKey(Schema.Literals(["paused", "running"])),
  speed: Schema.optionalKey(Speed),
  seek: Schema.optionalKey(Schema.Unknown),
  step: Schema.optionalKey(Schema.Unknown)
}).annotate({ identifier: "ReplayChange" })
export type ReplayChange = typeof ReplayChange.Type

export const ReplayState = Schema.Literals(["running", "paused", "ended", "failed"])
export type ReplayState = typeof ReplayState.Type

/** A replay as REST shows it. Times are epoch microseconds. */
export const Replay = Schema.Struct({
  id: Schema.String,
  state: ReplayState,
  speed: Speed,
  /** How far the market has come in this run: everything up to here has come out. Null before the first tick. */
  clock: Schema.NullOr(Schema.Int),
  /** Counts runs of this replay from 1; each has a state of its own in the pipeline. */
  run: Schema.Int,
  from: Schema.Int,
  to: Schema.Int,
  /** Ticks that went through the pipeline and came out so far. */
  sent: Schema.Int,
  total: Schema.Int,
  /** Why it failed; only where it did. */
  failure: Schema.optionalKey(Schema.Struct({ _tag: Schema.String, message: Schema.String }))
}).annotate({ identifier: "Replay" })
export type Replay = typeof Replay.Type

/** No replay of that id, or it ended so long ago that it is no longer listed. */
export class UnknownReplay extends Schema.TaggedError<UnknownReplay>()("UnknownReplay", {
  message: Schema.String,
  parameter: Schema.Literal("id")
}) {}

/** A symbol or token that is none, named in the message. */
export class UnknownSymbol extends Schema.TaggedError<UnknownSymbol>()("UnknownSymbol", {
  message: Schema.String,
  parameter: Schema.Literals(["symbols", "tokens"])
}) {}

/** A request that reads well but cannot be had: `parameter` says which part. */
export class ReplayRefused extends Schema.TaggedError<ReplayRefused>()("ReplayRefused", {
  message: Schema.String,
  parameter: Schema.String
}) {}

/** The replay is over; nothing can be changed any more. */
export class ReplayOver extends Schema.TaggedError<ReplayOver>()("ReplayOver", { message: Schema.String }) {}

export class Replays extends Context.Service<
  Replays,
  {
    readonly start: (
      request: ReplayRequest
    ) => Effect.Effect<Replay, ReplayRefused | UnknownSymbol | Overloaded | StoreError>
    /** Newest first; those that are over stay for a while. */
    readonly list: Effect.Effect<ReadonlyArray<Replay>>
    readonly get: (id: string) => Effect.Effect<Replay, UnknownReplay>
    readonly change: (
      id: string,
      change: ReplayChange
    ) => Effect.Effect<Replay, UnknownReplay | ReplayRefused | ReplayOver>
    /** Ends it; asking again changes nothing. It stays listed as ended. */
    readonly stop: (id: string) => Effect.Effect<void, UnknownReplay>
    /** Whether a simulated instrument is in it; false where it is not known. */
    readonly isSimulated: (id: string) => boolean
    /** Takes what the server's reader of a partition found for replays; runs that are not this server's are passed over. */
    readonly returned: (partition: number, items: ReadonlyArray<Replayed>) => void
  }
>()("market-data-platform/streams/Replays") {}
