/** Decides how instruments are searched, looked up and imported over REST, by whose key of them what. */
import { Effect, Semaphore } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { instrumentIndex } from "../layers/instruments/instrumentIndex.ts"
import type { InstrumentList } from "../schema/ApiKey.ts"
import { type Instrument, SIMULATED_EXCHANGE } from "../schema/Instrument.ts"
import { type InstrumentSearch, Instruments } from "../streams/ports/Instruments.ts"
import { Api, DEFAULT_LIMIT, MAX_INSTRUMENTS_BYTES } from "./Api.ts"
import { readBody } from "./body.ts"
import { Caller, maySee } from "./caller.ts"
import { BadRequest, NotFound } from "./errors.ts"
import { storeFailure } from "./failures.ts"
import { markSimulated } from "./simulatedMark.ts"
import { json } from "./wire.ts"

/** Instruments written before others get a turn: about a millisecond's work. */
const ROWS_AT_A_TIME = 500

/** A list that names at most so many is searched by itself: about a millisecond's work. */
const MAX_OWN = 300

const decoder = new TextDecoder()

/**
 * What a search finds among the instruments that a key is for. Of a few in a long list the index of all would find none
 * before it is cut off.
 */
const searchAmong = (
  { exchanges, symbols, tokens }: InstrumentList,
  instruments: Instruments["Service"],
  search: InstrumentSearch
): ReadonlyArray<Instrument> => {
  const own = new Map<number, Instrument>()
  for (const token of tokens) {
    const instrument = instruments.get(token)
    if (instrument !== undefined) own.set(token, instrument)
  }
  for (const symbol of symbols) for (const one of instruments.named(symbol)) own.set(one.instrument_token, one)
  if (exchanges.size === 0 && own.size <= MAX_OWN) return instrumentIndex(own.values()).search(search)
  return instruments.search({
    ...search,
    only: ({ exchange, instrument_token }) => own.has(instrument_token) || exchanges.has(exchange)
  })
}

export const instrumentRoutes = HttpApiBuilder.group(
  Api,
  "instruments",
  Effect.fnUntraced(function* (handlers) {
    const instruments = yield* Instruments
    // One at a time: fifty long answers in turns would leave each other request a fiftieth of the time.
    const longOnes = yield* Semaphore.make(1)

    const written = Effect.fnUntraced(function* (found: ReadonlyArray<Instrument>) {
      const parts: Array<string> = []
      for (let from = 0; from < found.length; from += ROWS_AT_A_TIME) {
        if (from > 0) yield* Effect.yieldNow
        const rows = found.slice(from, from + ROWS_AT_A_TIME)
        parts.push(rows.map((instrument) => JSON.stringify(instrument)).join(","))
      }
      return json(`{"instruments":[${parts.join(",")}]}`)
    })

    return handlers.handleAll({
      search: ({ query }) =>
        Effect.gen(function* () {
          const { key } = yield* Caller
          const search = {
            query: query.query ?? "",
            limit: query.limit ?? DEFAULT_LIMIT,
            ...(query.exchange === undefined ? {} : { exchange: query.exchange }),
            ...(query.asset_class === undefined ? {} : { asset_class: query.asset_class })
          }
          const found =
            key?.list === undefined ? instruments.search(search) : searchAmong(key.list, instruments, search)
          yield* markSimulated(found.some(({ exchange }) => exchange === SIMULATED_EXCHANGE))
          return yield* found.length > ROWS_AT_A_TIME ? longOnes.withPermits(1)(written(found)) : written(found)
        }),
      instrument: ({ params }) =>
        Effect.gen(function* () {
          yield* maySee([params.token], instruments, "token")
          const instrument = instruments.get(params.token)
          if (instrument === undefined) {
            return yield* new NotFound({ parameter: "token", message: `token: no instrument has ${params.token}` })
          }
          yield* markSimulated(instrument.exchange === SIMULATED_EXCHANGE)
          return instrument
        }),
      importInstruments: ({ payload }) =>
        Effect.gen(function* () {
          const { did } = yield* Caller
          const body = yield* readBody(payload, MAX_INSTRUMENTS_BYTES)
          const report = yield* instruments.importFile(decoder.decode(body))
          const { added, changed, expired, rejected_total: rejected } = report
          did("instruments_import", { added, changed, expired, rejected })
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
