/**
 * Decides how the newest ticks of each instrument are kept in one process: a circular array an instrument, full:
 * drop-oldest; and over all a number of ticks and one of instruments, full: the instruments silent longest are dropped
 * whole.
 */
import { Effect, Layer } from "effect"
import { isAfter, type Tick } from "../../schema/Tick.ts"
import * as metrics from "../../streams/metrics.ts"
import { RecentTicks } from "../../streams/ports/RecentTicks.ts"

export interface MemoryRingOptions {
  /** Ticks kept of one instrument. */
  readonly perInstrument: number
  /** Ticks kept of all instruments together. */
  readonly total: number
  /** Instruments at a time; by default as many as there are ticks. */
  readonly instruments?: number
}

/** Most instruments that anybody may name speak once, if ever. */
const FIRST_CAPACITY = 2
/** How much is left of ticks and of instruments when some had to go, so that going is rare. */
const LEFT_AFTER_DROP = 0.9

/** The ticks of one instrument, ascending by epoch and position. */
class Ring {
  readonly #capacity: number
  #ticks: Array<Tick | undefined>
  /** Index of the oldest tick. */
  #head = 0
  size = 0
  /** The append that touched it last. */
  touched = 0
  /** What comes right before the oldest tick from which on none is missing. */
  #floorEpoch = 0
  #floorPosition = 0

  constructor(capacity: number) {
    this.#capacity = capacity
    this.#ticks = new Array(Math.min(FIRST_CAPACITY, capacity))
  }

  at(index: number): Tick {
    return this.#ticks[(this.#head + index) % this.#ticks.length]!
  }

  /** Puts a tick that comes after all others; answers by how many the ring grew. */
  push(tick: Tick): number {
    if (this.size > 0) {
      const last = this.at(this.size - 1)
      if (!isAfter(tick.epoch, tick.position, last)) return 0
      const follows = tick.epoch === last.epoch ? last.position + 1 : 1
      if (tick.position !== follows) this.#setFloor(tick)
    } else this.#setFloor(tick)
    if (this.size === this.#capacity) {
      this.#ticks[this.#head] = tick
      this.#head = (this.#head + 1) % this.#ticks.length
      this.#raiseFloor(this.at(0))
      return 0
    }
    if (this.size === this.#ticks.length) this.#grow(Math.min(this.#capacity, this.size * 2))
    this.#ticks[(this.#head + this.size) % this.#ticks.length] = tick
    this.size += 1
    return 1
  }

  /** Whether the ring holds every tick above (epoch, position). */
  reachesBackTo(epoch: number, position: number): boolean {
    return epoch > this.#floorEpoch || (epoch === this.#floorEpoch && position >= this.#floorPosition)
  }

  /** The first index whose tick comes after (epoch, position). */
  indexAfter(epoch: number, position: number): number {
    let low = 0
    let high = this.size
    while (low < high) {
      const middle = (low + high) >>> 1
      const tick = this.at(middle)
      if (isAfter(tick.epoch, tick.position, { epoch, position })) high = middle
      else low = middle + 1
    }
    return low
  }

  slice(from: number): ReadonlyArray<Tick> {
    const ticks: Array<Tick> = []
    for (let i = from; i < this.size; i++) ticks.push(this.at(i))
    return ticks
  }

  #setFloor(tick: Tick): void {
    this.#floorEpoch = tick.epoch
    this.#floorPosition = tick.position - 1
  }

  #raiseFloor(oldest: Tick): void {
    if (!this.reachesBackTo(oldest.epoch, oldest.position - 1)) return
    this.#setFloor(oldest)
  }

  #grow(capacity: number): void {
    const ticks = new Array<Tick | undefined>(capacity)
    for (let i = 0; i < this.size; i++) ticks[i] = this.at(i)
    this.#ticks = ticks
    this.#head = 0
  }
}

const make = (options: MemoryRingOptions, observe: (held: number) => void): RecentTicks["Service"] => {
  const { perInstrument, total, instruments = total } = options
  /** Those silent longest first: an instrument is put anew by the first of its ticks in an append. */
  const rings = new Map<number, Ring>()
  let held = 0
  let appends = 0

  /** Drops whole instruments, the one silent longest first. */
  const makeRoom = (): void => {
    for (const [token, ring] of rings) {
      if (held <= total * LEFT_AFTER_DROP && rings.size <= instruments * LEFT_AFTER_DROP) return
      rings.delete(token)
      held -= ring.size
    }
  }

  return {
    append: (ticks) =>
      Effect.sync(() => {
        appends += 1
        for (const tick of ticks) {
          if (tick.old) continue
          let ring = rings.get(tick.instrument_token)
          if (ring === undefined) {
            ring = new Ring(perInstrument)
            rings.set(tick.instrument_token, ring)
          } else if (ring.touched !== appends) {
            rings.delete(tick.instrument_token)
            rings.set(tick.instrument_token, ring)
          }
          ring.touched = appends
          held += ring.push(tick)
          if (held > total || rings.size > instruments) makeRoom()
        }
        observe(held)
      }),
    last: (token, limit) =>
      Effect.sync(() => {
        const ring = rings.get(token)
        return ring === undefined ? [] : ring.slice(Math.max(0, ring.size - Math.max(0, limit)))
      }),
    after: (token, epoch, position) =>
      Effect.sync(() => {
        const ring = rings.get(token)
        if (ring === undefined) return { ticks: [], complete: false }
        return {
          ticks: ring.slice(ring.indexAfter(epoch, position)),
          complete: ring.reachesBackTo(epoch, position)
        }
      })
  }
}

export const layer = (options: MemoryRingOptions): Layer.Layer<RecentTicks> =>
  Layer.effect(
    RecentTicks,
    Effect.map(Effect.context<never>(), (context) => {
      metrics.bind(metrics.bufferMaxSize, { buffer: "ring" }, context).add(options.total)
      return make(options, metrics.bind(metrics.bufferSize, { buffer: "ring" }, context).add)
    })
  )
