/** Decides how history is answered: ticks and candles of one instrument by pages, anything else as one stream. */
import { Clock, Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { isTime } from "../schema/Time.ts"
import { History } from "../streams/ports/History.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import type { TickCursor } from "../streams/ports/TickStore.ts"
import { Api, DEFAULT_LIMIT } from "./Api.ts"
import { bars } from "./bars.ts"
import { readCursor, refusedCursor, writeCursor } from "./cursor.ts"
import { BadRequest } from "./errors.ts"
import { readAsked } from "./exports/asked.ts"
import * as Exports from "./exports/Exports.ts"
import { formatOf } from "./exports/format.ts"
import { answerPage } from "./exports/page.ts"
import { storeFailure } from "./failures.ts"
import { refuseUnknown } from "./range.ts"
import { markSimulated } from "./simulatedMark.ts"
import { encodeBar, encodeTick } from "./wire.ts"

const TICKS = "ticks"
const CANDLES = "candles"

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

/** The start of the first bar of a page; `undefined` at the beginning. */
const readStart = (
  token: number,
  { interval, cursor }: { readonly interval: string; readonly cursor?: string }
): Effect.Effect<number | undefined, BadRequest> => {
  if (cursor === undefined) return Effect.succeed(undefined)
  const place = readCursor(`${CANDLES}-${interval}`, token, cursor, 1)
  if (place instanceof BadRequest) return Effect.fail(place)
  const [ts] = place
  return isTime(ts) ? Effect.succeed(ts) : Effect.fail(refusedCursor(cursor))
}

export const historicalRoutes = HttpApiBuilder.group(
  Api,
  "historical",
  Effect.fnUntraced(function* (handlers) {
    const store = yield* History
    const instruments = yield* Instruments
    const exports = yield* Exports.make

    return handlers.handleAll({
      ticks: ({ query, request }) =>
        Effect.gen(function* () {
          const asked = yield* readAsked(query, instruments, store)
          yield* markSimulated(instruments.isSimulated(asked.tokens))
          const { one, from, to } = asked
          const after = one === undefined ? undefined : yield* readAfter(one.token, query.cursor)
          const format = formatOf(query.format, request.headers.accept)
          if (one === undefined || format !== "json") return yield* exports.ticks(asked, query, format, request, after)
          const limit = query.limit ?? DEFAULT_LIMIT
          // One more than asked for tells whether there is a next page.
          const rows = yield* store
            .ticks({
              instrument_token: one.token,
              from,
              to,
              limit: limit + 1,
              ...(after === undefined ? {} : { after })
            })
            .pipe(Effect.mapError(storeFailure))
          yield* refuseUnknown(one, rows.length === 0, store)
          const ticks = rows.slice(0, limit)
          const last = rows.length > limit ? ticks[limit - 1]! : undefined
          const next =
            last === undefined
              ? null
              : writeCursor(TICKS, one.token, [last.exchange_ts, last.sequence_id, last.epoch, last.position])
          return yield* answerPage(
            `{"ticks":[${ticks.map(encodeTick).join(",")}],"next_cursor":${JSON.stringify(next)}}`,
            request,
            to
          )
        }),
      candles: ({ query, request }) =>
        Effect.gen(function* () {
          const asked = yield* readAsked(query, instruments, store)
          yield* markSimulated(instruments.isSimulated(asked.tokens))
          yield* Exports.refuseWithoutHours(query, asked, instruments)
          const { one, to } = asked
          const start = one === undefined ? undefined : yield* readStart(one.token, query)
          const from = start === undefined ? asked.from : Math.max(asked.from, start)
          const format = formatOf(query.format, request.headers.accept)
          if (one === undefined || format !== "json") {
            return yield* exports.candles({ ...asked, from }, query, format, request)
          }
          const page = yield* bars(store, {
            token: one.token,
            segment: instruments.segment(one.token, one.day),
            interval: query.interval,
            from,
            to,
            limit: query.limit ?? DEFAULT_LIMIT,
            fill: query.fill ?? "none",
            session: query.session ?? "all",
            now: (yield* Clock.currentTimeMillis) * 1000
          }).pipe(Effect.mapError(storeFailure))
          yield* refuseUnknown(one, page.bars.length === 0, store)
          const next =
            page.next === undefined ? null : writeCursor(`${CANDLES}-${query.interval}`, one.token, [page.next])
          return yield* answerPage(
            `{"candles":[${page.bars.map(encodeBar).join(",")}],"next_cursor":${JSON.stringify(next)},"known":${page.known ?? null}}`,
            request,
            to
          )
        })
    })
  })
)
