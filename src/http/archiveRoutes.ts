/**
 * Decides how cold storage is looked into: what it holds of a day, and its Parquet objects byte for byte, in whole or in
 * part, so that a tool which reads Parquet by URL fetches only what it asks for.
 */
import { Effect, Stream } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import type { ArchiveError } from "../schema/Errors.ts"
import { showValue } from "../schema/Explain.ts"
import type { ArchivedKind } from "../streams/ports/Archive.ts"
import { History } from "../streams/ports/History.ts"
import { Api, BASE } from "./Api.ts"
import { NotFound } from "./errors.ts"
import { archiveFailure } from "./failures.ts"

const CONTENT_TYPE = "application/vnd.apache.parquet"
const RANGE = /^bytes=(\d{0,15})-(\d{0,15})$/

/** The bytes [from, to) that a Range header asks for of so many; `undefined`: all; null: none that there are. */
export const rangeOf = (
  header: string | undefined,
  size: number
): { readonly from: number; readonly to: number } | undefined | null => {
  const [, first = "", last = ""] = RANGE.exec(header?.trim() ?? "") ?? []
  // What cannot be read, or is several, means the whole.
  if (first === "" && last === "") return undefined
  if (first === "")
    return last === "0" || /^0+$/.test(last) ? null : { from: Math.max(0, size - Number(last)), to: size }
  const from = Number(first)
  const to = last === "" ? size : Math.min(size, Number(last) + 1)
  if (last !== "" && Number(last) < from) return undefined
  return from >= size ? null : { from, to }
}

/** Where this server answers the objects of a kind: those of ticks where they always were. */
const pathOf: Readonly<Record<ArchivedKind, string>> = { ticks: "", quotes: "quotes/" }

const names = (header: string | undefined, etag: string): boolean =>
  (header ?? "").split(",").some((one) => one.trim() === "*" || one.trim().replace(/^W\//, "") === etag)

export const archiveRoutes = HttpApiBuilder.group(
  Api,
  "archive",
  Effect.fnUntraced(function* (handlers) {
    const { archive } = yield* History
    const unless = <A>(asked: Effect.Effect<A, ArchiveError>) => Effect.mapError(asked, archiveFailure)

    const answer = (kind: ArchivedKind, day: string, object: string) =>
      Effect.gen(function* () {
        const { headers } = yield* HttpServerRequest.HttpServerRequest
        const date = day.slice("date=".length)
        const found = archive === undefined ? undefined : yield* unless(archive.object(kind, date, object))
        if (found === undefined) {
          const message = `object: cold storage has no ${showValue(object)} of ${kind} of ${date}; /archive?date=${date} names what it has`
          return yield* new NotFound({ parameter: "object", message })
        }
        const { bytes, read } = found
        // An object never changes under its name.
        const etag = `"${object.replace(/\.parquet$/, "")}-${bytes}"`
        const said = { etag, "accept-ranges": "bytes" }
        if (names(headers["if-none-match"], etag)) return HttpServerResponse.empty({ status: 304, headers: said })
        const isOther = headers["if-range"] !== undefined && headers["if-range"] !== etag
        const range = isOther ? undefined : rangeOf(headers.range, bytes)
        if (range === null) {
          const message = `range: expected bytes of the ${bytes} that there are, got ${showValue(headers.range)}`
          return HttpServerResponse.jsonUnsafe(
            { _tag: "RangeNotSatisfiable", message, parameter: "range" },
            { status: 416, headers: { ...said, "content-range": `bytes */${bytes}` } }
          )
        }
        const { from, to } = range ?? { from: 0, to: bytes }
        const body = read(from, to).pipe(
          Stream.tapError((error) => Effect.logWarning(`an archive object broke off: ${error.message}`))
        )
        return HttpServerResponse.stream(body, {
          status: range === undefined ? 200 : 206,
          contentType: CONTENT_TYPE,
          contentLength: to - from,
          headers: range === undefined ? said : { ...said, "content-range": `bytes ${from}-${to - 1}/${bytes}` }
        })
      })

    return handlers.handleAll({
      objects: ({ query: { date } }) =>
        Effect.gen(function* () {
          if (archive === undefined) return { date, objects: [], unreadable: [] }
          const { objects, unreadable } = yield* unless(archive.list(date))
          return {
            date,
            objects: objects.map(({ kind, name, bytes, rows }) => ({
              kind,
              name,
              path: `${BASE}/archive/${pathOf[kind]}date=${date}/${name}`,
              bytes,
              rows
            })),
            unreadable
          }
        }),
      object: ({ params: { day, object } }) => answer("ticks", day, object),
      quotesObject: ({ params: { day, object } }) => answer("quotes", day, object)
    })
  })
)
