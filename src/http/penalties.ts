/**
 * Decides how long whoever was ended for what he sent, again and again, waits before he is let in anew: ended and back at
 * once he would cost a burst each time, which is what the limit is against.
 */

/** So often it is nobody's habit yet. */
const FREE = 5
const FIRST_WAIT_MS = 1000
const LONGEST_WAIT_MS = 60_000
/** After so long without another it is forgotten. */
const FORGOTTEN_MS = 60_000
/** Peers remembered; one more, and the one whose last was longest ago is forgotten. */
const MAX_PEERS = 10_000

interface Record {
  times: number
  /** ms; when it was last ended. */
  at: number
}

export class Penalties {
  private readonly peers = new Map<string, Record>()
  private readonly now: () => number

  /** `now` is in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.now = now
  }

  /** A client of the peer was ended for what it sent. */
  add(peer: string): void {
    const at = this.now()
    const known = this.peers.get(peer)
    // Taken out and put in anew: the first in the map is the one longest ago.
    this.peers.delete(peer)
    const times = known === undefined || at - known.at - this.waitOf(known) > FORGOTTEN_MS ? 1 : known.times + 1
    this.peers.set(peer, { times, at })
    if (this.peers.size <= MAX_PEERS) return
    for (const oldest of this.peers.keys()) {
      this.peers.delete(oldest)
      break
    }
  }

  /** How long the peer has to wait yet, ms; 0: not at all. */
  left(peer: string): number {
    const known = this.peers.get(peer)
    return known === undefined ? 0 : Math.max(0, known.at + this.waitOf(known) - this.now())
  }

  private waitOf({ times }: Record): number {
    return times <= FREE ? 0 : Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(20, times - FREE - 1))
  }
}
