// Decides how the page listens: one WebSocket that comes back by itself and goes on exactly where it was.
import { apiKey, isAsking, keyGiven, refuseKey } from "./key.js"

const FIRST_WAIT_MS = 500
const LONGEST_WAIT_MS = 15_000
/** After so long without a word the connection is asked whether it lives, and given up after as long again. */
const SILENCE_MS = 15_000
/** Close codes that mean the server will not have this client; asking again soon would not help. */
const REFUSALS = new Set([1008, 1009])
/** … but for a key that is over: asking again tells whether another is to be asked for. */
const KEY_OVER = /^the API key /

export class Stream {
  /**
   * `on` takes: `state(state, detail)`, `message(message)`, `run()` when a replay begins anew, `gone()` when the replay
   * is over.
   */
  constructor(replay, on) {
    this.replay = replay
    this.on = on
    /** Where each instrument's stream stands: what `since` carries. */
    this.places = new Map()
    this.tokens = new Map()
    /** What was left on this connection: the server knows how far it was sent, better than who has yet to read it. */
    this.left = new Set()
    /** Positions that were neither sent nor told as evicted: there must never be one. */
    this.breaches = 0
    this.attempts = 0
    this.run = undefined
    this.closed = false
    this.connect()
  }

  /** Subscribes; what is subscribed already goes on. */
  add(tokens, backfill) {
    const added = tokens.filter((token) => !this.tokens.has(token))
    for (const token of added) this.tokens.set(token, backfill)
    if (this.isOpen && added.length > 0) this.subscribe(added, backfill)
  }

  remove(token) {
    this.tokens.delete(token)
    this.places.delete(token)
    this.left.add(token)
    if (this.isOpen) this.send({ action: "unsubscribe", tokens: [token] })
  }

  close() {
    this.closed = true
    clearTimeout(this.retry)
    clearInterval(this.watch)
    this.socket?.close()
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN
  }

  /** Tries at once, where it waits to. */
  now() {
    if (this.closed || this.retry === undefined) return
    clearTimeout(this.retry)
    this.retry = undefined
    this.connect()
  }

  connect() {
    this.on.state("connecting", { again: this.attempts > 0 })
    if (isAsking()) {
      void keyGiven().then(() => {
        if (!this.closed) this.connect()
      })
      return
    }
    this.key = apiKey()
    const scheme = location.protocol === "https:" ? "wss:" : "ws:"
    const socket = new WebSocket(`${scheme}//${location.host}/ws`)
    this.socket = socket
    this.heard = performance.now()
    socket.onopen = () => {
      this.attempts = 0
      this.left.clear()
      this.heard = performance.now()
      this.on.state("open", {})
      // A browser cannot send a header with it.
      if (this.key !== undefined) this.send({ action: "auth", key: this.key })
      const groups = new Map()
      for (const [token, backfill] of this.tokens) {
        if (!groups.has(backfill)) groups.set(backfill, [])
        groups.get(backfill).push(token)
      }
      for (const [backfill, tokens] of groups) this.subscribe(tokens, backfill)
    }
    socket.onmessage = ({ data }) => {
      this.heard = performance.now()
      const frame = JSON.parse(data)
      if (Array.isArray(frame)) for (const message of frame) this.take(message)
      else this.take(frame)
    }
    socket.onclose = ({ code, reason }) => {
      clearInterval(this.watch)
      if (this.closed || this.socket !== socket) return
      if (isAsking()) {
        this.connect()
        return
      }
      this.attempts++
      const growing = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 1.8 ** Math.min(this.attempts - 1, 10))
      const isRefused = REFUSALS.has(code) && !KEY_OVER.test(reason)
      const wait = isRefused ? LONGEST_WAIT_MS : growing * (0.75 + Math.random() / 2)
      this.on.state("waiting", { until: performance.now() + wait, code, reason })
      this.retry = setTimeout(() => {
        this.retry = undefined
        this.connect()
      }, wait)
    }
    this.watch = setInterval(() => {
      const silent = performance.now() - this.heard
      if (silent > 2 * SILENCE_MS) socket.close()
      else if (silent > SILENCE_MS && socket.readyState === WebSocket.OPEN) this.send({ action: "ping" })
    }, SILENCE_MS / 3)
  }

  subscribe(tokens, backfill) {
    const since = {}
    for (const token of tokens) {
      const place = this.left.has(token) ? undefined : this.places.get(token)
      if (place !== undefined) since[token] = [place.epoch, place.position]
    }
    this.send({
      action: "subscribe",
      tokens,
      backfill,
      since,
      channels: ["tick", "gap", "quote"],
      batch: true,
      id: "watchlist",
      ...(this.replay === undefined ? {} : { replay: this.replay })
    })
  }

  send(message) {
    this.socket.send(JSON.stringify(message))
  }

  take(message) {
    switch (message.type) {
      case "tick":
        this.advance(message.instrument_token, message.epoch, message.position, message.position)
        break
      case "backfill":
        if (message.data.length > 0) {
          this.advance(message.instrument_token, message.epoch, message.from, message.to, message.recovered)
        } else if (message.epoch > 0) {
          this.places.set(message.instrument_token, { epoch: message.epoch, position: message.to })
        }
        break
      case "evicted":
        this.advance(message.instrument_token, message.epoch, message.from, message.to)
        break
      case "clock":
        if (this.run !== undefined && message.run !== this.run) {
          this.places.clear()
          this.on.run()
        }
        this.run = message.run
        break
      case "authorized":
        return
      case "error":
        // The server asks for no key any more.
        if (message.code === "no_keys") return
        if (message.code === "unauthorized") {
          refuseKey(this.key, this.key === undefined ? "" : message.message)
          this.socket.close()
          return
        }
        if (message.code === "unknown_replay") {
          this.close()
          this.on.gone()
          return
        }
        break
    }
    this.on.message(message)
  }

  /** The rule a client can check: positions of an epoch go up by one, and epochs only grow. */
  advance(token, epoch, from, to) {
    const place = this.places.get(token)
    if (place !== undefined) {
      const expected = epoch === place.epoch ? place.position + 1 : epoch > place.epoch ? 1 : Number.NaN
      if (from !== expected) this.breaches++
    }
    this.places.set(token, { epoch, position: to })
  }
}
