// Decides how figures and times are written: rupees and quantities as the market writes them, times in IST.

const IST_MICROS = 19_800_000_000
const grouped = new Intl.NumberFormat("en-IN", { maximumFractionDigits: 0 })
const compact = new Intl.NumberFormat("en-IN", { notation: "compact", maximumFractionDigits: 2 })
const prices = new Map()

/** A price with as many decimals as its instrument's tick size asks for. */
export const price = (value, decimals = 2) => {
  if (value === undefined || value === null) return "–"
  let format = prices.get(decimals)
  if (format === undefined) {
    format = new Intl.NumberFormat("en-IN", { minimumFractionDigits: decimals, maximumFractionDigits: decimals })
    prices.set(decimals, format)
  }
  return format.format(value)
}

/** How many decimals a tick size has; at least two. */
export const decimalsOf = (tickSize) => {
  const text = tickSize === undefined || tickSize === null ? "" : String(tickSize)
  const point = text.indexOf(".")
  return Math.min(7, Math.max(2, point < 0 ? 0 : text.length - point - 1))
}

export const quantity = (value) => (value === undefined || value === null ? "–" : grouped.format(value))
export const short = (value) =>
  value === undefined || value === null
    ? "–"
    : value < 10_000
      ? grouped.format(Math.round(value))
      : compact.format(value)

/** A share of a hundred; what rounds to nothing has no sign. */
export const percent = (value, digits = 2) => {
  const text = Math.abs(value).toFixed(digits)
  const sign = Number(text) === 0 ? "" : value > 0 ? "+" : "−"
  return `${sign}${text}%`
}

export const signed = (value, decimals) =>
  `${value > 0 ? "+" : value < 0 ? "−" : ""}${price(Math.abs(value), decimals)}`

const two = (n) => String(n).padStart(2, "0")
const ist = (micros) => new Date((micros + IST_MICROS) / 1000)

/** `HH:MM:SS`, with milliseconds where asked. */
export const time = (micros, millis = false) => {
  if (micros === undefined || micros === null) return "–"
  const at = ist(micros)
  const clock = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`
  return millis ? `${clock}.${String(at.getUTCMilliseconds()).padStart(3, "0")}` : clock
}

export const minute = (micros) => time(micros).slice(0, 5)

/** `YYYY-MM-DD` of the trading day. */
export const date = (micros) => ist(micros).toISOString().slice(0, 10)

export const dayAndMinute = (micros) => `${date(micros)} ${minute(micros)}`

/** A span of seconds as a person says it. */
export const span = (seconds) =>
  seconds < 60
    ? `${Math.floor(seconds)}s`
    : seconds < 3600
      ? `${Math.floor(seconds / 60)}m`
      : `${Math.floor(seconds / 3600)}h`

export const duration = (seconds) =>
  seconds === undefined || Number.isNaN(seconds)
    ? "–"
    : seconds < 0.001
      ? `${Math.round(seconds * 1e6)}µs`
      : seconds < 1
        ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)}ms`
        : `${seconds.toFixed(1)}s`

/** What a text may hide or turn round with: controls, marks of direction, and what has no width. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

/** Text that others wrote, at most so long, with what cannot be seen in it spelt out. */
export const foreign = (text, most) => {
  const shown = text.slice(0, most).replace(UNSEEN, (char) => `\\u{${char.codePointAt(0).toString(16)}}`)
  return text.length > most ? `${shown}…` : shown
}

/** An element with a class, a text and children; data only ever becomes text. */
export const element = (tag, className, ...children) => {
  const made = document.createElement(tag)
  if (className) made.className = className
  made.append(...children.filter((child) => child !== undefined && child !== null))
  return made
}
