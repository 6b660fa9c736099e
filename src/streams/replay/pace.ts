/**
 * Decides when a replayed tick is due: the market's time runs against Effect's clock at a speed that may change, or
 * stand still, while ticks flow.
 */
import { type Array as Arr, Clock, Effect, Latch, Stream } from "effect"

/** Ticks come out on this grid: those of one quantum together, so that a watermark follows each quantum, not each tick. */
export const QUANTUM_MS = 20
/**
 * Where what comes after could not keep up for this long, the market's time is set back to the tick that is due, and
 * what follows keeps its shape; a shorter delay is made up for.
 */
export const STALL_MS = 1000
const STALL_QUANTA = STALL_MS / QUANTUM_MS
const MICROS_PER_MS = 1000

export interface Timed {
  readonly exchange_ts: number
}

/** How far a step goes. Counts what it admits, so it serves one step. */
export interface Steps<A> {
  /** Whether this still belongs to it; the first that does not ends it, and waits. */
  readonly admits: (item: A) => boolean
  /** Nothing more belongs to it. */
  readonly isOver: () => boolean
  /** Where the market stands by it; undefined: at the last that went out. */
  readonly end: () => number | undefined
}

/**
 * The clock of one run. At a finite speed the tick at `exchange_ts` is due (exchange_ts - position) / speed after
 * `at`, counted up to the next quantum from there; a pause, resume or change of speed sets position and `at` anew.
 */
export interface Pace<I extends Timed = Timed> {
  readonly pauseUnsafe: () => void
  readonly resumeUnsafe: () => void
  /** Infinity: no waiting. */
  readonly setSpeedUnsafe: (speed: number) => void
  /**
   * Lets out at once what a step admits, after the steps that wait already; then the market stands still, however it was
   * before. A pause or resume before that drops them.
   */
  readonly stepUnsafe: (steps: Steps<I>) => void
  /** Steps that are not over. */
  readonly stepsUnsafe: () => number
  readonly pausedUnsafe: () => boolean
  readonly speedUnsafe: () => number
  /** Where the market is now, never beyond a tick that has yet to come out; undefined before the first tick. */
  readonly positionUnsafe: () => number | undefined
  /** Arrays of what is due at each quantum; at speed Infinity the arrays as they come. One stream a pace. */
  readonly apply: <A extends I, E>(ticks: Stream.Stream<A, E>) => Stream.Stream<A, E>
}

export interface PaceOptions {
  readonly speed: number
  readonly paused: boolean
  /** The last step is over, and whoever takes what is due has taken all of it. */
  readonly onStepped?: () => void
}

export const makePace = <I extends Timed = Timed>(options: PaceOptions): Effect.Effect<Pace<I>> =>
  Clock.clockWith((clock) =>
    Effect.sync(() => {
      let { speed, paused } = options
      /** Epoch microseconds where the market stood at `at` (milliseconds on the monotonic clock). */
      let position: number | undefined
      let at = 0
      /** The first tick not yet out, where it is known. */
      let head: number | undefined
      let lastOut: number | undefined
      const steps: Array<Steps<I>> = []
      const changed = Latch.makeUnsafe()

      const now = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      const reached = (): number | undefined => {
        if (position === undefined) return undefined
        if (speed === Number.POSITIVE_INFINITY) return Math.max(lastOut ?? position, position)
        const running = paused ? position : Math.floor(position + (now() - at) * MICROS_PER_MS * speed)
        return head === undefined ? running : Math.min(running, Math.max(head, position))
      }
      /** The market goes on from where it is, under what is about to change. */
      const anchor = () => {
        if (position !== undefined) position = reached()
        at = now()
      }

      /** The market stands where the last that went out, or the steps that are over, have brought it. */
      const stand = (at?: number) => {
        position = Math.max(position!, lastOut ?? position!, at ?? position!)
      }
      const endStep = () => {
        const over = steps.shift()!
        if (position !== undefined) stand(over.end())
        if (steps.length === 0) options.onStepped?.()
      }

      const apply = <A extends I, E>(ticks: Stream.Stream<A, E>): Stream.Stream<A, E> =>
        Stream.transformPull(ticks, (upstream) =>
          Effect.sync(() => {
            let pending: Arr.NonEmptyReadonlyArray<A> | undefined
            let taken = 0
            /** Quanta after `at` when a tick is due. */
            const quantumOf = (micros: number): number =>
              Math.ceil((micros - position!) / (QUANTUM_MS * MICROS_PER_MS * speed))

            const take = (from: Arr.NonEmptyReadonlyArray<A>, end: number): Arr.NonEmptyReadonlyArray<A> => {
              const isWhole = taken === 0 && end === from.length
              const out = isWhole ? from : (from.slice(taken, end) as [A, ...Array<A>])
              lastOut = out[out.length - 1]!.exchange_ts
              taken = end
              if (taken === from.length) {
                pending = undefined
                head = undefined
              } else {
                head = from[taken]!.exchange_ts
              }
              return out
            }

            return Effect.gen(function* () {
              // Before more is asked for: what comes next may be the end.
              while (steps[0]?.isOver() === true) endStep()
              if (pending === undefined) {
                pending = yield* upstream
                taken = 0
                head = pending[0].exchange_ts
              }
              const first = pending[taken]!.exchange_ts
              for (;;) {
                changed.closeUnsafe()
                const step = steps[0]
                if (step !== undefined) {
                  let end = taken
                  while (end < pending.length && !step.isOver() && step.admits(pending[end]!)) end++
                  if (end > taken) {
                    position ??= first
                    const out = take(pending, end)
                    stand()
                    return out
                  }
                  endStep()
                  continue
                }
                if (paused) {
                  yield* changed.await
                  continue
                }
                if (position === undefined) {
                  position = first
                  at = now()
                }
                let end = pending.length
                if (speed !== Number.POSITIVE_INFINITY) {
                  const due = quantumOf(first)
                  const elapsed = now() - at
                  const quantum = Math.floor(elapsed / QUANTUM_MS)
                  if (due > quantum) {
                    // Rounded up: a timer that fires a fraction early would find nothing due.
                    yield* Effect.raceFirst(Effect.sleep(Math.ceil(due * QUANTUM_MS - elapsed)), changed.await)
                    continue
                  }
                  if (quantum - due > STALL_QUANTA) {
                    position = first
                    at = now()
                    continue
                  }
                  end = taken + 1
                  while (end < pending.length && quantumOf(pending[end]!.exchange_ts) <= quantum) end++
                }
                return take(pending, end)
              }
            })
          })
        )

      return {
        apply,
        pauseUnsafe: () => {
          steps.length = 0
          if (paused) return
          anchor()
          paused = true
          changed.openUnsafe()
        },
        resumeUnsafe: () => {
          steps.length = 0
          if (!paused) return
          paused = false
          at = now()
          changed.openUnsafe()
        },
        setSpeedUnsafe: (next) => {
          if (next === speed) return
          anchor()
          speed = next
          changed.openUnsafe()
        },
        stepUnsafe: (step) => {
          if (!paused) anchor()
          paused = true
          steps.push(step)
          changed.openUnsafe()
        },
        stepsUnsafe: () => steps.length,
        pausedUnsafe: () => paused,
        speedUnsafe: () => speed,
        positionUnsafe: reached
      }
    })
  )
