/**
 * Decides how history is given out as one answer: ticks or bars of one, several or all instruments, in any format,
 * compressed or not, read no faster than the client takes it.
 */
import { readFileSync } from "node:fs"
import { Clock, Effect, type Scope, Stream } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import * as RowFiles from "../../layers/archive/rowFiles.ts"
import { barStart, type Interval, intervalMicros } from "../../schema/Candle.ts"
import type { ArchiveError, StoreError } from "../../schema/Errors.ts"
import type { TableName } from "../../schema/tables.ts"
import { History } from "../../streams/ports/History.ts"
import { Instruments } from "../../streams/ports/Instruments.ts"
import type { TickCursor } from "../../streams/ports/TickStore.ts"
import { bars, carryStart } from "../bars.ts"
import { Caller } from "../caller.ts"
import { BadRequest, type Forbidden, type NotFound, TooManyRequests, type Unavailable } from "../errors.ts"
import { storeFailure } from "../failures.ts"
import { refuseUnknown } from "../range.ts"
import type { Asked } from "./asked.ts"
import { coded, codingOf } from "./coding.ts"
import { type Format, mediaTypes } from "./mediaTypes.ts"
import { barRows, gently, tickRows } from "./rows.ts"
import { barText, type TextRows, tickText, written } from "./text.ts"
import { isMatched, tagOf, validators } from "./validators.ts"

/** Exports of several instruments that run at a time, each of which holds a page of every one; of one key, half. */
const SEVERAL_AT_ONCE = 4
const RETRY_AFTER_SECONDS = 5

/** Another version may write the same rows otherwise. */
const { version: VERSION } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}

export interface TicksQuery {
  readonly limit?: number
}
export interface CandlesQuery extends TicksQuery {
  readonly interval: Interval
  readonly fill?: "none" | "previous"
  readonly session?: "all" | "regular"
}

type Request = Pick<HttpServerRequest.HttpServerRequest, "headers">
type Refused = BadRequest | Forbidden | NotFound | TooManyRequests | Unavailable
type Answered = Effect.Effect<HttpServerResponse.HttpServerResponse, Refused>

export interface Exports {
  /** `after`: where a stream of one instrument goes on. */
  readonly ticks: (
    asked: Asked,
    query: TicksQuery,
    format: Format,
    request: Request,
    after: TickCursor | undefined
  ) => Answered
  readonly candles: (asked: Asked, query: CandlesQuery, format: Format, request: Request) => Answered
}

/** Refuses what needs trading hours of an instrument that none are known of. */
export const refuseWithoutHours = (
  { fill = "none", session = "all" }: Pick<CandlesQuery, "fill" | "session">,
  { tokens, day }: Pick<Asked, "tokens" | "day">,
  instruments: Pick<Instruments["Service"], "segment">
): Effect.Effect<void, BadRequest> => {
  if (fill === "none" && session === "all") return Effect.void
  const without = tokens.find((token) => instruments.segment(token, day) === undefined)
  if (without === undefined) return Effect.void
  const [parameter, value] = session === "all" ? ["fill", fill] : ["session", session]
  return Effect.fail(
    new BadRequest({
      parameter,
      message: `${parameter}: no trading hours are known of ${without}, got ${JSON.stringify(value)}`
    })
  )
}

/** A JSON document of several is whole: half of one would look like all of it. */
const refuseLimit = ({ one }: Asked, { limit }: TicksQuery, format: Format): Effect.Effect<void, BadRequest> =>
  limit === undefined || format !== "json" || one !== undefined
    ? Effect.void
    : Effect.fail(
        new BadRequest({
          parameter: "limit",
          message: `limit: expected with one instrument or in another format than json: the JSON of several is whole, got ${limit}`
        })
      )

