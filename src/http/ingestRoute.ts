/** Decides how raw ticks are taken in over REST: line by line, answered once the log has the good ones. */
import { Clock, Effect, Exit } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { showValue } from "../schema/Explain.ts"
import { MAX_REJECTED_LINES, type RejectedLine } from "../schema/InstrumentFile.ts"
import { encodeRawRecord, type RawRecord, readRawRecord } from "../schema/RawTick.ts"
import { tradingDay } from "../schema/Tick.ts"
import * as metrics from "../streams/metrics.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { publishWithin, RawSink, type RawSinkTick } from "../streams/ports/RawSink.ts"
import { Api, MAX_INGEST_BYTES, MAX_INGEST_LINE_BYTES } from "./Api.ts"
import { readBody } from "./body.ts"
import { Caller, refuseInstruments } from "./caller.ts"
import { logFailure, overloaded } from "./failures.ts"
import { HttpSettings } from "./HttpSettings.ts"
import { MAX_JSON_DEPTH, nestsTooDeep } from "./jsonDepth.ts"

const NEWLINE = 0x0a
const CARRIAGE_RETURN = 0x0d
/** Lines read before others get a turn: about a millisecond's work. */
const LINES_AT_A_TIME = 500

/** A longer line is kept as the record that it is, without the fields that nobody reads: the log holds it for long. */
const KEPT_LINE_BYTES = 1024
/** Lines of one instrument are copied into pieces of so many bytes: the last of them held holds no more than its piece. */
const PIECE_BYTES = 16 * 1024

interface Line {
  readonly token: number
  readonly from: number
  readonly to: number
  /** What is kept of it, where that is not all. */
  readonly value: Uint8Array | undefined
}

/**
 * The bytes of each good line, in order. They are copied out of the body, the lines of one instrument together: the
 * log may hold a record for long, and would hold the whole body with it.
 */
const ticksOf = (body: Uint8Array, lines: ReadonlyArray<Line>): ReadonlyArray<RawSinkTick> => {
  const sizes = new Map<number, number>()
  for (const { token, from, to, value } of lines) {
    if (value === undefined) sizes.set(token, (sizes.get(token) ?? 0) + to - from)
  }
  const pieces = new Map<number, { bytes: Uint8Array; at: number; left: number }>()
  return lines.map(({ token, from, to, value }) => {
    if (value !== undefined) return { token, value }
    let piece = pieces.get(token)
    if (piece === undefined) {
      piece = { bytes: new Uint8Array(0), at: 0, left: sizes.get(token)! }
      pieces.set(token, piece)
    }
    if (piece.at + to - from > piece.bytes.byteLength) {
      piece.bytes = new Uint8Array(Math.max(to - from, Math.min(PIECE_BYTES, piece.left)))
      piece.at = 0
    }
    const start = piece.at
    piece.bytes.set(body.subarray(from, to), start)
    piece.at += to - from
    piece.left -= to - from
    return { token, value: piece.bytes.subarray(start, piece.at) }
  })
}

const readLine = (bytes: Buffer): RawRecord | string => {
  if (bytes.length > MAX_INGEST_LINE_BYTES) {
    return `expected at most ${MAX_INGEST_LINE_BYTES} bytes, got ${bytes.length}`
  }
  if (nestsTooDeep(bytes)) return `expected JSON of at most ${MAX_JSON_DEPTH} levels`
  const text = bytes.toString("utf8")
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return `expected a JSON object, got ${showValue(text)}`
  }
  return readRawRecord(value)
}

/** What of a stamp can be told at once: the pipeline holds it against the log's clock, which is not far from ours. */
const refuseFuture = (exchangeTs: number, now: number, skewMs: number): string | undefined =>
  exchangeTs <= now + skewMs * 1000
    ? undefined
    : `exchange_ts: expected at most ${skewMs} ms ahead of the clock here, got ${exchangeTs}, which is ` +
      `${Math.round((exchangeTs - now) / 1000)} ms ahead: is the sender's clock right?`

/**
 * Which lines are raw records, and why the others are not. Empty lines are passed over. One that the caller may not send
 * refuses all of them: he is either wrong about his key, or somebody else.
 */
