/**
 * Decides how claims are kept in one process: a bit for each contiguous number, a set of the others, for the two
 * newest trading days of each instrument. A tick of an older day is not claimed, and passes.
 */
import { Effect, Layer } from "effect"
import { type Tick, tradingDay } from "../../schema/Tick.ts"
import { sourceKey } from "../../streams/log/source.ts"
import { type Claimant, Claims } from "../../streams/ports/Claims.ts"
import { IdSet } from "../../streams/process/IdSet.ts"
import { NumberSet } from "../../streams/process/NumberSet.ts"

export interface MemoryClaimsOptions {
  /** Instruments whose claims are kept; one more drops the one silent longest. */
  readonly instruments: number
}

/** More than trade in a day; anybody may name more. */
export const DEFAULT_OPTIONS: MemoryClaimsOptions = { instruments: 100_000 }

/** Raw partitions whose claims are remembered; one more drops the one that came first. */
const MAX_RAW_PARTITIONS = 16_384

/** The claims of one numbering; most have only one kind. */
interface SessionClaims {
  ids: IdSet | undefined
  hashes: NumberSet | undefined
}

/** The claims of one instrument's trading day, by session. */
interface Day {
  readonly day: number
  readonly sessions: Map<number, SessionClaims>
}

/** What a raw partition has asked for. */
interface Asked {
  through: number
  /** Sources found another's where that decided: the duplicates of days whose state was lost. */
  readonly foreign: Set<string>
}

interface Days {
  /** The call that asked for it last. */
  touched: number
  newest: Day
  previous: Day | undefined
}

const make = (options: MemoryClaimsOptions): Claims["Service"] => {
  /** Those silent longest first: an instrument is put anew by the first of its ticks in a call. */
  const instruments = new Map<number, Days>()
  let calls = 0
  const claimants = new Map<string, Asked>()

  const beginDay = (day: number): Day => ({ day, sessions: new Map() })

  /** The claims of an instrument's day; `undefined` where it is older than the two newest. */
  const dayOf = (token: number, day: number): Day | undefined => {
    const days = instruments.get(token)
    if (days === undefined) {
      if (instruments.size >= options.instruments) instruments.delete(instruments.keys().next().value!)
      const newest = beginDay(day)
      instruments.set(token, { touched: calls, newest, previous: undefined })
      return newest
    }
    if (days.touched !== calls) {
      days.touched = calls
      instruments.delete(token)
      instruments.set(token, days)
    }
    if (day === days.newest.day) return days.newest
    if (day > days.newest.day) {
      days.previous = days.newest
      days.newest = beginDay(day)
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
      session = { ids: undefined, hashes: undefined }
      day.sessions.set(tick.session, session)
    }
    if (tick.sequencing === "contiguous" && tick.sequence_id >= 0) {
      session.ids ??= new IdSet()
      return session.ids.add(tick.sequence_id)
    }
    session.hashes ??= new NumberSet()
    return session.hashes.add(tick.sequence_id)
  }

  /** The claims of a raw partition; new ones reach through nothing. */
  const asked = (raw: Claimant): Asked => {
    const key = `${raw.partition} ${raw.incarnation}`
    let before = claimants.get(key)
    if (before === undefined) {
      if (claimants.size >= MAX_RAW_PARTITIONS) claimants.delete(claimants.keys().next().value!)
      before = { through: -1, foreign: new Set() }
      claimants.set(key, before)
    }
    return before
  }

  return {
    claim: (raw, ticks) =>
      Effect.sync(() => {
        calls += 1
        const mine = asked(raw)
        const before = mine.through
        mine.through = Math.max(before, raw.through)
        const foreign: Array<number> = []
        for (let i = 0; i < ticks.length; i++) {
          const tick = ticks[i]!
          const isNew = set(tick)
          if (raw.decides === true) {
            const source = sourceKey(tick.source)
            if (tick.source[1] > before && !isNew) mine.foreign.add(source)
            if (mine.foreign.has(source)) foreign.push(i)
          } else if (!isNew && tick.source[1] > before) foreign.push(i)
        }
        return foreign
      })
  }
}

export const layer = (options: MemoryClaimsOptions = DEFAULT_OPTIONS): Layer.Layer<Claims> =>
  Layer.sync(Claims, () => make(options))
