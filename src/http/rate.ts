/** Decides how much a client may do at once and in the long run: an allowance that fills up again. */

export class Rate {
  private readonly burst: number
  private readonly perSecond: number
  private left: number
  private at: number

  /** `now` is in milliseconds. */
  constructor(burst: number, perSecond: number, now = performance.now()) {
    this.burst = burst
    this.perSecond = perSecond
    this.left = burst
    this.at = now
  }

  /** Takes an amount where there is so much; false where there is not, and nothing is taken. */
  take(amount: number, now = performance.now()): boolean {
    this.left = Math.min(this.burst, this.left + ((now - this.at) / 1000) * this.perSecond)
    this.at = now
    if (amount > this.left) return false
    this.left -= amount
    return true
  }

  /** Takes an amount that was used already, also where there is less: then nothing can be taken until it is made up for. */
  spend(amount: number): void {
    this.left -= amount
  }

  /** Seconds until there is so much, as of the last `take`. */
  secondsUntil(amount: number): number {
    return Math.max(0, (amount - this.left) / this.perSecond)
  }
}
