/**
 * Decides when ticks and quotes that came back through many partitions may be told in one order: a slice is complete once
 * its watermark has come out of every partition, and is then sorted by the order it was put in.
 */
import type { Quote } from "../../schema/Quote.ts"
import { compareTicks, type Tick, type TickOrder } from "../../schema/Tick.ts"
import { MarkTracker } from "../log/bookmark.ts"
import type { Replayed } from "../log/follow.ts"

/** The order over all instruments: exchange_ts, then instrument_token, then one instrument's own order. */
export const compareGlobally = (
  a: TickOrder & { readonly instrument_token: number },
  b: TickOrder & { readonly instrument_token: number }
): number => a.exchange_ts - b.exchange_ts || a.instrument_token - b.instrument_token || compareTicks(a, b)

/** Quotes of one stamp, over all instruments; within it one instrument has them in the order of its partition. */
const compareQuotesGlobally = (a: Quote, b: Quote): number =>
  a.exchange_ts - b.exchange_ts || a.instrument_token - b.instrument_token

/** Everything of a run up to `watermark` that had not been released before, in order. */
export interface Release {
  readonly run: string
  readonly watermark: number
  readonly end: boolean
  readonly ticks: ReadonlyArray<Tick>
  readonly quotes: ReadonlyArray<Quote>
}

interface Slice {
  readonly ticks: Array<Tick>
  readonly quotes: Array<Quote>
}

const emptySlice = (): Slice => ({ ticks: [], quotes: [] })

/** What one partition has brought of a run: `slices[i]` lies between watermarks `released + i` and `released + i + 1`. */
interface Lane {
  /** The reader of a partition may begin again further back: what it brought before is dropped. */
  readonly mark: MarkTracker
  watermark: number
  readonly slices: Array<Slice>
}

interface Run {
  readonly lanes: ReadonlyArray<Lane>
  released: number
  /** The highest watermark that was put in: what is above it nobody here has sent. */
  sent: number
  /** Of the run's ticks and quotes so many are held back here. */
  held: number
  /** The watermark that ends the run, once it was put in. */
  last: number
}

/**
 * The runs of one server. What it holds is bounded by the window that the runs put their ticks in under: a slice not
 * yet complete here has not freed its part of the window. Anybody may write records that name a run: a watermark that
 * was not put in, and what is beyond `most`, which no window is larger than, are passed over.
 */
export class WatermarkReorder {
  readonly #partitions: number
  readonly #most: number
  readonly #runs = new Map<string, Run>()

  constructor(partitions: number, most = Number.POSITIVE_INFINITY) {
    this.#partitions = partitions
    this.#most = most
  }

  /** A run unknown here is another server's, and passed over. */
  open(run: string): void {
    this.#runs.set(run, {
      lanes: Array.from({ length: this.#partitions }, () => ({
        mark: new MarkTracker(undefined),
        watermark: 0,
        slices: [emptySlice()]
      })),
      released: 0,
      sent: 0,
      held: 0,
      last: Number.POSITIVE_INFINITY
    })
  }

  /** A watermark of a run is about to be put in; `end`: the one that ends it. */
  sent(run: string, watermark: number, end: boolean): void {
    const found = this.#runs.get(run)
    if (found === undefined) return
    found.sent = watermark
    if (end) found.last = watermark
  }

  /** Forgets a run and what is held of it. */
  close(run: string): void {
    this.#runs.delete(run)
  }

  /** Ticks and quotes held back for all runs. */
  get held(): number {
    let all = 0
    for (const { held } of this.#runs.values()) all += held
    return all
  }

  /**
   * Takes what a partition brought, in its order, and answers the slices this completes. What comes
   * again changes nothing; a watermark that skips numbers covers those between.
   */
  take(partition: number, items: ReadonlyArray<Replayed>): ReadonlyArray<Release> {
    const releases: Array<Release> = []
    let name: string | undefined
    let run: Run | undefined
    for (const item of items) {
      if (item.run !== name) {
        name = item.run
        run = this.#runs.get(name)
      }
      if (run === undefined) continue
      const lane = run.lanes[partition]!
      if (!("watermark" in item)) {
        const packet = "tick" in item ? item.tick : item.quote
        if (run.held >= this.#most || !lane.mark.take(packet.source)) continue
        const slice = lane.slices[lane.slices.length - 1]!
        if ("tick" in item) slice.ticks.push(item.tick)
        else slice.quotes.push(item.quote)
        run.held++
        continue
      }
      if (item.watermark <= lane.watermark || item.watermark > run.sent) continue
      for (; lane.watermark < item.watermark; lane.watermark++) lane.slices.push(emptySlice())
      this.#release(item.run, run, releases)
      if (run.released >= run.last) {
        this.#runs.delete(item.run)
        run = undefined
      }
    }
    return releases
  }

  #release(name: string, run: Run, releases: Array<Release>): void {
    let reached = Number.POSITIVE_INFINITY
    for (const lane of run.lanes) if (lane.watermark < reached) reached = lane.watermark
    while (run.released < reached) {
      const ticks: Array<Tick> = []
      const quotes: Array<Quote> = []
      for (const lane of run.lanes) {
        const slice = lane.slices.shift()!
        for (const tick of slice.ticks) ticks.push(tick)
        for (const quote of slice.quotes) quotes.push(quote)
      }
      run.released++
      run.held -= ticks.length + quotes.length
      // Each partition's part is in order already, so this is a merge of a few runs for the sort.
      ticks.sort(compareGlobally)
      quotes.sort(compareQuotesGlobally)
      releases.push({ run: name, watermark: run.released, end: run.released === run.last, ticks, quotes })
    }
  }
}
