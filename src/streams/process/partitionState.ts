/**
 * Decides what a partition remembers of its instruments: per instrument and trading day the sessions with their seen
 * ids and open gaps, the volume accounted for, the position given and what is known of book and day; and which
 * instruments are forgotten where there are too many. All of it follows from the raw partition alone.
 */
import { type QuoteState, unknownQuote } from "../../schema/Quote.ts"
import type { RawTick } from "../../schema/RawTick.ts"
import { epochOf, type Sequencing, tradingDayStart } from "../../schema/Tick.ts"
import { Contents } from "./Contents.ts"
import { IdSet } from "./IdSet.ts"
import { contentPrint } from "./identityHash.ts"
import { type GapTally, MissingNumbers } from "./missingNumbers.ts"
import { NumberSet } from "./NumberSet.ts"

/** Days of an instrument kept beside its newest; one more drops the one untouched longest. */
export const MAX_OLD_DAYS = 3
/** An old day untouched for this long (µs of record time) is forgotten. */
export const OLD_DAY_HOLD_MICROS = 3_600_000_000
/** Sessions a day may have; a reset beyond that stays in the newest. */
export const MAX_SESSIONS = 1000
/** Connections remembered an instrument day; one more drops the oldest, which then counts as new. */
export const MAX_CONNECTIONS = 64
/** Where there are too many instruments, so large a part of all that may be goes at once: the search for them costs. */
const FORGOTTEN_PART = 1 / 16
/** A reset joins the newest session if another connection opened it less than this long ago (µs of record time). */
export const JOIN_MICROS = 60_000_000
/** So many numbers of one connection beyond a jump, each going on from the one before, open the next session. */
export const RUN_LENGTH = 3
/** A number goes on from another where it is above it by at most this: the feed that brings it may have losses. */
export const MAX_RUN_STEP = 1000

/** `openedAt` of a session that was there before its state was lost: nothing joins it as just opened. */
const BEFORE = 0

/** A day whose state was lost in the middle of it: what is known of it all the same. */
export interface LostDay {
  readonly day: number
  /** Records of it were gone before anybody took them: numberings may have begun unseen, so claims decide nothing. */
  readonly isMissed: boolean
  /** The newest session and epoch of each instrument that the log still shows, until its day goes on here. */
  readonly seen: Map<number, Seen>
}

export interface Seen {
  session: number
  epoch: number
}

const NO_BYTES = new Uint8Array(0)

/** One numbering of an instrument's day. */
export class Session {
  readonly openedAt: number
  readonly openedBy: string
  /** The number and stamp (µs) of the packet that opened it. */
  readonly openingId: number
  readonly openingTs: number
  #ids: IdSet | undefined
  #hashes: NumberSet | undefined
  #contents: Contents | undefined
  readonly missing = new MissingNumbers()
  /** The highest number published so far; -1 before the first. */
  last = -1
  /** The newest stamp (µs) of what came under numbers; −1 before the first. */
  latest = -1

  constructor(
    openedAt: number,
    openedBy: string,
    openingId: number,
    openingTs: number,
    ids?: IdSet,
    hashes?: NumberSet,
    contents?: Contents
  ) {
    this.#ids = ids
    this.#hashes = hashes
    this.#contents = contents
    this.openedAt = openedAt
    this.openedBy = openedBy
    this.openingId = openingId
    this.openingTs = openingTs
  }

  // Each is made for the first that it is to hold: most sessions use one of them, and many instruments have one tick.

  /** Ids of contiguous numbers. */
  get ids(): IdSet {
    this.#ids ??= new IdSet()
    return this.#ids
  }

  /** Ids that skip, with their contents, or hashes. */
  get hashes(): NumberSet {
    this.#hashes ??= new NumberSet()
    return this.#hashes
  }

  /** What the contiguous numbers came with. */
  get contents(): Contents {
    this.#contents ??= new Contents()
    return this.#contents
  }

  /** The highest contiguous number; −1 while there is none. */
  get highest(): number {
    return this.#ids === undefined ? -1 : this.#ids.highest
  }

