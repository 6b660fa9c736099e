/**
 * Decides how what many clients ask shares the event loop with everything else: in short slices, one step after another
 * of whoever waits, and never more than a part of the time. What costs little and finds nobody waiting is done at once.
 */

/** Something that is done in steps of bounded work. */
export interface Work {
  /** Does one step; true where there is more to do. It throws nothing. */
  readonly step: () => boolean
}

export interface Portion {
  /** Time that may be spent at once. */
  readonly sliceMs: number
  /** Of the time that passes, what may be spent in the long run: the rest is the ticks'. */
  readonly share: number
}

/** What WebSocket clients ask. */
export const MESSAGES: Portion = { sliceMs: 2, share: 0.33 }
/** What requests take until they wait for something for the first time; the rest of them comes on top. */
export const REQUESTS: Portion = { sliceMs: 4, share: 0.33 }

/** All work of one kind of one server. */
export class Shares {
  private readonly now: () => number
  private readonly later: (run: () => void, ms: number) => void
  private readonly waiting = new Set<Work>()
  /** Milliseconds that may be spent now; below zero after a step that took longer. */
  private left: number
  private at: number
  private readonly portion: Portion
  private isScheduled = false
  private isRunning = false

  constructor(
    portion: Portion,
    now: () => number = () => performance.now(),
    later: (run: () => void, ms: number) => void = (run, ms) => {
      setTimeout(run, ms)
    }
  ) {
    this.portion = portion
    this.left = portion.sliceMs
    this.now = now
    this.later = later
    this.at = now()
  }

  /** Begins with work now, where nothing else waits, or when its turn comes. Work that waits already is not asked twice. */
  add(work: Work): void {
    if (this.waiting.has(work)) return
    this.waiting.add(work)
    if (!this.isScheduled && !this.isRunning) this.run()
  }

  /** Gives up what is left of it. */
  remove(work: Work): void {
    this.waiting.delete(work)
  }

  private readonly run = (): void => {
    this.isScheduled = false
    let time = this.now()
    const { sliceMs, share } = this.portion
    this.left = Math.min(sliceMs, this.left + (time - this.at) * share)
    this.at = time
    this.isRunning = true
    try {
      while (this.left > 0 && this.waiting.size > 0) {
        // The first in line takes one step, and lines up again behind the others.
        const work = this.waiting.values().next().value!
        this.waiting.delete(work)
        if (work.step()) this.waiting.add(work)
        const after = this.now()
        this.left -= after - time
        time = after
        this.at = time
      }
    } finally {
      this.isRunning = false
    }
    if (this.waiting.size === 0) return
    this.isScheduled = true
    // Until a half slice may be spent again: less is not worth a turn of the loop.
    this.later(this.run, Math.ceil((sliceMs / 2 - this.left) / share))
  }
}
