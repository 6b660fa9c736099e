/**
 * Decides how bars that memory does not hold are had from the store: what comes before the ticks that came here, once
 * the store has it. So many bars at a time; where the store does not answer it is asked again, and what is given up is
 * counted.
 */
import type { MinuteOi, MinuteSum } from "../ports/TickStore.ts"
import { pause } from "../run/slices.ts"
import type { StoredMinutes } from "./history.ts"
import { MICROS_PER_MINUTE, MINUTES_OF_FIVE } from "./InstrumentBars.ts"
import type { Listened } from "./Listened.ts"
import type { MinuteBar } from "./MinuteBar.ts"
import type { ChannelHost, GivenUp, LogPlace } from "./parts.ts"
import { laterOi, type SaidOi } from "./SaidOi.ts"
import type { InstrumentTicks } from "./TickRing.ts"

/** Bars of five minutes that wait for the store; full: drop-oldest. */
export const MAX_WAITING = 5_000
/** Looked at by the store at a time: fewer than all looks outside memory, so that clients that come back have theirs. */
const LANES = 2
/** Asked for between two looks at how far the store has come. */
const STEP = 64
/** The first look comes after this: ticks that come late mostly come together. */
const GATHER_MS = 100
/** How often it is looked whether something is due. */
const LOOK_MS = 100
/** One that could not be asked for, or that the store did not answer, waits for a share of what it has waited already. */
const RETRY_SHARE = 0.25
const RETRY_MS = 5_000
/** A bar that ticks go on coming to which only the store can tell apart is asked for this often. */
const AGAIN_MS = 500
/** The store has this long for one. */
const GIVE_UP_MS = 3_600_000

/** A bar of five minutes of which something is the store's to tell. */
export class WaitingFive {
  readonly key: string
  readonly instrument: InstrumentTicks
  readonly listened: Listened
  readonly start: number
  /** Minutes to be told, and whether the whole is. */
  readonly minutes = new Set<number>()
  isWide = false
  /** Minutes that memory does not keep, for as long as this waits. */
  readonly patches = new Map<number, MinuteBar>()
  /** The open interest of its minutes, as far as it was said while this waits. */
  private readonly said = new Map<number, SaidOi | undefined>()
  /** When it is due, and when it began to wait, in milliseconds. */
  due: number
  readonly since: number
  isOver = false

  constructor(key: string, instrument: InstrumentTicks, listened: Listened, start: number, now: number) {
    this.key = key
    this.instrument = instrument
    this.listened = listened
    this.start = start
    this.since = now
    this.due = now + GATHER_MS
  }

  find(ts: number): MinuteBar | undefined {
    return this.instrument.bars.find(ts) ?? this.patches.get(ts)
  }

  hear(ts: number, said: SaidOi): void {
    this.said.set(ts, laterOi(this.said.get(ts), said))
  }

  /** The open interest of a minute. */
  oi(ts: number): SaidOi | undefined {
    return laterOi(this.instrument.bars.oi(ts), this.said.get(ts))
  }

  /** The minutes that it is about. */
  *wanted(): Generator<number> {
    for (let i = 0; i < MINUTES_OF_FIVE; i++) {
      const ts = this.start + i * MICROS_PER_MINUTE
      if (this.isWide || this.minutes.has(ts)) yield ts
    }
  }

  get end(): number {
    return this.start + MINUTES_OF_FIVE * MICROS_PER_MINUTE
  }

  /** Those of them that are not whole. */
  missing(): ReadonlyArray<MinuteBar> {
    const missing: Array<MinuteBar> = []
    for (const ts of this.wanted()) {
      const bar = this.find(ts)
      if (bar !== undefined && !bar.isWhole) missing.push(bar)
    }
    return missing
  }
}

/** Whose bars they are. */
export interface StoredBarsOwner {
  /** What the store said of these; undefined: it has dropped their day. */
  readonly answered: (
    five: WaitingFive,
    asked: ReadonlyArray<MinuteBar>,
    sums: ReadonlyArray<MinuteSum> | undefined,
    said: ReadonlyArray<MinuteOi>
  ) => void
  /** Whether no tick of the instrument has come here, though all before this place in the log has. */
  readonly hasCome: (five: WaitingFive, place: LogPlace) => boolean
  /** These are bounded by where the instrument stands, if something of it has come by now. */
  readonly bound: (five: WaitingFive, bars: ReadonlyArray<MinuteBar>) => void
  readonly gaveUp: (why: GivenUp) => void
}

const keyOf = (token: number, start: number): string => `${token} ${start}`

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref())

/** What the store is asked for, of one channel. */
export class StoredBars {
  private readonly host: Pick<ChannelHost, "look">
  private readonly owner: StoredBarsOwner
  private readonly waiting = new Map<string, WaitingFive>()
  private isRunning = false

  constructor(host: Pick<ChannelHost, "look">, owner: StoredBarsOwner) {
    this.host = host
    this.owner = owner
  }

  get size(): number {
    return this.waiting.size
  }

  get all(): Iterable<WaitingFive> {
    return this.waiting.values()
  }

