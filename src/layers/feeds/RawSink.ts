/** Decides how feeds reach `raw_ticks`: straight into the log of this process, or through a running instance. */
import { Effect, Exit, Layer, Semaphore } from "effect"
import { FeedError, type LogError, Overloaded } from "../../schema/Errors.ts"
import { partitionOf } from "../../schema/Partition.ts"
import { type NewRecord, TickLog } from "../../streams/log/TickLog.ts"
import { bind, bufferBytes, bufferMaxBytes, bufferSize } from "../../streams/metrics.ts"
import { RawSink, type RawSinkTick } from "../../streams/ports/RawSink.ts"
import { type InstanceAnswer, type Patience, patiently, refusalOf } from "./Instance.ts"

/** Bytes of ticks that may wait for the log, all callers together; full: the next call is `Overloaded`. */
export const MAX_WAITING_BYTES = 64 * 1024 * 1024
/** Records handed to the log at a time, so that one call never asks for more room than a partition has. */
const APPEND_RECORDS = 1000
/** Bytes of them, unless a single record has more. */
const APPEND_BYTES = 1024 * 1024
/** Times that an append is sent again because the topic was recreated. */
const RECREATED_TIMES = 3

/** Where an append that begins at `from` ends. */
const endOfAppend = (records: ReadonlyArray<NewRecord>, from: number): number => {
  const most = Math.min(records.length, from + APPEND_RECORDS)
  let to = from
  for (let bytes = 0; to < most; to++) {
    bytes += records[to]!.value?.byteLength ?? 0
    if (bytes > APPEND_BYTES && to > from) break
  }
  return to
}

/** Into the log of this process: one append a partition at a time whoever calls, partitions side by side. */
export const layerLog: Layer.Layer<RawSink, never, TickLog> = Layer.effect(
  RawSink,
  Effect.gen(function* () {
    const log = yield* TickLog
    const turns = Array.from({ length: log.partitions }, () => Semaphore.makeUnsafe(1))
    const context = yield* Effect.context<never>()
    const waitingTicks = bind(bufferSize, { buffer: "raw_sink" }, context)
    const waitingBytes = bind(bufferBytes, { buffer: "raw_sink" }, context)
    waitingTicks.add(0)
    waitingBytes.add(0)
    bind(bufferMaxBytes, { buffer: "raw_sink" }, context).add(MAX_WAITING_BYTES)
    let bytesWaiting = 0
    let ticksWaiting = 0

    const append = (partition: number, records: ReadonlyArray<NewRecord>): Effect.Effect<void, LogError> =>
      turns[partition]!.withPermit(
        Effect.gen(function* () {
          for (let from = 0, to = 0; from < records.length; from = to) {
            to = endOfAppend(records, from)
            // A feed counts on no offset: into a recreated topic it sends again, and one that is there twice is dropped.
            yield* log
              .append("raw_ticks", partition, records.slice(from, to))
              .pipe(Effect.retry({ while: (error) => error.reason === "incarnation", times: RECREATED_TIMES }))
          }
        })
      )

    const publish = (ticks: ReadonlyArray<RawSinkTick>): Effect.Effect<void, LogError | Overloaded> =>
      Effect.suspend((): Effect.Effect<void, LogError | Overloaded> => {
        let bytes = 0
        for (const tick of ticks) bytes += tick.value.byteLength
        if (bytesWaiting > 0 && bytesWaiting + bytes > MAX_WAITING_BYTES) {
          return new Overloaded({
            message: `${bytesWaiting} bytes of raw ticks wait for the log already`,
            retryAfterSeconds: 1
          })
        }
        const byPartition = new Map<number, Array<NewRecord>>()
        for (const { token, value, headers } of ticks) {
          const partition = partitionOf(token, log.partitions)
          let records = byPartition.get(partition)
          if (records === undefined) {
            records = []
            byPartition.set(partition, records)
          }
          const key = String(token)
          records.push(headers === undefined ? { key, value } : { key, value, headers })
        }
        const count = (sign: 1 | -1) => {
          bytesWaiting += sign * bytes
          ticksWaiting += sign * ticks.length
          waitingTicks.add(ticksWaiting)
          waitingBytes.add(bytesWaiting)
        }
        count(1)
        // A partition that fails does not interrupt the others: an append cut short is one whose outcome nobody knows.
        return Effect.forEach(byPartition, ([partition, records]) => Effect.exit(append(partition, records)), {
          concurrency: "unbounded"
        }).pipe(
          Effect.flatMap((exits) => exits.find(Exit.isFailure) ?? Effect.void),
          Effect.ensuring(Effect.sync(() => count(-1)))
        )
      })
    return { publish }
  })
)

