// A live chart that reads the platform as a charting library does: by /udf alone, asked again each second.
// `?symbol=SIM:TCS` is another instrument, `?resolution=5` another length of a bar, `?url=http://host:8080` where the
// platform is.
// @ts-check
import { CandlestickSeries, createChart, createSeriesMarkers, HistogramSeries } from "lightweight-charts"

const query = new URLSearchParams(location.search)
const symbol = query.get("symbol") ?? "SIM:RELIANCE"
const resolution = query.get("resolution") ?? "1"
const url = query.get("url") ?? "http://127.0.0.1:8080"
const BARS = 300
const AGAIN_MS = 1000
/** The charts know no time zones: this is IST. A day's bar has its date's midnight already. */
const SHIFT = resolution === "1D" ? 0 : 19_800

/** @type {(id: string) => HTMLElement} */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id))

/** @type {(path: string, given?: Record<string, string | number>) => Promise<any>} */
const ask = async (path, given = {}) => {
  const text = new URLSearchParams(Object.entries(given).map(([name, value]) => [name, String(value)]))
  const answer = await (await fetch(`${url}/udf/${path}?${text}`)).json()
  if (answer.s === "error") throw new Error(answer.errmsg)
  return answer
}

const shifted = (/** @type {number} */ seconds) =>
  /** @type {import("lightweight-charts").UTCTimestamp} */ (seconds + SHIFT)

const newest = async (/** @type {number} */ countback) => {
  const to = Math.floor(Date.now() / 1000) + 1
  const { s, t, o, h, l, c, v } = await ask("history", { symbol, resolution, from: to - 1, to, countback })
  if (s === "no_data") return []
  return t.map((/** @type {number} */ time, /** @type {number} */ i) => ({
    time: shifted(time),
    open: o[i],
    high: h[i],
    low: l[i],
    close: c[i],
    value: v[i]
  }))
}

try {
  const info = await ask("symbols", { symbol })
  $("symbol").textContent = `${info.ticker} ${info.description}`
  const chart = createChart($("chart"), { autoSize: true, timeScale: { timeVisible: resolution !== "1D" } })
  const minMove = info.minmov / info.pricescale
  const precision = Math.round(Math.log10(info.pricescale))
  const bars = chart.addSeries(CandlestickSeries, { priceFormat: { type: "price", minMove, precision } })
  const volumes = chart.addSeries(HistogramSeries, { priceScaleId: "", priceFormat: { type: "volume" } })
  volumes.priceScale().applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } })
  const gaps = createSeriesMarkers(bars, [])

  const first = await newest(BARS)
  bars.setData(first)
  volumes.setData(first)
  let count = first.length
  let newestTime = first.at(-1)?.time ?? 0
  for (;;) {
    const two = await newest(2)
    for (const bar of two) {
      // A late tick changes a bar that is over.
      const isOver = bar.time < newestTime
      if (bar.time > newestTime) count++
      newestTime = Math.max(newestTime, bar.time)
      bars.update(bar, isOver)
      volumes.update(bar, isOver)
    }
    const to = Math.floor(Date.now() / 1000) + 1
    const from = (first[0]?.time ?? to - SHIFT - 1) - SHIFT
    const marks = await ask("marks", { symbol, resolution, from, to })
    gaps.setMarkers(
      marks.map((/** @type {any} */ { time, color, label }) => ({
        time: shifted(time),
        color,
        text: label,
        position: "aboveBar",
        shape: "arrowDown"
      }))
    )
    const last = two.at(-1)
    if (last !== undefined) {
      $("last").textContent =
        `${count} bars; open ${last.open}, high ${last.high}, low ${last.low}, close ${last.close}, volume ${last.value}`
    }
    $("state").textContent = "live"
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS))
  }
} catch (error) {
  $("state").textContent = String(error)
}
