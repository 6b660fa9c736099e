/**
 * Decides which instruments and which range of time an export is of: one instrument over any range, or several, or all
 * that have ticks, on one trading date.
 */
import { Effect } from "effect"
import { tradingDayStart } from "../../schema/Tick.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { History } from "../../streams/ports/History.ts"
import type { Instruments } from "../../streams/ports/Instruments.ts"
import { MAX_REPLAY_SYMBOLS } from "../../streams/replay/Replays.ts"
import { Caller, maySee, refuseInstruments } from "../caller.ts"
import { BadRequest, type Forbidden, NotFound, type Unavailable } from "../errors.ts"
import { storeFailure } from "../failures.ts"
import { notAfter, type Range, readRange } from "../range.ts"
import { meantBy } from "../symbols.ts"
import { isOfSeveral } from "./format.ts"

/** Of a day, as of a replay. */
const MAX_INSTRUMENTS = MAX_REPLAY_SYMBOLS
const SELECTORS = ["instrument_token", "symbol", "symbols", "tokens", "all"] as const

export interface AskedQuery {
  readonly instrument_token?: number
  readonly symbol?: string
  readonly symbols?: ReadonlyArray<string>
  readonly tokens?: ReadonlyArray<number>
  readonly all?: "true"
  readonly as_of?: string
  readonly date?: string
  readonly from?: number
  readonly to?: number
  readonly cursor?: string
}

export interface Asked {
  /** Ascending, each once. */
  readonly tokens: ReadonlyArray<number>
  readonly from: number
  readonly to: number
  /** The trading day of which the tokens' meanings count. */
  readonly day: number
  /** Where one instrument was asked for, by `instrument_token` or `symbol`. */
  readonly one: Range | undefined
}

const refused = (parameter: string, message: string): BadRequest =>
  new BadRequest({ parameter, message: `${parameter}: ${message}` })

/** `from` and `to` of a query, within its `date` where it has one. */
const withinDate = (query: AskedQuery): Effect.Effect<{ readonly from?: number; readonly to?: number }, BadRequest> => {
  const { date, from, to } = query
  if (date === undefined) {
    return Effect.succeed({ ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) })
  }
  const day = dayOfDate(date)!
  const [start, end] = [tradingDayStart(day), tradingDayStart(day + 1)]
  for (const [name, time] of [
    ["from", from],
    ["to", to]
  ] as const) {
    if (time !== undefined && (time < start || time > end || time === (name === "from" ? end : start))) {
      return Effect.fail(refused(name, `expected a time of the trading date ${date} (${start} to ${end}), got ${time}`))
    }
  }
  return Effect.succeed({ from: from ?? start, to: to ?? end })
}

/** Refused where the caller's key is not for all of them. */
export const readAsked = (
  query: AskedQuery,
  instruments: Instruments["Service"],
  store: Pick<History["Service"], "tokens">
): Effect.Effect<Asked, BadRequest | Forbidden | NotFound | Unavailable> =>
  Effect.gen(function* () {
    const given = SELECTORS.filter((name) => query[name] !== undefined)
    if (given.length > 1 && isOfSeveral(query)) {
      return yield* refused(given[1]!, `expected one of ${SELECTORS.join(", ")}, got ${given.join(" and ")}`)
    }
    const { date, symbols, tokens } = query
    const times = yield* withinDate(query)
    if (!isOfSeveral(query)) {
      const { as_of, instrument_token, symbol } = query
      const one = yield* readRange(
        {
          ...(instrument_token === undefined ? {} : { instrument_token }),
          ...(symbol === undefined ? {} : { symbol }),
          ...(as_of === undefined ? {} : { as_of }),
          ...times
        },
        instruments
      )
      return { tokens: [one.token], from: one.from, to: one.to, day: one.day, one }
    }
    if (date === undefined) {
      return yield* refused(
        "date",
        `expected with ${given[0]}: several instruments are of one trading date (YYYY-MM-DD)`
      )
    }
    if (query.cursor !== undefined) {
      return yield* refused("cursor", `expected with one instrument: with ${given[0]} the whole day is one answer`)
    }
    if (query.as_of !== undefined) {
      return yield* refused("as_of", `expected with one instrument: with ${given[0]} it is the date, ${date}`)
    }
    const [from, to] = [times.from!, times.to!]
    if (to <= from) return yield* refused("to", notAfter(from, to))

    const { key } = yield* Caller
    if (query.all !== undefined && key?.isRestricted === true) {
      return yield* refuseInstruments(
        "all",
        `all: key "${key.name}" is for some instruments: expected symbols or tokens among them`
      )
    }
    const day = dayOfDate(date)!
    const days = { from: day, through: day }
    const found = new Set<number>(tokens)
    yield* maySee(found, instruments, "tokens", days)
    for (const symbol of symbols ?? []) {
      found.add((yield* meantBy(symbol, days, instruments, "symbols")).instrument.instrument_token)
    }
    // A token that no instrument has may still have ticks: feeds know new contracts first.
    const unknown = [...found].filter((token) => instruments.get(token) === undefined)
    if (query.all !== undefined || unknown.length > 0) {
      const traded = yield* Effect.mapError(store.tokens(from, to), storeFailure)
      const ofDay = new Set(traded)
      const nobodys = unknown.find((token) => !ofDay.has(token))
      if (nobodys !== undefined) {
        return yield* new NotFound({
          parameter: "tokens",
          message: `tokens: no instrument has ${nobodys}, and no tick of it came on ${date}`
        })
      }
      if (query.all !== undefined) for (const token of traded) found.add(token)
      if (found.size > MAX_INSTRUMENTS) {
        return yield* refused(
          "all",
          `${found.size} instruments have ticks, at most ${MAX_INSTRUMENTS} are given at a time: expected symbols or tokens`
        )
      }
    }
    return { tokens: [...found].sort((a, b) => a - b), from, to, day, one: undefined }
  })
