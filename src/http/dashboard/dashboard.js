// Decides what the page shows: the market or a replay, live, with what the pipeline says of itself beside it.
import { Bars } from "./bars.js"
import { CandleChart } from "./chart.js"
import { date, element, percent, price, quantity, short, signed, time } from "./format.js"
import { giveKey, showAsking, whenGiven } from "./key.js"
import { Letters } from "./letters.js"
import { Pipeline } from "./pipeline.js"
import { Replays } from "./replays.js"
import { ask } from "./rest.js"
import { Search } from "./search.js"
import { Stream } from "./stream.js"
import { flash, MAX_WATCHED, Watchlist } from "./watchlist.js"

const BACKFILL = 60
/** Instruments of a page that was never here before. */
const FIRST_WATCHED = 14
const TAPE_ROWS = 60
/** Without a tick of any instrument for so long the page does not say that its stream is exact. */
const QUIET_MS = 4_000

const $ = (id) => document.getElementById(id)
const nowMicros = () => Date.now() * 1000

// What is shown -----------------------------------------------------------------------------------------------------

let stream
/** The replay that is watched; undefined: the market itself. */
let replay
let replayClock
let interval = "1m"
let selected
let ticksHere = 0
let ticksBefore = 0
let heardAt = Number.NEGATIVE_INFINITY
const tape = []
let tapeChanged = true

const chart = new CandleChart($("chart"), (text) => {
  $("readout").textContent = text
})

const bars = new Bars(ask, () => {
  chart.show(bars.list, selected?.decimals ?? 2)
  const empty = $("chart-empty")
  empty.hidden = bars.isLoading || bars.list.length > 0
  empty.textContent = bars.failure === undefined ? "No bars yet: the next tick begins one." : `Bars: ${bars.failure}`
})

const watchlist = new Watchlist(
  { body: $("watchlist") },
  {
    select: (item) => show(item),
    remove: (token) => {
      stream?.remove(token)
      tellEmpty()
      if (token !== selected?.token) return
      const [next] = watchlist.tokens
      if (next === undefined) show(undefined)
      else watchlist.select(next)
    }
  }
)

// The stream --------------------------------------------------------------------------------------------------------

/** Listens to the market, or to a replay; `begun` is called when its first answer is here. */
const listen = (wanted, begun) => {
  stream?.close()
  replay = wanted
  replayClock = wanted?.clock ?? undefined
  for (const token of watchlist.tokens) {
    watchlist.items.get(token).reset()
    watchlist.touch(token)
  }
  tape.length = 0
  tapeChanged = true
  let isBegun = false
  stream = new Stream(wanted?.id, {
    state: showConnection,
    message: (message) => {
      if (!isBegun && message.type === "subscribed") {
        isBegun = true
        begun?.()
      }
      take(message)
    },
    run: () => {
      for (const token of watchlist.tokens) watchlist.items.get(token).reset()
      if (selected !== undefined) show(selected)
    },
    gone: () => {
      note("The replay is over: back to the market.")
      listen(undefined)
    }
  })
  stream.add(watchlist.tokens, BACKFILL)
  $("replay-banner").hidden = wanted === undefined
  $("clock-label").textContent = wanted === undefined ? "IST" : "replayed, IST"
  replays.setWatched(wanted?.id)
  if (wanted === undefined) void quotes(watchlist.tokens)
  if (selected !== undefined) show(selected)
}

const take = (message) => {
  switch (message.type) {
    case "tick": {
      const item = watchlist.items.get(message.instrument_token)
      if (item === undefined) return
      ticksHere++
      item.tick(message, true)
      watchlist.touch(item.token)
      if (item === selected) {
        bars.tick(message)
        log({ tick: message })
      }
      return
    }
    case "backfill": {
      const item = watchlist.items.get(message.instrument_token)
      if (item === undefined) return
      for (const tick of message.data) item.tick(tick, false)
      watchlist.touch(item.token)
      if (item !== selected) return
      for (const tick of message.data) {
        bars.tick(tick)
        log({ tick })
      }
      if (!message.recovered) log({ event: "Not recovered: something before this is not to be had", isLost: true })
      return
    }
    case "evicted": {
      const item = watchlist.items.get(message.instrument_token)
      if (item === undefined) return
      item.evicted += message.count
      watchlist.touch(item.token)
      if (item === selected) {
        log({ event: `Skipped ${message.count}: positions ${message.from} to ${message.to}`, isLost: true })
      }
      return
    }
    case "gap":
    case "gap_filled": {
      const item = watchlist.items.get(message.instrument_token)
      if (item === undefined) return
      const count = message.to - message.from + 1
      const isGap = message.type === "gap"
      if (isGap) item.gaps += count
      else item.filled += count
      watchlist.touch(item.token)
      if (item !== selected) return
      const which = count === 1 ? `${message.from}` : `${message.from} to ${message.to}`
      log({ event: isGap ? `Gap: ${which} missing` : `Filled: ${which} came late` })
      return
    }
    case "quote": {
      const item = watchlist.items.get(message.instrument_token)
      if (item === undefined) return
      item.known(message)
      watchlist.touch(item.token)
      return
    }
    case "clock":
      replayClock = message.ts ?? undefined
      if (replay === undefined) return
      replay = { ...replay, state: message.state, run: message.run }
      replays.clock(replay.id, message)
      return
    case "subscribed":
      for (const answer of message.tokens) {
        if (answer.accepted) continue
        note(
          `${answer.symbol ?? `Token ${answer.instrument_token}`} was not accepted: ${answer.reason.replaceAll("_", " ")}`
        )
      }
      return
    case "error":
      note(message.message)
      return
  }
}

