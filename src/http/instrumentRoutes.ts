/** Decides how instruments are searched, looked up and imported over REST. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Instruments } from "../streams/Instruments.ts"
import { Api, DEFAULT_LIMIT, MAX_INSTRUMENTS_BYTES } from "./Api.ts"
import { readBody } from "./body.ts"
import { BadRequest, NotFound } from "./errors.ts"
import { storeFailure } from "./failures.ts"

const decoder = new TextDecoder()

export const instrumentRoutes = HttpApiBuilder.group(
  Api,
  "instruments",
  Effect.fnUntraced(function* (handlers) {
    const instruments = yield* Instruments
    return handlers.handleAll({
      search: ({ query }) =>
        Effect.sync(() => ({
          instruments: instruments.search({
            query: query.query ?? "",
            limit: query.limit ?? DEFAULT_LIMIT,
            ...(query.exchange === undefined ? {} : { exchange: query.exchange }),
            ...(query.asset_class === undefined ? {} : { asset_class: query.asset_class })
          })
        })),
      instrument: ({ params }) => {
        const instrument = instruments.get(params.token)
        return instrument === undefined
          ? Effect.fail(new NotFound({ parameter: "token", message: `token: no instrument has ${params.token}` }))
          : Effect.succeed(instrument)
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