  /** What there is of them, as bytes. */
  encode(): readonly [ids: Uint8Array, hashes: Uint8Array, contents: Uint8Array, prints: Uint8Array] {
    return [
      this.#ids?.encode() ?? NO_BYTES,
      this.#hashes?.encode() ?? NO_BYTES,
      this.#contents?.encode() ?? NO_BYTES,
      this.#hashes?.encodePrints() ?? NO_BYTES
    ]
  }

  /** Whether the number of a packet is here with the same content. */
  agrees(id: number, { sequencing, exchange_ts }: Numbered, print: number): boolean {
    return this.#has(id, sequencing) && !this.#differs(id, sequencing, exchange_ts, print)
  }

  /** Whether the number of a packet is here with another content. */
  contradicts(id: number, { sequencing, exchange_ts }: Numbered, print: number): boolean {
    return this.#has(id, sequencing) && this.#differs(id, sequencing, exchange_ts, print)
  }

  #has(id: number, sequencing: Sequencing): boolean {
    return (sequencing === "monotonic" ? this.#hashes?.has(id) : this.#ids?.has(id)) ?? false
  }

  #differs(id: number, sequencing: Sequencing, exchangeTs: number, print: number): boolean {
    return sequencing === "monotonic" ? this.hashes.differs(id, print) : this.contents.differs(id, exchangeTs, print)
  }
}

/** Numbers of one connection that follow one another and do not fit its session: beyond a jump, or in conflict. */
export interface Run {
  readonly first: number
  last: number
  count: number
}

export interface Connection {
  readonly name: string
  session: number
  /** The reset last taken, so that the same packet sent again is not another one. */
  resetId: number
  resetTs: number
  /** What it last sent that did not fit; undefined once a number of it does. */
  run: Run | undefined
  /** Whether it had sent a number before the packet at hand. */
  isMet: boolean
}

/** What is kept of the first packet of a day: it opens session 0. */
type FirstPacket = Pick<RawTick, "instrument_token" | "connection" | "sequence_id" | "exchange_ts">

/** What tells one numbered packet from another. */
type Numbered = Pick<RawTick, "connection" | "sequencing" | "exchange_ts" | "price">

/** What is known of book and day before the first quote; it is never written to. */
const UNKNOWN: QuoteState = unknownQuote()

/** An instrument's trading day: quotes alone do not begin it, its first tick does. */
export class InstrumentDay {
  readonly token: number
  readonly day: number
  /** 0 until it has begun. */
  epoch: number
  position = 0
  /** None until it has begun. */
  sessions: Array<Session>
  /** In the order in which they came: there are one or two, and seldom more. */
  connections: ReadonlyArray<Connection> = []
  /** Record time of the last tick of feed `dma`. */
  lastDma = Number.NEGATIVE_INFINITY
  /** Volume published. */
  published = 0
  /** What the day's total had counted that was traded before we came; -1 before the first total. */
  volumeBase = -1
  /** What its quotes have said so far; it is never changed in place. */
  quote: QuoteState = UNKNOWN
  /** The newest stamp of a quote (µs); −1 before the first. */
  quotedAt = -1
  touched: number

  constructor(token: number, day: number, epoch: number, touched: number, sessions: Array<Session>) {
    this.token = token
    this.day = day
    this.epoch = epoch
    this.touched = touched
    this.sessions = sessions
  }

  get hasBegun(): boolean {
    return this.sessions.length > 0
  }

  /** Begins with a tick. */
  begin(epoch: number, recordTime: number, first: FirstPacket): void {
    this.epoch = epoch
    this.sessions = [new Session(recordTime, first.connection, first.sequence_id ?? -1, first.exchange_ts)]
  }

  /** Goes on as it did before its state was lost: in its newest session, and in a later epoch. */
  resume(epoch: number, seen: Seen | undefined): void {
    const length = 1 + (seen?.session ?? 0)
    this.epoch = Math.max(epoch, 1 + (seen?.epoch ?? 0))
    this.sessions = Array.from({ length }, () => new Session(BEFORE, "", -1, -1))
  }