/** The day so far, for the rows; the stream brings the rest. */
const quotes = async (tokens) => {
  if (tokens.length === 0) return
  try {
    const { quotes: found } = await ask(`/api/v1/quotes?tokens=${tokens.join(",")}`)
    for (const quote of found) {
      const item = watchlist.items.get(quote.instrument_token)
      if (item === undefined || replay !== undefined) continue
      item.quote(quote)
      watchlist.touch(item.token)
    }
    // Where the market is closed, the chart goes back from the last tick, not from now.
    if (selected !== undefined && bars.list.length === 0 && !bars.isLoading) show(selected)
  } catch {
    // The rows fill from the stream all the same.
  }
}

// Selected instrument -----------------------------------------------------------------------------------------------

const show = (item) => {
  const isOther = item !== selected
  selected = item
  if (isOther) {
    tape.length = 0
    tapeChanged = true
  }
  if (item === undefined) {
    bars.stop()
    chart.show([], 2)
    for (const id of ["symbol", "last", "day-open", "day-high", "day-low", "day-volume", "last-time"])
      $(id).textContent = "–"
    for (const id of ["name", "change", "place", "readout"]) $(id).textContent = ""
    return
  }
  const { instrument } = item
  $("symbol").textContent = item.symbol
  $("name").textContent =
    instrument === undefined
      ? `Token ${item.token}: no instrument has it`
      : [instrument.name, instrument.exchange, instrument.asset_class, instrument.expiry].filter(Boolean).join(" · ")
  shownPrice = undefined
  // A closed market is shown as it was: back from its last tick.
  const around = replay === undefined ? (item.lastTime ?? nowMicros()) : (replayClock ?? replay.from)
  void bars.select(item.token, interval, around, replay === undefined ? undefined : Math.ceil(around))
}

let shownPrice
const drawSelected = () => {
  if (selected === undefined) return
  const { decimals, last, open, direction } = selected
  const text = price(last, decimals)
  if (text !== shownPrice) {
    if (shownPrice !== undefined && direction !== 0) flash($("last"), direction > 0)
    shownPrice = text
    $("last").textContent = text
    document.title = last === undefined ? "Market Data Platform" : `${text} ${selected.symbol}`
  }
  const share = selected.changeShare
  $("change").textContent =
    share === undefined
      ? ""
      : `${share > 0 ? "▲" : share < 0 ? "▼" : ""} ${signed(last - open, decimals)} (${percent(share)})`
  $("change").className = `change ${share > 0 ? "up" : share < 0 ? "down" : ""}`
  $("day-open").textContent = price(open, decimals)
  $("day-high").textContent = price(selected.high, decimals)
  $("day-low").textContent = price(selected.low, decimals)
  $("day-volume").textContent = selected.volume === undefined ? "–" : quantity(selected.volume)
  $("last-time").textContent = time(selected.lastTime)
  const { bid, ask } = selected.book ?? {}
  const oi = selected.openInterest
  for (const [name, best] of [
    ["bid", bid?.[0]],
    ["ask", ask?.[0]]
  ]) {
    $(`best-${name}`).hidden = best === undefined
    if (best !== undefined) $(`${name}-price`).textContent = `${price(best[0], decimals)} × ${short(best[1])}`
  }
  $("open-interest").hidden = oi === undefined
  $("oi").textContent = quantity(oi)
  const place = stream?.places.get(selected.token)
  $("place").textContent = place === undefined ? "" : `${place.epoch} / ${quantity(place.position)}`
  chart.show(bars.list, decimals)
  if (bars.list.length > 0) $("chart-empty").hidden = true
}

