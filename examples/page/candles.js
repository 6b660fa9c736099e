// A page with live bars of one minute: history by REST, the bar under way by WebSocket, each as the other has it.
// `?symbol=SIM:TCS` is another instrument, `?url=http://host:8080` where the platform is.
// @ts-check
import { connect } from "market-data-platform/client"

const query = new URLSearchParams(location.search)
const symbol = query.get("symbol") ?? "SIM:RELIANCE"
const url = query.get("url") ?? "http://127.0.0.1:8080"
const BARS = 60

/** @type {(id: string) => HTMLElement} */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id))
$("symbol").textContent = symbol

/**
 * Bars by their start: a later one of the same start replaces the earlier.
 * @type {Map<number, { ts: number, open: number, high: number, low: number, close: number, final: boolean }>}
 */
const bars = new Map()

const draw = () => {
  const canvas = /** @type {HTMLCanvasElement} */ ($("chart"))
  const pen = canvas.getContext("2d")
  const shown = [...bars.values()].sort((a, b) => a.ts - b.ts).slice(-BARS)
  const last = shown.at(-1)
  if (pen === null || last === undefined) return
  const top = Math.max(...shown.map(({ high }) => high))
  const bottom = Math.min(...shown.map(({ low }) => low))
  const y = (/** @type {number} */ price) => 10 + ((top - price) / Math.max(top - bottom, 0.01)) * (canvas.height - 20)
  const width = canvas.width / BARS
  pen.clearRect(0, 0, canvas.width, canvas.height)
  shown.forEach(({ open, high, low, close, final }, i) => {
    pen.fillStyle = close >= open ? "#0a7d4f" : "#b3261e"
    pen.globalAlpha = final ? 1 : 0.6
    pen.fillRect((i + 0.5) * width - 0.5, y(high), 1, Math.max(1, y(low) - y(high)))
    pen.fillRect(i * width + 2, y(Math.max(open, close)), width - 4, Math.max(1, Math.abs(y(open) - y(close))))
  })
  const time = new Date(last.ts / 1000).toLocaleTimeString("en-IN", { timeZone: "Asia/Kolkata" })
  $("last").textContent =
    `${shown.length} bars; ${time}: open ${last.open}, high ${last.high}, low ${last.low}, close ${last.close}`
}

const client = connect({ url })
client.on("connected", () => {
  $("state").textContent = "live"
})
client.on("disconnected", ({ reason, retryInMs }) => {
  $("state").textContent = `${reason}; again in ${Math.ceil(retryInMs / 1000)} s`
})

try {
  // Subscribed first, so that nothing is left out between the two.
  const live = client.candles(symbol, "1m")
  const from = new Date(Date.now() - BARS * 60_000)
  for await (const bar of client.history.candles(symbol, { interval: "1m", from })) bars.set(bar.ts, bar)
  draw()
  for await (const bar of live) {
    bars.set(bar.ts, bar)
    for (const ts of bars.keys()) if (bars.size > 2 * BARS) bars.delete(ts)
    draw()
  }
} catch (error) {
  $("state").textContent = String(error)
}
