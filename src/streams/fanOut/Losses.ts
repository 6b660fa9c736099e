/** Decides how what a queue gave up is remembered until it is told: exact ranges, each in its place among what waits. */
import { evictedFrame } from "../../schema/Protocol.ts"

/** Positions given up at a place of the queue: told before whatever of that instrument stands behind it. */
interface Loss {
  index: number
  readonly epoch: number
  readonly from: number
  to: number
}

/** What was given up: a frame, with the positions that it accounts for. */
interface Given {
  readonly token: number
  readonly epoch: number
  readonly first: number
  readonly position: number
}

export class Losses {
  private readonly byToken = new Map<number, Array<Loss>>()

  /** Instruments with something to be told. */
  get size(): number {
    return this.byToken.size
  }

  get tokens(): Iterable<number> {
    return this.byToken.keys()
  }

  /**
   * A frame given up at the place `index`. Its positions are one range with those before them unless an answer stands between
   * the two, at `answeredAt` at the latest, or a tick: none does where this is what waited longest (`isOldest`).
   */
  add({ token, epoch, first: from, position: to }: Given, index: number, answeredAt: number, isOldest: boolean): void {
    let losses = this.byToken.get(token)
    if (losses === undefined) {
      losses = []
      this.byToken.set(token, losses)
    }
    // Mostly the last: another only where a policy before this one left several ticks of an instrument waiting.
    let at = losses.length
    while (at > 0 && losses[at - 1]!.index > index) at--
    const last = losses[at - 1]
    const isNext = last !== undefined && last.epoch === epoch && from > last.to
    if (isNext && (last.index === index || (last.index >= answeredAt && (isOldest || from === last.to + 1)))) {
      last.to = to
    } else losses.splice(at++, 0, { index, epoch, from, to })
    if (!isOldest || at < 2) return
    const [before, now] = [losses[at - 2]!, losses[at - 1]!]
    if (before.epoch !== now.epoch || before.index < answeredAt || now.from <= before.to) return
    before.to = now.to
    losses.splice(at - 1, 1)
  }

  /** Tells what was lost of an instrument before a place of the queue. */
  tell(token: number, before: number, say: (text: string) => void): void {
    const losses = this.byToken.get(token)
    if (losses === undefined) return
    let told = 0
    while (told < losses.length && losses[told]!.index < before) {
      const loss = losses[told++]!
      say(evictedFrame(token, loss.epoch, loss.from, loss.to))
    }
    if (told === losses.length) this.byToken.delete(token)
    else losses.splice(0, told)
  }

  /** The queue ends at `tail` now: what was lost at a place behind that is told before what comes there. */
  endAt(token: number, tail: number): void {
    for (const loss of this.byToken.get(token) ?? []) loss.index = Math.min(loss.index, tail - 1)
  }

  /** The first loss of each instrument: where it stands in the queue, and where the stream stood before it. */
  first(see: (token: number, index: number, epoch: number, position: number) => void): void {
    for (const [token, [loss]] of this.byToken)
      if (loss !== undefined) see(token, loss.index, loss.epoch, loss.from - 1)
  }

  clear(): void {
    this.byToken.clear()
  }
}