const log = (entry) => {
  tape.unshift(entry)
  if (tape.length > TAPE_ROWS) tape.length = TAPE_ROWS
  tapeChanged = true
}

const drawTape = () => {
  if (!tapeChanged) return
  tapeChanged = false
  $("tape-empty").hidden = tape.length > 0
  $("tape").replaceChildren(
    ...tape.map(({ tick, event, isLost }, i) => {
      if (tick === undefined) {
        const cell = element("td", "", event)
        cell.colSpan = 6
        return element("tr", isLost ? "event lost" : "event", cell)
      }
      const before = tape.slice(i + 1).find((other) => other.tick !== undefined)?.tick
      const direction = before === undefined ? 0 : tick.price - before.price
      return element(
        "tr",
        "",
        element("td", "", time(tick.exchange_ts, true)),
        element(
          "td",
          `number ${direction > 0 ? "up" : direction < 0 ? "down" : ""}`,
          price(tick.price, selected.decimals)
        ),
        element("td", "number", tick.volume === 0 ? "" : quantity(tick.volume)),
        element("td", "number", tick.sequence_id < 0 ? "–" : String(tick.sequence_id)),
        element("td", "number", String(tick.position)),
        element("td", tick.status === "STALE" ? "warn" : "muted", tick.status)
      )
    })
  )
}

// Top ---------------------------------------------------------------------------------------------------------------

let connection = { state: "connecting", detail: {} }
/** Why no live tick can come, where the server knows of a reason. */
let stopped
let noted

/** Something a person should read; it goes by itself. */
const note = (text) => {
  noted = { text, until: performance.now() + 8_000 }
  showConnection(connection.state, connection.detail)
}

const showConnection = (state, detail) => {
  const wasOpen = connection.state === "open"
  connection = { state, detail }
  const pill = $("connection")
  const isStopped = state === "open" && replay === undefined && stopped !== undefined
  pill.dataset.state = isStopped ? "stopped" : state
  pill.title = isStopped ? `Connected, but no tick can come: ${stopped}` : ""
  document.body.dataset.connection = isStopped ? "waiting" : state
  const seconds = Math.max(0, Math.ceil(((detail.until ?? 0) - performance.now()) / 1000))
  pill.textContent =
    state === "open"
      ? isStopped
        ? "No live ticks"
        : replay === undefined
          ? "Live"
          : "Replay"
      : state === "waiting"
        ? `Retry in ${seconds}s`
        : "Connecting…"
  const offline = $("offline")
  if (state === "waiting") {
    const why = detail.reason ? ` (${detail.reason})` : ""
    offline.replaceChildren(
      element(
        "span",
        "",
        `Connection lost${why}. Prices below are the last known; the stream goes on from where it stopped.`
      ),
      retryButton
    )
    offline.hidden = false
  } else if (noted !== undefined && performance.now() < noted.until) {
    offline.replaceChildren(element("span", "", noted.text))
    offline.hidden = false
  } else if (state === "open") {
    offline.hidden = true
  }
  if (state === "open" && !wasOpen && replay === undefined) void quotes(watchlist.tokens)
}

const retryButton = element("button", "", "Try now")
retryButton.type = "button"
retryButton.addEventListener("click", () => stream?.now())
addEventListener("online", () => stream?.now())
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) stream?.now()
})

setInterval(() => {
  const rate = ticksHere - ticksBefore
  ticksBefore = ticksHere
  $("rate").textContent = connection.state === "open" ? short(rate) : "–"
  const skipped = [...watchlist.items.values()].reduce((sum, item) => sum + item.evicted, 0)
  const integrity = $("integrity")
  const breaches = stream?.breaches ?? 0
  if (rate > 0) heardAt = performance.now()
  // Where nothing comes there is nothing that could be exact.
  const isQuiet = performance.now() - heardAt > QUIET_MS
  integrity.textContent =
    breaches > 0 ? `${breaches} breaks` : skipped > 0 ? `${short(skipped)} skipped` : isQuiet ? "no ticks" : "exact"
  integrity.className = breaches > 0 ? "down" : skipped > 0 ? "warn" : isQuiet ? "muted" : "up"
  integrity.title = "Every position came once, or was told as skipped"
  showConnection(connection.state, connection.detail)
}, 1000)

const drawClock = () => {
  $("clock").textContent = replay === undefined ? time(nowMicros()) : time(replayClock)
  if (replay !== undefined) {
    $("replay-banner-text").textContent =
      `${date(replay.from)}, ${replay.state}${replayClock === undefined ? "" : ` at ${time(replayClock)}`}`
  }
}

