/** Decides what a benchmark reports: one row, the product beside its bare loop, measured in the same run. */

/** One measured row. `bare` and `ratio` are null where there is no bare loop to hold it against. */
export interface Row {
  readonly name: string
  /** The product's figure, in `unit`: the median of the runs. */
  readonly product: number
  readonly bare: number | null
  /** The best run of each. */
  readonly best?: number
  readonly bare_best?: number
  /** product / bare, of the medians. */
  readonly ratio: number | null
  readonly unit: string
  readonly p50?: number
  readonly p99?: number
  readonly p999?: number
  readonly cpu_s_per_million?: number
  readonly peak_rss_mb?: number
  /** Mean memory of a run's last quarter, by that of its second: near 1 where it is flat. */
  readonly rss_growth?: number
}

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

interface Rates {
  readonly product: ReadonlyArray<number>
  readonly bare: ReadonlyArray<number>
}

/** What a row says of rates, of which more is better: the medians and the best; none of a bare loop where there is none. */
export const figures = ({ product, bare }: Rates) => {
  const rate = median(product)
  if (bare.length === 0) return { product: rate, best: Math.max(...product), bare: null, ratio: null }
  const bareRate = median(bare)
  return {
    product: rate,
    best: Math.max(...product),
    bare: bareRate,
    bare_best: Math.max(...bare),
    ratio: rate / bareRate
  }
}

/** Runs product and bare loop in turn, so that both see the same machine; answers the rates of each. */
export const alternate = async (
  times: number,
  product: () => number | Promise<number>,
  bare: () => number | Promise<number>
): Promise<Rates> => {
  const rates = { product: [] as Array<number>, bare: [] as Array<number> }
  for (let i = 0; i < times; i++) {
    rates.product.push(await product())
    rates.bare.push(await bare())
  }
  return rates
}
