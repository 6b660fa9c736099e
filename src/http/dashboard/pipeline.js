// Decides which of the pipeline's figures a person sees at a glance: of all processes, who they are, and what is wrong.
import { Figures } from "./figures.js"
import { duration, element, percent, short, span } from "./format.js"
import { ask } from "./rest.js"

const EVERY_MS = 1_000
/** A server that takes longer to say how it is may as well be away. */
const ANSWER_MS = 3_000
/** Lines of what is wrong, and processes, that are shown. */
const MAX_TOLD = 6
const MAX_PROCESSES = 32
const MAX_CHARS = 160
const STAGES = ["decode", "normalize", "deduplicate", "sequence", "publish", "store", "ring", "archive"]
const EDGES = [
  ["exchange_to_received", "exchange → received"],
  ["received_to_published", "received → published"],
  ["published_to_client", "published → client"]
]

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

/** Why no live tick can come, as far as the server knows; undefined where one can. */
const stoppedOf = ({ ready, degraded }) =>
  !ready
    ? "not ready"
    : degraded.find((name) => name === "process: nobody runs it" || name === "log" || name === "server")

export class Pipeline {
  /** `told({ stopped })` hears of every look: `stopped` is why no live ticks can come, if so. */
  constructor(parts, told) {
    this.parts = parts
    this.told = told
    this.figures = new Figures()
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
      const topology = await ask("/topology", { signal: AbortSignal.timeout(ANSWER_MS) })
      this.figures.take(topology.workers)
      this.show(topology)
      this.showProcesses(topology)
      this.showTrouble(topology)
      this.told({ stopped: stoppedOf(topology) })
      if (this.round++ % 4 === 0) this.showDelays(bucketsOf(await ask("/metrics")))
      this.parts.state.textContent = ""
      this.parts.state.classList.remove("warn")
    } catch (error) {
      this.parts.state.textContent = error.message
      this.parts.state.classList.add("warn")
      this.forget(error.message)
      // The page's key may not read them: asked again and again it would only be refused.
      if (error.status === 403) return
    }
    const again = () => setTimeout(() => this.look(), EVERY_MS)
    // A page that nobody looks at does not ask.
    if (document.hidden) document.addEventListener("visibilitychange", again, { once: true })
    else again()
  }

  /** Figures that nobody stands for any more are not shown. */
  forget(why) {
    this.figures.forget()
    for (const tile of this.tiles.values()) tile.textContent = "–"
    for (const { cells } of this.rows.values()) for (const cell of cells) cell.textContent = "–"
    this.parts.groups.replaceChildren()
    this.parts.processes.replaceChildren()
    this.parts.processesNote.textContent = ""
    this.tell([`Nothing is known of the pipeline: ${why}`])
    this.told({ stopped: why })
  }

  show(topology) {
    const { figures } = this
    const set = (key, text, isBad = false) => {
      const tile = this.tiles.get(key)
      tile.textContent = text
      tile.classList.toggle("warn", isBad)
    }
    const received = "topology_stage_received_events_total"
    const sent = "topology_stage_sent_events_total"
    const discarded = "topology_stage_discarded_events_total"
    const rawRate = figures.rate(received, { stage: "decode" })
    set("in", short(rawRate))
    set("out", short(figures.rate(sent, { stage: "publish" })))
    const lags = topology.groups.flatMap(({ lag }) => (lag === null ? [] : [lag]))
    const isKnown = lags.length > 0
    const behind = isKnown ? Math.max(...lags) : undefined
    set("lag", isKnown ? short(behind) : "?", !isKnown || behind > 10_000)
    this.tiles.get("lag").parentElement.title = topology.groups
      .map(({ group, lag }) => `${group}: ${lag ?? "not known"}`)
      .join("\n")
    const duplicates = figures.rate(discarded, { stage: "deduplicate", reason: "duplicate" })
    set("duplicates", rawRate > 0 ? percent(((duplicates ?? 0) / rawRate) * 100, 1).replace("+", "") : "–")
    // What has not happened yet is not counted yet; where nobody lives that would count it, it is not known.
    const none = figures.sum(received, { stage: "decode" }) === undefined ? undefined : 0
    set("gaps", short(figures.sum("topology_gaps_total") ?? none))
    set("filled", short(figures.sum("topology_gap_fills_total") ?? none))
    const lost = figures.sum("topology_lost_ticks_total") ?? none
    set("lost", short(lost), lost > 0)
    set("evicted", short(figures.sum("topology_evictions_total") ?? 0), figures.rate("topology_evictions_total") > 0)
    set("clients", short(figures.sum("topology_subscribers") ?? 0))

    for (const [stage, { row, cells }] of this.rows) {
      row.hidden = figures.sum(received, { stage }) === undefined
      cells[0].textContent = short(figures.rate(received, { stage }))
      cells[1].textContent = short(figures.rate(sent, { stage }))
      const reasons = new Map()
      for (const { labels, value } of figures.all(discarded)) {
        if (labels.stage === stage) reasons.set(labels.reason, (reasons.get(labels.reason) ?? 0) + value)
      }
      cells[2].textContent = reasons.size === 0 ? "" : short([...reasons.values()].reduce((sum, n) => sum + n, 0))
      row.title = [...reasons].map(([reason, value]) => `${reason}: ${value}`).join("\n")
    }
    this.showGroups(topology.groups)
    this.showWins()
    for (const [buffer, size, share] of figures.fills(
      "topology_buffer_size_events",
      "topology_buffer_max_size_events"
    )) {
      this.meter(`buffer ${buffer}`, buffer, share, short(size))
    }
  }

  showGroups(groups) {
    this.parts.groups.replaceChildren(
      ...groups.map(({ group, lag, held, run_by, members }) => {
        const count = run_by?.length ?? members
        const by =
          count === null ? "not known" : count === 0 ? "nobody" : count === 1 ? "1 process" : `${count} processes`
        const row = element(
          "tr",
          "",
          element("td", "", group),
          element("td", count === 0 || count === null ? "warn" : "", by),
          element("td", lag === null || lag > 10_000 ? "number warn" : "number", lag === null ? "?" : short(lag)),
          element("td", "number", held > 0 ? short(held) : "")
        )
        row.title = (run_by ?? []).slice(0, MAX_PROCESSES).join("\n")
        return row
      })
    )
  }

  showProcesses({ workers, workers_known: isKnown, self }) {
    const now = Date.now() * 1000
    const shown = workers.slice(0, MAX_PROCESSES)
    this.parts.processes.replaceChildren(
      ...shown.map((worker) => {
        const { living, silent_ms, waiting, degraded, started_at, stages } = worker
        const [state, text] = !living
          ? ["down", `silent ${span(silent_ms / 1000)}`]
          : waiting.length > 0
            ? ["warn", "starting"]
            : worker.life !== self && degraded.length > 0
              ? ["warn", "degraded"]
              : ["up", `up ${span(Math.max(0, now - started_at) / 1_000_000)}`]
        const item = element(
          "li",
          living ? "" : "dead",
          element("span", "process-name", worker.worker.slice(0, MAX_CHARS)),
          element("span", "muted", stages.join(", ")),
          element("span", state, text)
        )
        item.title = [...waiting.map((name) => `waiting for ${name}`), ...degraded].slice(0, 20).join("\n")
        return item
      })
    )
    this.parts.processesNote.textContent =
      isKnown === null
        ? "Redis does not answer: other processes cannot be seen"
        : isKnown === false && workers[0]?.role !== "instance"
          ? "REDIS_URL is not set: other processes cannot be seen"
          : workers.length > MAX_PROCESSES
            ? `and ${workers.length - MAX_PROCESSES} more`
            : ""
  }

  showTrouble({ ready, waiting, degraded }) {
    const claims = this.figures.sum("topology_claims_degraded") ?? 0
    const alarms = this.figures.sum("topology_order_alarms_total") ?? 0
    this.tell([
      ...(ready ? [] : waiting.map((name) => `waiting for ${name}`)),
      ...degraded,
      ...(claims > 0 ? ["claims degraded"] : []),
      ...(alarms > 0 ? [`${alarms} order alarms`] : [])
    ])
  }

  tell(troubles) {
    const { trouble } = this.parts
    const more = troubles.length - MAX_TOLD
    const text = `Degraded: ${[
      ...troubles.slice(0, MAX_TOLD).map((name) => name.slice(0, MAX_CHARS)),
      ...(more > 0 ? [`${more} more`] : [])
    ].join(" · ")}`
    // Said to who cannot see it only where it is another.
    if (trouble.textContent !== text) trouble.textContent = text
    trouble.title = troubles.join("\n").slice(0, 4000)
    trouble.hidden = troubles.length === 0
  }

  showWins() {
    const wins = this.figures.by("topology_feed_wins_total", "feed")
    const total = wins.reduce((sum, [, value]) => sum + value, 0)
    this.parts.wins.hidden = total === 0
    if (total === 0) return
    const [[feed, first], ...rest] = wins
    const others = rest.reduce((sum, [, value]) => sum + value, 0)
    this.parts.winsFill.style.width = `${(first / total) * 100}%`
    this.parts.winsFirst.textContent = `${feed} first ${percent((first / total) * 100, 2).replace("+", "")}`
    this.parts.winsSecond.textContent =
      rest.length === 0
        ? ""
        : `${rest
            .map(([name]) => name)
            .join(", ")
            .slice(0, MAX_CHARS)} ${short(others)}`
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
