/** Decides how the last ticks are answered: one quote a token, in the order asked. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Instruments } from "../streams/ports/Instruments.ts"
import { TickStore } from "../streams/ports/TickStore.ts"
import { Api } from "./Api.ts"
import { storeFailure } from "./failures.ts"
import { markSimulated } from "./simulatedMark.ts"
import { encodeQuote, json } from "./wire.ts"

export const quotesRoute = HttpApiBuilder.group(
  Api,
  "quotes",
  Effect.fnUntraced(function* (handlers) {
    const store = yield* TickStore
    const instruments = yield* Instruments
    return handlers.handleAll({
      quotes: ({ query }) =>
        Effect.andThen(
          markSimulated(instruments.isSimulated(query.tokens)),
          store.quotes([...new Set(query.tokens)])
        ).pipe(
          Effect.map((quotes) =>
            json(`{"quotes":[${query.tokens.map((token) => encodeQuote(token, quotes.get(token))).join(",")}]}`)
          ),
          Effect.mapError(storeFailure)
        )
    })
  })
)
