// The bot on live ticks: node examples/liveBot.js [SYMBOL] [TICKS]
// The platform is at MDP_URL (http://127.0.0.1:8080), with API_KEY where it has keys; `npm start` runs one.
// @ts-check
import { connect } from "market-data-platform/client"
import { runBot } from "./bot.js"

const [symbol = "SIM:RELIANCE", most = "Infinity"] = process.argv.slice(2)
const { MDP_URL: url = "http://127.0.0.1:8080", API_KEY: key } = process.env

const client = connect({ url, ...(key === undefined ? {} : { key }) })
client.on("disconnected", ({ reason, retryInMs }) => console.log(`${reason}; again in ${Math.round(retryInMs)} ms`))
client.on("connected", ({ resumed }) => console.log(resumed ? "goes on where it was" : "connected"))
client.on("missed", ({ from, to, reason }) => console.log(`missed ${from} to ${to}: ${reason}`))

// The newest hundred first, so that the averages are there from the start.
await runBot(client.ticks(symbol, { backfill: 100 }), { most: Number(most) })
client.close()
