/** Decides how raw ticks are taken in over REST: line by line, answered once the log has the good ones. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { showValue } from "../schema/Explain.ts"
import { MAX_REJECTED_LINES, type RejectedLine } from "../schema/InstrumentFile.ts"
import { readRawTick } from "../schema/RawTick.ts"
import * as metrics from "../streams/metrics.ts"
import { publishWithin, RawSink, type RawSinkTick } from "../streams/RawSink.ts"
import { Api, MAX_INGEST_BYTES, MAX_INGEST_LINE_BYTES } from "./Api.ts"
import { readBody } from "./body.ts"
import { logFailure, overloaded } from "./failures.ts"
import { HttpSettings } from "./HttpSettings.ts"
import { MAX_JSON_DEPTH, nestsTooDeep } from "./jsonDepth.ts"

const NEWLINE = 0x0a
const CARRIAGE_RETURN = 0x0d
/** Lines read before others get a turn: about a millisecond's work. */
const LINES_AT_A_TIME = 500

interface Line {
  readonly token: number
  readonly from: number
  readonly to: number
}

/**
 * The bytes of each good line, in order. They are copied out of the body, the lines of one instrument together: the
 * log may hold a record for long, and would hold the whole body with it.
 */
const ticksOf = (body: Uint8Array, lines: ReadonlyArray<Line>): ReadonlyArray<RawSinkTick> => {
  const sizes = new Map<number, number>()
  for (const { token, from, to } of lines) sizes.set(token, (sizes.get(token) ?? 0) + to - from)
  const copies = new Map<number, { readonly bytes: Uint8Array; at: number }>()
  for (const [token, size] of sizes) copies.set(token, { bytes: new Uint8Array(size), at: 0 })
  return lines.map(({ token, from, to }) => {
    const copy = copies.get(token)!
    const start = copy.at
    copy.bytes.set(body.subarray(from, to), start)
    copy.at += to - from
    return { token, value: copy.bytes.subarray(start, copy.at) }
  })
}

const readLine = (bytes: Buffer): number | string => {
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
  const tick = readRawTick(value)
  return typeof tick === "string" ? tick : tick.instrument_token
}

/** Which lines are raw ticks, and why the others are not. Empty lines are passed over. */
const readLines = (body: Uint8Array) =>
  Effect.gen(function* () {
    const buffer = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    const lines: Array<Line> = []
    const rejected: Array<RejectedLine> = []
    let rejectedTotal = 0
    let number = 0
    for (let from = 0; from < buffer.length; ) {
      const newline = buffer.indexOf(NEWLINE, from)
      const next = newline < 0 ? buffer.length : newline + 1
      let to = newline < 0 ? buffer.length : newline
      if (to > from && buffer[to - 1] === CARRIAGE_RETURN) to -= 1
      number += 1
      if (number % LINES_AT_A_TIME === 0) yield* Effect.yieldNow
      if (to > from) {
        const read = readLine(buffer.subarray(from, to))
        if (typeof read === "number") lines.push({ token: read, from, to })
        else {
          rejectedTotal += 1
          if (rejected.length < MAX_REJECTED_LINES) rejected.push({ line: number, reason: read })
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
    const { INGEST_WAIT_MS } = yield* HttpSettings
    const context = yield* Effect.context<never>()
    const stage = { stage: "ingest" }
    const received = metrics.bind(metrics.stageReceived, stage, context)
    const sent = metrics.bind(metrics.stageSent, stage, context)
    const refused = metrics.bind(metrics.stageDiscarded, { ...stage, reason: "invalid" }, context)
    return handlers.handleAll({
      ingest: ({ payload }) =>
        Effect.gen(function* () {
          const body = yield* readBody(payload, MAX_INGEST_BYTES)
          const { lines, rejected, rejectedTotal } = yield* readLines(body)
          if (lines.length > 0) yield* publishWithin(sink, ticksOf(body, lines), INGEST_WAIT_MS)
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
