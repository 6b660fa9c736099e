/** Decides how much of one bounded thing is in use, and how much of it by one address, so that nobody takes all of it. */

/** Why there is none left: all is in use, or the address has its share. */
export type Spent = "full" | "address"

export class Allowance {
  private readonly byAddress = new Map<string, number>()
  private readonly most: number
  /** The most that one address may have of it. */
  readonly share: number
  used = 0

  /** `addressPercent` of `most` is one address's share, at least 1. */
  constructor(most: number, addressPercent: number) {
    this.most = most
    this.share = Math.max(1, Math.floor((most * addressPercent) / 100))
  }

  /** Takes `amount`, or answers why it cannot be had; then nothing is taken. */
  take(address: string, amount = 1): Spent | undefined {
    if (this.used + amount > this.most) return "full"
    const own = (this.byAddress.get(address) ?? 0) + amount
    if (own > this.share) return "address"
    this.used += amount
    this.byAddress.set(address, own)
    return undefined
  }

  free(address: string, amount = 1): void {
    const own = (this.byAddress.get(address) ?? 0) - amount
    this.used -= amount
    // So that the map holds only who has some of it.
    if (own > 0) this.byAddress.set(address, own)
    else this.byAddress.delete(address)
  }
}
