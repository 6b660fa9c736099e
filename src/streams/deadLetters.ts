/**
 * Decides how dead letters are looked through, shown and sent again, from wherever it is asked: a bounded piece of work
 * at a time, each of which says where the next one starts.
 */
import { Effect } from "effect"
import type { LogError } from "../schema/Errors.ts"
import { partitionOf } from "../schema/Partition.ts"
import { BATCH_HEADER, CUT_HEADER, REPLAY_HEADER, SINK_HEADER } from "./log/headers.ts"
import type { LogRecord, NewRecord, TickLog } from "./log/TickLog.ts"

const DLQ = "raw_ticks_dlq"
/** Letters of one partition looked at in a turn. */
const PIECE = 500
/** Letters looked at for one answer, whatever is wanted of them: some tenths of a second. */
export const MAX_SCANNED = 20_000
/** Of a value, in bytes, and of a key or a header, in characters. */
const SHOWN_BYTES = 4096
const SHOWN_CHARS = 1024
/** Headers besides the platform's own that are shown. */
const SHOWN_HEADERS = 8
/** Partitions whose bounds are asked for at a time. */
const BOUNDS_AT_A_TIME = 8

type Log = Pick<TickLog["Service"], "partitions" | "slice" | "bounds" | "append">

export interface Letter extends LogRecord {
  readonly partition: number
}

/** Where a letter stands in the DLQ, and so where a walk goes on. */
export interface LetterPlace {
  readonly partition: number
  readonly offset: number
}

/** Which letters are meant: all, or those whose reason holds a text, of a partition, at an offset of it. */
export interface Wanted {
  readonly reason?: string | undefined
  readonly partition?: number | undefined
  readonly offset?: number | undefined
}

/** A letter as it is shown; `value` where it is text, `base64` where it is none. Both are cut, `bytes` is the whole. */
export interface ShownLetter {
  readonly partition: number
  readonly offset: number
  /** When the DLQ took it, epoch microseconds. */
  readonly at: number
  readonly reason: string | null
  /** The record that it was; numbers are null where the letter does not say. */
  readonly from: {
    readonly topic: string | null
    readonly partition: number | null
    readonly offset: number | null
    readonly index: number | null
  }
  readonly headers?: Readonly<Record<string, string>>
  readonly key: string | null
  readonly value?: string | null
  readonly base64?: string | null
  readonly bytes: number
}

const reasonOf = ({ headers, unreadable }: LogRecord): string | undefined => headers?.reason ?? unreadable?.message

const isMeant = ({ reason, partition, offset }: Wanted, letter: Letter): boolean =>
  (partition === undefined || letter.partition === partition) &&
  (offset === undefined || letter.offset === offset) &&
  (reason === undefined || (reasonOf(letter) ?? "").includes(reason))

/** Half a character at a cut is left out, and one that came so is replaced. */
const cut = (text: string): string =>
  text.length <= SHOWN_CHARS ? text.toWellFormed() : `${text.slice(0, SHOWN_CHARS).replace(/[\ud800-\udbff]$/, "")}…`

const numberOf = (text: string | undefined): number | null => {
  const number = text === undefined || text === "" ? Number.NaN : Number(text)
  return Number.isSafeInteger(number) ? number : null
}

const decoder = new TextDecoder("utf8", { fatal: true })
/** The text that bytes are, without half a character at a cut; `undefined` where they are none. */
const textOf = (bytes: Uint8Array): string | undefined => {
  const isCut = bytes.length > SHOWN_BYTES
  const shown = isCut ? bytes.subarray(0, SHOWN_BYTES) : bytes
  for (let less = 0; less < (isCut ? 4 : 1); less++) {
    try {
      return decoder.decode(shown.subarray(0, shown.length - less))
    } catch {
      // The cut may be within a character of up to four bytes.
    }
  }
  return undefined
}