const frame = () => {
  watchlist.draw()
  drawSelected()
  drawTape()
  drawClock()
  requestAnimationFrame(frame)
}

// Parts -------------------------------------------------------------------------------------------------------------

const tellEmpty = (text) => {
  const empty = $("watch-empty")
  empty.hidden = watchlist.items.size > 0
  empty.textContent = text ?? "Nothing watched. Search above to add an instrument."
}

const replays = new Replays(
  {
    form: $("replay-form"),
    date: $("replay-date"),
    from: $("replay-from"),
    to: $("replay-to"),
    speed: $("replay-speed"),
    submit: $("replay-start"),
    problem: $("replay-problem"),
    list: $("replay-list"),
    empty: $("replay-empty")
  },
  { tokens: () => watchlist.tokens, watch: (wanted, begun) => listen(wanted, begun) }
)
$("replay-date").value = date(nowMicros())
$("replay-date").max = date(nowMicros())
$("leave-replay").addEventListener("click", () => listen(undefined))

new Pipeline(
  {
    tiles: $("tiles"),
    stages: $("stages"),
    buffers: $("buffers"),
    state: $("pipeline-state"),
    wins: $("wins"),
    winsFill: $("wins-fill"),
    winsFirst: $("wins-first"),
    winsSecond: $("wins-second"),
    groups: $("groups"),
    processes: $("processes"),
    processesNote: $("processes-note"),
    trouble: $("trouble")
  },
  ({ stopped: why }) => {
    $("simulated").hidden = !watchlist.isSimulated
    stopped = why
    showConnection(connection.state, connection.detail)
  }
)

new Letters({
  form: $("letters-form"),
  reason: $("letters-reason"),
  retry: $("letters-retry"),
  total: $("letters-total"),
  problem: $("letters-problem"),
  note: $("letters-note"),
  list: $("letters-list"),
  empty: $("letters-empty")
})

new Search($("search"), $("results"), (token, instrument) => {
  if (watchlist.isFull && !watchlist.items.has(token)) {
    note(`The watchlist holds ${MAX_WATCHED} instruments; remove one first.`)
    return
  }
  if (!watchlist.items.has(token)) {
    watchlist.add(token, instrument)
    watchlist.store()
    tellEmpty()
    stream.add([token], BACKFILL)
    if (replay === undefined) void quotes([token])
  }
  watchlist.select(token)
})

for (const button of $("intervals").querySelectorAll("button")) {
  button.addEventListener("click", () => {
    interval = button.dataset.interval
    for (const other of $("intervals").querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === button))
    }
    if (selected !== undefined) show(selected)
  })
}

/** What the page's key is not for. */
const FORBIDDEN = Symbol("forbidden")

/** The instruments that were watched here before, else the first there are; asked again until the server answers. */
const begin = async () => {
  const stored = Watchlist.stored()
  tellEmpty("Asking for instruments…")
  for (let wait = 500; ; wait = Math.min(10_000, wait * 2)) {
    try {
      const { instruments } = await ask(`/api/v1/instruments/search?limit=${FIRST_WATCHED}`)
      if (stored === undefined || (stored.length === 0 && watchlist.items.size === 0)) {
        for (const instrument of instruments) watchlist.add(instrument.instrument_token, instrument)
      } else {
        const found = await Promise.all(
          stored.map((token) =>
            ask(`/api/v1/instruments/${token}`).catch((error) =>
              error.status === 404 ? undefined : error.status === 403 ? FORBIDDEN : Promise.reject(error)
            )
          )
        )
        for (const [i, token] of stored.entries()) if (found[i] !== FORBIDDEN) watchlist.add(token, found[i])
      }
      break
    } catch (error) {
      tellEmpty(`Instruments: ${error.message}; asking again.`)
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
  tellEmpty(
    "No instruments are known. Import the broker's file with “mdp instruments import”, or search for a token that ticks come for."
  )
  listen(undefined)
  const [first] = watchlist.tokens
  if (first !== undefined) watchlist.select(first)
}

showAsking((why) => {
  $("key-form").hidden = why === undefined
  $("key-problem").hidden = !why
  $("key-problem").textContent = why ?? ""
  if (why !== undefined) $("key").focus()
})
whenGiven(() => stream?.now())
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault()
  const given = $("key").value
  // Not left in the page, where another person at it could read it.
  $("key").value = ""
  giveKey(given)
})

requestAnimationFrame(frame)
void begin()
