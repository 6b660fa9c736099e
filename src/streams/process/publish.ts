/**
 * Decides what of a batch is written: clean ticks, quotes and watermarks to `normalized_ticks`, in source order, and
 * what cannot go on to the DLQ, the latter first. A batch is done once both are acknowledged.
 */
import { Clock, Effect } from "effect"
import { showText } from "../../schema/Explain.ts"
import { encodeQuote, QUOTE_SOURCE_INDEX } from "../../schema/Quote.ts"
import { encodeTick } from "../../schema/TickJson.ts"
import { BATCH_HEADER, CUT_HEADER, KIND_HEADER, QUOTE_KIND, REPLAY_HEADER, watermarkRecord } from "../log/headers.ts"
import { BEFORE_ALL, isUpTo, type SourcePlace } from "../log/source.ts"
import { type LogRecord, type NewRecord, TickLog } from "../log/TickLog.ts"
import { crashPoint } from "../run/crashPoint.ts"
import type { DeadLetter, QuoteCandidate, Quoted } from "./batch.ts"
import type { FeedClocks } from "./feedClocks.ts"

const encoder = new TextEncoder()

const HEADERS = { [KIND_HEADER]: QUOTE_KIND }

const quoteRecord = ({ quote, run }: QuoteCandidate): NewRecord => ({
  key: String(quote.instrument_token),
  value: Buffer.from(encodeQuote(quote)),
  headers: run === "" ? HEADERS : { ...HEADERS, [REPLAY_HEADER]: run }
})

/** The quotes of a batch that were not published before. */
const newQuotes = ({ quotes }: Quoted, through: SourcePlace): ReadonlyArray<QuoteCandidate> =>
  quotes.filter(({ record }) => !isUpTo(through, record.offset, QUOTE_SOURCE_INDEX))

/** What goes between the ticks, by the raw offset after which it stands: watermarks, and quotes, right after their tick. */
const between = (batch: Quoted, through: SourcePlace) => {
  const records = batch.watermarks
    .filter(({ offset }) => offset > through.offset)
    .map((watermark) => ({ offset: watermark.offset, record: watermarkRecord(watermark) }))
  if (batch.quotes.length === 0) return records
  for (const one of newQuotes(batch, through)) records.push({ offset: one.record.offset, record: quoteRecord(one) })
  return records.sort((a, b) => a.offset - b.offset)
}

/**
 * The records of `normalized_ticks` that a batch becomes, in the order of their sources; none of what was published
 * before, up to `through`.
 */
export const toRecords = (batch: Quoted, through: SourcePlace = BEFORE_ALL): ReadonlyArray<NewRecord> => {
  const records: Array<NewRecord> = []
  const { ticks } = batch
  const others = between(batch, through)
  let next = 0
  for (const { tick, run, record, index } of ticks) {
    if (isUpTo(through, record.offset, index)) continue
    while (next < others.length && others[next]!.offset < record.offset) records.push(others[next++]!.record)
    records.push({
      key: String(tick.instrument_token),
      value: Buffer.from(encodeTick(tick)),
      headers: run === "" ? undefined : { [REPLAY_HEADER]: run }
    })
  }
  while (next < others.length) records.push(others[next++]!.record)
  return records
}

/** Header values longer than this are cut, in bytes. */
const MAX_REASON_BYTES = 1024
const MAX_RUN_CHARS = 64

/**
 * The DLQ records of a batch: the bytes as they came, and where they came from. None of what came up to `through`: dead
 * letters are written before the ticks of their batch.
 */
export const toDeadRecords = (
  dead: ReadonlyArray<DeadLetter>,
  partition: number,
  through: SourcePlace = BEFORE_ALL
): ReadonlyArray<NewRecord> =>
  dead
    .filter(({ record }) => record.offset > through.offset)
    // Each stage has put its own at the end: in the order of the partition they are the same however it is cut.
    .sort((a, b) => a.record.offset - b.record.offset || a.index - b.index)
    .map(({ record, index, reason }) => ({
      key: record.key,
      value: record.value,
      headers: {
        reason: encoder.encode(reason).length > MAX_REASON_BYTES ? `${reason.slice(0, MAX_REASON_BYTES / 4)}…` : reason,
        topic: "raw_ticks",
        partition: String(partition),
        offset: String(record.offset),
        index: String(index),
        ...(record.unreadable === undefined ? {} : { [BATCH_HEADER]: "1" }),
        ...replayOf(record)
      }
    }))

