/** Decides what is asked of prices by whoever does not follow the ticks: the last one of a token, where it is in memory. */
import { Context } from "effect"

/** A plain function on what is in memory; where nothing follows the ticks, no price is known. */
export const LastPrices = Context.Reference<(token: number) => number | undefined>(
  "market-data-platform/streams/LastPrices",
  { defaultValue: () => () => undefined }
)
