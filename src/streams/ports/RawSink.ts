/** Decides what a feed needs: a place that takes raw ticks and answers once the log has them. */
import { Context, Effect, Schedule } from "effect"
import { type FeedError, type LogError, Overloaded } from "../../schema/Errors.ts"

/** One raw tick on its way to `raw_ticks`: the record's key is the token in decimal. */
export interface RawSinkTick {
  readonly token: number
  /** The raw tick as JSON, UTF-8. */
  readonly value: Uint8Array
  readonly headers?: Readonly<Record<string, string>>
}

export class RawSink extends Context.Service<
  RawSink,
  {
    /**
     * Takes ticks in order and is done once the log has all of them. Waits where the log is full. Ticks of one
     * instrument keep the order of the calls that one caller makes one after another. Where it fails, some of the
     * ticks may be in the log: sending them again adds no row, since the same input has the same identity.
     */
    readonly publish: (ticks: ReadonlyArray<RawSinkTick>) => Effect.Effect<void, LogError | Overloaded | FeedError>
  }
>()("market-data-platform/streams/RawSink") {}

/** Publishes, but waits no longer than `waitMs` for a full log: then it is `Overloaded`. */
export const publishWithin = (
  sink: RawSink["Service"],
  ticks: ReadonlyArray<RawSinkTick>,
  waitMs: number
): Effect.Effect<void, LogError | Overloaded | FeedError> =>
  sink.publish(ticks).pipe(
    Effect.timeoutOrElse({
      duration: waitMs,
      orElse: () =>
        Effect.fail(new Overloaded({ message: `the log stayed full for ${waitMs} ms`, retryAfterSeconds: 1 }))
    })
  )

/** How often, and how many times, an overloaded sink is asked again. */
const OVERLOAD_WAIT_MS = 1000
const OVERLOAD_TIMES = 60

/** Publishes for a feed that can wait: an overloaded sink is asked again for a minute. */
export const publishPatiently = (
  sink: RawSink["Service"],
  ticks: ReadonlyArray<RawSinkTick>
): Effect.Effect<void, LogError | Overloaded | FeedError> =>
  sink.publish(ticks).pipe(
    Effect.retry({
      while: (error) => error._tag === "Overloaded",
      times: OVERLOAD_TIMES,
      schedule: Schedule.spaced(OVERLOAD_WAIT_MS)
    })
  )
