/**
 * Decides how a command speaks to a running instance over REST: what is sent, what an answer other than 200 means, and
 * how long one that goes away or is full is waited for.
 */
import { Clock, Context, Effect, Redacted } from "effect"
import { FeedError } from "../../schema/Errors.ts"

/** The longest an instance may take to answer one request. */
const ANSWER_DEADLINE_MS = 60_000

/** The API key that requests go out with; none unless it is given. */
export const InstanceKey = Context.Reference<Redacted.Redacted | undefined>("market-data-platform/layers/InstanceKey", {
  defaultValue: () => undefined
})

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

/** There is no such address, or nobody listens there. */
const NOBODY_THERE: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH", "ENETUNREACH"])

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

/** Why nothing came, such as `ECONNRESET`. */
class Unreached {
  readonly reason: string
  constructor(reason: string) {
    this.reason = reason
  }
}

const send = (
  url: string,
  request: InstanceRequest,
  key: Redacted.Redacted | undefined
): Effect.Effect<InstanceAnswer, Unreached> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`${url}${request.path}`, {
        method: request.method,
        // Nowhere else than where it was meant for does the key go.
        redirect: "error",
        signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_DEADLINE_MS)]),
        headers: {
          ...(key === undefined ? {} : { authorization: `Bearer ${Redacted.value(key)}` }),
          ...(request.contentType === undefined ? {} : { "content-type": request.contentType })
        },
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
    catch: (error) => new Unreached(reasonOf(error))
  })

const reach = (url: string, request: InstanceRequest): Effect.Effect<InstanceAnswer, Unreached> =>
  Effect.flatMap(InstanceKey, (key) => send(url, request, key))

const nobodyAt = (url: string, request: InstanceRequest, reason: string): FeedError =>
  new FeedError({ message: `no running instance answers at ${url}${request.path}: ${reason}` })

/** Sends one request and answers whatever came, whether a success or not. Fails where nothing came. */
export const askInstance = (url: string, request: InstanceRequest): Effect.Effect<InstanceAnswer, FeedError> =>
  Effect.mapError(reach(url, request), ({ reason }) => nobodyAt(url, request, reason))

export interface Patience {
  /** The longest that one request is sent again; 0: not at all. */
  readonly limitMs: number
  /** Told before each wait. */
  readonly onWait?: (wait: Wait) => void
}

export interface Wait {
  /** Such as `ECONNRESET`. */
  readonly reason: string
  /** It answers, and asks for patience: nothing is wrong. */
  readonly isFull: boolean
  /** The first wait of a request is 1. */
  readonly nth: number
  /** How much longer it will be waited at most. */
  readonly leftMs: number
}

/** The first wait for an instance that does not answer; each is twice the one before, up to the last. */
const FIRST_WAIT_MS = 250
const LONGEST_WAIT_MS = 5000
/** The longest wait that an instance may ask for by `Retry-After`. */
const MAX_RETRY_AFTER_SECONDS = 30
/** Full, or about to stop or to start: the same request will do later. */
const LATER: ReadonlyArray<number> = [429, 503]

/**
 * Asks one instance, and sends a request again where the instance goes away (a restart, a connection cut) or answers
 * 429 or 503, for as long as `patience` allows; so only what may be sent twice is to be sent this way. An address at
 * which nobody has answered yet is given up at once: it is more likely wrong than about to be right. A wait can be
 * interrupted, a request under way cannot where its caller cannot.
 */
export const patiently = (
  url: string,
  patience: Patience
): ((request: InstanceRequest) => Effect.Effect<InstanceAnswer, FeedError>) => {
  let hasAnswered = false
  return (request) =>
    Effect.gen(function* () {
      const givesUpAt = (yield* Clock.currentTimeMillis) + patience.limitMs
      let wait = FIRST_WAIT_MS
      for (let nth = 1; ; nth++) {
        const answer = yield* Effect.catch(reach(url, request), Effect.succeed)
        let reason: string
        let waitMs = wait
        if (answer instanceof Unreached) {
          reason = answer.reason
          if (!hasAnswered && NOBODY_THERE.has(reason)) return yield* nobodyAt(url, request, reason)
        } else {
          hasAnswered = true
          if (!LATER.includes(answer.status)) return answer
          reason = answer.status === 429 ? "it is full" : "it is not ready"
          if (answer.retryAfter !== undefined) waitMs = Math.min(MAX_RETRY_AFTER_SECONDS, answer.retryAfter) * 1000
        }
        const leftMs = givesUpAt - (yield* Clock.currentTimeMillis)
        if (waitMs > leftMs) {
          const waited = `for ${patience.limitMs / 1000} s`
          if (answer instanceof Unreached) {
            return yield* nobodyAt(url, request, patience.limitMs === 0 ? reason : `${reason}, ${waited}`)
          }
          if (patience.limitMs === 0) return answer
          return yield* new FeedError({ message: `${refusalOf(url, request, answer).message}, ${waited}` })
        }
        const isFull = !(answer instanceof Unreached) && answer.status === 429
        patience.onWait?.({ reason, isFull, nth, leftMs })
        yield* Effect.interruptible(Effect.sleep(waitMs))
        wait = Math.min(LONGEST_WAIT_MS, 2 * wait)
      }
    })
}

/** What an answer other than a success says, in one line. */
export const refusalOf = (url: string, request: InstanceRequest, answer: InstanceAnswer): FeedError => {
  const said = (answer.body as { readonly message?: unknown } | null | undefined)?.message
  const where = answer.status === 401 ? " (API_KEY)" : ""
  return new FeedError({
    message: `${request.method} ${url}${request.path} answered ${answer.status}${typeof said === "string" ? `: ${said}` : ""}${where}`
  })
}
