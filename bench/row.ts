/** Decides what a benchmark reports: one row, the product beside its bare loop, measured in the same run. */

/** One measured row. `bare` and `ratio` are null where there is no bare loop to hold it against. */
export interface Row {
  readonly name: string
  /** The product's figure, in `unit`: the median of the runs. */
  readonly product: number
  readonly bare: number | null
  /** product / bare, of the medians. */
  readonly ratio: number | null
  readonly unit: string
  readonly p50?: number
  readonly p99?: number
  readonly p999?: number
  readonly cpu_s_per_million?: number
  readonly peak_rss_mb?: number
}

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

/** Runs product and bare loop in turn, so that both see the same machine; answers the rates of each. */
export const alternate = async (
  times: number,
  product: () => number | Promise<number>,
  bare: () => number | Promise<number>
): Promise<{ readonly product: ReadonlyArray<number>; readonly bare: ReadonlyArray<number> }> => {
  const rates = { product: [] as Array<number>, bare: [] as Array<number> }
  for (let i = 0; i < times; i++) {
    rates.product.push(await product())
    rates.bare.push(await bare())
  }
  return rates
}
