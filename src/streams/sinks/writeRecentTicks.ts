/**
 * Decides what the ring takes: live ticks of each instrument's newest day, partition by partition, and after them the
 * latest quotes; and that a ring that does not answer holds no stop up: what it lacks is in the store, and the next run
 * goes on from the group's offset.
 */
import { Clock, Effect, Schedule, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { TickLog } from "../log/TickLog.ts"
import { RecentQuotes } from "../ports/RecentQuotes.ts"
import { RecentTicks } from "../ports/RecentTicks.ts"
import type { Drain } from "../run/Drain.ts"
import type { LostOffsetsSettings } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { consume, type SinkPartition } from "./consume.ts"

/** Once a stop has begun, an append that takes longer is given up, and the group with it. */
const GIVE_UP_MS = 2000
const LOOK = "100 millis"
/** Why a tick or a quote that came is not in the ring. */
export const RING_DISCARDS = ["old", "replay"] as const

/** Runs until it is interrupted, or gives up in a stop. */
export const writeRecentTicks = (
  settings: LostOffsetsSettings
): Effect.Effect<void, LogError, TickLog | RecentTicks | RecentQuotes | Readiness | Drain> =>
  Effect.gen(function* () {
    const ring = yield* RecentTicks
    const latest = yield* RecentQuotes
    const clock = yield* Clock.Clock
    const sink = yield* consume(
      {
        group: "recent",
        sink: "ring",
        discards: RING_DISCARDS
      },
      settings
    )

    /** Since when each partition's append has been under way, ms. */
    const writing = new Map<number, number>()
    const giveUp = Effect.gen(function* () {
      yield* sink.stopping
      const begun = clock.currentTimeMillisUnsafe()
      const isLate = () => {
        const late = clock.currentTimeMillisUnsafe() - GIVE_UP_MS
        return begun <= late && [...writing.values()].some((since) => since <= late)
      }
      yield* Effect.sync(isLate).pipe(Effect.repeat({ until: (is) => is, schedule: Schedule.spaced(LOOK) }))
      yield* Effect.logWarning("the ring does not answer: the stop goes on without it, what it lacks is in the store")
    })

    const write = ({ partition, committed, start, read, ask, done }: SinkPartition) =>
      Effect.gen(function* () {
        yield* read(committed?.offset ?? (yield* start), committed).pipe(
          Stream.runForEach(({ ticks, quotes, replays, bookmark }) =>
            Effect.gen(function* () {
              const fresh = ticks.filter((tick) => !tick.old)
              const told = quotes.filter((quote) => !quote.old)
              const startedAt = clock.currentTimeMillisUnsafe()
              writing.set(partition, startedAt)
              if (fresh.length > 0) yield* ask(ring.append(fresh))
              if (told.length > 0) yield* ask(latest.put(told))
              writing.delete(partition)
              const replay = replays.filter((replay) => "tick" in replay).length
              const replayedQuotes = replays.filter((replay) => "quote" in replay).length
              sink.written({
                ticks: ticks.length + replay,
                discarded: { old: ticks.length - fresh.length, replay },
                quotes: {
                  taken: quotes.length + replayedQuotes,
                  discarded: { old: quotes.length - told.length, replay: replayedQuotes }
                },
                startedAt
              })
              done(bookmark)
            })
          )
        )
      }).pipe(Effect.ensuring(Effect.sync(() => writing.delete(partition))))

    yield* Effect.raceFirst(sink.each(write), giveUp)
  }).pipe(Effect.scoped)