/** The largest body sent to an instance at a time. */
export const MAX_BODY_BYTES = 4 * 1024 * 1024
const INGEST = "/api/v1/ingest"
const NEWLINE = 0x0a

interface Body {
  readonly body: Uint8Array
  readonly lines: number
}

/** Bodies of at most `MAX_BODY_BYTES`, a tick a line, in order. */
const bodiesOf = (ticks: ReadonlyArray<RawSinkTick>): ReadonlyArray<Body> => {
  const bodies: Array<Body> = []
  let from = 0
  while (from < ticks.length) {
    let size = 0
    let to = from
    while (to < ticks.length && (to === from || size + ticks[to]!.value.byteLength + 1 <= MAX_BODY_BYTES)) {
      size += ticks[to]!.value.byteLength + 1
      to += 1
    }
    const lines = to - from
    const body = Buffer.allocUnsafe(size)
    let at = 0
    for (; from < to; from++) {
      const { value } = ticks[from]!
      body.set(value, at)
      at += value.byteLength
      body[at++] = NEWLINE
    }
    bodies.push({ body, lines })
  }
  return bodies
}

interface IngestAnswer {
  readonly accepted: number
  readonly rejected: ReadonlyArray<{ readonly line: number; readonly reason: string }>
}

const isIngestAnswer = (body: unknown): body is IngestAnswer =>
  typeof body === "object" &&
  body !== null &&
  typeof (body as IngestAnswer).accepted === "number" &&
  Array.isArray((body as IngestAnswer).rejected)

/** Ticks that an instance refused: how many, and why the first. */
export interface Refused {
  readonly ticks: number
  readonly reason: string
}

export interface HttpSinkOptions {
  readonly patience: Patience
  /** Told of ticks that the instance refused, the others being in; without it they are a failure. */
  readonly onRefused?: (refused: Refused) => void
}

/** Through `POST {url}/api/v1/ingest` of a running instance, which is waited for where it is full or restarts. */
export const layerHttp = (url: string, { onRefused, patience }: HttpSinkOptions): Layer.Layer<RawSink> => {
  const base = url.replace(/\/+$/, "")
  const ask = patiently(base, patience)

  const settle = (answer: InstanceAnswer, lines: number): Effect.Effect<void, FeedError> => {
    const { body } = answer
    if (answer.status !== 200 || !isIngestAnswer(body)) {
      return Effect.fail(refusalOf(base, { method: "POST", path: INGEST }, answer))
    }
    const first = body.rejected[0]
    if (first === undefined) return Effect.void
    const ticks = Math.max(body.rejected.length, lines - body.accepted)
    const refused = { ticks, reason: first.reason }
    if (onRefused !== undefined) return Effect.sync(() => onRefused(refused))
    return new FeedError({ message: `${base} took ${body.accepted} of ${lines} ticks; ${describeRefused(refused)}` })
  }

  const send = ({ body, lines }: Body): Effect.Effect<void, FeedError> =>
    Effect.flatMap(ask({ method: "POST", path: INGEST, contentType: "application/x-ndjson", body }), (answer) =>
      settle(answer, lines)
    )

  return Layer.succeed(RawSink, {
    publish: (ticks) => Effect.forEach(bodiesOf(ticks), send, { discard: true })
  })
}

/** How far a stamp is ahead of a clock, such as `is 16.0 s ahead of the server's clock`. */
export const ahead = (ms: number, clock: string): string => `is ${(ms / 1000).toFixed(1)} s ahead of ${clock}`

/** How an instance says it, from where it stands: `which is 16003 ms ahead`. */
const IS_AHEAD = /^exchange_ts: .*\bis (\d{1,15}) ms ahead\b/

/** In one line, such as `3 ticks rejected: exchange_ts is 16.0 s ahead of the server's clock`. */
export const describeRefused = ({ reason, ticks }: Refused): string => {
  const found = IS_AHEAD.exec(reason)
  const why = found === null ? reason : `exchange_ts ${ahead(Number(found[1]), "the server's clock")}`
  return `${ticks} ${ticks === 1 ? "tick" : "ticks"} rejected: ${why}`
}
