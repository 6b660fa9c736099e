/** Decides how a page of history is answered: by its own content where its range is over, and compressed where it is long. */
import { Clock, Effect } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { codedWhole, codingOf } from "./coding.ts"
import { mediaTypes } from "./mediaTypes.ts"
import { isMatched, tagOf, validators } from "./validators.ts"

/** `to` is where the range ends. */
export const answerPage = (
  text: string,
  { headers }: Pick<HttpServerRequest.HttpServerRequest, "headers">,
  to: number
): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  Effect.gen(function* () {
    const isOver = to <= (yield* Clock.currentTimeMillis) * 1000
    const tag = isOver ? tagOf(text) : undefined
    const wanted = codingOf(headers["accept-encoding"])
    if (tag !== undefined && isMatched(headers["if-none-match"], tag)) {
      return HttpServerResponse.empty({ status: 304, headers: validators(tag, undefined) })
    }
    const { bytes, coding } = yield* codedWhole(text, wanted)
    return HttpServerResponse.uint8Array(bytes, {
      contentType: mediaTypes.json,
      headers: validators(tag, coding)
    })
  })
