/** Decides how the last ticks are answered: one quote a token, in the order asked. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Instruments } from "../streams/ports/Instruments.ts"
import { TickStore } from "../streams/ports/TickStore.ts"
import { Api } from "./Api.ts"
import { maySee } from "./caller.ts"
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
        Effect.gen(function* () {
          yield* maySee(query.tokens, instruments, "tokens")
          yield* markSimulated(instruments.isSimulated(query.tokens))
          const quotes = yield* Effect.mapError(store.quotes([...new Set(query.tokens)]), storeFailure)
          return json(`{"quotes":[${query.tokens.map((token) => encodeQuote(token, quotes.get(token))).join(",")}]}`)
        })
    })
  })
)
