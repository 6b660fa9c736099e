/** Decides how the last ticks are answered: one quote a token, in the order asked. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { TickStore } from "../streams/TickStore.ts"
import { Api } from "./Api.ts"
import { storeFailure } from "./failures.ts"

export const quotesRoute = HttpApiBuilder.group(
  Api,
  "quotes",
  Effect.fnUntraced(function* (handlers) {
    const store = yield* TickStore
    return handlers.handleAll({
      quotes: ({ query }) =>
        store.quotes([...new Set(query.tokens)]).pipe(
          Effect.map((quotes) => ({
            quotes: query.tokens.map((instrument_token) => {
              const quote = quotes.get(instrument_token)
              return {
                instrument_token,
                last: quote?.last ?? null,
                open: quote?.open ?? null,
                high: quote?.high ?? null,
                low: quote?.low ?? null,
                volume: quote?.volume ?? null
              }
            })
          })),
          Effect.mapError(storeFailure)
        )
    })
  })
)
