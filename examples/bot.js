// A bot on moving averages: it wants to be in while the fast one is above the slow one. It takes ticks from whatever has
// them, the market or a replay, and knows no difference.
// @ts-check

/** The mean of the newest `length` values; undefined before there are so many. */
const movingAverage = (/** @type {number} */ length) => {
  /** @type {Array<number>} */
  const values = []
  let sum = 0
  return (/** @type {number} */ value) => {
    values.push(value)
    sum += value
    if (values.length > length) sum -= values.shift() ?? 0
    return values.length < length ? undefined : sum / length
  }
}

/**
 * Runs until the ticks end, or after `most` of them.
 *
 * @param {import("market-data-platform/client").Stream<import("market-data-platform/client").Tick>} ticks
 * @param {{ readonly fast?: number, readonly slow?: number, readonly most?: number }} [options]
 */
export const runBot = async (ticks, { fast = 20, slow = 100, most = Number.POSITIVE_INFINITY } = {}) => {
  const [fastOf, slowOf] = [movingAverage(fast), movingAverage(slow)]
  let seen = 0
  let isIn = false
  let paid = 0
  let profit = 0
  let trades = 0
  for await (const { price, exchange_ts, live } of ticks) {
    const [high, low] = [fastOf(price), slowOf(price)]
    // What came in a backfill fills the averages; there is nothing to trade in the past.
    if (live && high !== undefined && low !== undefined && high > low !== isIn) {
      isIn = !isIn
      if (isIn) paid = price
      else profit += price - paid
      trades++
      console.log(`${new Date(exchange_ts / 1000).toISOString()} ${isIn ? "buys" : "sells"} at ${price}`)
    }
    if (++seen >= most) break
  }
  console.log(`${seen} ticks, ${trades} trades, profit ${profit.toFixed(2)}, missed ${ticks.missed}`)
}
