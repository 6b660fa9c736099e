/**
 * Decides how a failure is answered where a charting library asks: it reads `{"s":"error","errmsg"}` whatever the status,
 * and takes a body without `s` for what it asked for. Everybody else finds the contract's own fields beside them.
 */
import { HttpBody, HttpServerResponse } from "effect/http"

/** Where the datafeed of charting libraries is. */
export const UDF = "/udf"

interface Told {
  readonly _tag: string
  readonly message: string
  readonly parameter?: string
}

const isUdf = (path: string): boolean => path.startsWith(`${UDF}/`)

/** The body of a failure, as whoever asks at `path` reads it. */
export const toldAt = <Body extends Told>(path: string, body: Body): Body | (Body & { s: string; errmsg: string }) =>
  isUdf(path) ? { s: "error", errmsg: body.message, ...body } : body

const decoder = new TextDecoder()

/** A failure's answer, as whoever asks for `url` reads it. */
export const answeredAt = (
  url: string,
  response: HttpServerResponse.HttpServerResponse
): HttpServerResponse.HttpServerResponse => {
  const { body } = response
  if (response.status < 400 || body._tag !== "Uint8Array" || !isUdf(url)) return response
  const told = JSON.parse(decoder.decode(body.body)) as Told
  return HttpServerResponse.setBody(response, HttpBody.jsonUnsafe(toldAt(url, told)))
}
