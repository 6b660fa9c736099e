// Decides how the watched instruments are kept and shown: one row each, written only when something of it changed.
import { decimalsOf, element, percent, price, quantity, short, span } from "./format.js"

const STORED = "market-data-platform.watchlist"
export const MAX_WATCHED = 200
/** The simulator's exchange. */
const SIMULATED_EXCHANGE = "SIM"
const SPARK_TICKS = 60
/** Without a tick for so long an instrument counts as quiet. */
const QUIET_SECONDS = 20
const SVG = "http://www.w3.org/2000/svg"
const calm = matchMedia("(prefers-reduced-motion: reduce)")

/** Lights a figure up for a moment, in the colour of its change; one that changes all the time is not lit all the time. */
export const flash = (target, isUp) => {
  if (calm.matches || document.hidden || target.getAnimations().length > 0) return
  const colour = isUp ? "rgba(46, 189, 133, 0.3)" : "rgba(246, 70, 93, 0.3)"
  target.animate([{ backgroundColor: colour }, { backgroundColor: "transparent" }], {
    duration: 450,
    easing: "ease-out"
  })
}

/** What the page knows of one instrument. */
export class Watched {
  constructor(token, instrument) {
    this.token = token
    this.instrument = instrument
    this.reset()
  }

  get symbol() {
    return this.instrument?.tradingsymbol ?? `#${this.token}`
  }

  get decimals() {
    return decimalsOf(this.instrument?.tick_size)
  }

  reset() {
    this.last = undefined
    this.lastTime = undefined
    this.open = undefined
    this.high = undefined
    this.low = undefined
    this.volume = undefined
    this.book = undefined
    this.recent = []
    this.gaps = 0
    this.filled = 0
    this.evicted = 0
    this.heardAt = undefined
    this.direction = 0
  }

  /** The day so far, as REST has it; ticks that came meanwhile are newer. */
  quote({ last, open, high, low, volume, quote }) {
    if (quote !== undefined) this.known(quote)
    if (last === null) return
    this.open = open
    this.high = Math.max(high, this.high ?? high)
    this.low = Math.min(low, this.low ?? low)
    this.volume = volume
    if (this.lastTime === undefined || last.exchange_ts > this.lastTime) {
      this.last = last.price
      this.lastTime = last.exchange_ts
    }
  }

  /** What is known of book and day; what came before a newer one counts no more. */
  known(quote) {
    if (this.book === undefined || quote.exchange_ts >= this.book.exchange_ts) this.book = quote
  }

  /** Best prices: `bid / ask`, empty where neither is known. */
  get best() {
    const [bid, ask] = [this.book?.bid?.[0]?.[0], this.book?.ask?.[0]?.[0]]
    return bid === undefined && ask === undefined ? "" : `${price(bid, this.decimals)} / ${price(ask, this.decimals)}`
  }

  /** What is open of a contract; a stock, whose packets say 0, has none. */
  get openInterest() {
    const { oi } = this.book ?? {}
    const isContract = this.instrument?.asset_class === "FUT" || this.instrument?.asset_class === "OPT"
    return oi === 0 && !isContract ? undefined : oi
  }

  /** A tick in the order the stream has it; a late one does not set the price. */
  tick(tick, isLive) {
    const isNewest = this.lastTime === undefined || tick.exchange_ts >= this.lastTime
    if (isNewest) {
      this.direction = this.last === undefined ? 0 : Math.sign(tick.price - this.last)
      this.last = tick.price
      this.lastTime = tick.exchange_ts
      this.recent.push(tick.price)
      if (this.recent.length > SPARK_TICKS) this.recent.shift()
    }
    this.open ??= tick.price
    this.high = Math.max(tick.price, this.high ?? tick.price)
    this.low = Math.min(tick.price, this.low ?? tick.price)
    if (isLive) {
      if (this.volume !== undefined || tick.volume > 0) {
        this.volume = Math.min((this.volume ?? 0) + tick.volume, Number.MAX_SAFE_INTEGER)
      }
      this.heardAt = performance.now()
    }
    return isNewest
  }

  get changeShare() {
    return this.open === undefined || this.last === undefined || this.open === 0
      ? undefined
      : ((this.last - this.open) / this.open) * 100
  }
}

export class Watchlist {
  constructor(parts, { select, remove }) {
    this.parts = parts
    this.onSelect = select
    this.onRemove = remove
    this.items = new Map()
    this.rows = new Map()
    this.dirty = new Set()
    this.selected = undefined
    // How long an instrument has been quiet changes without a tick.
    setInterval(() => {
      for (const token of this.items.keys()) this.touch(token)
    }, 5_000)
    parts.body.addEventListener("keydown", (event) => this.move(event))
  }

  static stored() {
    try {
      const list = JSON.parse(localStorage.getItem(STORED) ?? "null")
      return Array.isArray(list)
        ? list.filter((token) => Number.isInteger(token) && token > 0).slice(0, MAX_WATCHED)
        : undefined
    } catch {
      return undefined
    }
  }

  store() {
    try {
      localStorage.setItem(STORED, JSON.stringify([...this.items.keys()]))
    } catch {
      // Without storage the list lasts as long as the page.
    }
  }

  get tokens() {
    return [...this.items.keys()]
  }

  get isFull() {
    return this.items.size >= MAX_WATCHED
  }

