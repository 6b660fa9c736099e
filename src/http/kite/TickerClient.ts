/**
 * Decides what one connection of the ticker is sent: a packet for each change of what it subscribes to, in the mode it
 * asked for, as long as it reads; where it does not, the newest of each instrument once it reads again.
 */
import { DEFAULT_KITE_MODE, type KiteRequest } from "../../schema/kite/messages.ts"
import { encodePacket, HEARTBEAT, joinPackets, type KiteMode } from "../../schema/kite/packets.ts"
import type { Figures, SeesDay } from "./Figures.ts"
import { type Gateway, maySee, meantIn, seenOn } from "./Gateway.ts"
import type { Watcher } from "./Market.ts"
import type { Source } from "./Sources.ts"
import type { Visitor } from "./Visitors.ts"

/** Packets of one frame at most; also of what a slow client is sent at once when it reads again. */
const MAX_PACKETS = 500
/** Instruments that are looked for together, one question after the other; what is known is sent as soon as it is found. */
const FOUND_TOGETHER = 300
/** Tokens that an error names. */
const MAX_NAMED = 10

/** A connection as its client sees it. */
export interface TickerSocket {
  readonly send: (data: Uint8Array) => void
  /** Says what went wrong. */
  readonly tell: (message: string) => void
  /** It has yet to read what it was sent. */
  readonly isBehind: () => boolean
}

export interface TickerOptions {
  readonly gateway: Gateway
  readonly socket: TickerSocket
  readonly source: Source
  readonly visitor: Visitor
  /** Finds what is known of instruments that was not found yet, and calls when it has, or why it has not. */
  readonly find: (tokens: ReadonlyArray<number>, done: (failure?: string) => void) => void
  /** So many instruments more are subscribed to, or fewer. */
  readonly counted: (change: number) => void
}

const listed = (tokens: ReadonlyArray<number>): string =>
  tokens.slice(0, MAX_NAMED).join(", ") + (tokens.length > MAX_NAMED ? ` and ${tokens.length - MAX_NAMED} more` : "")

export class TickerClient implements Watcher {
  private readonly options: TickerOptions
  private readonly modes = new Map<number, KiteMode>()
  private frame: Array<Uint8Array> = []
  /** Instruments whose newest is yet to be sent. */
  private readonly late = new Set<number>()
  /** Instruments of which what is known is yet to be found, and then told. */
  private readonly sought = new Set<number>()
  private isSeeking = false
  /** It was told that nothing can be found, and nothing was since. */
  private isToldFailure = false
  private isGone = false

  constructor(options: TickerOptions) {
    this.options = options
  }

  /** What it asks; answers only where something is wrong with it. */
  ask(request: KiteRequest): void {
    if (request.a === "mode") this.change(request.mode, request.tokens)
    else if (request.a === "subscribe") this.subscribe(request.tokens)
    else this.unsubscribe(request.tokens)
  }

  private subscribe(tokens: ReadonlyArray<number>): void {
    const { counted, gateway, socket, source, visitor } = this.options
    const { KITE_INSTRUMENTS: most } = gateway.settings
    const unseen: Array<number> = []
    const over: Array<number> = []
    const asked: Array<number> = []
    let added = 0
    for (const token of new Set(tokens)) {
      if (!this.modes.has(token)) {
        if (!maySee(visitor, token, meantIn(source, gateway, token))) {
          unseen.push(token)
          continue
        }
        if (this.modes.size >= most) {
          over.push(token)
          continue
        }
        this.modes.set(token, DEFAULT_KITE_MODE)
        // Of what a replay is not of nothing ever comes, as of a token that nobody has.
        if (source.holds(token)) source.market.watch(token, this)
        added++
      }
      asked.push(token)
    }
    if (unseen.length > 0) socket.tell(`subscribe: your access_token is not for ${listed(unseen)}`)
    if (over.length > 0) {
      socket.tell(`subscribe: ${most} instruments are subscribed to, and no more may be: not ${listed(over)}`)
    }
    if (added > 0) counted(added)
    this.find(asked)
  }

  /** Has what is known of instruments told: at once where it was found before. */
  private find(asked: ReadonlyArray<number>): void {
    const { holds, market } = this.options.source
    const found: Array<number> = []
    for (const token of asked) {
      if (!holds(token)) continue
      if (market.of(token)?.isFound === true) found.push(token)
      else this.sought.add(token)
    }
    this.tell(found)
    this.seek()
  }

