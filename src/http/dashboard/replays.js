// Decides how replays are started, steered and listened to from the page.
import { date, element, minute, short, time } from "./format.js"
import { ask, send } from "./rest.js"

const EVERY_MS = 2_000
const SPEEDS = [1, 2, 10, 60, "inf"]
const speedText = (speed) => (speed === "inf" ? "max" : `${speed}×`)
const isOver = ({ state }) => state === "ended" || state === "failed"

export class Replays {
  /** `tokens()` are those to replay; `watch(replay)` is called when somebody wants to listen to one. */
  constructor(parts, { tokens, watch }) {
    this.parts = parts
    this.tokens = tokens
    this.watch = watch
    this.items = new Map()
    this.watched = undefined
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault()
      void this.start()
    })
    void this.look()
  }

  setWatched(id) {
    this.watched = id
    for (const [key, item] of this.items) this.mark(key, item)
  }

  async start() {
    const { date, from, to, speed, submit } = this.parts
    const tokens = this.tokens()
    if (tokens.length === 0) {
      this.problem("Add an instrument to the watchlist first: that is what is replayed.")
      return
    }
    submit.disabled = true
    try {
      const replay = await send("POST", "/api/v1/replays", {
        tokens,
        date: date.value,
        speed: speed.value === "inf" ? "inf" : Number(speed.value),
        // It waits for its listener, who is to see the first tick.
        paused: true,
        ...(from.value === "" ? {} : { from: from.value.slice(0, 5) }),
        ...(to.value === "" ? {} : { to: to.value.slice(0, 5) })
      })
      this.problem(undefined)
      this.show(replay)
      this.watch(replay, () => void this.change(replay.id, { state: "running" }))
    } catch (error) {
      this.problem(error.message)
    } finally {
      submit.disabled = false
    }
  }

  async look() {
    try {
      const { replays } = await ask("/api/v1/replays")
      for (const id of [...this.items.keys()]) {
        if (!replays.some((replay) => replay.id === id)) {
          this.items.get(id).row.remove()
          this.items.delete(id)
        }
      }
      for (const replay of replays.toReversed()) this.show(replay)
      this.parts.empty.hidden = this.items.size > 0
    } catch {
      // The page says by itself that the server does not answer.
    }
    const again = () => setTimeout(() => this.look(), EVERY_MS)
    if (document.hidden) document.addEventListener("visibilitychange", again, { once: true })
    else again()
  }

  async change(id, change) {
    try {
      this.show(await send("PATCH", `/api/v1/replays/${encodeURIComponent(id)}`, change))
      this.problem(undefined)
    } catch (error) {
      this.problem(error.message)
    }
  }

  async stop(id) {
    try {
      await send("DELETE", `/api/v1/replays/${encodeURIComponent(id)}`)
      this.problem(undefined)
      this.show(await ask(`/api/v1/replays/${encodeURIComponent(id)}`))
    } catch (error) {
      this.problem(error.message)
    }
  }

  problem(text) {
    this.parts.problem.textContent = text ?? ""
    this.parts.problem.hidden = text === undefined
  }

  show(replay) {
    const item = this.items.get(replay.id) ?? this.add(replay)
    item.replay = replay
    item.title.textContent = rangeText(replay)
    item.state.textContent = replay.state
    item.state.className = replay.state === "failed" ? "down" : replay.state === "running" ? "up" : "muted"
    item.clock.textContent = replay.clock === null ? "not begun" : `at ${time(replay.clock)}`
    item.count.textContent = `${short(replay.sent)} of ${short(replay.total)} ticks`
    item.fill.style.width = replay.total > 0 ? `${(replay.sent / replay.total) * 100}%` : "0"
    item.failure.textContent = replay.failure?.message ?? ""
    item.failure.hidden = replay.failure === undefined
    item.actions.hidden = isOver(replay)
    item.toggle.textContent = replay.state === "paused" ? "Resume" : "Pause"
    const speed = String(replay.speed)
    if (![...item.speed.options].some((option) => option.value === speed)) item.speed.append(choice(replay.speed))
    if (document.activeElement !== item.speed) item.speed.value = speed
    this.mark(replay.id, item)
    this.parts.empty.hidden = true
  }

  /** What the stream says of a replay, sooner than it is asked for again. */
  clock(id, { ts, state }) {
    const item = this.items.get(id)
    if (item === undefined || isOver(item.replay)) return
    this.show({ ...item.replay, clock: ts ?? null, state })
  }

  mark(id, item) {
    item.row.classList.toggle("watched", id === this.watched)
    item.listen.textContent = id === this.watched ? "Watching" : "Watch"
    item.listen.disabled = id === this.watched
  }

  add({ id }) {
    const item = {
      title: element("b", ""),
      state: element("span", ""),
      clock: element("span", ""),
      count: element("span", "muted"),
      fill: element("span", ""),
      failure: element("span", "down"),
      toggle: element("button", ""),
      speed: element("select", "", ...SPEEDS.map(choice)),
      tick: element("button", "", "Next tick"),
      step: element("button", "", "Next bar"),
      seek: element("input", ""),
      go: element("button", "", "Go to"),
      listen: element("button", ""),
      end: element("button", "", "Stop"),
      actions: element("div", "replay-steering")
    }
    for (const button of [item.toggle, item.tick, item.step, item.go, item.listen, item.end]) button.type = "button"
    item.speed.setAttribute("aria-label", "Speed")
    item.seek.type = "time"
    item.seek.step = "1"
    item.seek.title = "Go to a time of the day (IST)"
    item.seek.setAttribute("aria-label", "Time to go to")
    item.tick.title = "The next tick of any instrument, and pause"
    item.step.title = "To the end of the next minute that has ticks, and pause"
    item.actions.append(
      element("div", "replay-actions", item.toggle, item.speed, item.tick, item.step),
      element("div", "replay-actions", item.seek, item.go, item.listen, item.end)
    )
    item.row = element(
      "li",
      "",
      element("div", "replay-line", item.title, item.state),
      element("div", "meter", item.fill),
      element("div", "replay-line", item.clock, item.count),
      item.failure,
      item.actions
    )
    item.toggle.addEventListener("click", () => {
      void this.change(id, { state: item.replay.state === "paused" ? "running" : "paused" })
    })
    item.speed.addEventListener("change", () => {
      void this.change(id, { speed: item.speed.value === "inf" ? "inf" : Number(item.speed.value) })
    })
    const go = () => {
      if (item.seek.value === "") item.seek.focus()
      else void this.change(id, { seek: item.seek.value })
    }
    item.seek.addEventListener("keydown", (event) => {
      if (event.key === "Enter") go()
    })
    // From where it stands a person goes on or back.
    item.seek.addEventListener("focus", () => {
      if (item.seek.value === "") item.seek.value = time(item.replay.clock ?? item.replay.from)
    })
    item.go.addEventListener("click", go)
    item.tick.addEventListener("click", () => void this.change(id, { step: { ticks: 1 } }))
    item.step.addEventListener("click", () => void this.change(id, { step: { bars: 1, interval: "1m" } }))
    item.listen.addEventListener("click", () => this.watch(item.replay))
    item.end.addEventListener("click", () => void this.stop(id))
    this.parts.list.prepend(item.row)
    this.items.set(id, item)
    return item
  }
}

/** A whole day is its date. */
const rangeText = ({ from, to }) =>
  to - from === 86_400_000_000 ? date(from) : `${date(from)} ${minute(from)} – ${minute(to)}`

const choice = (speed) => {
  const option = element("option", "", speedText(speed))
  option.value = String(speed)
  return option
}