const readLines = (body: Uint8Array, skewMs: number, instruments: Instruments["Service"]) =>
  Effect.gen(function* () {
    const { key } = yield* Caller
    const mayNot =
      key?.isRestricted === true
        ? (token: number, exchange_ts: number) => !key.sees(token, instruments.at(token, tradingDay(exchange_ts)))
        : undefined
    const buffer = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    const lines: Array<Line> = []
    const rejected: Array<RejectedLine> = []
    let rejectedTotal = 0
    let number = 0
    const clock = yield* Clock.Clock
    let now = clock.currentTimeMillisUnsafe() * 1000
    for (let from = 0; from < buffer.length; ) {
      const newline = buffer.indexOf(NEWLINE, from)
      const next = newline < 0 ? buffer.length : newline + 1
      let to = newline < 0 ? buffer.length : newline
      if (to > from && buffer[to - 1] === CARRIAGE_RETURN) to -= 1
      number += 1
      if (number % LINES_AT_A_TIME === 0) {
        yield* Effect.yieldNow
        now = clock.currentTimeMillisUnsafe() * 1000
      }
      if (to > from) {
        const read = readLine(buffer.subarray(from, to))
        let refusal = typeof read === "string" ? read : undefined
        if (typeof read !== "string") {
          const { exchange_ts, instrument_token: token } = read.tick ?? read.quote!
          if (mayNot?.(token, exchange_ts) === true) {
            const message = `line ${number}: instrument_token: key "${key!.name}" is not for ${token}`
            return yield* refuseInstruments("instrument_token", message)
          }
          refusal = refuseFuture(exchange_ts, now, skewMs)
          if (refusal === undefined) {
            const value = to - from > KEPT_LINE_BYTES ? Buffer.from(encodeRawRecord(read)) : undefined
            lines.push({ token, from, to, value })
          }
        }
        if (refusal !== undefined) {
          rejectedTotal += 1
          if (rejected.length < MAX_REJECTED_LINES) rejected.push({ line: number, reason: refusal })
        }
      }
      from = next
    }
    return { lines, rejected, rejectedTotal }
  })

export const ingestRoute = HttpApiBuilder.group(
  Api,
  "ingest",
  Effect.fnUntraced(function* (handlers) {
    const sink = yield* RawSink
    const instruments = yield* Instruments
    const { INGEST_WAIT_MS, MAX_FUTURE_SKEW_MS } = yield* HttpSettings
    const context = yield* Effect.context<never>()
    const stage = { stage: "ingest" }
    const received = metrics.bind(metrics.stageReceived, stage, context)
    const sent = metrics.bind(metrics.stageSent, stage, context)
    const refused = metrics.bind(metrics.stageDiscarded, { ...stage, reason: "invalid" }, context)
    for (const counter of [received, sent, refused]) counter.add(0)
    return handlers.handleAll({
      ingest: ({ payload }) =>
        Effect.gen(function* () {
          const { ingested } = yield* Caller
          const body = yield* readBody(payload, MAX_INGEST_BYTES)
          const { lines, rejected, rejectedTotal } = yield* readLines(body, MAX_FUTURE_SKEW_MS, instruments)
          if (lines.length > 0) {
            yield* publishWithin(sink, ticksOf(body, lines), INGEST_WAIT_MS).pipe(
              // Of one that failed, or was broken off, some may have come into the log.
              Effect.onExit((exit) =>
                Effect.sync(() => (Exit.isSuccess(exit) ? ingested(lines.length) : ingested(0, lines.length)))
              )
            )
          }
          received.add(lines.length + rejectedTotal)
          sent.add(lines.length)
          if (rejectedTotal > 0) refused.add(rejectedTotal)
          return { accepted: lines.length, rejected, rejected_total: rejectedTotal }
        }).pipe(
          Effect.catchTags({
            Overloaded: (error) => Effect.fail(overloaded(error)),
            LogError: (error) => Effect.fail(logFailure(error)),
            FeedError: (error) => Effect.fail(logFailure(error))
          })
        )
    })
  })
)
