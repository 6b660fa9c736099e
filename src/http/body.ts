/** Decides how a body is taken in: whole, and no longer than its route allows. */
import { Effect, Stream } from "effect"
import type { HttpApiError } from "effect/http-api"
import { PayloadTooLarge } from "./errors.ts"

export const tooLarge = (limit: number): PayloadTooLarge =>
  new PayloadTooLarge({ parameter: "body", message: `body: expected at most ${limit} bytes` })

export const readBody = (
  body: Stream.Stream<Uint8Array, HttpApiError.HttpApiPayloadTooLarge>,
  limit: number
): Effect.Effect<Uint8Array, PayloadTooLarge> =>
  Stream.runCollect(body).pipe(
    Effect.map((chunks) => (chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks))),
    Effect.mapError(() => tooLarge(limit))
  )
