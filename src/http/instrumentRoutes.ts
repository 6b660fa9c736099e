/** Decides how instruments are searched, looked up and imported over REST, as of which day, by whose key of them what. */
import { Clock, Effect, Semaphore } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { showValue } from "../schema/Explain.ts"
import { fullSymbol, type Instrument, SIMULATED_EXCHANGE } from "../schema/Instrument.ts"
import { isExpired } from "../schema/Meaning.ts"
import { tradingDate, tradingDay } from "../schema/Tick.ts"
import { dayOfDate } from "../schema/Time.ts"
import { type InstrumentSearch, Instruments } from "../streams/ports/Instruments.ts"
import { LastPrices } from "../streams/ports/LastPrices.ts"
import { Api, DEFAULT_LIMIT, type ListedInstrument, MAX_INSTRUMENTS_BYTES } from "./Api.ts"
import { readBody } from "./body.ts"
import { Caller, maySee } from "./caller.ts"
import { BadRequest, NotFound } from "./errors.ts"
import { storeFailure } from "./failures.ts"
import { markSimulated } from "./simulatedMark.ts"
import { json } from "./wire.ts"

/** Instruments written before others get a turn: about a millisecond's work. */
const ROWS_AT_A_TIME = 500

/** Exchanges named where one is not known. */
const MAX_EXCHANGES = 20

const decoder = new TextDecoder()

const unknownExchange = (exchange: string, known: ReadonlyArray<string>): BadRequest => {
  const names = `${known.slice(0, MAX_EXCHANGES).join(", ")}${known.length > MAX_EXCHANGES ? ", …" : ""}`
  return new BadRequest({
    parameter: "exchange",
    message: `exchange: expected ${known.length === 1 ? names : `one of ${names}`}, got ${showValue(exchange)}`
  })
}

/** The instruments that a search finds of those that the caller may see; an exchange that none is of is refused. */
export const searched = (
  search: Pick<InstrumentSearch, "query" | "limit" | "exchange" | "asset_class" | "asOf">,
  instruments: Instruments["Service"],
  price: (token: number) => number | undefined
) =>
  Effect.gen(function* () {
    const { key } = yield* Caller
    const { exchange } = search
    const found = yield* instruments.search({
      ...search,
      price,
      ...(key?.isRestricted === true ? { only: (one) => key.sees(one.instrument_token, one) } : {})
    })
    const known = instruments.exchanges()
    // Where nothing is known yet, any may still come.
    if (exchange !== undefined && known.length > 0 && !known.includes(exchange.toUpperCase())) {
      return yield* unknownExchange(exchange, known)
    }
    yield* markSimulated(found.some(({ exchange }) => exchange === SIMULATED_EXCHANGE))
    return found
  })

export const instrumentRoutes = HttpApiBuilder.group(
  Api,
  "instruments",
  Effect.fnUntraced(function* (handlers) {
    const instruments = yield* Instruments
    const price = yield* LastPrices
    // One at a time: fifty long answers in turns would leave each other request a fiftieth of the time.
    const longOnes = yield* Semaphore.make(1)

    const today = Effect.map(Clock.currentTimeMillis, (now) => tradingDay(now * 1000))

    /** An instrument with the days on which its token means it, and no other has its name. */
    const listed = (instrument: Instrument, day: number): ListedInstrument => {
      const named = instruments.everNamed(fullSymbol(instrument))
      const { from = -Infinity, through = Infinity } = named.find((one) => one.instrument === instrument) ?? {}
      return {
        ...instrument,
        expired: isExpired(instrument, day),
        valid_from: from === -Infinity ? null : tradingDate(from),
        valid_through: through === Infinity ? null : tradingDate(through)
      }
    }

    const written = Effect.fnUntraced(function* (found: ReadonlyArray<Instrument>, day: number) {
      const parts: Array<string> = []
      for (let from = 0; from < found.length; from += ROWS_AT_A_TIME) {
        if (from > 0) yield* Effect.yieldNow
        const rows = found.slice(from, from + ROWS_AT_A_TIME)
        parts.push(rows.map((instrument) => JSON.stringify(listed(instrument, day))).join(","))
      }
      return json(`{"instruments":[${parts.join(",")}]}`)
    })

    return handlers.handleAll({
      search: ({ query }) =>
        Effect.gen(function* () {
          const { as_of, query: text = "", limit = DEFAULT_LIMIT, ...only } = query
          const asOf = as_of === undefined ? undefined : dayOfDate(as_of)!
          const of = asOf === undefined ? {} : { asOf }
          const found = yield* searched({ query: text, limit, ...only, ...of }, instruments, price)
          const answer = written(found, asOf ?? (yield* today))
          return yield* found.length > ROWS_AT_A_TIME ? longOnes.withPermits(1)(answer) : answer
        }),
      instrument: ({ params: { token }, query: { as_of } }) =>
        Effect.gen(function* () {
          const asOf = as_of === undefined ? undefined : dayOfDate(as_of)!
          yield* maySee([token], instruments, "token", asOf === undefined ? undefined : { from: asOf, through: asOf })
          const instrument = asOf === undefined ? instruments.get(token) : instruments.at(token, asOf)
          if (instrument === undefined) {
            return yield* new NotFound({ parameter: "token", message: `token: no instrument has ${token}` })
          }
          yield* markSimulated(instrument.exchange === SIMULATED_EXCHANGE)
          return listed(instrument, asOf ?? (yield* today))
        }),
      importInstruments: ({ payload, query: { as_of } }) =>
        Effect.gen(function* () {
          const { did } = yield* Caller
          const now = yield* today
          const day = as_of === undefined ? now : dayOfDate(as_of)!
          if (day > now) {
            return yield* new BadRequest({
              parameter: "as_of",
              message: `as_of: expected a day not after ${tradingDate(now)}, got ${showValue(as_of)}`
            })
          }
          const body = yield* readBody(payload, MAX_INSTRUMENTS_BYTES)
          const report = yield* instruments.importFile(decoder.decode(body), day)
          const { added, changed, expired, rejected_total: rejected } = report
          did("instruments_import", {
            ...(as_of === undefined ? {} : { as_of }),
            added,
            changed,
            expired,
            rejected
          })
          return report
        }).pipe(
          Effect.catchTags({
            StoreError: (error) => Effect.fail(storeFailure(error)),
            InstrumentFileRefused: ({ message }) => Effect.fail(new BadRequest({ message }))
          })
        )
    })
  })
)
