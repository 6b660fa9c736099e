/** Decides how the last ticks and what is known of the book are answered: one quote a token, in the order asked. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { tradingDay } from "../schema/Tick.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { LatestQuotes } from "../streams/ports/LatestQuotes.ts"
import { TickStore } from "../streams/ports/TickStore.ts"
import { Api } from "./Api.ts"
import { Caller, maySee } from "./caller.ts"
import { storeFailure } from "./failures.ts"
import { markSimulated } from "./simulatedMark.ts"
import { encodeQuote, json } from "./wire.ts"

export const quotesRoute = HttpApiBuilder.group(
  Api,
  "quotes",
  Effect.fnUntraced(function* (handlers) {
    const store = yield* TickStore
    const instruments = yield* Instruments
    const latest = yield* LatestQuotes
    return handlers.handleAll({
      quotes: ({ query }) =>
        Effect.gen(function* () {
          yield* maySee(query.tokens, instruments, "tokens")
          yield* markSimulated(instruments.isSimulated(query.tokens))
          const tokens = [...new Set(query.tokens)]
          const days = yield* Effect.mapError(store.daysSoFar(tokens), storeFailure)
          const quotes = yield* latest(tokens)
          const { key } = yield* Caller
          // What came of it last may be of a former meaning.
          const seen = <A>(token: number, found: A | undefined, at: (found: A) => number): A | undefined =>
            found === undefined ||
            key?.isRestricted !== true ||
            key.sees(token, instruments.at(token, tradingDay(at(found))))
              ? found
              : undefined
          const shown = query.tokens.map((token) => {
            const day = seen(token, days.get(token), ({ last }) => last.exchange_ts)
            return encodeQuote(
              token,
              day,
              seen(token, quotes.get(token), ({ exchange_ts }) => exchange_ts)
            )
          })
          return json(`{"quotes":[${shown.join(",")}]}`)
        })
    })
  })
)
