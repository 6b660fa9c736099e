/** Decides how history is answered: ticks by keyset pages or as one stream, and candles. */
import { Clock, Effect, Option, Semaphore, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { isTime } from "../schema/Time.ts"
import { History } from "../streams/ports/History.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import type { StoredTick, TickCursor } from "../streams/ports/TickStore.ts"
import { Api, DEFAULT_LIMIT } from "./Api.ts"
import { bars } from "./bars.ts"
import { readCursor, refusedCursor, writeCursor } from "./cursor.ts"
import { BadRequest } from "./errors.ts"
import { storeFailure } from "./failures.ts"
import { readRange, refuseUnknown } from "./range.ts"
import { markSimulated } from "./simulatedMark.ts"
import { CSV_HEADER, csvLine, encodeBar, encodeTick, json } from "./wire.ts"

/** Rows of a streamed answer read and written at a time: some 250 KB. */
const STREAM_ROWS = 1000
/** Of all streamed answers together, pages read and written at a time: more are no faster, and live ticks wait for them. */
const STREAM_PAGES = 2
const TICKS = "ticks"
const CANDLES = "candles"

interface Streamed {
  readonly contentType: string
  readonly head: string
  readonly line: (tick: StoredTick) => string
}
const STREAMED: ReadonlyMap<string, Streamed> = new Map([
  ["application/x-ndjson", { contentType: "application/x-ndjson", head: "", line: (t) => `${encodeTick(t)}\n` }],
  ["text/csv", { contentType: "text/csv; charset=utf-8", head: CSV_HEADER, line: csvLine }]
])

/** The first of the media types that a client takes which this route streams; JSON where it names that first. */
const streamedFor = (accept: string | undefined): Streamed | undefined => {
  for (const part of (accept ?? "").split(",")) {
    const type = part.split(";", 1)[0]!.trim().toLowerCase()
    if (type === "application/json" || type === "*/*") return undefined
    const streamed = STREAMED.get(type)
    if (streamed !== undefined) return streamed
  }
  return undefined
}

const cursorOf = ({ exchange_ts, sequence_id, epoch, position }: TickCursor): TickCursor => ({
  exchange_ts,
  sequence_id,
  epoch,
  position
})

const readAfter = (token: number, cursor: string | undefined): Effect.Effect<TickCursor | undefined, BadRequest> => {
  if (cursor === undefined) return Effect.succeed(undefined)
  const place = readCursor(TICKS, token, cursor, 4)
  if (place instanceof BadRequest) return Effect.fail(place)
  const [exchange_ts, sequence_id, epoch, position] = place
  // Only epoch and position may be null: a replayed row has none.
  return !isTime(exchange_ts) || sequence_id == null
    ? Effect.fail(refusedCursor(cursor))
    : Effect.succeed({ exchange_ts, sequence_id, epoch: epoch ?? null, position: position ?? null })
}

export const historicalRoutes = HttpApiBuilder.group(
  Api,
  "historical",
  Effect.fnUntraced(function* (handlers) {
    const store = yield* History
    const instruments = yield* Instruments
    const encoder = new TextEncoder()
    const streamedPages = yield* Semaphore.make(STREAM_PAGES)

    return handlers.handleAll({
      ticks: ({ query, request }) =>
        Effect.gen(function* () {
          const range = yield* readRange(query, instruments)
          yield* markSimulated(instruments.isSimulated([range.token]))
          const after = yield* readAfter(range.token, query.cursor)
          const page = (from: TickCursor | undefined, limit: number) =>
            store.ticks({
              instrument_token: range.token,
              from: range.from,
              to: range.to,
              limit,
              ...(from === undefined ? {} : { after: from })
            })
          const streamed = streamedFor(request.headers.accept)
          if (streamed === undefined) {
            const limit = query.limit ?? DEFAULT_LIMIT
            // One more than asked for tells whether there is a next page.
            const rows = yield* Effect.mapError(page(after, limit + 1), storeFailure)
            yield* refuseUnknown(range, rows.length === 0, store)
            const ticks = rows.slice(0, limit)
            const last = rows.length > limit ? ticks[limit - 1]! : undefined
            const next =
              last === undefined
                ? null
                : writeCursor(TICKS, range.token, [last.exchange_ts, last.sequence_id, last.epoch, last.position])
            return json(`{"ticks":[${ticks.map(encodeTick).join(",")}],"next_cursor":${JSON.stringify(next)}}`)
          }
          const encode = (rows: ReadonlyArray<StoredTick>, head = "") => [
            encoder.encode(head + rows.map(streamed.line).join(""))
          ]
          // Read before the answer starts, so that what fails at once still gets its status.
          const pageOf = (from: TickCursor | undefined, head = "") =>
            Effect.map(page(from, STREAM_ROWS), (rows) => ({ rows, lines: encode(rows, head) })).pipe(
              streamedPages.withPermits(1)
            )
          const first = yield* Effect.mapError(pageOf(after, streamed.head), storeFailure)
          yield* refuseUnknown(range, first.rows.length === 0, store)
          const rest = (rows: ReadonlyArray<StoredTick>) =>
            rows.length < STREAM_ROWS ? Option.none() : Option.some(cursorOf(rows[rows.length - 1]!))
          const body = Stream.concat(
            Stream.fromIterable(first.lines),
            Option.match(rest(first.rows), {
              onNone: () => Stream.empty,
              onSome: (start) =>
                Stream.paginate(start, (from: TickCursor) =>
                  Effect.map(pageOf(from), ({ rows, lines }) => [lines, rest(rows)] as const)
                )
            })
          ).pipe(
            Stream.filter((bytes) => bytes.length > 0),
            Stream.tapError((error) => Effect.logWarning(`a streamed answer broke off: ${error.message}`))
          )
          return HttpServerResponse.stream(body, { contentType: streamed.contentType })
        }),
      candles: ({ query }) =>
        Effect.gen(function* () {
          const range = yield* readRange(query, instruments)
          yield* markSimulated(instruments.isSimulated([range.token]))
          const segment = instruments.segment(range.token, range.day)
          const fill = query.fill ?? "none"
          const session = query.session ?? "all"
          if (segment === undefined && (fill !== "none" || session !== "all")) {
            const parameter = session === "all" ? "fill" : "session"
            const value = session === "all" ? fill : session
            return yield* new BadRequest({
              parameter,
              message: `${parameter}: no trading hours are known of ${range.token}, got ${JSON.stringify(value)}`
            })
          }
          let from = range.from
          if (query.cursor !== undefined) {
            const place = readCursor(`${CANDLES}-${query.interval}`, range.token, query.cursor, 1)
            if (place instanceof BadRequest) return yield* place
            if (!isTime(place[0])) return yield* refusedCursor(query.cursor)
            from = Math.max(from, place[0])
          }
          const page = yield* bars(store, {
            token: range.token,
            segment,
            interval: query.interval,
            from,
            to: range.to,
            limit: query.limit ?? DEFAULT_LIMIT,
            fill,
            session,
            now: (yield* Clock.currentTimeMillis) * 1000
          }).pipe(Effect.mapError(storeFailure))
          yield* refuseUnknown(range, page.bars.length === 0, store)
          const next =
            page.next === undefined ? null : writeCursor(`${CANDLES}-${query.interval}`, range.token, [page.next])
          return json(
            `{"candles":[${page.bars.map(encodeBar).join(",")}],"next_cursor":${JSON.stringify(next)},"known":${page.known ?? null}}`
          )
        })
    })
  })
)