  /** Whether something that is shown is made up. */
  get isSimulated() {
    return [...this.items.values()].some((item) => item.instrument?.exchange === SIMULATED_EXCHANGE)
  }

  add(token, instrument) {
    const known = this.items.get(token)
    if (known !== undefined) return known
    const item = new Watched(token, instrument)
    this.items.set(token, item)
    const row = this.row(item)
    this.rows.set(token, row)
    this.parts.body.append(row.row)
    this.touch(token)
    return item
  }

  remove(token) {
    this.rows.get(token)?.row.remove()
    this.rows.delete(token)
    this.items.delete(token)
    this.dirty.delete(token)
    this.store()
    this.onRemove(token)
  }

  select(token) {
    this.selected = token
    for (const [key, { row }] of this.rows) row.setAttribute("aria-selected", String(key === token))
    this.onSelect(this.items.get(token))
  }

  touch(token) {
    this.dirty.add(token)
  }

  /** Writes the rows that changed. */
  draw() {
    for (const token of this.dirty) {
      const item = this.items.get(token)
      const row = this.rows.get(token)
      if (item !== undefined && row !== undefined) this.write(item, row)
    }
    this.dirty.clear()
  }

  row(item) {
    const open = element("button", "open-row symbol-cell", item.symbol)
    open.type = "button"
    open.title = item.instrument === undefined ? "No instrument has this token" : (item.instrument.name ?? item.symbol)
    const marks = element("div", "marks", element("span", "", item.instrument?.exchange ?? "unknown"))
    const line = document.createElementNS(SVG, "polyline")
    const svg = document.createElementNS(SVG, "svg")
    svg.setAttribute("viewBox", "0 0 60 24")
    svg.setAttribute("preserveAspectRatio", "none")
    svg.setAttribute("aria-hidden", "true")
    svg.append(line)
    const best = element("span", "", "")
    best.title = "Best bid and ask"
    const interest = element("span", "", "")
    interest.title = "Open interest"
    const last = element("td", "number", "–")
    const change = element("td", "number", "")
    const remove = element("button", "remove", "×")
    remove.type = "button"
    remove.setAttribute("aria-label", `Remove ${item.symbol}`)
    const row = element(
      "tr",
      "",
      element("td", "", open, marks, element("div", "book", best, interest)),
      element("td", "spark", svg),
      last,
      change,
      element("td", "", remove)
    )
    row.addEventListener("click", () => this.select(item.token))
    remove.addEventListener("click", (event) => {
      event.stopPropagation()
      this.remove(item.token)
    })
    return { row, marks, line, last, best, change, interest, text: "", marked: "" }
  }

  write(item, row) {
    const text = price(item.last, item.decimals)
    if (text !== row.text) {
      if (row.text !== "" && item.direction !== 0) flash(row.last, item.direction > 0)
      row.last.textContent = text
      row.text = text
    }
    const share = item.changeShare
    row.change.textContent = share === undefined ? "" : percent(share)
    row.change.className = `number ${share > 0 ? "up" : share < 0 ? "down" : ""}`
    row.change.title = item.volume === undefined ? "" : `Volume ${quantity(item.volume)}`
    row.best.textContent = item.best
    row.interest.textContent = item.openInterest === undefined ? "" : `OI ${short(item.openInterest)}`
    this.spark(item, row)
    this.marks(item, row)
  }

  spark({ recent, open }, { line }) {
    if (recent.length < 2) {
      line.setAttribute("points", "")
      return
    }
    const low = Math.min(...recent)
    const range = Math.max(...recent) - low || 1
    const step = 60 / (SPARK_TICKS - 1)
    const start = SPARK_TICKS - recent.length
    line.setAttribute(
      "points",
      recent
        .map((value, i) => `${((start + i) * step).toFixed(1)},${(22 - ((value - low) / range) * 20).toFixed(1)}`)
        .join(" ")
    )
    const last = recent[recent.length - 1]
    line.setAttribute("class", last >= (open ?? recent[0]) ? "up" : "down")
  }

  marks(item, row) {
    const quiet = item.heardAt === undefined ? undefined : (performance.now() - item.heardAt) / 1000
    const open = Math.max(0, item.gaps - item.filled)
    const wanted = [
      item.instrument?.exchange ?? "unknown",
      open > 0 ? ["gap", `${short(open)} missing`, "Sequence numbers missing since this page listens"] : undefined,
      item.evicted > 0 ? ["evicted", `${short(item.evicted)} skipped`, "Ticks this page was too slow for"] : undefined,
      quiet > QUIET_SECONDS ? ["quiet", `quiet ${span(quiet)}`, "No tick for a while"] : undefined
    ].filter(Boolean)
    const marked = JSON.stringify(wanted)
    row.row.classList.toggle("silent", quiet > 3 * QUIET_SECONDS)
    if (marked === row.marked) return
    row.marked = marked
    row.marks.replaceChildren(
      ...wanted.map((mark) => {
        if (typeof mark === "string") return element("span", "", mark)
        const made = element("span", `mark ${mark[0]}`, mark[1])
        made.title = mark[2]
        return made
      })
    )
  }

  /** Up and down go from instrument to instrument. */
  move(event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return
    const tokens = this.tokens
    const at = tokens.indexOf(this.selected) + (event.key === "ArrowDown" ? 1 : -1)
    const token = tokens[at]
    if (token === undefined) return
    event.preventDefault()
    this.select(token)
    this.rows.get(token).row.querySelector("button").focus()
  }
}
