/** Decides how a command speaks to a running instance over REST: what is sent, and what an answer other than 200 means. */
import { Effect } from "effect"
import { FeedError } from "../schema/Errors.ts"

/** The longest an instance may take to answer one request. */
const ANSWER_DEADLINE_MS = 60_000

export interface InstanceRequest {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE"
  /** With the leading slash, such as `/api/v1/ingest`. */
  readonly path: string
  readonly contentType?: string
  readonly body?: Uint8Array | string
}

export interface InstanceAnswer {
  readonly status: number
  /** Seconds; `undefined` where the instance named none. */
  readonly retryAfter: number | undefined
  /** The parsed JSON; `undefined` where the body was none. */
  readonly body: unknown
}

/** The one line a person reads when fetch failed: undici hides the reason in `cause`. */
const reasonOf = (error: unknown): string => {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  if (cause instanceof Error && cause.name === "TimeoutError") return `no answer within ${ANSWER_DEADLINE_MS / 1000} s`
  const code = (cause as { readonly code?: unknown }).code
  return typeof code === "string" ? code : cause instanceof Error ? cause.message : String(cause)
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

/** Sends one request and answers whatever came, whether a success or not. Fails where nothing came. */
export const askInstance = (url: string, request: InstanceRequest): Effect.Effect<InstanceAnswer, FeedError> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`${url}${request.path}`, {
        method: request.method,
        redirect: "error",
        signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_DEADLINE_MS)]),
        ...(request.contentType === undefined ? {} : { headers: { "content-type": request.contentType } }),
        ...(request.body === undefined
          ? {}
          : { body: typeof request.body === "string" ? request.body : Buffer.from(request.body) })
      })
      const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN)
      return {
        status: response.status,
        retryAfter: Number.isFinite(retryAfter) && retryAfter >= 0 ? retryAfter : undefined,
        body: parse(await response.text())
      }
    },
    catch: (error) =>
      new FeedError({ message: `no running instance answers at ${url}${request.path}: ${reasonOf(error)}` })
  })

/** What an answer other than a success says, in one line. */
export const refusalOf = (url: string, request: InstanceRequest, answer: InstanceAnswer): FeedError => {
  const said = (answer.body as { readonly message?: unknown } | null | undefined)?.message
  return new FeedError({
    message: `${request.method} ${url}${request.path} answered ${answer.status}${typeof said === "string" ? `: ${said}` : ""}`
  })
}
