// Decides how the chart's bars stay true: REST says what they are, ticks carry them on, and REST is asked again.

const MINUTES = { "1m": 1, "5m": 5, "15m": 15, "1h": 60 }
/** 2000-01-03 09:15 IST: bars are aligned on it, as the exchange counts. */
const ORIGIN = 946_871_100_000_000
const BARS = 240
const LIMIT = 1000
/** How often the newest bars are read again: late ticks and the volume of a joined bar come right by it. */
const AGAIN_MS = 10_000

export class Bars {
  /** `fetchJson(path)` answers data or throws; `changed(bars)` is told of every change. */
  constructor(fetchJson, changed) {
    this.fetchJson = fetchJson
    this.changed = changed
    this.list = []
    this.asked = 0
    this.failure = undefined
  }

  /** Shows another instrument or another bar length. `until` bounds a replay's past: its future is not to be seen. */
  async select(token, interval, around, until) {
    this.token = token
    this.width = MINUTES[interval] * 60_000_000
    this.interval = interval
    this.until = until
    this.list = []
    this.failure = undefined
    this.isLoading = true
    this.changed()
    clearInterval(this.timer)
    await this.load(around - BARS * this.width)
    if (until === undefined) this.timer = setInterval(() => this.again(), AGAIN_MS)
  }

  stop() {
    clearInterval(this.timer)
    this.asked++
  }

  /** A tick of the instrument that is shown. */
  tick({ exchange_ts: at, price, volume }) {
    if (this.isLoading) return
    const ts = this.startOf(at)
    const newest = this.list[this.list.length - 1]
    if (newest === undefined || ts > newest.ts) {
      this.list.push({ ts, open: price, high: price, low: price, close: price, volume, latest: at })
      if (this.list.length > 2 * BARS) this.list.splice(0, BARS)
      return
    }
    // A late tick's bar is put right when REST is asked again.
    if (ts < newest.ts) return
    newest.high = Math.max(newest.high, price)
    newest.low = Math.min(newest.low, price)
    newest.volume = Math.min(newest.volume + volume, Number.MAX_SAFE_INTEGER)
    if (at >= (newest.latest ?? 0)) {
      newest.close = price
      newest.latest = at
    }
  }

  startOf(micros) {
    return micros - ((((micros - ORIGIN) % this.width) + this.width) % this.width)
  }

  again() {
    if (document.hidden || this.isLoading) return
    const newest = this.list[this.list.length - 1]
    if (newest !== undefined) void this.load(newest.ts - 2 * this.width)
  }

  async load(from) {
    const asked = ++this.asked
    const query = new URLSearchParams({
      instrument_token: String(this.token),
      interval: this.interval,
      from: String(Math.floor(from)),
      limit: String(LIMIT)
    })
    if (this.until !== undefined) query.set("to", String(this.until))
    try {
      const { candles } = await this.fetchJson(`/api/v1/historical/candles?${query}`)
      if (asked !== this.asked) return
      const first = candles[0]?.ts ?? Number.POSITIVE_INFINITY
      const last = candles[candles.length - 1]?.ts ?? 0
      // Ticks may have begun a bar that the answer does not know yet.
      const newest = this.list[this.list.length - 1]
      this.list = [
        ...this.list.filter((bar) => bar.ts < first && bar.ts >= from - BARS * this.width),
        ...candles.map((bar) => (bar.ts === newest?.ts ? ahead(bar, newest) : bar)),
        ...this.list.filter((bar) => bar.ts > last && bar.ts >= first)
      ]
      this.failure = undefined
    } catch (error) {
      if (asked !== this.asked) return
      // An instrument without any tick is no failure: its first one starts the chart.
      this.failure = error.status === 404 ? undefined : error.message
    }
    this.isLoading = false
    this.changed()
  }
}

/** The bar under way: the ticks that came here may be newer than what the store answers. */
const ahead = (stored, live) =>
  live.latest === undefined
    ? stored
    : {
        ...stored,
        high: Math.max(stored.high, live.high),
        low: Math.min(stored.low, live.low),
        close: live.close,
        latest: live.latest
      }
