/**
 * Decides whether the server's messages keep the rule: per instrument and epoch, positions over `backfill` and `tick` go
 * up by one, every hole is covered exactly by `evicted`, and the epoch only grows. What comes again is never handed on.
 */
import { RuleViolated } from "./errors.ts"
import type { EpochChange, Place } from "./messages.ts"

interface Standing {
  epoch: number
  /** The last position that the server's stream has come to. */
  position: number
  /** Of this epoch, what the application has already up to here: a server may be behind another. 0: not ahead. */
  had: number
}

/** What a range of positions comes to. */
export type Outcome =
  /** From `first` on it is news; beyond `to` where nothing is. */
  | { readonly first: number; readonly change: EpochChange | undefined; readonly broken?: undefined }
  | { readonly broken: RuleViolated }

/** What a stream that is taken up at another place leaves out. */
export interface Rebased {
  readonly first: number
  readonly change: EpochChange | undefined
  /** Positions of the epoch that it is in now. */
  readonly missed: readonly [from: number, to: number] | undefined
}

/** Epochs begin with the trading day, in days since 1970. */
const PER_DAY = 1_000_000_000
const dayOf = (epoch: number): number => Math.floor(epoch / PER_DAY)

const changeOf = (token: number, from: Place, to: Place): EpochChange => ({
  type: "epoch",
  instrument_token: token,
  from,
  to,
  reason: to[0] < from[0] ? "behind" : dayOf(to[0]) > dayOf(from[0]) ? "day" : "lost"
})

export class Rule {
  readonly #standings = new Map<number, Standing>()
  /** Where each instrument stood when its stream was last found broken. */
  readonly #breaches = new Map<number, Place>()

  /** Where an instrument's stream stands, as `since` takes it. */
  place(token: number): Place | undefined {
    const standing = this.#standings.get(token)
    return standing === undefined ? undefined : placeOf(standing)
  }

  /** The same for a connection that goes on from there: its stream stands where the application does. */
  resume(token: number): Place | undefined {
    const standing = this.#standings.get(token)
    if (standing === undefined) return undefined
    standing.position = Math.max(standing.position, standing.had)
    standing.had = 0
    return placeOf(standing)
  }

  /** Takes the application's word for where it stands. */
  begin(token: number, [epoch, position]: Place): void {
    this.#standings.set(token, { epoch, position, had: 0 })
  }

  forget(token: number): void {
    this.#standings.delete(token)
    this.#breaches.delete(token)
  }

  clear(): void {
    this.#standings.clear()
    this.#breaches.clear()
  }

  /** Whether one live tick follows; the common case, without an object. */
  follows(token: number, epoch: number, position: number): boolean {
    const standing = this.#standings.get(token)
    if (
      standing === undefined ||
      standing.epoch !== epoch ||
      standing.position + 1 !== position ||
      standing.had !== 0
    ) {
      return false
    }
    standing.position = position
    return true
  }

  /** Takes positions `from` to `to`, which are ticks or told as evicted. */
  advance(token: number, epoch: number, from: number, to: number, what: string): Outcome {
    const standing = this.#standings.get(token)
    if (standing === undefined) {
      this.#standings.set(token, { epoch, position: to, had: 0 })
      return { first: from, change: undefined }
    }
    if (epoch === standing.epoch) {
      if (from !== standing.position + 1) return broken(token, standing, [epoch, from], what)
      return { first: moved(standing, from, to), change: undefined }
    }
    if (epoch < standing.epoch || from !== 1) return broken(token, standing, [epoch, from], what)
    const change = changeOf(token, placeOf(standing), [epoch, 0])
    Object.assign(standing, { epoch, position: to, had: 0 })
    return { first: from, change }
  }

  /** Takes an empty backfill: it says where the stream goes on, and may leave nothing out. */
  stand(token: number, epoch: number, position: number, recovered: boolean): Outcome {
    const standing = this.#standings.get(token)
    const nothing = { first: position + 1, change: undefined }
    // Nothing is known of the instrument yet: its first tick says where it stands.
    if (epoch === 0) return nothing
    if (standing === undefined) {
      this.#standings.set(token, { epoch, position, had: 0 })
      return nothing
    }
    if (epoch === standing.epoch) {
      if (position === standing.position) return nothing
      if (recovered || position > standing.position) {
        return broken(token, standing, [epoch, position + 1], "an empty backfill before")
      }
      // This server has not come as far as the one before it.
      standing.had = Math.max(standing.had, standing.position)
      standing.position = position
      return nothing
    }
    const isBehind = epoch < standing.epoch
    if (isBehind ? recovered : position !== 0) {
      return broken(token, standing, [epoch, position + 1], "an empty backfill before")
    }
    const change = changeOf(token, placeOf(standing), [epoch, position])
    Object.assign(standing, { epoch, position, had: 0 })
    return { first: position + 1, change }
  }

  /** Notes where a stream was found broken; true where it was broken right there before, so that asking again is no use. */
  isBrokenAgain({ instrument_token: token, stood }: RuleViolated): boolean {
    const before = this.#breaches.get(token)
    this.#breaches.set(token, stood)
    return before !== undefined && before[0] === stood[0] && before[1] === stood[1]
  }

  /** Takes a stream up where it goes on, whatever it leaves out. */
  rebase(token: number, epoch: number, from: number, to: number): Rebased {
    const standing = this.#standings.get(token)
    if (standing === undefined || epoch !== standing.epoch) {
      const change = standing === undefined ? undefined : changeOf(token, placeOf(standing), [epoch, from - 1])
      this.#standings.set(token, { epoch, position: to, had: 0 })
      const isMissing = change !== undefined && change.reason !== "behind" && from > 1
      return { first: from, change, missed: isMissing ? [1, from - 1] : undefined }
    }
    const had = Math.max(standing.had, standing.position)
    standing.had = had
    const first = moved(standing, from, to)
    return { first, change: undefined, missed: from > had + 1 ? [had + 1, from - 1] : undefined }
  }
}

const placeOf = ({ epoch, position, had }: Standing): Place => [epoch, Math.max(position, had)]

/** Moves on within an epoch; answers the first position that the application has not had. */
const moved = (standing: Standing, from: number, to: number): number => {
  const { had } = standing
  standing.position = to
  if (to >= had) standing.had = 0
  return Math.max(from, had + 1)
}

const broken = (token: number, { epoch, position }: Standing, came: Place, what: string): Outcome => ({
  broken: new RuleViolated(token, [epoch, position], came, what)
})