  /** The connection of a packet, in the session that it belongs to, opening one where its `reset` asks for it. */
  enter(id: number, raw: RawTick, recordTime: number): Connection {
    const { connection, exchange_ts } = raw
    const newest = this.sessions.length - 1
    let known = this.#connection(connection)
    const isFresh = newest === 0 && this.connections.length === 0 && this.sessions[0]!.openedAt !== BEFORE
    if (known === undefined) {
      known = { name: connection, session: newest, resetId: -1, resetTs: -1, run: undefined, isMet: false }
      // Exactly as long as what it holds: a push would reserve room for sixteen more in every instrument.
      this.connections = [...this.connections.slice(1 - MAX_CONNECTIONS), known]
    }
    if (!raw.reset || (known.resetId === id && known.resetTs === exchange_ts)) return known
    known.resetId = id
    known.resetTs = exchange_ts
    const opened = this.sessions[newest]!
    // The other feed's copy of the opening packet has its stamp; another stamp on that number is another numbering.
    const contradicts =
      (opened.openingId === id && opened.openingTs !== exchange_ts) ||
      opened.contradicts(id, raw, contentPrint(exchange_ts, raw.price))
    const joins = opened.openedBy !== connection && recordTime - opened.openedAt < JOIN_MICROS && !contradicts
    if (isFresh || joins || this.sessions.length >= MAX_SESSIONS) {
      known.session = newest
    } else {
      this.#open(known, id, raw, recordTime)
    }
    known.run = undefined
    return known
  }

  /**
   * What becomes of a number above all that its session may hold. It belongs to the newest session where that has
   * numbers near it, and opens the next where enough of the same connection went on to it from the first beyond the
   * jump; false: it stands alone so far.
   */
  afterJump(known: Connection, id: number, raw: Numbered, recordTime: number, maxJump: number): boolean {
    const newest = this.sessions.length - 1
    const near = this.sessions[newest]!.highest
    if (known.session < newest && near >= 0 && Math.abs(id - near) <= maxJump) {
      known.session = newest
      return true
    }
    return this.#goesOn(known, id) && this.#next(known, id, raw, recordTime)
  }

  /**
   * What becomes of a number that its session has with another content. Of a connection not met before it belongs to an
   * older session that has it with this one, or else opens the next, as a `reset` does. Of any other it belongs to the newest session where that has it with this content; and
   * it opens the next where enough of the connection's went on to it, each later than all the session has, which what is
   * sent again or put right is not. False: it stands alone so far.
   */
  afterConflict(known: Connection, id: number, raw: Numbered, print: number, recordTime: number): boolean {
    const newest = this.sessions.length - 1
    if (!known.isMet) {
      for (let i = newest - 1; i >= 0; i--) {
        if (!this.sessions[i]!.agrees(id, raw, print)) continue
        known.session = i
        return true
      }
      if (this.sessions.length >= MAX_SESSIONS) return false
      this.#open(known, id, raw, recordTime)
      return true
    }
    if (known.session < newest && this.sessions[newest]!.agrees(id, raw, print)) {
      known.session = newest
      return true
    }
    if (raw.exchange_ts <= this.sessions[known.session]!.latest) return false
    if (!this.#goesOn(known, id)) return false
    if (known.session < newest && !this.sessions[newest]!.contradicts(id, raw, print)) {
      known.session = newest
      return true
    }
    return this.#next(known, id, raw, recordTime)
  }

  /** Whether a number that does not fit is the last that it takes of its connection's run. */
  #goesOn(known: Connection, id: number): boolean {
    const { run } = known
    // Sent again, or overtaken: neither goes on nor breaks off.
    if (run !== undefined && id >= run.first && id <= run.last) return false
    if (run === undefined || id < run.first || id - run.last > MAX_RUN_STEP) {
      known.run = { first: id, last: id, count: 1 }
      return false
    }
    run.last = id
    run.count++
    return run.count >= RUN_LENGTH
  }

