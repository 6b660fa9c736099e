/**
 * Decides how state reaches one client, where only the newest counts: one slot for each thing that has a state, such as
 * a bar or the book, whose frame the next one takes the place of. Whoever reads slowly gets the newest when it reads.
 */

/** What is now: one object and one text, however many clients it goes to. */
export interface LatestFrame {
  /** The instrument that it is about. */
  readonly token: number
  /** What it is the state of. */
  readonly key: string
  readonly text: string
  /** It goes only where no tick waits, and its text is the instrument's newest for everybody. */
  readonly yields?: boolean
}

/** The key of what yields: one thing an instrument. */
export const keyOfYielding = (token: number): string => `${token}`

/** What a slot takes beside its text. */
const SLOT_BYTES = 160
/** What it takes that an instrument was left of which something may wait. */
const LEFT_BYTES = 64
/** Slots of one client for each kind of them; full: drop-oldest. An hour of bars of five hundred instruments is as many. */
export const MAX_SLOTS = 65_536

/** What waits for one client; what changed first goes first. */
export class LatestSlots {
  /** Frames given up since somebody counted. */
  dropped = 0
  /** About the bytes they keep in memory. */
  weight = 0
  private readonly frames = new Map<string, LatestFrame>()
  /**
   * Instruments that were left, and how often: what waited of them then is not wanted, and may be in many slots, so that
   * it is passed over in its turn. What comes after has slots of its own.
   */
  private readonly left = new Map<number, number>()
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
    const key = this.slotOf(frame)
    const before = frames.get(key)
    // A frame that takes another's place has waited as long: what changes all the time does not wait for ever.
    frames.set(key, frame)
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
    const { frames } = this
    let text: string | undefined
    for (const [key, frame] of frames) {
      frames.delete(key)
      this.weight -= this.weigh(frame)
      if (key !== this.slotOf(frame)) continue
      text = frame.text
      break
    }
    if (frames.size === 0) this.forgetLeft()
    return text
  }

  /** What waits of it is wanted no more. */
  drop(key: string): void {
    const frame = this.frames.get(key)
    if (frame === undefined) return
    this.frames.delete(key)
    this.weight -= this.weigh(frame)
  }

  /** Nothing that waits of an instrument is wanted any more, in whatever slots it is. */
  leave(token: number): void {
    if (this.frames.size === 0) return
    const times = this.left.get(token) ?? 0
    this.left.set(token, times + 1)
    if (times === 0) this.weight += LEFT_BYTES
  }

  private slotOf({ key, token }: LatestFrame): string {
    const times = this.left.size === 0 ? undefined : this.left.get(token)
    return times === undefined ? key : `${times} times left ${key}`
  }

  private forgetLeft(): void {
    this.weight -= this.left.size * LEFT_BYTES
    this.left.clear()
  }

  private weigh({ text }: LatestFrame): number {
    return this.isOwn ? SLOT_BYTES + text.length : SLOT_BYTES
  }

  clear(): void {
    this.frames.clear()
    this.left.clear()
    this.weight = 0
  }
}
