/** Decides how an answer says that something in it is simulated: by a header, where one of its instruments is. */
import { Effect } from "effect"
import { HttpEffect, type HttpServerRequest, HttpServerResponse } from "effect/http"

export const SIMULATED_HEADER = "x-simulated"

/** Marks the answer to the request under way, whatever it becomes, where `isSimulated`. */
export const markSimulated = (isSimulated: boolean): Effect.Effect<void, never, HttpServerRequest.HttpServerRequest> =>
  isSimulated
    ? HttpEffect.appendPreResponseHandler((_, response) =>
        Effect.succeed(HttpServerResponse.setHeader(response, SIMULATED_HEADER, "true"))
      )
    : Effect.void
