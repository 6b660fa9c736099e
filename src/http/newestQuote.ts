/** Decides how an instrument's newest quote before a time is found: backwards, each look a wider one, until one has it. */
import { Effect } from "effect"
import type { StoreError } from "../schema/Errors.ts"
import type { Quote } from "../schema/Quote.ts"
import type { PastTicks } from "../streams/ports/History.ts"

/** What is looked at first, in µs; each look at what lies before is of so many times as much. */
const FIRST_MICROS = 2_000_000
const WIDER = 16
const PAGE = 1000

/** The newest of the quotes stamped in [from, to); undefined where there is none. */
export const newestQuote = (
  past: Pick<PastTicks, "quotePage">,
  token: number,
  from: number,
  to: number
): Effect.Effect<Quote | undefined, StoreError> =>
  Effect.gen(function* () {
    let end = to
    for (let span = FIRST_MICROS; end > from; span *= WIDER) {
      const start = Math.max(from, end - span)
      let newest: Quote | undefined
      for (let at = start; ; at = newest!.exchange_ts + 1) {
        const page = yield* past.quotePage({ instrument_token: token, from: at, to: end, limit: PAGE })
        newest = page.at(-1) ?? newest
        if (page.length < PAGE) break
      }
      if (newest !== undefined) return newest
      end = start
    }
    return undefined
  })
