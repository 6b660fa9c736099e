/** Decides how a place in an answer that goes on is handed out: text that means nothing to a client. */
import { showValue } from "../schema/Explain.ts"
import { BadRequest } from "./errors.ts"

/** `kind` and `token` keep a cursor from being used where it was not given. */
export const writeCursor = (kind: string, token: number, place: ReadonlyArray<number | null>): string =>
  Buffer.from(JSON.stringify([kind, token, ...place])).toString("base64url")

export const refusedCursor = (text: string): BadRequest =>
  new BadRequest({
    parameter: "cursor",
    message: `cursor: expected a next_cursor of the same request, got ${showValue(text)}`
  })

/** The place, of exactly `length` numbers or nulls. */
export const readCursor = (
  kind: string,
  token: number,
  text: string,
  length: number
): ReadonlyArray<number | null> | BadRequest => {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(text, "base64url").toString("utf8"))
  } catch {
    return refusedCursor(text)
  }
  if (!Array.isArray(value) || value.length !== length + 2 || value[0] !== kind || value[1] !== token) {
    return refusedCursor(text)
  }
  const place: ReadonlyArray<unknown> = value.slice(2)
  return place.every((part): part is number | null => part === null || Number.isSafeInteger(part))
    ? place
    : refusedCursor(text)
}
