/** Hands kiteconnectjs what a test says, line by line, and says what it hands its user. */

import { createRequire } from "node:module"
import { createInterface } from "node:readline"

const require = createRequire(process.env.KITE_MODULES)
const { KiteConnect, KiteTicker } = require("kiteconnect")

const { KITE_KEY: api_key, KITE_TOKEN: access_token, KITE_ROOT: root } = process.env
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`)

const kite = new KiteConnect({ api_key, access_token, root })
kite.setSessionExpiryHook(() => say({ event: "session_expired" }))

let ticker

/** It does not subscribe again by itself: its `connect` does. */
const listen = ({ tokens, mode }) => {
  ticker = new KiteTicker({
    api_key,
    access_token,
    root: root.replace("http", "ws"),
    reconnect: true,
    max_retry: 50,
    max_delay: 5
  })
  ticker.on("connect", () => {
    ticker.subscribe(tokens)
    if (mode) ticker.setMode(mode, tokens)
    say({ event: "connect" })
  })
  ticker.on("ticks", (ticks) => say({ event: "ticks", ticks }))
  ticker.on("disconnect", (error) => say({ event: "close", reason: String(error) }))
  ticker.on("error", (error) => say({ event: "error", reason: String(error.message ?? error) }))
  ticker.on("reconnect", () => say({ event: "reconnect" }))
  ticker.autoReconnect(true, 50, 5)
  ticker.connect()
}

const does = {
  instruments: ({ exchange }) => (exchange ? kite.getInstruments([exchange]) : kite.getInstruments()),
  quote: ({ i }) => kite.getQuote(i),
  ohlc: ({ i }) => kite.getOHLC(i),
  ltp: ({ i }) => kite.getLTP(i),
  historical: ({ token, start, end, interval, oi }) => kite.getHistoricalData(token, interval, start, end, false, oi),
  profile: () => kite.getProfile(),
  margins: () => kite.getMargins(),
  orders: () => kite.getOrders(),
  positions: () => kite.getPositions(),
  order: () =>
    kite.placeOrder("regular", {
      exchange: "NSE",
      tradingsymbol: "INFY",
      transaction_type: "BUY",
      quantity: 1,
      product: "CNC",
      order_type: "MARKET"
    }),
  session: ({ request_token }) => kite.generateSession(request_token, "secret"),
  logout: () => kite.invalidateAccessToken(access_token),
  segment: ({ segment }) => kite.getMargins(segment),
  as: ({ token }) => kite.setAccessToken(token),
  listen,
  subscribe: ({ tokens }) => ticker.subscribe(tokens),
  unsubscribe: ({ tokens }) => ticker.unsubscribe(tokens),
  mode: ({ tokens, mode }) => ticker.setMode(mode, tokens)
}

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...asked } = JSON.parse(line)
  try {
    say({ result: (await does[name](asked)) ?? null })
  } catch (failed) {
    say({ failed: failed.error_type ?? String(failed.name), message: String(failed.message ?? failed) })
  }
}
