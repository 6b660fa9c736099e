/**
 * Decides how claims are kept in one process: a bit for each contiguous number, a set of the others, for the two
 * newest trading days of each instrument. A tick of an older day is not claimed, and passes.
 */
import { Effect, Layer } from "effect"
import { type Tick, tradingDay } from "../schema/Tick.ts"
import { Claims } from "../streams/Claims.ts"
import { IdSet } from "../streams/IdSet.ts"
import { NumberSet } from "../streams/NumberSet.ts"

export interface MemoryClaimsOptions {
  /** Instruments whose claims are kept; one more drops the one whose newest day began first. */
  readonly instruments: number
}

export const DEFAULT_OPTIONS: MemoryClaimsOptions = { instruments: 1_000_000 }

/** Raw partitions whose `through` is remembered; one more drops the one that came first. */
const MAX_RAW_PARTITIONS = 16_384

/** The claims of one numbering. */
interface Session {
  readonly ids: IdSet
  readonly hashes: NumberSet
}

/** The claims of one instrument's trading day, by session. */
interface Day {
  readonly day: number
  readonly sessions: Map<number, Session>
}

interface Days {
  newest: Day
  previous: Day | undefined
}

const make = (options: MemoryClaimsOptions): Claims["Service"] => {
  const instruments = new Map<number, Days>()
  const throughs = new Map<string, number>()

  const beginDay = (day: number): Day => ({ day, sessions: new Map() })

  /** The claims of an instrument's day; `undefined` where it is older than the two newest. */
  const dayOf = (token: number, day: number): Day | undefined => {
    const days = instruments.get(token)
    if (days === undefined) {
      if (instruments.size >= options.instruments) instruments.delete(instruments.keys().next().value!)
      const newest = beginDay(day)
      instruments.set(token, { newest, previous: undefined })
      return newest
    }
    if (day === days.newest.day) return days.newest
    if (day > days.newest.day) {
      days.previous = days.newest
      days.newest = beginDay(day)
      // Set anew, so that the instruments stay in the order in which their newest days began.
      instruments.delete(token)
      instruments.set(token, days)
      return days.newest
    }
    if (days.previous === undefined || day > days.previous.day) days.previous = beginDay(day)
    return day === days.previous.day ? days.previous : undefined
  }

  /** True where nobody had claimed the tick. */
  const set = (tick: Tick): boolean => {
    const day = dayOf(tick.instrument_token, tradingDay(tick.exchange_ts))
    if (day === undefined) return true
    let session = day.sessions.get(tick.session)
    if (session === undefined) {
      session = { ids: new IdSet(), hashes: new NumberSet() }
      day.sessions.set(tick.session, session)
    }
    return tick.sequencing === "contiguous" && tick.sequence_id >= 0
      ? session.ids.add(tick.sequence_id)
      : session.hashes.add(tick.sequence_id)
  }

  const raise = (raw: {
    readonly incarnation: string
    readonly partition: number
    readonly through: number
  }): number => {
    const key = `${raw.partition} ${raw.incarnation}`
    const before = throughs.get(key)
    if (before === undefined && throughs.size >= MAX_RAW_PARTITIONS) throughs.delete(throughs.keys().next().value!)
    if (before === undefined || raw.through > before) throughs.set(key, raw.through)
    return before ?? -1
  }

  return {
    claim: (raw, ticks) =>
      Effect.sync(() => {
        const before = raise(raw)
        const foreign: Array<number> = []
        for (let i = 0; i < ticks.length; i++) {
          const tick = ticks[i]!
          if (!set(tick) && tick.source[1] > before) foreign.push(i)
        }
        return foreign
      })
  }
}

export const layer = (options: MemoryClaimsOptions = DEFAULT_OPTIONS): Layer.Layer<Claims> =>
  Layer.sync(Claims, () => make(options))
