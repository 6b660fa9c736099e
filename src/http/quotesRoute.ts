/** Decides how the last ticks are answered: one quote a token, in the order asked. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { tradingDay } from "../schema/Tick.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { type DaySoFar, TickStore } from "../streams/ports/TickStore.ts"
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
    return handlers.handleAll({
      quotes: ({ query }) =>
        Effect.gen(function* () {
          yield* maySee(query.tokens, instruments, "tokens")
          yield* markSimulated(instruments.isSimulated(query.tokens))
          const found = yield* Effect.mapError(store.daysSoFar([...new Set(query.tokens)]), storeFailure)
          const { key } = yield* Caller
          // What came of it last may be of a former meaning.
          const sees = (token: number, quote: DaySoFar | undefined): boolean =>
            quote === undefined ||
            key?.isRestricted !== true ||
            key.sees(token, instruments.at(token, tradingDay(quote.last.exchange_ts)))
          const shown = query.tokens.map((token) => {
            const quote = found.get(token)
            return encodeQuote(token, sees(token, quote) ? quote : undefined)
          })
          return json(`{"quotes":[${shown.join(",")}]}`)
        })
    })
  })
)
