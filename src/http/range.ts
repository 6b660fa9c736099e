/** Decides which instrument and which range of time a history request means. */
import { Effect } from "effect"
import { tradingDay, tradingDayStart } from "../schema/Tick.ts"
import { dayOfDate, MAX_MICROS, MIN_MICROS } from "../schema/Time.ts"
import type { Instruments } from "../streams/ports/Instruments.ts"
import type { TickStore } from "../streams/ports/TickStore.ts"
import { type Days, maySee } from "./caller.ts"
import { BadRequest, type Forbidden, NotFound, type Unavailable } from "./errors.ts"
import { storeFailure } from "./failures.ts"
import { meantBy } from "./symbols.ts"

interface Asked {
  readonly instrument_token?: number
  readonly symbol?: string
  readonly as_of?: string
  readonly from?: number
  readonly to?: number
}

export interface Range {
  readonly token: number
  /** No instrument has the token, though ticks of it may be there. */
  readonly unknown: boolean
  readonly from: number
  readonly to: number
  /** The last trading day of the range, of which the token's meaning counts. */
  readonly day: number
}

/** What is wrong with a `to` that is not after `from`. */
export const notAfter = (from: number, to: number): string => `expected a time after from, got ${to} <= ${from}`

/** The trading days that a half-open range of time meets. */
export const daysOf = (from: number, to: number): Days => ({
  from: from <= MIN_MICROS ? -Infinity : tradingDay(from),
  through: to >= MAX_MICROS ? Infinity : tradingDay(Math.max(from, to - 1))
})

const meaningAt = (token: number, day: number, instruments: Instruments["Service"]): Days =>
  instruments.meanings(token).find(({ from, through }) => from <= day && day <= through) ?? {
    from: -Infinity,
    through: Infinity
  }

/**
 * Exactly one of `instrument_token` and `symbol`, which the caller may see; `from` defaults to the beginning, `to` to the
 * end. By a symbol it is the days on which that means the one instrument, of those asked for; `as_of` says which it is
 * where there were several, and by a token those days on which it means what it meant then.
 */
export const readRange = (
  given: Asked,
  instruments: Instruments["Service"]
): Effect.Effect<Range, BadRequest | Forbidden | NotFound> =>
  Effect.gen(function* () {
    const { as_of, instrument_token, symbol } = given
    let from = given.from ?? MIN_MICROS
    let to = given.to ?? MAX_MICROS
    if (given.from !== undefined && given.to !== undefined && to <= from) {
      return yield* new BadRequest({ parameter: "to", message: `to: ${notAfter(from, to)}` })
    }
    const days = daysOf(from, to)
    const day = as_of === undefined ? undefined : dayOfDate(as_of)!
    let token = instrument_token
    let holds: Days = days
    if (symbol !== undefined) {
      if (token !== undefined) {
        return yield* new BadRequest({
          parameter: "symbol",
          message: "symbol: expected instrument_token or symbol, got both"
        })
      }
      const meant = yield* meantBy(symbol, day === undefined ? days : { asOf: day }, instruments, "symbol")
      token = meant.instrument.instrument_token
      holds = meant
    } else if (token === undefined) {
      return yield* new BadRequest({
        parameter: "instrument_token",
        message: "instrument_token: expected instrument_token or symbol, got neither"
      })
    } else {
      if (day !== undefined) holds = meaningAt(token, day, instruments)
      yield* maySee([token], instruments, "instrument_token", day === undefined ? days : { from: day, through: day })
    }
    if (Number.isFinite(holds.from)) from = Math.max(from, tradingDayStart(holds.from))
    if (Number.isFinite(holds.through)) to = Math.min(to, tradingDayStart(holds.through + 1))
    return {
      token,
      unknown: instruments.get(token) === undefined,
      from: Math.min(from, to),
      to,
      day: daysOf(from, to).through
    }
  })

/** Where an answer is empty: a token that no instrument has and no tick came of is unknown, not silent. */
export const refuseUnknown = (
  range: Range,
  isEmpty: boolean,
  store: Pick<TickStore["Service"], "ticks">
): Effect.Effect<void, NotFound | Unavailable> => {
  if (!range.unknown || !isEmpty) return Effect.void
  return store.ticks({ instrument_token: range.token, from: MIN_MICROS, to: MAX_MICROS, limit: 1 }).pipe(
    Effect.mapError(storeFailure),
    Effect.flatMap((ticks) =>
      ticks.length > 0
        ? Effect.void
        : Effect.fail(
            new NotFound({
              parameter: "instrument_token",
              message: `instrument_token: no instrument has ${range.token}, and no tick of it came`
            })
          )
    )
  )
}