/** A letter of a replay says so: sent again as it is, it would be a live tick. */
const replayOf = ({ headers }: LogRecord): Readonly<Record<string, string>> => {
  const run = headers?.[REPLAY_HEADER] ?? ""
  return run === "" ? {} : { [REPLAY_HEADER]: showText(run, MAX_RUN_CHARS) }
}

/** What is kept of a dead letter which the DLQ does not take whole: bytes of its value, characters of its key. */
const KEPT_BYTES = 524_288
const KEPT_KEY = 1024

/** The letter with what the DLQ takes of it; its `bytes` header says how many there were. */
export const cutDead = (letter: NewRecord): NewRecord =>
  (letter.value?.length ?? 0) <= KEPT_BYTES && (letter.key?.length ?? 0) <= KEPT_KEY
    ? letter
    : {
        ...letter,
        key: letter.key?.slice(0, KEPT_KEY) ?? null,
        value: letter.value?.subarray(0, KEPT_BYTES) ?? null,
        headers: { ...letter.headers, [CUT_HEADER]: String(letter.value?.length ?? 0) }
      }

/** A partition says no more than one defect in this time. */
const SAY_DEFECT_MS = 60_000

export interface PublishOptions {
  readonly partition: number
  /** Nothing at or below it is published again. */
  readonly through: SourcePlace
  /** Of `normalized_ticks`: an append to another is refused. */
  readonly incarnation: string
  /** Told of the dead letters once they are kept. */
  readonly clocks: FeedClocks
}

/**
 * Writes what a batch has become: dead letters first, since ticks that are published show that the rest is done; then
 * what belongs elsewhere, then its ticks and quotes. Answers how many records went to `normalized_ticks` from which
 * offset on, and how many of them are quotes.
 */
export const publish = ({ partition, through, incarnation, clocks }: PublishOptions) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const clock = yield* Clock.Clock

    /** A stage failing is a fault of the platform: one of its letters is said aloud now and then, all are counted. */
    let defectSaidAt = Number.NEGATIVE_INFINITY
    const sayDefect = ({ dead }: Quoted) => {
      const defect = dead.find(({ kind }) => kind === "defect")
      const now = clock.currentTimeMillisUnsafe()
      if (defect === undefined || now - defectSaidAt < SAY_DEFECT_MS) return Effect.void
      defectSaidAt = now
      const place = `raw_ticks-${partition} at offset ${defect.record.offset}`
      return Effect.logError(`${place} went to the dead letters, which is a defect: ${defect.reason}`)
    }

    const putAside = Effect.fnUntraced(function* (batch: Quoted) {
      const dead = toDeadRecords(batch.dead, partition, through)
      if (dead.length === 0) return
      yield* log.append("raw_ticks_dlq", partition, dead).pipe(
        Effect.catchIf(
          (error) => error.reason === "too_large",
          () => log.append("raw_ticks_dlq", partition, dead.map(cutDead))
        )
      )
      crashPoint("after-dead-letters")
      yield* sayDefect(batch)
      yield* clocks.note(batch.dead)
    })

    const forward = Effect.fnUntraced(function* ({ forwards }: Quoted) {
      for (const [to, mine] of Map.groupBy(forwards, (one) => one.to)) {
        yield* log.append(
          "raw_ticks",
          to,
          mine.map(({ record }) => record)
        )
        crashPoint("after-forward")
      }
    })

    return Effect.fnUntraced(function* (batch: Quoted) {
      if (batch.dead.length > 0) yield* putAside(batch)
      if (batch.forwards.length > 0) yield* forward(batch)
      const records = toRecords(batch, through)
      if (records.length === 0) return { records: 0, quotes: 0, first: undefined }
      const first = yield* log.append("normalized_ticks", partition, records, incarnation)
      crashPoint("after-publish")
      return { records: records.length, quotes: newQuotes(batch, through).length, first }
    })
  })
