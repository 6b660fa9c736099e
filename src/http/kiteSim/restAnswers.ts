/** Decides how the simulated Kite's quotes look over REST: Kite's own shapes. */
import type { KitePacket } from "../../schema/kite/packets.ts"
import type { Level } from "../../schema/Quote.ts"

const IST_MS = 19_800_000

/** `YYYY-MM-DD HH:MM:SS` in India; null where there is none. */
const istOf = (seconds: number): string | null =>
  seconds === 0 ? null : new Date(seconds * 1000 + IST_MS).toISOString().slice(0, 19).replace("T", " ")

const side = (levels: ReadonlyArray<Level>) =>
  Array.from({ length: 5 }, (_, i) => {
    const [price, quantity, orders] = levels[i] ?? [0, 0, 0]
    return { price, quantity, orders }
  })

const ohlcOf = ({ close, high, low, open }: KitePacket) => ({ open, high, low, close })

export const ltpAnswer = ({ lastPrice, token }: KitePacket) => ({ instrument_token: token, last_price: lastPrice })

export const ohlcAnswer = (packet: KitePacket) => ({ ...ltpAnswer(packet), ohlc: ohlcOf(packet) })

export const quoteAnswer = (p: KitePacket) => ({
  instrument_token: p.token,
  timestamp: istOf(p.exchangeSeconds),
  last_trade_time: istOf(p.lastTradeSeconds),
  last_price: p.lastPrice,
  last_quantity: p.lastQuantity,
  buy_quantity: p.buyQuantity,
  sell_quantity: p.sellQuantity,
  volume: p.volume,
  average_price: p.averagePrice,
  oi: p.oi,
  oi_day_high: p.oiDayHigh,
  oi_day_low: p.oiDayLow,
  net_change: p.change,
  lower_circuit_limit: 0,
  upper_circuit_limit: 0,
  ohlc: ohlcOf(p),
  depth: { buy: side(p.bid), sell: side(p.ask) }
})