  /** What waits of the bar of five minutes from `start` on, from now on if nothing does. */
  five(instrument: InstrumentTicks, listened: Listened, start: number): WaitingFive {
    const key = keyOf(instrument.token, start)
    const known = this.waiting.get(key)
    if (known !== undefined && known.listened === listened) return known
    if (known !== undefined) this.drop(known)
    if (this.waiting.size >= MAX_WAITING) {
      for (const oldest of this.waiting.values()) {
        this.drop(oldest)
        this.owner.gaveUp("full")
        break
      }
    }
    const five = new WaitingFive(key, instrument, listened, start, performance.now())
    this.waiting.set(key, five)
    if (!this.isRunning) void this.run()
    return five
  }

  /** What waits of the bar of five minutes from `start` on, if anything does. */
  find({ token }: InstrumentTicks, start: number): WaitingFive | undefined {
    return this.waiting.size === 0 ? undefined : this.waiting.get(keyOf(token, start))
  }

  /** Nothing is wanted of it any more. */
  drop(five: WaitingFive): void {
    five.isOver = true
    for (const ts of five.wanted()) {
      const bar = five.find(ts)
      if (bar !== undefined) bar.isAsked = false
    }
    if (this.waiting.get(five.key) === five) this.waiting.delete(five.key)
  }

  /** Asks again soon. */
  again(five: WaitingFive): void {
    five.due = performance.now() + AGAIN_MS
  }

  private async run(): Promise<void> {
    this.isRunning = true
    try {
      while (this.waiting.size > 0) {
        await sleep(LOOK_MS)
        while (await this.step());
      }
    } catch {
      // Nothing that one of them does may end the server: what waited is given up.
      for (const five of [...this.waiting.values()]) {
        this.drop(five)
        this.owner.gaveUp("failed")
      }
    } finally {
      this.isRunning = false
    }
  }

  /** Asks for some of what the store has come far enough for; true where there may be more. */
  private async step(): Promise<boolean> {
    const now = performance.now()
    const due = [...this.waiting.values()].filter((five) => five.due <= now)
    const reached = new Map<string, ReadonlyMap<number, number> | undefined>()
    const isReached = ({ need }: MinuteBar): boolean =>
      need === undefined || (reached.get(need.incarnation)?.get(need.partition) ?? 0) >= need.offset
    const ready: Array<WaitingFive> = []
    let isMore = false
    for (const [n, five] of due.entries()) {
      if (pause(n)) await sleep(0)
      if (five.listened.isEmpty) this.drop(five)
      if (five.isOver) continue
      const missing = five.missing()
      for (const { need } of missing) {
        if (need === undefined || reached.has(need.incarnation)) continue
        const { incarnation } = need
        const offsets = await this.ask((bars) => bars.reached(incarnation))
        reached.set(incarnation, offsets)
      }
      if (missing.length > 0 && !missing.some(isReached)) this.later(five)
      else if (ready.push(five) === STEP) {
        isMore = true
        break
      }
    }
    const lane = async () => {
      for (let five = ready.shift(); five !== undefined; five = ready.shift()) await this.look(five, isReached)
    }
    await Promise.all(Array.from({ length: LANES }, lane))
    return isMore
  }

  private async look(five: WaitingFive, isReached: (bar: MinuteBar) => boolean): Promise<void> {
    try {
      if (!five.isOver) await this.lookAt(five, isReached)
    } catch {
      this.drop(five)
      this.owner.gaveUp("failed")
    }
  }

  private async lookAt(five: WaitingFive, isReached: (bar: MinuteBar) => boolean): Promise<void> {
    const asked = five.missing().filter(isReached)
    for (const bar of asked) bar.isAsked = true
    const { token } = five.instrument
    const minutes = asked.map(({ ts, before }) => ({ ts, before }))
    const answer = await this.ask(async (bars) => ({
      sums: await bars.minutes({ instrument_token: token, minutes }),
      said: await bars.openInterest({ instrument_token: token, from: five.start, to: five.end })
    }))
    if (five.isOver) return
    if (answer === undefined) {
      for (const bar of asked) bar.isAsked = false
      this.later(five)
    } else if (await this.isBounded(five, asked)) this.owner.answered(five, asked, answer.sums, answer.said)
  }

  /**
   * Whether all that the store has said of these bars has come here by now. Where a place bounds it that is so; of an
   * instrument that nothing has come of yet, where the hub has read the log as far as the store has.
   */
  private async isBounded(five: WaitingFive, asked: ReadonlyArray<MinuteBar>): Promise<boolean> {
    const open = asked.filter(({ before }) => before === undefined)
    const need = open[0]?.need
    if (need === undefined) return true
    const reached = await this.ask((bars) => bars.reached(need.incarnation))
    if (five.isOver) return false
    const stored = reached?.get(need.partition) ?? 0
    if (reached !== undefined && this.owner.hasCome(five, { ...need, offset: stored })) return true
    for (const bar of asked) bar.isAsked = false
    this.owner.bound(five, open)
    this.later(five)
    return false
  }

  /** The longer it has waited, the longer it waits until it is asked for again. */
  private later(five: WaitingFive): void {
    const now = performance.now()
    const waited = now - five.since
    five.due = now + Math.min(RETRY_MS, waited * RETRY_SHARE)
    if (waited < GIVE_UP_MS) return
    this.drop(five)
    this.owner.gaveUp("unanswered")
  }

  /** Undefined where the store does not answer. */
  private ask<A>(question: (bars: StoredMinutes) => Promise<A>): Promise<A | undefined> {
    return this.host.look<A | undefined>(
      async ({ bars }) => (bars === undefined ? undefined : question(bars)),
      undefined
    )
  }
}
