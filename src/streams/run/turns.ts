/**
 * Decides how work that may wait shares the event loop and the machine with live ticks: in small turns with pauses
 * between them. What catches up after its store was away then holds up no tick on its way to a client. Where no live
 * ticks are read there is nothing to make way for, and nothing waits.
 */

/** Records whose taking in takes a millisecond or so: a turn where the loop is free. */
export const TURN_RECORDS = 250
/** A pause is so many times as long as the turn before it, which takes longer where the machine is busy. */
const PAUSES = 3
/** Where somebody has waited without a break for so long, sinks do not keep up like this: as long as the turn, then. */
const LONG_MS = 15_000
const PAUSES_AFTER_LONG = 1
/** A turn in which the process was stopped is no measure. */
const MOST_PAUSE_MS = 50
/** Where the loop comes round late, a turn has more, so that sinks keep up with a busy market too; this at most. */
const MOST_RECORDS = 2000
/** So long after live ticks others are expected. */
const LIVE_FOR_MS = 1000

interface WaitingTurn {
  readonly records: number
  readonly since: number
  readonly begin: () => void
}

/** Who waits, the longest first: a reader or a writer has one place at most. */
const waiting: Array<WaitingTurn> = []
let isScheduled = false
let pausedUntil = 0
/** Since when there has always been somebody who waits. */
let waitedSince = Number.POSITIVE_INFINITY
let liveAt = Number.NEGATIVE_INFINITY

/** Whether there are turns just now. */
export const inTurns = (): boolean => performance.now() - liveAt < LIVE_FOR_MS

const pauses = (): number => (performance.now() - waitedSince < LONG_MS ? PAUSES : PAUSES_AFTER_LONG)

const schedule = (): void => {
  if (isScheduled || waiting.length === 0) return
  isScheduled = true
  const pause = pausedUntil - performance.now()
  if (pause > 0) setTimeout(inTheNextRound, pause)
  else inTheNextRound()
}

const inTheNextRound = (): void => {
  let began = 0
  setImmediate(() => {
    began = performance.now()
    const late = Math.max(0, began - Math.max(pausedUntil, waiting[0]!.since))
    const most = inTurns()
      ? Math.min(MOST_RECORDS, TURN_RECORDS * (1 + late / (pauses() + 1)))
      : Number.POSITIVE_INFINITY
    let records = 0
    do {
      const next = waiting.shift()!
      records += next.records
      next.begin()
    } while (waiting.length > 0 && records + waiting[0]!.records <= most)
  })
  // Comes right after it and what it set off.
  setImmediate(() => {
    const ended = performance.now()
    pausedUntil = ended + (inTurns() ? Math.min(MOST_PAUSE_MS, (ended - began) * pauses()) : 0)
    if (waiting.length === 0) waitedSince = Number.POSITIVE_INFINITY
    isScheduled = false
    schedule()
  })
}

/**
 * Told by who reads on the way to live clients: record time of the newest, µs. Nobody waits for ticks that are late
 * already, by the broker's clock against this one.
 */
export const live = (recordTime: number): void => {
  if (Date.now() - recordTime / 1000 < LIVE_FOR_MS) liveAt = performance.now()
}

/** Completes when it is the turn of work on so many records; small pieces of several share one. */
export const turn = (records: number): Promise<void> => {
  if (waiting.length === 0 && !inTurns()) return Promise.resolve()
  return new Promise((resolve) => {
    const since = performance.now()
    waitedSince = Math.min(waitedSince, since)
    waiting.push({ records, since, begin: resolve })
    schedule()
  })
}
