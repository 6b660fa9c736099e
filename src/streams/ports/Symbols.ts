/** Decides what is asked of the names that tokens have on a day, by whoever writes them beside ticks. */
import { Context, Effect } from "effect"

export interface SymbolsShape {
  /** Takes in what changed, where that can be had soon; never fails. */
  readonly refresh: Effect.Effect<void>
  /** `EXCHANGE:TRADINGSYMBOL` of a token on a trading day (since 1970), where it is known. */
  readonly of: (token: number, day: number) => string | undefined
}

/** Nothing is named where nobody knows names. */
export const Symbols = Context.Reference<SymbolsShape>("market-data-platform/streams/Symbols", {
  defaultValue: () => ({ refresh: Effect.void, of: () => undefined })
})
