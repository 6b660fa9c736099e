/**
 * Decides how a feed whose clock is ahead is named: its ticks go to the DLQ, so `/readyz` says by how much until a minute
 * after the last of them. Only what was published, or is kept in the DLQ, is spoken of; nothing is decided by it.
 */
import { Clock, Effect, type Scope } from "effect"
import * as metrics from "../metrics.ts"
import { Readiness } from "../run/Readiness.ts"
import type { DeadLetter } from "./batch.ts"

/** How long a feed is named after its last stamp that was ahead. */
export const NAMED_MS = 60_000
/** Feeds named at a time; the others are only counted. */
export const MAX_NAMED = 16
const LOOK = "1 second"

export interface FeedClocks {
  /** Takes in the dead letters of a batch once they are kept. */
  readonly note: (dead: ReadonlyArray<DeadLetter>) => Effect.Effect<void>
}

const label = (feed: string): string => (feed === "dma" || feed === "snapshot" ? feed : "other")

export const feedClocks: Effect.Effect<FeedClocks, never, Readiness | Scope.Scope> = Effect.gen(function* () {
  const readiness = yield* Readiness
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const holder = {}
  const named = new Map<string, { name: string; until: number }>()
  const gauges = new Map(
    ["dma", "snapshot", "other"].map((feed) => [feed, metrics.bind(metrics.feedClockAhead, { feed }, context)])
  )
  for (const gauge of gauges.values()) gauge.add(0)

  const note = (dead: ReadonlyArray<DeadLetter>) => {
    let ahead: Map<string, number> | undefined
    for (const { clock } of dead) {
      if (clock === undefined) continue
      ahead ??= new Map()
      ahead.set(clock.feed, Math.max(clock.aheadMicros, ahead.get(clock.feed) ?? 0))
    }
    return ahead === undefined ? Effect.void : say(ahead)
  }

  const say = Effect.fnUntraced(function* (ahead: ReadonlyMap<string, number>) {
    const until = clock.currentTimeMillisUnsafe() + NAMED_MS
    for (const [feed, micros] of ahead) {
      gauges.get(label(feed))!.add(micros / 1e6)
      const before = named.get(feed)
      if (before === undefined && named.size >= MAX_NAMED) continue
      const name = `feed ${feed}: its clock is ${(micros / 1e6).toFixed(1)} s ahead`
      named.set(feed, { name, until })
      if (before?.name === name) continue
      if (before === undefined) yield* Effect.logWarning(`${name}: what it stamps so goes to the dead letters`)
      else yield* readiness.degrade(before.name, false, holder)
      yield* readiness.degrade(name, true, holder)
    }
  })

  const takeBack = Effect.fnUntraced(function* (isOver: (until: number) => boolean) {
    for (const [feed, { name, until }] of named) {
      if (!isOver(until)) continue
      named.delete(feed)
      yield* readiness.degrade(name, false, holder)
      if (![...named.keys()].some((other) => label(other) === label(feed))) gauges.get(label(feed))!.add(0)
    }
  })

  yield* Effect.sleep(LOOK).pipe(
    Effect.andThen(Effect.suspend(() => takeBack((until) => until <= clock.currentTimeMillisUnsafe()))),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() => takeBack(() => true))
  return { note }
})
