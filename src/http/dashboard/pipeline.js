// Decides which of the pipeline's figures a person sees at a glance, and how rates come out of counters.
import { duration, element, percent, short } from "./format.js"
import { ask } from "./rest.js"

const EVERY_MS = 2_000
const STAGES = ["decode", "normalize", "deduplicate", "sequence", "publish", "store", "ring", "archive"]
const EDGES = [
  ["exchange_to_received", "exchange → received"],
  ["received_to_published", "received → published"],
  ["published_to_client", "published → client"]
]

/** The counters of one look, findable by name and labels. */
class Look {
  constructor(counters, at) {
    this.at = at
    this.byName = new Map()
    for (const { name, labels, value } of counters) {
      if (!this.byName.has(name)) this.byName.set(name, [])
      this.byName.get(name).push({ labels, value })
    }
  }

  all(name) {
    return this.byName.get(name) ?? []
  }

  sum(name, wanted = {}) {
    let total
    for (const { labels, value } of this.all(name)) {
      if (Object.entries(wanted).every(([key, text]) => labels[key] === text)) total = (total ?? 0) + value
    }
    return total
  }
}

/** Seconds below which a share of what was counted between two looks lies. */
const quantile = (now, before, share) => {
  const buckets = [...now]
    .map(([bound, count]) => [bound, count - (before?.get(bound) ?? 0)])
    .sort((a, b) => a[0] - b[0])
  const total = buckets.at(-1)?.[1] ?? 0
  if (total <= 0) return undefined
  return buckets.find(([, count]) => count >= share * total)?.[0]
}

const BUCKET = /^topology_tick_latency_seconds_bucket\{(.*)\} (\S+)$/
const bucketsOf = (text) => {
  const edges = new Map()
  for (const line of text.split("\n")) {
    const found = BUCKET.exec(line)
    if (found === null) continue
    const edge = /edge="([^"]*)"/.exec(found[1])?.[1]
    const bound = Number((/le="([^"]*)"/.exec(found[1])?.[1] ?? "").replace("+Inf", "Infinity"))
    if (!edges.has(edge)) edges.set(edge, new Map())
    edges.get(edge).set(bound, Number(found[2]))
  }
  return edges
}

export class Pipeline {
  constructor(parts, onSimulated) {
    this.parts = parts
    this.onSimulated = onSimulated
    this.tiles = new Map()
    this.rows = new Map()
    this.meters = new Map()
    this.round = 0
    for (const [key, label, title] of [
      ["in", "raw ticks/s", "Raw ticks read a second, both feeds"],
      ["out", "published/s", "Clean ticks published a second"],
      ["lag", "behind", "Records that groups have yet to read"],
      ["duplicates", "duplicates", "Share of what came in that was there already"],
      ["gaps", "gaps", "Gaps opened in contiguous sequences"],
      ["filled", "filled", "Missing numbers that came while their gap was open"],
      ["lost", "lost", "Missing numbers that neither feed brought in time"],
      ["evicted", "evicted", "Ticks taken from slow clients' queues"],
      ["clients", "clients", "WebSocket clients connected"]
    ]) {
      const value = element("b", "", "–")
      const tile = element("div", "tile", value, element("span", "", label))
      tile.title = title
      parts.tiles.append(tile)
      this.tiles.set(key, value)
    }
    for (const stage of STAGES) {
      const cells = [1, 2, 3].map(() => element("td", "number", "–"))
      const row = element("tr", "", element("td", "", stage), ...cells)
      row.hidden = true
      parts.stages.append(row)
      this.rows.set(stage, { row, cells })
    }
    void this.look()
  }

  async look() {
    try {
      const topology = await ask("/topology")
      const look = new Look(topology.counters, performance.now())
      this.onSimulated(topology.simulated === true)
      this.show(look)
      if (this.round++ % 2 === 0) this.showDelays(bucketsOf(await ask("/metrics")))
      this.parts.state.textContent = ""
      this.parts.state.classList.remove("warn")
    } catch (error) {
      this.parts.state.textContent = error.message
      this.parts.state.classList.add("warn")
      this.before = undefined
    }
    const again = () => setTimeout(() => this.look(), EVERY_MS)
    // A page that nobody looks at does not ask.
    if (document.hidden) document.addEventListener("visibilitychange", again, { once: true })
    else again()
  }

