// Decides how bars are drawn: candles and volume on a canvas, as many as fit, the newest at the right edge.
import { dayAndMinute, minute, price, quantity, short } from "./format.js"

const COLOURS = {
  up: "#2ebd85",
  down: "#f6465d",
  upWash: "rgba(46, 189, 133, 0.35)",
  downWash: "rgba(246, 70, 93, 0.35)",
  grid: "#1a222d",
  text: "#8592a6",
  label: "#2a3442",
  bright: "#d9e0ea",
  ground: "#10151c"
}
const AXIS = 76
const TIMES = 22
const SLOT = 9
const FONT = '11px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'

/** Steps that read well: 1, 2, 2.5 or 5 times a power of ten. */
const niceStep = (rough) => {
  const power = 10 ** Math.floor(Math.log10(rough))
  const share = rough / power
  return (share <= 1 ? 1 : share <= 2 ? 2 : share <= 2.5 ? 2.5 : share <= 5 ? 5 : 10) * power
}

export class CandleChart {
  /** `readout` takes the line about the bar under the pointer, or the newest. */
  constructor(canvas, readout) {
    this.canvas = canvas
    this.readout = readout
    this.bars = []
    this.decimals = 2
    this.pointer = undefined
    this.asked = false
    new ResizeObserver(() => this.ask()).observe(canvas)
    canvas.addEventListener("pointermove", (event) => {
      this.pointer = { x: event.offsetX, y: event.offsetY }
      this.ask()
    })
    canvas.addEventListener("pointerleave", () => {
      this.pointer = undefined
      this.ask()
    })
  }

  /** Bars ascending by `ts`; drawn with the next frame. */
  show(bars, decimals) {
    this.bars = bars
    this.decimals = decimals
    this.ask()
  }

  ask() {
    if (this.asked) return
    this.asked = true
    requestAnimationFrame(() => {
      this.asked = false
      this.draw()
    })
  }

