/** Decides how Kite's REST root is asked: with the key and token in a header, bounded in time and size, and what a refusal says. */
import { Effect } from "effect"
import { FeedError } from "../../schema/Errors.ts"
import { readKiteAnswer } from "../../schema/kite/messages.ts"
import type { Secrets } from "./secrets.ts"

const ANSWER_MS = 60_000
/** The whole instruments file takes about a sixth. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024

interface Answer {
  readonly status: number
  readonly text: string
}

const readAll = async (response: Response): Promise<string> => {
  const parts: Array<Uint8Array> = []
  let bytes = 0
  for await (const part of response.body ?? []) {
    bytes += part.byteLength
    if (bytes > MAX_ANSWER_BYTES) throw new Error(`the answer is larger than ${MAX_ANSWER_BYTES} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString("utf8")
}

/** undici has the reason in `cause`. */
const reasonOf = (error: unknown): string => {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  if (cause instanceof Error && cause.name === "TimeoutError") return `no answer within ${ANSWER_MS / 1000} s`
  const code = (cause as { readonly code?: unknown }).code
  return typeof code === "string" ? code : cause instanceof Error ? cause.message : String(cause)
}

const ask = (root: string, path: string, secrets: Secrets, token: string): Effect.Effect<Answer, FeedError> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`${root}${path}`, {
        // Nowhere else than where it was meant for does the token go.
        redirect: "error",
        signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
        headers: {
          "x-kite-version": "3",
          "user-agent": "market-data-platform",
          authorization: `token ${secrets.apiKey}:${token}`
        }
      })
      return { status: response.status, text: await readAll(response) }
    },
    catch: (error) => new FeedError({ message: `GET ${root}${path}: ${secrets.hide(reasonOf(error))}` })
  })

/** Whether an answer says that the token is none that is let in. */
const isRefusal = ({ status, text }: Answer, { conceal }: Secrets): boolean => {
  if (status !== 403) return false
  const answer = readKiteAnswer(text, conceal)
  return typeof answer === "string" || answer.ok || answer.name === "TokenException"
}

/** Whether Kite says that a token has ended; where it says nothing, it has not. */
export const hasEnded = (root: string, secrets: Secrets, token: string): Effect.Effect<boolean> =>
  ask(root, "/user/profile", secrets, token).pipe(
    Effect.map((found) => isRefusal(found, secrets)),
    Effect.orElseSucceed(() => false)
  )

/** The text of an answer. A refused token is replaced where another can come, as that of a connection is. */
export const getText = (root: string, path: string, secrets: Secrets): Effect.Effect<string, FeedError> =>
  Effect.gen(function* () {
    for (;;) {
      const token = yield* secrets.token
      const found = yield* ask(root, path, secrets, token)
      const { status, text } = found
      if (status === 200) return text
      if (isRefusal(found, secrets)) {
        yield* secrets.refuse(token)
        continue
      }
      const answer = readKiteAnswer(text, secrets.conceal)
      const why =
        typeof answer === "string" || answer.ok ? "" : `: ${secrets.hide(`${answer.name}: ${answer.message}`)}`
      return yield* new FeedError({ message: `GET ${root}${path} answered ${status}${why}` })
    }
  })
