/** Decides what a replay is from outside: how one is asked for, what is told of it, and how it is steered. */
import { Context, type Effect, Schema } from "effect"
import { Interval } from "../../schema/Candle.ts"
import type { Overloaded, StoreError } from "../../schema/Errors.ts"
import { InstrumentToken } from "../../schema/RawValues.ts"
import { Time, TradingDate } from "../../schema/Time.ts"
import type { Replayed } from "../log/follow.ts"

/** Above this, pacing means nothing any more: ask for "inf". */
export const MAX_SPEED = 1_000_000
/** Below this a minute of the market takes most of a day. */
export const MIN_SPEED = 0.001
/** Symbols or tokens named in one request; for more there is `all`. */
export const MAX_REPLAY_SYMBOLS = 10_000

/** Ticks, and bars, that one step takes at most: for more a replay runs. */
export const MAX_STEP_TICKS = 1_000_000
export const MAX_STEP_BARS = 1_000

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

/** A time of the replayed day, to the second where need be. */
const DayTime = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter(
      (text: string) =>
        /^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$/.test(text) || "Expected a time of day in IST such as 09:15 or 09:15:30"
    )
  )
)

/** Where a replay is to go: epoch microseconds, or a time of its day in IST, as text. */
export const Seek = Schema.Union([Time, DayTime]).annotate({
  identifier: "Seek",
  expected:
    "epoch microseconds, ISO-8601 with an offset, or a time of the replay's day in IST such as 09:20 or 09:20:30",
  description:
    "a time from the replay's from to before its to: epoch microseconds, ISO-8601 with an offset, or HH:MM[:SS] of its day in IST"
})

const count = (most: number) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: most }))).annotate({
    expected: `a whole number from 1 to ${most}`
  })

/** So many ticks, or bars: exactly one of `ticks` and `bars`, the latter with their `interval`. */
export const Step = Schema.Struct({
  ticks: Schema.optionalKey(count(MAX_STEP_TICKS)),
  bars: Schema.optionalKey(count(MAX_STEP_BARS)),
  interval: Schema.optionalKey(Interval)
}).annotate({
  identifier: "Step",
  description: "either ticks, or bars with their interval (bars that have ticks; the one under way is the first)"
})
export type Step = typeof Step.Type

/**
 * What PATCH may say: a `seek` goes with `state` and `speed`, a `step` goes alone. A seek begins a new run. A step is
 * taken at once, whatever the speed, and the replay is paused after it, also where it ran before.
 */
export const ReplayChange = Schema.Struct({
  state: Schema.optionalKey(Schema.Literals(["paused", "running"])),
  speed: Schema.optionalKey(Speed),
  seek: Schema.optionalKey(Seek),
  step: Schema.optionalKey(Step)
}).annotate({ identifier: "ReplayChange" })
export type ReplayChange = typeof ReplayChange.Type

export const ReplayState = Schema.Literals(["running", "paused", "ended", "failed"])
export type ReplayState = typeof ReplayState.Type

/** A replay as REST shows it. Times are epoch microseconds. */
export const Replay = Schema.Struct({
  id: Schema.String,
  state: ReplayState,
  speed: Speed,
  clock: Schema.NullOr(Schema.Int).annotate({
    description:
      "how far the market has come in this run: everything of the run up to here has come out. Before its first tick: the time that was sought, else null"
  }),
  run: Schema.Int.annotate({
    description:
      "counts runs of this replay from 1: a seek begins another, whose ticks, bars and positions count from it"
  }),
  from: Schema.Int,
  to: Schema.Int,
  sent: Schema.Int.annotate({ description: "ticks of this run that have come out: 0 again after a seek" }),
  total: Schema.Int.annotate({
    description:
      "ticks from `from` to `to`, wherever this run began, as counted when the replay was started; of a day under way what is stored by the time that the replay comes to it is replayed too, and `total` is `sent` where that is more"
  }),
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

/** Nothing is stored of what is to be replayed: the message says which days there are. */
export class NothingStored extends Schema.TaggedError<NothingStored>()("NothingStored", {
  message: Schema.String,
  parameter: Schema.Literal("date")
}) {}

/** A request that reads well but cannot be had: `parameter` says which part. */
export class ReplayRefused extends Schema.TaggedError<ReplayRefused>()("ReplayRefused", {
  message: Schema.String,
  parameter: Schema.String
}) {}

/** So many steps wait already that no more are taken. */
export class StepsWaiting extends Schema.TaggedError<StepsWaiting>()("StepsWaiting", { message: Schema.String }) {}

/** The replay is over; nothing can be changed any more. */
export class ReplayOver extends Schema.TaggedError<ReplayOver>()("ReplayOver", { message: Schema.String }) {}

export class Replays extends Context.Service<
  Replays,
  {
    readonly start: (
      request: ReplayRequest
    ) => Effect.Effect<Replay, ReplayRefused | UnknownSymbol | NothingStored | Overloaded | StoreError>
    /** Newest first; those that are over stay for a while. */
    readonly list: Effect.Effect<ReadonlyArray<Replay>>
    readonly get: (id: string) => Effect.Effect<Replay, UnknownReplay>
    readonly change: (
      id: string,
      change: ReplayChange
    ) => Effect.Effect<Replay, UnknownReplay | ReplayRefused | ReplayOver | StepsWaiting>
    /** Ends it; asking again changes nothing. It stays listed as ended. */
    readonly stop: (id: string) => Effect.Effect<void, UnknownReplay>
    /** Whether a simulated instrument is in it; false where it is not known. */
    readonly isSimulated: (id: string) => boolean
    /** Which instruments a replay is of: those that it was started with, of `all` every one; none where it is not known. */
    readonly holds: (id: string) => (token: number) => boolean
    /** Takes what the server's reader of a partition found for replays; runs that are not this server's are passed over. */
    readonly returned: (partition: number, items: ReadonlyArray<Replayed>) => void
  }
>()("market-data-platform/streams/Replays") {}
