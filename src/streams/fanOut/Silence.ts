/** Decides how long an instrument may be silent before that is more than usual for it: from the gaps between its ticks. */

const MICROS_PER_SECOND = 1_000_000
/** Ticks closer together are one. */
const LEAST_GAP = MICROS_PER_SECOND
/** The share of a new gap in the mean, and in the mean deviation from it. */
const WEIGHT = 1 / 16
/** How many deviations above the mean a gap is still usual, as TCP counts them (RFC 6298), and a margin on top. */
const DEVIATIONS = 4
const MARGIN = 2
/** No silence is unusual below this, and every one above. */
export const LEAST_SILENCE = 5 * MICROS_PER_SECOND
export const LONGEST_SILENCE = 3_600 * MICROS_PER_SECOND
/** Before so many gaps nobody knows what is usual, and no silence is unusual below this. */
const GAPS_TO_KNOW = 8
export const UNKNOWN_SILENCE = 600 * MICROS_PER_SECOND

/** When an instrument was last heard, and how often it is. Times are epoch microseconds. */
export class Silence {
  /** 0 before its first tick. */
  heardAt = 0
  /** Where the last gap ended. */
  private countedAt = 0
  private gaps = 0
  private mean = 0
  private deviation = 0

  /** A tick has come; whether it ends a gap that is to be counted. */
  hear(at: number): boolean {
    if (at > this.heardAt) this.heardAt = at
    return at - this.countedAt >= LEAST_GAP
  }

  /** Ends a gap; one that is `broken` by hours without trading says nothing. */
  count(at: number, isBroken: (since: number) => boolean): void {
    const since = this.countedAt
    const gap = at - since
    this.countedAt = at
    if (since === 0 || gap > LONGEST_SILENCE || isBroken(since)) return
    this.gaps++
    if (this.gaps === 1) {
      this.mean = gap
      this.deviation = gap / 2
      return
    }
    this.deviation += (Math.abs(gap - this.mean) - this.deviation) * WEIGHT
    this.mean += (gap - this.mean) * WEIGHT
  }

  /** The longest silence that is usual, in microseconds. */
  get usual(): number {
    const usual = MARGIN * (this.mean + DEVIATIONS * this.deviation)
    const least = this.gaps < GAPS_TO_KNOW ? UNKNOWN_SILENCE : LEAST_SILENCE
    return Math.min(LONGEST_SILENCE, Math.max(least, usual))
  }

  forget(): void {
    this.heardAt = 0
    this.countedAt = 0
    this.gaps = 0
    this.mean = 0
    this.deviation = 0
  }
}
