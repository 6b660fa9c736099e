/** Decides how instruments are searched, looked up and imported over REST. */
import { Effect, Semaphore } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { type Instrument, SIMULATED_EXCHANGE } from "../schema/Instrument.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { Api, DEFAULT_LIMIT, MAX_INSTRUMENTS_BYTES } from "./Api.ts"
import { readBody } from "./body.ts"
import { BadRequest, NotFound } from "./errors.ts"
import { storeFailure } from "./failures.ts"
import { markSimulated } from "./simulatedMark.ts"
import { json } from "./wire.ts"

/** Instruments written before others get a turn: about a millisecond's work. */
const ROWS_AT_A_TIME = 500

const decoder = new TextDecoder()

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
          const found = instruments.search({
            query: query.query ?? "",
            limit: query.limit ?? DEFAULT_LIMIT,
            ...(query.exchange === undefined ? {} : { exchange: query.exchange }),
            ...(query.asset_class === undefined ? {} : { asset_class: query.asset_class })
          })
          yield* markSimulated(found.some(({ exchange }) => exchange === SIMULATED_EXCHANGE))
          return yield* found.length > ROWS_AT_A_TIME ? longOnes.withPermits(1)(written(found)) : written(found)
        }),
      instrument: ({ params }) => {
        const instrument = instruments.get(params.token)
        return instrument === undefined
          ? Effect.fail(new NotFound({ parameter: "token", message: `token: no instrument has ${params.token}` }))
          : Effect.as(markSimulated(instrument.exchange === SIMULATED_EXCHANGE), instrument)
      },
      importInstruments: ({ payload }) =>
        readBody(payload, MAX_INSTRUMENTS_BYTES).pipe(
          Effect.flatMap((body) => instruments.importFile(decoder.decode(body))),
          Effect.catchTags({
            StoreError: (error) => Effect.fail(storeFailure(error)),
            InstrumentFileRefused: ({ message }) => Effect.fail(new BadRequest({ message }))
          })
        )
    })
  })
)