/** For as long as the scope, in which the thread that writes Arrow and Parquet ends. */
export const make: Effect.Effect<Exports, never, Scope.Scope | History | Instruments> = Effect.gen(function* () {
  const store = yield* Effect.flatMap(History, gently)
  const instruments = yield* Instruments
  const files = yield* RowFiles.make
  /** Exports of several that are being read, by key; nobody's where no key is asked for. */
  const several = new Map<string, number>()
  const severalInAll = (): number => [...several.values()].reduce((sum, count) => sum + count, 0)

  /** Refuses one more of several where there are as many as may be. */
  const refuseMore = Effect.flatMap(Caller, ({ key }) => {
    const own = several.get(key?.id ?? "") ?? 0
    const isKeys = key !== undefined && own >= SEVERAL_AT_ONCE / 2
    if (!isKeys && severalInAll() < SEVERAL_AT_ONCE) return Effect.void
    const whose = isKeys ? `key "${key.name}" has` : "the server has"
    return Effect.fail(
      new TooManyRequests({
        message: `${whose} as many exports of several instruments under way as may be`,
        retryAfterSeconds: RETRY_AFTER_SECONDS
      })
    )
  })

  /** Counted from its first byte to its last, or until its client goes. */
  const counted = <A, E>(stream: Stream.Stream<A, E>, key: string): Stream.Stream<A, E> => {
    const change = (by: number) => {
      const count = (several.get(key) ?? 0) + by
      if (count === 0) several.delete(key)
      else several.set(key, count)
    }
    return Stream.unwrap(
      Effect.as(
        Effect.acquireRelease(
          Effect.sync(() => change(1)),
          () => Effect.sync(() => change(-1))
        ),
        stream
      )
    )
  }

  interface Given<A extends object> {
    readonly asked: Asked
    readonly rows: Stream.Stream<A, StoreError>
    readonly table: TableName
    readonly text: TextRows<A>
    readonly limit: number | undefined
    /** What a JSON document says after its rows. */
    readonly last?: () => string
    /** Where the range is over: what the answer follows from, but for the ticks that there are. */
    readonly over: { readonly from: number; readonly to: number; readonly parts: ReadonlyArray<string> } | undefined
  }

  const answer = <A extends object>(given: Given<A>, format: Format, { headers }: Request) =>
    Effect.gen(function* () {
      const { asked, table, text, limit, last, over } = given
      const { key } = yield* Caller
      if (asked.one === undefined) yield* refuseMore
      // Parquet is compressed by itself.
      const coding = format === "parquet" ? undefined : codingOf(headers["accept-encoding"])
      let tag: string | undefined
      if (over !== undefined) {
        const revision = yield* Effect.mapError(store.revision(asked.tokens, over.from, over.to), storeFailure)
        tag = tagOf(VERSION, table, format, revision, limit, ...over.parts, asked.tokens.join())
        if (isMatched(headers["if-none-match"], tag)) {
          return HttpServerResponse.empty({ status: 304, headers: validators(tag, coding) })
        }
      }
      const rows = limit === undefined ? given.rows : Stream.take(given.rows, limit)
      const bytes: Stream.Stream<Uint8Array<ArrayBuffer>, StoreError | ArchiveError> = format === "arrow" ||
      format === "parquet"
        ? files.write(rows, table, format)
        : written(rows, text, format, last)
      const body = coded(asked.one === undefined ? counted(bytes, key?.id ?? "") : bytes, coding).pipe(
        Stream.filter((some) => some.length > 0),
        Stream.tapError((error) => Effect.logWarning(`a streamed answer broke off: ${error.message}`))
      )
      return HttpServerResponse.stream(body, {
        contentType: format === "csv" ? `${mediaTypes.csv}; charset=utf-8` : mediaTypes[format],
        headers: validators(tag, coding)
      })
    })

  return {
    ticks: (asked, query, format, request, after) =>
      Effect.gen(function* () {
        yield* refuseLimit(asked, query, format)
        const { one, tokens, from, to } = asked
        if (one !== undefined) {
          // Before the answer starts, so that what fails at once still gets its status.
          const first = { instrument_token: one.token, from, to, limit: 1, ...(after === undefined ? {} : { after }) }
          const rows = yield* Effect.mapError(store.ticks(first), storeFailure)
          yield* refuseUnknown(one, rows.length === 0, store)
        }
        const now = (yield* Clock.currentTimeMillis) * 1000
        const given: Given<object> = {
          asked,
          rows: tickRows(store, { tokens, from, to }, after),
          table: "ticks",
          text: tickText as TextRows<object>,
          limit: query.limit,
          over: to <= now ? { from, to, parts: [`${from}-${to}`, JSON.stringify(after ?? null)] } : undefined
        }
        return yield* answer(given, format, request)
      }),
    candles: (asked, query, format, request) =>
      Effect.gen(function* () {
        yield* refuseLimit(asked, query, format)
        const { one, tokens, from, to } = asked
        const { interval, fill = "none", session = "all" } = query
        const now = (yield* Clock.currentTimeMillis) * 1000
        const segment = (token: number) => instruments.segment(token, asked.day)
        if (one !== undefined) {
          const first = {
            token: one.token,
            segment: segment(one.token),
            interval,
            from,
            to,
            limit: 1,
            fill,
            session,
            now
          }
          const page = yield* Effect.mapError(bars(store, first), storeFailure)
          yield* refuseUnknown(one, page.bars.length === 0, store)
        }
        const isKnown = tokens.some((token) => segment(token) !== undefined)
        let knowsAll = true
        const rows = Stream.mapArray(
          barRows(store, { tokens, from, to, interval, fill, session, segment, now }),
          (some) => {
            for (const { known, phase } of some) if (!known && phase !== null) knowsAll = false
            return some
          }
        )
        // The ticks of all its bars: those before what is filled, and one at the very end of the last.
        const end = interval === "1d" ? barStart(to - 1, "1d") + intervalMicros("1d") : to + intervalMicros(interval)
        const first = interval === "1d" ? barStart(from, "1d") : from
        const given: Given<object> = {
          asked,
          rows,
          table: "bars",
          text: barText as TextRows<object>,
          limit: query.limit,
          last: () => `,"known":${isKnown ? knowsAll : null}`,
          over:
            end <= now && first < end
              ? {
                  from: fill === "none" ? first : carryStart(first, interval),
                  to: end + 1,
                  parts: [`${from}-${to}`, interval, fill, session, tokens.map((token) => segment(token) ?? "").join()]
                }
              : undefined
        }
        return yield* answer(given, format, request)
      })
  }
})
