/** Decides which open interest is a bar's: the last that quotes of its time have said. */

/** Open interest, and the quote that said it. */
export interface SaidOi {
  readonly oi: number
  readonly exchange_ts: number
  /** Of its raw record. */
  readonly offset: number
}

/** The later of two, in the order of `compareQuotes`. */
export const laterOi = (a: SaidOi | undefined, b: SaidOi | undefined): SaidOi | undefined => {
  if (a === undefined || b === undefined) return a ?? b
  return (b.exchange_ts - a.exchange_ts || b.offset - a.offset) > 0 ? b : a
}