export const showLetter = (letter: Letter): ShownLetter => {
  const { partition, offset, recordTime, headers = {}, key, value, unreadable } = letter
  const { reason: _, topic, partition: fromPartition, offset: fromOffset, index, ...others } = headers
  const reason = reasonOf(letter)
  const names = Object.keys(others).slice(0, SHOWN_HEADERS)
  const isBatch = unreadable !== undefined || headers[BATCH_HEADER] !== undefined
  const text = value === null ? null : isBatch ? undefined : textOf(value)
  return {
    partition,
    offset,
    at: recordTime,
    reason: reason === undefined ? null : cut(reason),
    from: {
      topic: topic === undefined ? null : cut(topic),
      partition: numberOf(fromPartition),
      offset: numberOf(fromOffset),
      index: numberOf(index)
    },
    ...(names.length === 0
      ? {}
      : { headers: Object.fromEntries(names.map((name) => [cut(name), cut(others[name]!)])) }),
    key: key === null ? null : cut(key),
    ...(text === undefined
      ? { base64: Buffer.from(value!.subarray(0, SHOWN_BYTES)).toString("base64") }
      : { value: text }),
    bytes: value?.length ?? 0
  }
}

/** The end of each partition of the DLQ, and how many letters they hold together. */
export const dlqBounds = (
  log: Log
): Effect.Effect<
  { readonly starts: ReadonlyArray<number>; readonly ends: ReadonlyArray<number>; readonly total: number },
  LogError
> =>
  Effect.map(
    Effect.forEach(Array.from({ length: log.partitions }).keys(), (partition) => log.bounds(DLQ, partition), {
      concurrency: BOUNDS_AT_A_TIME
    }),
    (all) => ({
      starts: all.map(({ start }) => start),
      ends: all.map(({ end }) => end),
      total: all.reduce((sum, { start, end }) => sum + end - start, 0)
    })
  )

interface Walk {
  readonly wanted: Wanted
  readonly from: LetterPlace
  /** Where each partition ends: what comes later is for another walk. */
  readonly ends: ReadonlyArray<number>
  readonly scanned?: number
}

/**
 * Goes through the letters that are wanted, partition by partition in their order. `take` answers how many of them it
 * took: fewer than it was given, and the walk is over. Answers where the next walk goes on; `undefined` at the end.
 */
const walk = <E, R>(
  log: Log,
  { wanted, from, ends, scanned: limit = MAX_SCANNED }: Walk,
  take: (letters: ReadonlyArray<Letter>) => Effect.Effect<number, E, R>
): Effect.Effect<LetterPlace | undefined, E | LogError, R> =>
  Effect.gen(function* () {
    let scanned = 0
    let { partition, offset } = from
    if (wanted.partition !== undefined && wanted.partition > partition) {
      partition = wanted.partition
      offset = 0
    }
    if (wanted.offset !== undefined) offset = Math.max(offset, wanted.offset)
    const last = Math.min(log.partitions - 1, wanted.partition ?? log.partitions - 1)
    while (partition <= last) {
      const end =
        wanted.offset === undefined ? (ends[partition] ?? 0) : Math.min(ends[partition] ?? 0, wanted.offset + 1)
      if (offset >= end) {
        partition += 1
        offset = 0
        continue
      }
      if (scanned >= limit) return { partition, offset }
      const { records, next } = yield* log.slice(DLQ, partition, offset, Math.min(PIECE, limit - scanned))
      if (records.length === 0 && next <= offset) {
        partition += 1
        offset = 0
        continue
      }
      scanned += records.length
      const letters = records
        .filter((record) => record.offset < end)
        .map((record) => ({ ...record, partition }))
        .filter((letter) => isMeant(wanted, letter))
      const taken = letters.length === 0 ? 0 : yield* take(letters)
      if (taken < letters.length) return { partition, offset: letters[taken]!.offset }
      offset = next
      yield* Effect.yieldNow
    }
    return undefined
  })

export interface LetterPage<A> {
  readonly letters: ReadonlyArray<A>
  /** Where the next page starts, if there may be more: so many letters were looked at, or so many shown. */
  readonly next: LetterPlace | undefined
  /** Letters that the DLQ holds, wanted or not. */
  readonly total: number
}

/** A page of letters from a place on, ascending by partition and offset; each is made into what is kept of it at once. */
export const listLetters = <A>(
  log: Log,
  wanted: Wanted,
  { from, limit }: { readonly from: LetterPlace; readonly limit: number },
  show: (letter: Letter) => A
): Effect.Effect<LetterPage<A>, LogError> =>
  Effect.gen(function* () {
    const { ends, total } = yield* dlqBounds(log)
    const letters: Array<A> = []
    const next = yield* walk(log, { wanted, from, ends }, (found) =>
      Effect.sync(() => {
        const taken = found.slice(0, limit - letters.length)
        for (const letter of taken) letters.push(show(letter))
        return taken.length
      })
    )
    return { letters, next, total }
  })

