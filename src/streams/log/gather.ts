/** Decides when a sink writes: once enough ticks have come, or some time after the first of them. */
import { Cause, Effect, Exit, Latch, Stream } from "effect"

export interface GatherOptions<A> {
  /** Of a batch. */
  readonly count: (batch: A) => number
  /** Ticks of a group at most, unless a single batch has more. */
  readonly ticks: number
  /** Longest wait after the first batch of a group. */
  readonly ms: number
  /** Once this completes nothing waits any more: a stop has begun. */
  readonly drain: Effect.Effect<void>
}

/** Groups the batches of one stream; see `gatherFrom`. */
export const gather =
  <A>(options: GatherOptions<A>) =>
  <E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<ReadonlyArray<A>, E, R> =>
    gatherFrom(options, (push) => Stream.runForEach(self, push))

/**
 * Groups what `source` pushes, from as many streams as it likes. While the sink is busy the next groups fill; once two
 * of them wait, a push does too (`block`). A push counts from its call on, and completes once there is room. What is
 * gathered when the source ends comes out at once.
 */
export const gatherFrom = <A, E, R>(
  options: GatherOptions<A>,
  source: (push: (batch: A) => Effect.Effect<void>) => Effect.Effect<void, E, R>
): Stream.Stream<ReadonlyArray<A>, E, R> =>
  Stream.unwrap(
    Effect.gen(function* () {
      /** An empty batch still carries a bookmark, so it weighs something. */
      const weight = (batch: A): number => Math.max(1, options.count(batch))
      let waiting: Array<A> = []
      let total = 0
      let ended: Exit.Exit<void, E> | undefined
      const arrived = yield* Latch.make(false)
      const full = yield* Latch.make(false)
      const room = yield* Latch.make(true)

      yield* source((batch) => {
        waiting.push(batch)
        total += weight(batch)
        arrived.openUnsafe()
        if (total >= options.ticks) full.openUnsafe()
        if (total >= options.ticks * 2) room.closeUnsafe()
        return room.await
      }).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            ended = exit
            arrived.openUnsafe()
            full.openUnsafe()
          })
        ),
        Effect.forkScoped
      )

      const take = (): ReadonlyArray<A> => {
        let count = 0
        let taken = 0
        while (count < waiting.length) {
          const next = weight(waiting[count]!)
          if (count > 0 && taken + next > options.ticks) break
          taken += next
          count++
        }
        const group = waiting.slice(0, count)
        waiting = waiting.slice(count)
        total -= taken
        if (ended === undefined) {
          if (waiting.length === 0) arrived.closeUnsafe()
          if (total < options.ticks) full.closeUnsafe()
        }
        if (total < options.ticks * 2) room.openUnsafe()
        return group
      }
      const next = Effect.gen(function* () {
        yield* arrived.await
        yield* Effect.raceAllFirst([full.await, Effect.sleep(options.ms), options.drain])
        if (waiting.length > 0) return take()
        if (ended !== undefined && Exit.isFailure(ended)) return yield* Effect.failCause(ended.cause)
        return yield* Cause.done()
      })
      return Stream.fromEffectRepeat(next)
    })
  )
