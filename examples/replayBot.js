// The same bot on the last day before today that has ticks (today's, where there is none), ten times as fast as it was:
// node examples/replayBot.js [SYMBOL] [SPEED]
// @ts-check
import { connect } from "market-data-platform/client"
import { runBot } from "./bot.js"

const [symbol = "SIM:RELIANCE", speed = "10"] = process.argv.slice(2)
const { MDP_URL: url = "http://127.0.0.1:8080", API_KEY: key } = process.env

/** The trading day of a time, which is India's. */
const dayOf = (/** @type {number} */ ms) => new Date(ms + 5.5 * 3_600_000).toISOString().slice(0, 10)

const client = connect({ url, ...(key === undefined ? {} : { key }) })
const today = dayOf(Date.now())
let date = today
const twoWeeksAgo = new Date(Date.now() - 14 * 86_400_000)
for await (const bar of client.history.candles(symbol, { interval: "1d", from: twoWeeksAgo })) {
  const day = dayOf(bar.ts / 1000)
  if (day < today) date = day
}

const replay = await client.replay({ symbols: [symbol], date, speed: speed === "inf" ? "inf" : Number(speed) })
console.log(`replays ${date} at ${speed}x`)
replay.on("clock", ({ ts, state }) => {
  if (ts !== null) process.stderr.write(`\r${new Date(ts / 1000).toISOString()} ${state} `)
})
// Ends with the day. Elsewhere: replay.pause(), .resume(), .speed(60), .status().
await runBot(replay.ticks())
client.close()