  private seek(): void {
    if (this.isSeeking || this.sought.size === 0) return
    this.isSeeking = true
    // Who subscribes to many one by one is to cost one question.
    setImmediate(this.seekSome)
  }

  private readonly seekSome = (): void => {
    const some: Array<number> = []
    for (const token of this.sought) {
      if (some.length === FOUND_TOGETHER) break
      this.sought.delete(token)
      some.push(token)
    }
    this.options.find(some, (failure) => {
      this.isSeeking = false
      if (this.isGone) return
      if (failure !== undefined && !this.isToldFailure) {
        this.options.socket.tell(`subscribe: the store: ${failure}`)
      }
      this.isToldFailure = failure !== undefined
      this.tell(some)
      this.seek()
    })
  }

  private unsubscribe(tokens: ReadonlyArray<number>): void {
    let gone = 0
    for (const token of tokens) {
      if (!this.modes.delete(token)) continue
      this.options.source.market.unwatch(token, this)
      this.late.delete(token)
      this.sought.delete(token)
      gone++
    }
    if (gone > 0) this.options.counted(-gone)
  }

  private change(mode: KiteMode, tokens: ReadonlyArray<number>): void {
    const { socket } = this.options
    const asked = tokens.filter((token) => this.modes.has(token))
    if (asked.length < tokens.length) {
      const others = tokens.filter((token) => !this.modes.has(token))
      socket.tell(`mode: ${listed(others)}: subscribe to them first`)
    }
    for (const token of asked) this.modes.set(token, mode)
    this.find(asked)
  }

  restarted(): void {
    // Once its clock stands where it begins.
    setImmediate(() => this.find([...this.modes.keys()]))
  }

  /** Sends what is known of these now. */
  private tell(tokens: ReadonlyArray<number>): void {
    if (this.isGone) return
    for (const token of tokens) {
      const figures = this.options.source.market.of(token)?.figures
      if (figures !== undefined && this.modes.has(token)) this.changed(figures)
    }
    this.flush()
  }

  changed(figures: Figures): void {
    if (this.late.size > 0 || this.options.socket.isBehind()) this.late.add(figures.token)
    else this.add(figures)
  }

  private add(figures: Figures): void {
    const mode = this.modes.get(figures.token)
    const packet = mode === undefined ? undefined : packetOf(figures, mode, this.options)
    if (packet === undefined) return
    this.frame.push(packet)
    if (this.frame.length >= MAX_PACKETS) this.flush()
  }

  flush(): void {
    const { frame } = this
    if (frame.length === 0) return
    this.frame = []
    this.options.socket.send(joinPackets(frame))
  }

  /** It has read: what it is late with is sent, as long as it reads. */
  readOn(): void {
    const { market } = this.options.source
    for (const token of this.late) {
      if (this.options.socket.isBehind()) break
      this.late.delete(token)
      const figures = market.of(token)?.figures
      if (figures !== undefined) this.add(figures)
    }
    this.flush()
  }

  /** Says that the server is there, to who reads. */
  beat(): void {
    if (!this.options.socket.isBehind()) this.options.socket.send(HEARTBEAT)
    // A pong may have been all that it was waiting for.
    if (this.late.size > 0) this.readOn()
  }

  close(): void {
    this.isGone = true
    for (const token of this.modes.keys()) this.options.source.market.unwatch(token, this)
    this.options.counted(-this.modes.size)
    this.modes.clear()
    this.late.clear()
    this.sought.clear()
    this.frame = []
  }
}

/** The bytes of what is known, the same for all that want it in one mode and may see all of it. */
const packetOf = (
  figures: Figures,
  mode: KiteMode,
  { gateway, source, visitor }: TickerOptions
): Uint8Array | undefined => {
  const sees = seenOn(visitor, figures.token, gateway)
  const write = (only?: SeesDay) => {
    const snapshot = figures.snapshot(meantIn(source, gateway, figures.token), source.shift(), only)
    return snapshot === undefined ? undefined : encodePacket({ ...snapshot, mode })
  }
  return sees === undefined || figures.isAllOf(sees) ? figures.packet(mode, write) : write(sees)
}
