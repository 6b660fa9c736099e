/**
 * Decides how the messages of many clients share the event loop with everything else: in short slices, each client in
 * turn, and never more than a part of the time. What costs little and finds nobody waiting is done at once.
 */

/** Something that is done in steps of bounded work. */
export interface Work {
  /** Does one step; true where there is more to do. It throws nothing. */
  readonly step: () => boolean
}

/** Time that may be spent at once, in milliseconds. */
const SLICE_MS = 2
/** Of the time that passes, what may be spent in the long run: the rest is the ticks'. */
const SHARE = 0.33

/** All work of one server. */
export class Shares {
  private readonly now: () => number
  private readonly later: (run: () => void, ms: number) => void
  private readonly waiting = new Set<Work>()
  /** Milliseconds that may be spent now; below zero after a step that took longer. */
  private left = SLICE_MS
  private at: number
  private isScheduled = false
  private isRunning = false

  constructor(
    now: () => number = () => performance.now(),
    later: (run: () => void, ms: number) => void = (run, ms) => {
      setTimeout(run, ms)
    }
  ) {
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
    this.left = Math.min(SLICE_MS, this.left + (time - this.at) * SHARE)
    this.at = time
    this.isRunning = true
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
    this.isRunning = false
    if (this.waiting.size === 0) return
    this.isScheduled = true
    // Until a half slice may be spent again: less is not worth a turn of the loop.
    this.later(this.run, Math.ceil((SLICE_MS / 2 - this.left) / SHARE))
  }
}
