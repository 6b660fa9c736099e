/**
 * Decides how state is kept in a checkpoint: an instrument's scalars as JSON, its sets of ids as bytes behind it; what
 * belongs to the partition as JSON.
 * A change here is a new format. Format 2, which had no quotes, is read as well, and format 1, which had no contents
 * either: of its numbers none is known. Any other is passed over, and the retained raw is run again.
 */
import { type QuoteState, unknownQuote } from "../../schema/Quote.ts"
import { Contents } from "./Contents.ts"
import { IdSet } from "./IdSet.ts"
import { NumberSet } from "./NumberSet.ts"
import { InstrumentDay, type InstrumentDays, type LostDay, Session } from "./partitionState.ts"

/** First byte of every encoded state. */
const FORMAT = 3
const WITHOUT_QUOTES = 2
const WITHOUT_CONTENTS = 1

const isRead = (format: number | undefined): boolean =>
  format === FORMAT || format === WITHOUT_QUOTES || format === WITHOUT_CONTENTS
const HEADER_BYTES = 5

interface SessionWire {
  readonly at: number
  readonly by: string
  readonly id: number
  readonly ts: number
  readonly last: number
  readonly missing: ReadonlyArray<readonly [from: number, to: number, openedAt: number]>
  /** The newest stamp; not in format 1. */
  readonly late?: number
  /** Bytes of the ids, of the hashes, and but in format 1 of the contents of either. */
  readonly sizes: readonly [ids: number, hashes: number, contents?: number, prints?: number]
}

/** The run only where there is one: a checkpoint of before there were any reads as one without. */
type ConnectionWire = readonly [
  name: string,
  session: number,
  resetId: number,
  resetTs: number,
  run?: readonly [first: number, last: number, count: number]
]

interface DayWire {
  readonly token: number
  readonly day: number
  readonly epoch: number
  readonly position: number
  /** Null for never: JSON has no −Infinity. */
  readonly dma: number | null
  readonly published: number
  readonly base: number
  readonly touched: number
  readonly connections: ReadonlyArray<ConnectionWire>
  readonly sessions: ReadonlyArray<SessionWire>
  /** The newest stamp of a quote, and what they have said; only where one came, from format 3 on. */
  readonly quoted?: number
  readonly quote?: Partial<QuoteState>
}

/** What a partition's state holds besides its instruments. */
export interface PartitionMarks {
  /** First raw offset of each replay run that had not ended. */
  readonly runs: ReadonlyMap<string, number>
  /** The highest record time so far, µs. */
  readonly recordTime: number
  readonly lost: LostDay | undefined
  /** Gaps opened at or before this record time are given up, µs. */
  readonly expiredUpTo: number
  /** The second since 1970 before which no epoch begins. */
  readonly floor: number
}

