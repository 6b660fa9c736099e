/**
 * Decides which rows of a file tell of no trade, by the row before of the same instrument, and counts the quotes that go
 * back in time.
 */
import type { QuoteState } from "../../schema/Quote.ts"
import type { RawRecord, RawTick } from "../../schema/RawTick.ts"
import { tradingDay } from "../../schema/Tick.ts"

/** Instruments remembered; full: all are forgotten, and the next row of each is as the first. */
export const MAX_INSTRUMENTS = 200_000

interface Last {
  price: number | undefined
  day_volume: number
  /** The stamp of its newest quote; 0: none yet. */
  quote_ts: number
}

const hasBook = ({ ask, bid }: QuoteState): boolean =>
  (bid !== undefined && bid.length > 0) || (ask !== undefined && ask.length > 0)

/** The last row of each instrument of a file, as far as the next one is read by it. */
export class LastRows {
  readonly #last = new Map<number, Last>()
  /** Quotes that stand behind a newer one of their instrument's day. */
  outdated = 0

  /**
   * Takes note of a row, and answers what is left of it: its quote alone where the row tells of no trade, and that is
   * what such a row is. It tells of none where nothing was traded since the row before and the price is still that one, or
   * there is none before it. A price that differs was traded at, though its quantity may be in another row. Where there is
   * no book there is no trade to tell from none: the rows of an index are its values.
   */
  take(record: RawRecord, untraded: "tick" | "quote"): RawRecord {
    const { quote, tick } = record
    const token = (tick ?? quote!).instrument_token
    let last = this.#last.get(token)
    if (last === undefined) {
      if (this.#last.size >= MAX_INSTRUMENTS) this.#last.clear()
      last = { price: undefined, day_volume: -1, quote_ts: 0 }
      this.#last.set(token, last)
    }
    if (quote !== undefined) this.#date(quote.exchange_ts, last)
    if (tick === undefined) return record
    const isTraded = !isVolumeUnchanged(tick, last) || (last.price !== undefined && last.price !== tick.price)
    last.price = tick.price
    last.day_volume = tick.day_volume
    if (isTraded || untraded === "tick" || quote === undefined || !hasBook(quote.state)) return record
    return { tick: undefined, quote }
  }

  #date(ts: number, last: Last): void {
    if (ts < last.quote_ts && tradingDay(ts) === tradingDay(last.quote_ts)) this.outdated += 1
    else last.quote_ts = ts
  }
}

const isVolumeUnchanged = ({ day_volume, volume }: RawTick, last: Last): boolean =>
  day_volume < 0 ? volume === 0 : day_volume === 0 || day_volume === last.day_volume
