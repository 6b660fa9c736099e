/** Decides what a feed needs: a place that takes raw ticks and answers once the log has them. */
import { Context, Effect } from "effect"
import { type FeedError, type LogError, Overloaded } from "../schema/Errors.ts"

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
