/**
 * Decides how state reaches one client, where only the newest counts: one slot for each thing that has a state, such as
 * a bar, whose frame the next one takes the place of. Whoever reads slowly gets the newest when it reads.
 */

/** What is now: one object and one text, however many clients it goes to. */
export interface LatestFrame {
  /** What it is the state of. */
  readonly key: string
  readonly text: string
}

/** What a slot takes beside its text. */
const SLOT_BYTES = 160
/** Slots of one client; full: drop-oldest. An hour of bars of five hundred instruments is as many. */
export const MAX_SLOTS = 65_536

/** What waits for one client; what changed first goes first. */
export class LatestSlots {
  /** Frames given up since somebody counted. */
  dropped = 0
  /** About the bytes they keep in memory. */
  weight = 0
  private readonly frames = new Map<string, LatestFrame>()

  get size(): number {
    return this.frames.size
  }

  put(frame: LatestFrame): void {
    const { frames } = this
    const before = frames.get(frame.key)
    // A frame that takes another's place has waited as long: what changes all the time does not wait for ever.
    frames.set(frame.key, frame)
    if (before !== undefined) {
      this.weight += frame.text.length - before.text.length
      return
    }
    this.weight += SLOT_BYTES + frame.text.length
    if (frames.size <= MAX_SLOTS) return
    this.take()
    this.dropped++
  }

  /** The text that waited longest. */
  take(): string | undefined {
    for (const [key, { text }] of this.frames) {
      this.frames.delete(key)
      this.weight -= SLOT_BYTES + text.length
      return text
    }
    return undefined
  }

  clear(): void {
    this.frames.clear()
    this.weight = 0
  }
}