/** The newest letters of all partitions, newest first, among the last ones of each. */
export const newestLetters = <A>(
  log: Log,
  wanted: Wanted,
  limit: number,
  show: (letter: Letter) => A
): Effect.Effect<LetterPage<A>, LogError> =>
  Effect.gen(function* () {
    const { ends, total } = yield* dlqBounds(log)
    const share = Math.max(1, Math.floor(MAX_SCANNED / log.partitions))
    const looked = wanted.reason === undefined ? Math.min(limit, share) : share
    let newest: Array<{ readonly at: number; readonly letter: A }> = []
    for (let partition = 0; partition < log.partitions; partition++) {
      if (wanted.partition !== undefined && wanted.partition !== partition) continue
      const from = { partition, offset: Math.max(0, ends[partition]! - looked) }
      yield* walk(log, { wanted: { ...wanted, partition }, from, ends, scanned: looked }, (found) =>
        Effect.sync(() => {
          for (const letter of found) newest.push({ at: letter.recordTime, letter: show(letter) })
          newest = newest.sort((a, b) => b.at - a.at).slice(0, limit)
          return found.length
        })
      )
    }
    return { letters: newest.map(({ letter }) => letter), next: undefined, total }
  })

export interface Resent {
  readonly sent: number
  /** Kept: the DLQ has only their beginning, or a sink refused them after they were published. */
  readonly cut: number
  /** Kept: batches of records that nobody can read. */
  readonly batches: number
}

/**
 * Sends a piece of the wanted letters to `raw_ticks` again, in their order. They stay in the DLQ: letters are never
 * taken out of a log. `next` says where the following piece starts, with the same `ends`, so that what comes back into
 * the DLQ meanwhile is not sent on and on.
 */
export const retryLetters = <E>(
  log: Log,
  wanted: Wanted,
  { from, ends }: { readonly from: LetterPlace; readonly ends: ReadonlyArray<number> },
  append: (partition: number, records: ReadonlyArray<NewRecord>) => Effect.Effect<unknown, E>
): Effect.Effect<Resent & { readonly next: LetterPlace | undefined; readonly stopped: E | undefined }, LogError> =>
  Effect.gen(function* () {
    let sent = 0
    let kept = 0
    let batches = 0
    let stopped: E | undefined
    const next = yield* walk(log, { wanted, from, ends }, (letters) =>
      Effect.gen(function* () {
        const byPartition = new Map<number, Array<NewRecord>>()
        let good = 0
        let cutOff = 0
        for (const { key, value, headers, partition, unreadable } of letters) {
          if (unreadable !== undefined || headers?.[BATCH_HEADER] !== undefined) continue
          if (headers?.[CUT_HEADER] !== undefined || headers?.[SINK_HEADER] !== undefined) {
            cutOff += 1
            continue
          }
          // A key that is a token says where the tick belongs; the rest goes back where it came from.
          const token = key !== null && /^\d{1,10}$/.test(key) ? Number(key) : undefined
          const to = token === undefined ? partition : partitionOf(token, log.partitions)
          // What was a replay's stays one: without its header it would be a live tick.
          const run = headers?.[REPLAY_HEADER]
          const again: NewRecord =
            run === undefined ? { key, value } : { key, value, headers: { [REPLAY_HEADER]: run } }
          const records = byPartition.get(to)
          if (records === undefined) byPartition.set(to, [again])
          else records.push(again)
          good += 1
        }
        const done = yield* Effect.result(
          Effect.forEach(byPartition, ([to, records]) => append(to, records), {
            concurrency: BOUNDS_AT_A_TIME,
            discard: true
          })
        )
        if (done._tag === "Failure") {
          stopped = done.failure
          // Some may have gone: sending them again adds no row.
          return 0
        }
        sent += good
        kept += cutOff
        batches += letters.length - good - cutOff
        return letters.length
      })
    )
    return { sent, cut: kept, batches, next, stopped }
  })
