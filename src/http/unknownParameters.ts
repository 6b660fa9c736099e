/**
 * Decides that a query's parameters are those of its route, each once: one that nobody reads would be left out without
 * a word, and what is answered would be something else than what was asked.
 */
import { Effect, Layer, type Schema, type Types } from "effect"
import { HttpServerRequest, type HttpServerResponse } from "effect/http"
import { showText } from "../schema/Explain.ts"
import { unknownName } from "../schema/Nearest.ts"
import { BASE, KnownParameters } from "./Api.ts"
import { BadRequest } from "./errors.ts"

const namesOf = (query: Schema.Top | undefined): ReadonlyArray<string> =>
  query?.ast._tag === "Objects" ? query.ast.propertySignatures.map(({ name }) => String(name)) : []

/** What is wrong with the query of a request, or `undefined`. */
const refusalOf = (url: string, known: ReadonlyArray<string>): BadRequest | undefined => {
  const at = url.indexOf("?")
  if (at < 0) return undefined
  const seen = new Set<string>()
  for (const [name] of new URLSearchParams(url.slice(at + 1))) {
    const parameter = showText(name)
    if (!known.includes(name)) return new BadRequest({ parameter, message: unknownName("parameter", name, known) })
    if (seen.has(name)) return new BadRequest({ parameter, message: `${parameter}: expected once, got more` })
    seen.add(name)
  }
  return undefined
}

/** The routes outside the base are for pages and probes, which may add what they like. */
export const layerKnownParameters: Layer.Layer<KnownParameters> = Layer.succeed(
  KnownParameters,
  (answer, { endpoint }) => {
    if (!endpoint.path.startsWith(`${BASE}/`)) return answer
    const known = namesOf(endpoint.query)
    return Effect.flatMap(
      HttpServerRequest.HttpServerRequest,
      ({ url }): Effect.Effect<HttpServerResponse.HttpServerResponse, BadRequest | Types.unhandled> => {
        const refusal = refusalOf(url, known)
        return refusal === undefined ? answer : Effect.fail(refusal)
      }
    )
  }
)
