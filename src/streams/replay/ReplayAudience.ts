/** Decides what a replay needs of those who listen to it: whether anyone does, and a way to tell them. */
import { Context } from "effect"
import type { Quote } from "../../schema/Quote.ts"
import type { Tick } from "../../schema/Tick.ts"
import type { ReplayState } from "./Replays.ts"

/** Where a replay is, as its clients are told. */
export interface ReplayClock {
  readonly run: number
  /** Epoch microseconds; null before the first tick. */
  readonly ts: number | null
  readonly state: ReplayState
  /** All that was asked for has come out, and nothing more will. */
  readonly isWhole: boolean
}

/** Plain calls: the hub holds bounded queues and never waits. */
export class ReplayAudience extends Context.Service<
  ReplayAudience,
  {
    /** From here on clients may subscribe to this replay of a trading day (since 1970). */
    readonly open: (id: string, day: number) => void
    /** Ticks, and the quotes of the same stretch of time, each in global order. */
    readonly publish: (id: string, ticks: ReadonlyArray<Tick>, quotes: ReadonlyArray<Quote>) => void
    readonly clock: (id: string, clock: ReplayClock) => void
    /** No more will come; what is queued is still sent. */
    readonly close: (id: string) => void
    readonly clients: (id: string) => number
  }
>()("market-data-platform/streams/ReplayAudience") {}
