/**
 * Decides what a frame of Kite's ticker is byte for byte, written from the broker's own tables and apart from the
 * product: every field by its offset and width, in whole numbers as they stand on the wire.
 */

/** One level of the book, prices in the segment's parts of a rupee. */
export interface WireLevel {
  readonly quantity: number
  readonly price: number
  readonly orders: number
}

export interface WireTradable {
  readonly last_price: number
  readonly last_quantity: number
  readonly average_price: number
  readonly volume: number
  readonly buy_quantity: number
  readonly sell_quantity: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
}

export interface WireFull extends WireTradable {
  readonly last_trade_time: number
  readonly oi: number
  readonly oi_day_high: number
  readonly oi_day_low: number
  readonly exchange_time: number
  readonly buy: ReadonlyArray<WireLevel>
  readonly sell: ReadonlyArray<WireLevel>
}

export interface WireIndex {
  readonly last_price: number
  readonly high: number
  readonly low: number
  readonly open: number
  readonly close: number
  readonly change: number
}

const big = (value: number, width: 2 | 4): ReadonlyArray<number> => {
  const out: Array<number> = []
  let rest = value < 0 ? value + 2 ** (8 * width) : value
  for (let i = 0; i < width; i++) {
    out.unshift(rest % 256)
    rest = Math.floor(rest / 256)
  }
  return out
}
const words = (...values: ReadonlyArray<number>): ReadonlyArray<number> => values.flatMap((value) => big(value, 4))

export const wireLtp = (token: number, last: number): ReadonlyArray<number> => words(token, last)

export const wireQuote = (token: number, q: WireTradable): ReadonlyArray<number> =>
  words(
    token,
    q.last_price,
    q.last_quantity,
    q.average_price,
    q.volume,
    q.buy_quantity,
    q.sell_quantity,
    q.open,
    q.high,
    q.low,
    q.close
  )

export const wireFull = (token: number, f: WireFull): ReadonlyArray<number> => [
  ...wireQuote(token, f),
  ...words(f.last_trade_time, f.oi, f.oi_day_high, f.oi_day_low, f.exchange_time),
  ...[...f.buy, ...f.sell].flatMap((l) => [...words(l.quantity, l.price), ...big(l.orders, 2), 0, 0])
]

export const wireIndexQuote = (token: number, i: WireIndex): ReadonlyArray<number> =>
  words(token, i.last_price, i.high, i.low, i.open, i.close, i.change)

export const wireIndexFull = (token: number, i: WireIndex, exchangeTime: number): ReadonlyArray<number> => [
  ...wireIndexQuote(token, i),
  ...words(exchangeTime)
]

/** A frame; `count` and lengths as they are, unless a test wants them to lie. */
export const wireFrame = (
  packets: ReadonlyArray<ReadonlyArray<number>>,
  count = packets.length
): Uint8Array<ArrayBuffer> =>
  Uint8Array.from([...big(count, 2), ...packets.flatMap((packet) => [...big(packet.length, 2), ...packet])])
