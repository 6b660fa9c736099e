/** Decides what a replay is to those who start, watch and steer one, whoever runs it. */
import { Context, type Effect, Schema } from "effect"

/** Times the recorded pace, or `inf`: as fast as the pipeline takes them. */
export type ReplaySpeed = number | "inf"
export type ReplayState = "running" | "paused" | "ended" | "failed"

/** What is asked for; symbols, dates and clock times have been made tokens and epoch microseconds. */
export interface ReplayRequest {
  /** `all`: every instrument that has ticks in the range. */
  readonly tokens: ReadonlyArray<number> | "all"
  /** `YYYY-MM-DD`, the trading day. */
  readonly date: string
  /** Epoch microseconds, inclusive. */
  readonly from: number
  /** Epoch microseconds, exclusive. */
  readonly to: number
  readonly speed: ReplaySpeed
  readonly source: "store" | "archive"
  /** Starts paused, so that a client can subscribe before the first tick. */
  readonly paused: boolean
  readonly loop: boolean
  /** Goes on without clients. */
  readonly detached: boolean
}

export interface ReplayStatus {
  readonly id: string
  readonly state: ReplayState
  readonly speed: ReplaySpeed
  /** The replay's own time, epoch microseconds; null before its first tick. */
  readonly clock: number | null
  /** Counts up with every loop or seek: each is a run with fresh state. */
  readonly run: number
  readonly from: number
  readonly to: number
  readonly sent: number
  readonly total: number
  /** Why it failed; null in every other state. */
  readonly reason: string | null
}

export interface ReplayChange {
  readonly state?: "running" | "paused"
  readonly speed?: ReplaySpeed
}

/** No replay has this id, or it was stopped. */
export class ReplayNotFound extends Schema.TaggedError<ReplayNotFound>()("ReplayNotFound", { id: Schema.String }) {}

/** The request is well-formed but cannot be done: nothing to replay, a source that is not there. */
export class ReplayRefused extends Schema.TaggedError<ReplayRefused>()("ReplayRefused", {
  parameter: Schema.String,
  message: Schema.String
}) {}

/** The replay is in a state that the change does not fit, such as resuming one that has ended. */
export class ReplayConflict extends Schema.TaggedError<ReplayConflict>()("ReplayConflict", {
  id: Schema.String,
  message: Schema.String
}) {}

/** As many replays run as are allowed at a time. */
export class TooManyReplays extends Schema.TaggedError<TooManyReplays>()("TooManyReplays", { limit: Schema.Int }) {}

/** What a replay needs does not answer. */
export class ReplayUnavailable extends Schema.TaggedError<ReplayUnavailable>()("ReplayUnavailable", {
  message: Schema.String
}) {}

export class Replays extends Context.Service<
  Replays,
  {
    readonly start: (
      request: ReplayRequest
    ) => Effect.Effect<ReplayStatus, ReplayRefused | TooManyReplays | ReplayUnavailable>
    /** Those that run, are paused, or ended a short while ago; oldest first, a bounded number. */
    readonly list: Effect.Effect<ReadonlyArray<ReplayStatus>>
    readonly get: (id: string) => Effect.Effect<ReplayStatus, ReplayNotFound>
    readonly patch: (id: string, change: ReplayChange) => Effect.Effect<ReplayStatus, ReplayNotFound | ReplayConflict>
    /** Ends it and forgets it. */
    readonly stop: (id: string) => Effect.Effect<void, ReplayNotFound>
  }
>()("market-data-platform/streams/Replays") {}
