/**
 * Decides when a client that says nothing is gone: it is asked by a ping, and cut off where it does not answer. One that
 * may pause has as long as it may pause: who does not read does not answer a ping either.
 */

/** A look at all of them, as the library would have it every so many milliseconds. */
const LOOK_MS = 8_000
/** Looks without a word after which a client is asked, and after which it is cut off: 104 s and 120 s. */
const ASK_AFTER = 13
const GONE_AFTER = 15

export interface Silent {
  /** Looks since it was last heard. */
  silent: number
  readonly ask: () => void
  readonly giveUp: () => void
}

/** Does something again and again; answers what ends that. */
type Every = (look: () => void, ms: number) => () => void

const every: Every = (look, ms) => {
  const timer = setInterval(look, ms).unref()
  return () => clearInterval(timer)
}

export class SilentClients {
  private readonly lookMs: number
  private readonly every: Every
  /** Each with the milliseconds that it may be silent for, where that is longer than others may. */
  private readonly peers = new Map<Silent, () => number>()
  private end: (() => void) | undefined

  constructor(lookMs = LOOK_MS, again = every) {
    this.lookMs = lookMs
    this.every = again
  }

  add(peer: Silent, patience: () => number): void {
    this.peers.set(peer, patience)
    this.end ??= this.every(this.look, this.lookMs)
  }

  remove(peer: Silent): void {
    this.peers.delete(peer)
    if (this.peers.size > 0) return
    this.end?.()
    this.end = undefined
  }

  private readonly look = (): void => {
    for (const [peer, patience] of [...this.peers]) {
      const looks = ++peer.silent
      if (looks === ASK_AFTER) peer.ask()
      // What it may pause, and as long as any other has to answer a ping behind that.
      else if (looks >= GONE_AFTER && looks >= GONE_AFTER - ASK_AFTER + patience() / this.lookMs) peer.giveUp()
    }
  }
}