  draw() {
    const { canvas } = this
    const ratio = window.devicePixelRatio || 1
    const width = canvas.clientWidth
    const height = canvas.clientHeight
    if (width === 0 || height === 0) return
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio)
      canvas.height = Math.round(height * ratio)
    }
    const g = canvas.getContext("2d")
    g.setTransform(ratio, 0, 0, ratio, 0, 0)
    g.clearRect(0, 0, width, height)
    const right = width - AXIS
    const bottom = height - TIMES
    const bars = this.bars.slice(-Math.max(1, Math.floor((right - SLOT) / SLOT)))
    if (bars.length === 0) {
      this.readout("")
      return
    }
    g.font = FONT
    g.textBaseline = "middle"

    let low = Number.POSITIVE_INFINITY
    let high = Number.NEGATIVE_INFINITY
    let most = 0
    for (const bar of bars) {
      low = Math.min(low, bar.low)
      high = Math.max(high, bar.high)
      most = Math.max(most, bar.volume)
    }
    const least = Math.max(high * 0.0002, 10 ** -this.decimals * 4)
    if (high - low < least) {
      const middle = (high + low) / 2
      low = middle - least / 2
      high = middle + least / 2
    }
    const pad = (high - low) * 0.06
    low -= pad
    high += pad
    // Where there is no volume at all, as of an index, the candles get its room too.
    const priceBottom = most > 0 ? bottom * 0.8 : bottom
    const volumeTop = bottom * 0.83
    const y = (value) => priceBottom - ((value - low) / (high - low)) * (priceBottom - 8)
    const x = (index) => right - SLOT * (bars.length - index) + SLOT / 2

    this.grid(g, bars, { low, high, right, bottom, priceBottom, x, y })
    bars.forEach((bar, i) => {
      const up = bar.close >= bar.open
      const centre = Math.round(x(i)) + 0.5
      if (most > 0 && bar.volume > 0) {
        const tall = (bar.volume / most) * (bottom - volumeTop)
        g.fillStyle = up ? COLOURS.upWash : COLOURS.downWash
        g.fillRect(centre - 3.5, bottom - tall, 7, tall)
      }
      g.strokeStyle = g.fillStyle = up ? COLOURS.up : COLOURS.down
      g.beginPath()
      g.moveTo(centre, y(bar.high))
      g.lineTo(centre, y(bar.low))
      g.stroke()
      const top = y(Math.max(bar.open, bar.close))
      g.fillRect(centre - 3.5, top, 7, Math.max(1, y(Math.min(bar.open, bar.close)) - top))
    })

    const newest = bars[bars.length - 1]
    const colour = newest.close >= newest.open ? COLOURS.up : COLOURS.down
    g.setLineDash([2, 3])
    this.line(g, 0, y(newest.close), right, colour)
    g.setLineDash([])
    this.tag(g, right, y(newest.close), price(newest.close, this.decimals), colour, "#06110c")
    this.cross(g, bars, { low, high, right, bottom, priceBottom, x })
  }

  grid(g, bars, { low, high, right, bottom, priceBottom, x, y }) {
    const step = niceStep((high - low) / Math.max(2, Math.floor(priceBottom / 46)))
    g.textAlign = "left"
    for (let value = Math.ceil(low / step) * step; value < high; value += step) {
      this.line(g, 0, y(value), right, COLOURS.grid)
      g.fillStyle = COLOURS.text
      g.fillText(price(value, this.decimals), right + 8, y(value))
    }
    g.textAlign = "center"
    const every = Math.ceil(78 / SLOT)
    for (let i = bars.length - 1 - Math.floor(every / 2); i >= 0; i -= every) {
      const at = Math.round(x(i)) + 0.5
      g.strokeStyle = COLOURS.grid
      g.beginPath()
      g.moveTo(at, 0)
      g.lineTo(at, bottom)
      g.stroke()
      if (at < 20) continue
      g.fillStyle = COLOURS.text
      g.fillText(minute(bars[i].ts), at, bottom + TIMES / 2)
    }
  }

  cross(g, bars, { low, high, right, bottom, priceBottom, x }) {
    const { pointer } = this
    let at = bars.length - 1
    if (pointer !== undefined && pointer.x < right && pointer.y < bottom) {
      at = Math.min(bars.length - 1, Math.max(0, Math.round((pointer.x - x(0)) / SLOT)))
      g.setLineDash([3, 3])
      g.strokeStyle = COLOURS.text
      g.beginPath()
      g.moveTo(Math.round(x(at)) + 0.5, 0)
      g.lineTo(Math.round(x(at)) + 0.5, bottom)
      g.stroke()
      if (pointer.y < priceBottom) {
        this.line(g, 0, pointer.y, right, COLOURS.text)
        const value = low + ((priceBottom - pointer.y) / (priceBottom - 8)) * (high - low)
        this.tag(g, right, pointer.y, price(value, this.decimals), COLOURS.label, COLOURS.bright)
      }
      g.setLineDash([])
    }
    const bar = bars[at]
    const figures = [bar.open, bar.high, bar.low, bar.close].map((value) => price(value, this.decimals))
    const phase = bar.phase && bar.phase !== "CONTINUOUS" ? `  ${bar.phase.toLowerCase().replace("_", "-")}` : ""
    this.readout(
      `${dayAndMinute(bar.ts)}  O ${figures[0]}  H ${figures[1]}  L ${figures[2]}  C ${figures[3]}  V ${
        bar.volume < 1e6 ? quantity(bar.volume) : short(bar.volume)
      }${phase}`
    )
  }

  line(g, from, y, to, colour) {
    g.strokeStyle = colour
    g.beginPath()
    g.moveTo(from, Math.round(y) + 0.5)
    g.lineTo(to, Math.round(y) + 0.5)
    g.stroke()
  }

  tag(g, x, y, text, fill, colour) {
    g.fillStyle = fill
    g.fillRect(x + 2, y - 9, AXIS - 4, 18)
    g.fillStyle = colour
    g.textAlign = "left"
    g.fillText(text, x + 8, y + 0.5)
  }
}