interface MarksWire {
  readonly runs: ReadonlyArray<readonly [run: string, offset: number]>
  readonly time: number
  /** Not in a checkpoint of before it was kept; null for never. */
  readonly expired?: number | null
  readonly floor?: number | null
  readonly lost: {
    readonly day: number
    readonly missed: boolean
    readonly seen: ReadonlyArray<readonly [token: number, session: number, epoch: number]>
  } | null
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export const encodeMarks = ({ runs, recordTime, lost, expiredUpTo, floor }: PartitionMarks): Uint8Array => {
  const wire: MarksWire = {
    runs: [...runs],
    time: recordTime,
    expired: Number.isFinite(expiredUpTo) ? expiredUpTo : null,
    floor: Number.isFinite(floor) ? floor : null,
    lost:
      lost === undefined
        ? null
        : {
            day: lost.day,
            missed: lost.isMissed,
            seen: [...lost.seen].map(([token, { session, epoch }]) => [token, session, epoch])
          }
  }
  const json = encoder.encode(JSON.stringify(wire))
  const bytes = new Uint8Array(1 + json.length)
  bytes[0] = FORMAT
  bytes.set(json, 1)
  return bytes
}

/** Undefined where the bytes are of another format. */
export const decodeMarks = (bytes: Uint8Array): PartitionMarks | undefined => {
  if (!isRead(bytes[0])) return undefined
  const { runs, time, expired, floor, lost } = JSON.parse(decoder.decode(bytes.subarray(1))) as MarksWire
  return {
    runs: new Map(runs),
    recordTime: time,
    expiredUpTo: expired ?? Number.NEGATIVE_INFINITY,
    floor: floor ?? Number.NEGATIVE_INFINITY,
    lost:
      lost === null
        ? undefined
        : {
            day: lost.day,
            isMissed: lost.missed,
            seen: new Map(lost.seen.map(([token, session, epoch]) => [token, { session, epoch }]))
          }
  }
}

/** The days of one instrument, newest first. */
export const encodeInstrument = (days: InstrumentDays): Uint8Array => {
  const parts: Array<Uint8Array> = []
  let total = 0
  const put = (bytes: Uint8Array): number => {
    parts.push(bytes)
    total += bytes.length
    return bytes.length
  }
  const sizesOf = ([ids, hashes, contents, prints]: ReturnType<Session["encode"]>): SessionWire["sizes"] => [
    put(ids),
    put(hashes),
    put(contents),
    put(prints)
  ]
  const wire = [days.newest, ...days.others].map(
    (d): DayWire => ({
      token: d.token,
      day: d.day,
      epoch: d.epoch,
      position: d.position,
      dma: Number.isFinite(d.lastDma) ? d.lastDma : null,
      published: d.published,
      base: d.volumeBase,
      touched: d.touched,
      connections: d.connections.map(
        ({ name, session, resetId, resetTs, run }): ConnectionWire =>
          run === undefined
            ? [name, session, resetId, resetTs]
            : [name, session, resetId, resetTs, [run.first, run.last, run.count]]
      ),
      sessions: d.sessions.map((s) => ({
        at: s.openedAt,
        by: s.openedBy,
        id: s.openingId,
        ts: s.openingTs,
        last: s.last,
        missing: s.missing.ranges.map(({ from, to, openedAt }) => [from, to, openedAt]),
        late: s.latest,
        sizes: sizesOf(s.encode())
      })),
      // JSON leaves out what is not known.
      ...(d.quotedAt < 0 ? {} : { quoted: d.quotedAt, quote: d.quote })
    })
  )
  const json = encoder.encode(JSON.stringify(wire))
  const bytes = new Uint8Array(HEADER_BYTES + json.length + total)
  bytes[0] = FORMAT
  new DataView(bytes.buffer).setUint32(1, json.length, true)
  bytes.set(json, HEADER_BYTES)
  let at = HEADER_BYTES + json.length
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** Undefined where the bytes are of another format. */
export const decodeInstrument = (bytes: Uint8Array): InstrumentDays | undefined => {
  if (!isRead(bytes[0])) return undefined
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1, true)
  const wire = JSON.parse(decoder.decode(bytes.subarray(HEADER_BYTES, HEADER_BYTES + length))) as ReadonlyArray<DayWire>
  let at = HEADER_BYTES + length
  const take = (size: number): Uint8Array => {
    const part = bytes.slice(at, at + size)
    at += size
    return part
  }
  const [newest, ...others] = wire.map((w) => {
    const sessions = w.sessions.map((s) => {
      const [ids, hashes, contents, prints] = s.sizes
      const idSet = ids === 0 ? undefined : IdSet.decode(take(ids))
      const numbers = take(hashes)
      const known =
        contents === undefined
          ? new Contents(idSet?.highest)
          : contents === 0
            ? undefined
            : Contents.decode(take(contents))
      const numberSet = hashes === 0 ? undefined : NumberSet.decode(numbers, take(prints ?? 0))
      const session = new Session(s.at, s.by, s.id, s.ts, idSet, numberSet, known)
      session.latest = s.late ?? -1
      session.last = s.last
      session.missing.restore(s.missing.map(([from, to, openedAt]) => ({ from, to, openedAt })))
      return session
    })
    const day = new InstrumentDay(w.token, w.day, w.epoch, w.touched, sessions)
    day.position = w.position
    day.lastDma = w.dma ?? Number.NEGATIVE_INFINITY
    day.published = w.published
    day.volumeBase = w.base
    day.connections = w.connections.map(([name, session, resetId, resetTs, kept]) => {
      const run = kept === undefined ? undefined : { first: kept[0], last: kept[1], count: kept[2] }
      return { name, session, resetId, resetTs, run, isMet: true }
    })
    if (w.quoted !== undefined) {
      day.quotedAt = w.quoted
      day.quote = { ...unknownQuote(), ...w.quote }
    }
    return day
  })
  return newest === undefined ? undefined : { newest, others }
}
