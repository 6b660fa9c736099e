/** Decides which instrument and which range of time a history request means. */
import { Effect } from "effect"
import { showValue } from "../schema/Explain.ts"
import { fullSymbol } from "../schema/Instrument.ts"
import { MAX_MICROS, MIN_MICROS } from "../schema/Time.ts"
import { didYouMean, type Instruments } from "../streams/ports/Instruments.ts"
import type { TickStore } from "../streams/ports/TickStore.ts"
import { maySee, seenBy } from "./caller.ts"
import { BadRequest, type Forbidden, NotFound, type Unavailable } from "./errors.ts"
import { storeFailure } from "./failures.ts"

/** Exchanges named where a bare symbol is on several. */
const MAX_CHOICES = 10

interface Asked {
  readonly instrument_token?: number
  readonly symbol?: string
  readonly from?: number
  readonly to?: number
}

export interface Range {
  readonly token: number
  /** No instrument has the token, though ticks of it may be there. */
  readonly unknown: boolean
  readonly from: number
  readonly to: number
}

/** Exactly one of `instrument_token` and `symbol`, which the caller may see; `from` defaults to the beginning, `to` to the end. */
export const readRange = (
  asked: Asked,
  instruments: Instruments["Service"]
): Effect.Effect<Range, BadRequest | Forbidden | NotFound> =>
  Effect.gen(function* () {
    const token = yield* readToken(asked, instruments)
    yield* maySee([token], instruments, "instrument_token")
    const from = asked.from ?? MIN_MICROS
    const to = asked.to ?? MAX_MICROS
    if (to < from) {
      return yield* new BadRequest({
        parameter: "to",
        message: `to: expected a time not before from, got ${to} < ${from}`
      })
    }
    return { token, unknown: instruments.get(token) === undefined, from, to }
  })

const readToken = (
  { instrument_token, symbol }: Asked,
  instruments: Instruments["Service"]
): Effect.Effect<number, BadRequest | Forbidden | NotFound> => {
  if (instrument_token !== undefined) {
    return symbol === undefined
      ? Effect.succeed(instrument_token)
      : Effect.fail(
          new BadRequest({ parameter: "symbol", message: "symbol: expected instrument_token or symbol, got both" })
        )
  }
  if (symbol === undefined) {
    return Effect.fail(
      new BadRequest({
        parameter: "instrument_token",
        message: "instrument_token: expected instrument_token or symbol, got neither"
      })
    )
  }
  return onlySeen(symbol, instruments, "symbol")
}

/**
 * The token of a symbol that one instrument has, of those that the caller may see; `parameter` says where it was asked
 * for.
 */
export const onlySeen = (
  symbol: string,
  instruments: Instruments["Service"],
  parameter: string
): Effect.Effect<number, BadRequest | Forbidden | NotFound> =>
  Effect.gen(function* () {
    const named = yield* seenBy(symbol, instruments, parameter)
    const [first, second] = named
    if (first === undefined) {
      const hint = yield* didYouMean(symbol, instruments)
      return yield* new NotFound({ parameter, message: `${parameter}: no instrument is ${showValue(symbol)}${hint}` })
    }
    if (second !== undefined) {
      const choices = named.slice(0, MAX_CHOICES).map((i) => `${fullSymbol(i)} (${i.instrument_token})`)
      return yield* new BadRequest({
        parameter,
        message: `${parameter}: ${showValue(symbol)} may be ${choices.join(", ")}${named.length > MAX_CHOICES ? ", …" : ""}`
      })
    }
    return first.instrument_token
  })

/** Where an answer is empty: a token that no instrument has and no tick came of is unknown, not silent. */
export const refuseUnknown = (
  range: Range,
  isEmpty: boolean,
  store: TickStore["Service"]
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
