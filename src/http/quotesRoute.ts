/** Decides how the last ticks are answered: one quote a token, in the order asked. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { TickStore } from "../streams/TickStore.ts"
import { Api } from "./Api.ts"
import { storeFailure } from "./failures.ts"
import { encodeQuote, json } from "./wire.ts"

export const quotesRoute = HttpApiBuilder.group(
  Api,
  "quotes",
  Effect.fnUntraced(function* (handlers) {
    const store = yield* TickStore
    return handlers.handleAll({
      quotes: ({ query }) =>
        store.quotes([...new Set(query.tokens)]).pipe(
          Effect.map((quotes) =>
            json(`{"quotes":[${query.tokens.map((token) => encodeQuote(token, quotes.get(token))).join(",")}]}`)
          ),
          Effect.mapError(storeFailure)
        )
    })
  })
)