  show(now) {
    const { before } = this
    const seconds = before === undefined ? 0 : (now.at - before.at) / 1000
    const rate = (name, labels) => {
      const value = now.sum(name, labels)
      const earlier = before?.sum(name, labels)
      return value === undefined || earlier === undefined || value < earlier ? undefined : (value - earlier) / seconds
    }
    const set = (key, text, isBad = false) => {
      const tile = this.tiles.get(key)
      tile.textContent = text
      tile.classList.toggle("warn", isBad)
    }
    const received = "topology_stage_received_events_total"
    const sent = "topology_stage_sent_events_total"
    const discarded = "topology_stage_discarded_events_total"
    const rawRate = rate(received, { stage: "decode" })
    set("in", short(rawRate))
    set("out", short(rate(sent, { stage: "publish" })))
    const lags = new Map()
    for (const { labels, value } of now.all("topology_consumer_lag_records")) {
      lags.set(labels.group, (lags.get(labels.group) ?? 0) + value)
    }
    const behind = Math.max(0, ...lags.values())
    set("lag", short(behind), behind > 10_000)
    this.tiles.get("lag").parentElement.title = [...lags].map(([group, lag]) => `${group}: ${lag}`).join("\n")
    const duplicates = rate(discarded, { stage: "deduplicate", reason: "duplicate" })
    set("duplicates", rawRate > 0 ? percent(((duplicates ?? 0) / rawRate) * 100, 1).replace("+", "") : "–")
    set("gaps", short(now.sum("topology_gaps_total") ?? 0))
    set("filled", short(now.sum("topology_gap_fills_total") ?? 0))
    const lost = now.sum("topology_lost_ticks_total") ?? 0
    set("lost", short(lost), lost > 0)
    const evicted = now.sum("topology_evictions_total") ?? 0
    set("evicted", short(evicted), (rate("topology_evictions_total") ?? 0) > 0)
    set("clients", short(now.sum("topology_subscribers") ?? 0))

    for (const [stage, { row, cells }] of this.rows) {
      row.hidden = now.sum(received, { stage }) === undefined
      cells[0].textContent = short(rate(received, { stage }))
      cells[1].textContent = short(rate(sent, { stage }))
      const reasons = now.all(discarded).filter(({ labels }) => labels.stage === stage)
      cells[2].textContent = reasons.length === 0 ? "" : short(reasons.reduce((sum, { value }) => sum + value, 0))
      row.title = reasons.map(({ labels, value }) => `${labels.reason}: ${value}`).join("\n")
    }
    this.showWins(now)
    this.showBuffers(now)
    this.before = now
  }

  showWins(now) {
    const wins = now.all("topology_feed_wins_total").toSorted((a, b) => a.labels.feed.localeCompare(b.labels.feed))
    const total = wins.reduce((sum, { value }) => sum + value, 0)
    this.parts.wins.hidden = total === 0
    if (total === 0) return
    const [first, ...rest] = wins
    const others = rest.reduce((sum, { value }) => sum + value, 0)
    this.parts.winsFill.style.width = `${(first.value / total) * 100}%`
    this.parts.winsFirst.textContent = `${first.labels.feed} first ${percent((first.value / total) * 100, 2).replace("+", "")}`
    this.parts.winsSecond.textContent =
      rest.length === 0 ? "" : `${rest.map(({ labels }) => labels.feed).join(", ")} ${short(others)}`
  }

  showBuffers(now) {
    for (const { labels, value: capacity } of now.all("topology_buffer_max_size_events")) {
      const size = now.sum("topology_buffer_size_events", labels)
      if (size !== undefined && capacity > 0)
        this.meter(`buffer ${labels.buffer}`, labels.buffer, size / capacity, short(size))
    }
    const degraded = now.sum("topology_claims_degraded") ?? 0
    const alarms = now.sum("topology_order_alarms_total") ?? 0
    const told = [degraded > 0 ? "claims degraded" : "", alarms > 0 ? `${alarms} order alarms` : ""].filter(Boolean)
    this.parts.degraded.textContent = told.join(", ")
    this.parts.degraded.hidden = told.length === 0
  }

  showDelays(edges) {
    for (const [edge, label] of EDGES) {
      const now = edges.get(edge)
      if (now === undefined) continue
      const p99 = quantile(now, this.delays?.get(edge), 0.99)
      // The scale is logarithmic: half a millisecond is empty, five seconds are full.
      const share = p99 === undefined ? 0 : Math.log(p99 / 0.0005) / Math.log(10_000)
      const text =
        p99 === undefined ? "p99 –" : p99 === Number.POSITIVE_INFINITY ? "p99 > 60s" : `p99 ≤ ${duration(p99)}`
      this.meter(edge, label, Math.min(1, Math.max(0, share)), text)
    }
    this.delays = edges
  }

  meter(key, label, share, text) {
    let meter = this.meters.get(key)
    if (meter === undefined) {
      const fill = element("span", "")
      const value = element("span", "", "")
      const row = element("div", "buffer", element("span", "", label), element("div", "meter", fill), value)
      this.parts.buffers.append(row)
      meter = { fill, value }
      this.meters.set(key, meter)
    }
    meter.fill.style.width = `${Math.min(100, share * 100)}%`
    meter.fill.classList.toggle("full", share > 0.9)
    meter.value.textContent = text
  }
}