  /** Opens the session of a run: its numbers before this one are the session's first, and missing. */
  #next(known: Connection, id: number, raw: Numbered, recordTime: number): boolean {
    if (this.sessions.length >= MAX_SESSIONS) return false
    const { first } = known.run!
    this.#open(known, id, raw, recordTime).last = first - 1
    return true
  }

  #open(known: Connection, id: number, raw: Numbered, recordTime: number): Session {
    const session = new Session(recordTime, raw.connection, id, raw.exchange_ts)
    known.session = this.sessions.length
    this.sessions.push(session)
    return session
  }

  #connection(name: string): Connection | undefined {
    const { connections } = this
    for (let i = 0; i < connections.length; i++) if (connections[i]!.name === name) return connections[i]
    return undefined
  }

  /** The session of a given number, opening those up to it: for replayed ticks, which carry theirs. */
  sessionNumbered(number: number, recordTime: number): number {
    while (this.sessions.length <= number && this.sessions.length < MAX_SESSIONS) {
      this.sessions.push(new Session(recordTime, "", -1, -1))
    }
    return Math.min(number, this.sessions.length - 1)
  }

  /** Begins a session's numbering anew, under the same number: for replayed ticks of a day whose state was lost. */
  beginAnew(number: number, recordTime: number): Session {
    const session = new Session(recordTime, "", -1, -1)
    session.latest = this.sessions[number]!.latest
    this.sessions[number] = session
    return session
  }

  /** Whether a number is missing whose gap is still open. */
  hasOpenGap(recordTime: number, holdMicros: number): boolean {
    for (let i = this.sessions.length - 1; i >= 0; i--) {
      if (this.sessions[i]!.missing.isOpen(recordTime - holdMicros)) return true
    }
    return false
  }
}

/** All that is held of an instrument. */
export interface InstrumentDays {
  newest: InstrumentDay
  /** Older days, a few, in no order. */
  others: ReadonlyArray<InstrumentDay>
}

/** The others of an instrument with one day, which most have. */
const NONE: ReadonlyArray<InstrumentDay> = []

const touchedAt = ({ newest, others }: InstrumentDays): number => {
  let { touched } = newest
  for (const day of others) touched = Math.max(touched, day.touched)
  return touched
}

/** The state of one partition, or of one replay run in it. */
export class PartitionState {
  /** Instruments held at most; one more, and those silent longest are forgotten. */
  readonly maxInstruments: number
  readonly instruments = new Map<number, InstrumentDays>()
  /** Sessions with numbers missing, so that gaps can be given up without a tick of theirs. */
  readonly open = new Set<Session>()
  /** The newest day of the instrument that a day was last asked of. */
  newestDay = 0
  /** Days begun since it was last read, for the count of epochs. */
  begun = 0
  /** The day whose state was lost here; on it, claims decide besides, unless records of it are gone as well. */
  lost: LostDay | undefined
  /** Gaps opened at or before this record time (µs) are given up, and counted. */
  expiredUpTo = Number.NEGATIVE_INFINITY
  /**
   * No day begins in an epoch of before this second since 1970, so that the day of an instrument that was forgotten, and
   * comes back in the very second in which it began, is in a later epoch all the same.
   */
  floor = Number.NEGATIVE_INFINITY
  /** Instruments forgotten since it was last read, for their count. */
  forgotten = 0
  /** Those that the next checkpoint takes out; `others`: all that it does not name. */
  gone: Set<number> | "others" = new Set()

  constructor(maxInstruments = Number.POSITIVE_INFINITY) {
    this.maxInstruments = maxInstruments
  }

  /** The state of an instrument's day at the record time of a tick, which begins it where it has not begun. */
  day(day: number, recordTime: number, first: FirstPacket): InstrumentDay {
    const held = this.held(first.instrument_token, day, recordTime)
    if (!held.hasBegun) this.#begin(held, recordTime, first)
    return held
  }

