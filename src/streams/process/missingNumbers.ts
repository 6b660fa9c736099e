/** Decides which numbers of a contiguous sequence are missing, and how long their gap stays open, in record time. */

/** Ranges kept open a session; one more gives up the oldest. */
export const MAX_OPEN_RANGES = 1024

interface Range {
  from: number
  to: number
  readonly openedAt: number
}

/** What became of missing numbers, for the counters. */
export interface GapTally {
  gaps: number
  fills: number
  lost: number
}

/** Of the many sessions where nothing is missing: nobody puts anything into it. */
const NONE: Array<Range> = []

export class MissingNumbers {
  /** By time of opening, which record time makes ascending. */
  #ranges: Array<Range> = NONE

  /** Opens [from, to] at a record time (µs). */
  open(from: number, to: number, recordTime: number, tally: GapTally): void {
    if (this.#ranges === NONE) this.#ranges = []
    this.#ranges.push({ from, to, openedAt: recordTime })
    tally.gaps++
    this.#bound(tally)
  }

  /** Takes a number that came after all out of its range; false where it was in none that is still open. */
  fill(id: number, tally: GapTally): boolean {
    for (let i = 0; i < this.#ranges.length; i++) {
      const range = this.#ranges[i]!
      if (id < range.from || id > range.to) continue
      tally.fills++
      if (range.from === range.to) this.#ranges.splice(i, 1)
      else if (id === range.from) range.from++
      else if (id === range.to) range.to--
      else {
        this.#ranges.splice(i, 1, { ...range, to: id - 1 }, { ...range, from: id + 1 })
        this.#bound(tally)
      }
      return true
    }
    return false
  }

  /** Gives up the ranges opened at or before a record time. */
  expire(openedUpTo: number, tally: GapTally): void {
    const ranges = this.#ranges
    let given = 0
    while (given < ranges.length && ranges[given]!.openedAt <= openedUpTo) {
      tally.lost += ranges[given]!.to - ranges[given]!.from + 1
      given++
    }
    if (given > 0) this.#ranges = ranges.slice(given)
  }

  /** Whether a range opened after a record time is there. */
  isOpen(openedAfter: number): boolean {
    const newest = this.#ranges[this.#ranges.length - 1]
    return newest !== undefined && newest.openedAt > openedAfter
  }

  #bound(tally: GapTally): void {
    if (this.#ranges.length <= MAX_OPEN_RANGES) return
    const given = this.#ranges.shift()!
    tally.lost += given.to - given.from + 1
  }

  /** Puts back what a checkpoint held. */
  restore(ranges: ReadonlyArray<Range>): void {
    this.#ranges = ranges.length === 0 ? NONE : [...ranges]
  }

  get ranges(): ReadonlyArray<Readonly<Range>> {
    return this.#ranges
  }
}
