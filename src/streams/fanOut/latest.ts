/**
 * Decides how state reaches one client, where only the newest counts: one slot for each thing that has a state, such as
 * a bar or the book, whose frame the next one takes the place of. Whoever reads slowly gets the newest when it reads.
 */

/** What is now: one object and one text, however many clients it goes to. */
export interface LatestFrame {
  /** What it is the state of. */
  readonly key: string
  readonly text: string
  /** It goes only where no tick waits, and its text is the instrument's newest for everybody. */
  readonly yields?: boolean
}

/** What a slot takes beside its text. */
const SLOT_BYTES = 160
/** Slots of one client for each kind of them; full: drop-oldest. An hour of bars of five hundred instruments is as many. */
export const MAX_SLOTS = 65_536

/** What waits for one client; what changed first goes first. */
export class LatestSlots {
  /** Frames given up since somebody counted. */
  dropped = 0
  /** About the bytes they keep in memory. */
  weight = 0
  private readonly frames = new Map<string, LatestFrame>()
  /** Whether the texts are kept for this client alone, as those of bars that are over. */
  private readonly isOwn: boolean

  constructor(isOwn: boolean) {
    this.isOwn = isOwn
  }

  get size(): number {
    return this.frames.size
  }

  put(frame: LatestFrame): void {
    const { frames } = this
    const before = frames.get(frame.key)
    // A frame that takes another's place has waited as long: what changes all the time does not wait for ever.
    frames.set(frame.key, frame)
    if (before !== undefined) {
      this.weight += this.weigh(frame) - this.weigh(before)
      return
    }
    this.weight += this.weigh(frame)
    if (frames.size <= MAX_SLOTS) return
    this.take()
    this.dropped++
  }

  /** The text that waited longest. */
  take(): string | undefined {
    for (const [key, frame] of this.frames) {
      this.frames.delete(key)
      this.weight -= this.weigh(frame)
      return frame.text
    }
    return undefined
  }

  private weigh({ text }: LatestFrame): number {
    return this.isOwn ? SLOT_BYTES + text.length : SLOT_BYTES
  }

  clear(): void {
    this.frames.clear()
    this.weight = 0
  }
}