  /** The state of an instrument's day at a record time, afresh where it is not held (any more). */
  held(token: number, day: number, recordTime: number): InstrumentDay {
    const days = this.instruments.get(token)
    if (days === undefined) {
      this.newestDay = day
      if (this.instruments.size >= this.maxInstruments) this.#forgetSilent()
      const newest = new InstrumentDay(token, day, 0, recordTime, [])
      this.instruments.set(token, { newest, others: NONE })
      return newest
    }
    const { newest } = days
    this.newestDay = Math.max(newest.day, day)
    if (newest.day === day) {
      newest.touched = recordTime
      return newest
    }
    for (const other of days.others) {
      if (other.touched + OLD_DAY_HOLD_MICROS <= recordTime) this.#drop(days, other)
    }
    if (day > newest.day) {
      days.newest = new InstrumentDay(token, day, 0, recordTime, [])
      this.#keep(days, newest)
      return days.newest
    }
    const held = days.others.find((other) => other.day === day)
    if (held !== undefined) {
      held.touched = recordTime
      return held
    }
    const fresh = new InstrumentDay(token, day, 0, recordTime, [])
    this.#keep(days, fresh)
    return fresh
  }

  /** Puts back what a checkpoint held, less the gaps given up since its instrument last changed: they are counted. */
  restore(days: InstrumentDays): void {
    this.instruments.set(days.newest.token, days)
    for (const day of [days.newest, ...days.others]) {
      for (const session of day.sessions) {
        session.missing.expire(this.expiredUpTo, { gaps: 0, fills: 0, lost: 0 })
        if (session.missing.ranges.length > 0) this.open.add(session)
      }
    }
  }

  /** Instruments that a packet came for at or after a record time. */
  changedSince(recordTime: number): Iterable<number> {
    const changed: Array<number> = []
    for (const [token, { newest, others }] of this.instruments) {
      if (newest.touched >= recordTime || others.some((day) => day.touched >= recordTime)) changed.push(token)
    }
    return changed
  }

  /** Gives up the gaps opened at or before a record time, wherever they are. */
  expire(openedUpTo: number, tally: GapTally): void {
    this.expiredUpTo = Math.max(this.expiredUpTo, openedUpTo)
    for (const session of this.open) {
      session.missing.expire(openedUpTo, tally)
      if (session.missing.ranges.length === 0) this.open.delete(session)
    }
  }

  #begin(held: InstrumentDay, recordTime: number, first: FirstPacket): void {
    this.begun++
    const { token, day } = held
    const second = this.floor - tradingDayStart(day) / 1e6
    const epoch = Math.max(epochOf(day, recordTime), day * 1_000_000_000 + second)
    if (this.lost?.day !== day) {
      held.begin(epoch, recordTime, first)
      return
    }
    const { seen } = this.lost
    held.resume(epoch, seen.get(token))
    seen.delete(token)
  }

  /** Forgets the instruments silent longest, by the record time of their last packet; of one time, the lowest tokens. */
  #forgetSilent(): void {
    const { instruments, maxInstruments } = this
    const byAge = [...instruments].map(([token, days]) => [touchedAt(days), token] as const)
    byAge.sort((a, b) => a[0] - b[0] || a[1] - b[1])
    const many = Math.max(1, Math.ceil(maxInstruments * FORGOTTEN_PART), instruments.size - maxInstruments + 1)
    for (const [, token] of byAge.slice(0, many)) {
      const { newest, others } = instruments.get(token)!
      for (const day of [newest, ...others]) this.#raiseFloor(day)
      instruments.delete(token)
      this.forgotten++
      if (this.gone !== "others") this.gone.add(token)
    }
    // The list of those that went may not grow for ever where no checkpoint can be kept.
    if (this.gone !== "others" && this.gone.size > maxInstruments) this.gone = "others"
  }

  #raiseFloor({ day, epoch, hasBegun }: InstrumentDay): void {
    if (!hasBegun) return
    this.floor = Math.max(this.floor, tradingDayStart(day) / 1e6 + (epoch - day * 1_000_000_000) + 1)
  }

  #keep(days: InstrumentDays, day: InstrumentDay): void {
    if (days.others.length >= MAX_OLD_DAYS) {
      this.#drop(
        days,
        days.others.reduce((oldest, other) => (other.touched < oldest.touched ? other : oldest))
      )
    }
    days.others = [...days.others, day]
  }

  #drop(days: InstrumentDays, day: InstrumentDay): void {
    this.#raiseFloor(day)
    days.others = days.others.filter((other) => other !== day)
  }
}
