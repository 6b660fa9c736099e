/**
 * Decides how work that may wait shares the event loop and the machine with live ticks: in turns of a millisecond or
 * so, with pauses between them. What catches up after its store was away then holds up no tick on its way to a client.
 * Where no live ticks are read there is nothing to make way for, and nothing waits.
 */

/** Records whose taking in, or rows whose writing out, takes a millisecond or less: a turn where the loop is free. */
const TURN_RECORDS = 250
/** A pause is so many times as long as the turn before it, which takes longer where the machine is busy. */
const PAUSES = 3
/**
 * Where rounds of the loop are long, turns have the same share of it: this many records at most, so that sinks keep up
 * with a busy market too.
 */
const MOST_RECORDS = 2000
/** So long after live ticks others are expected. */
const LIVE_FOR_MS = 1000

interface Waiting {
  readonly records: number
  readonly since: number
  readonly begin: () => void
}

/** Who waits, the longest first: a reader or a writer has one place at most. */
const waiting: Array<Waiting> = []
let isScheduled = false
let pausedUntil = 0
let liveAt = Number.NEGATIVE_INFINITY

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
    const most = Math.min(MOST_RECORDS, TURN_RECORDS * (1 + late / (PAUSES + 1)))
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
    pausedUntil = ended + (ended - began) * PAUSES
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

/** How many records make a turn just now. */
export const turnRecords = (): number =>
  performance.now() - liveAt < LIVE_FOR_MS ? TURN_RECORDS : Number.POSITIVE_INFINITY

/** Completes when it is the turn of work on so many records; small pieces of several share one. */
export const turn = (records: number): Promise<void> => {
  if (waiting.length === 0 && turnRecords() === Number.POSITIVE_INFINITY) return Promise.resolve()
  return new Promise((resolve) => {
    waiting.push({ records, since: performance.now(), begin: resolve })
    schedule()
  })
}
