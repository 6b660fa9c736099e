/** Decides what is asked of quotes by whoever does not follow them: the newest one of each instrument, wherever it is. */
import { Context, Effect } from "effect"
import type { Quote } from "../../schema/Quote.ts"

const NONE: ReadonlyMap<number, Quote> = new Map()

/** From memory, else from outside it; what does not answer there is left out. Where nothing follows them, none is known. */
export const LatestQuotes = Context.Reference<
  (tokens: ReadonlyArray<number>) => Effect.Effect<ReadonlyMap<number, Quote>>
>("market-data-platform/streams/LatestQuotes", { defaultValue: () => () => Effect.succeed(NONE) })
