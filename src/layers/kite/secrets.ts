/**
 * Decides by what Kite lets a feed in: the key of the application, and the access token, which ends every morning. A file
 * is read again whenever a connection is made; a token that was refused is not shown again until another is there.
 */
import { readFile } from "node:fs/promises"
import { Clock, Effect, Redacted } from "effect"
import { FeedError } from "../../schema/Errors.ts"
import { printableUpTo } from "../../schema/printable.ts"

/** How often the file is looked at while another token is waited for. */
const LOOK_MS = 1000
/** A refused token is tried again after this: it may be the server that was wrong. */
const AGAIN_MS = 60_000
const MAX_TOKEN_CHARS = 1024
/** What a header and a query take as they are. */
const TOKEN = /^[\x21-\x7e]+$/
const MAX_SHOWN_CHARS = 300
/** Fewer characters of a secret at the end of a text are taken for its own. */
const LEAST_BEGINNING = 4

/** Where the access token is: told once, or in a file that is written anew each day. */
export type TokenSource = { readonly token: Redacted.Redacted } | { readonly file: string }

export interface Secrets {
  readonly apiKey: string
  /** The token to connect with. Waits while there is none but one that was refused; fails where none can come. */
  readonly token: Effect.Effect<string, FeedError>
  /** Another token than this one, once the file has one that was not refused; never where none can come. */
  readonly another: (than: string) => Effect.Effect<string>
  /** The token that was shown last, without one that was refused where another came before it. */
  readonly latest: () => string | undefined
  /** Says that a token was let in no more. */
  readonly refuse: (token: string) => Effect.Effect<void>
  /** Says that a token has ended, though what it opened stands: whether it is let in once more shows then. */
  readonly lapse: (token: string) => Effect.Effect<void>
  /** A text from outside without the key and the tokens that it may hold; nothing may have been cut from it before. */
  readonly conceal: (text: string) => string
  /** The same fit for a line, and without the beginning of one that it ends with: whoever sent it may have cut it. */
  readonly hide: (text: string) => string
}

export interface SecretsOptions {
  readonly apiKey: Redacted.Redacted
  readonly source: TokenSource
  /** Whether a new token is waited for where it can come; else a refused one ends the feed. */
  readonly waits: boolean
  /** Told once for each token that is refused, or has ended. */
  readonly onRefused: (what: string) => void
}

const REFUSED = "Kite refuses the API key or the access token (403)"
/** How often and where Kite's access tokens are to be had, for the line that says that one has ended. */
const HOW = "it ends each morning at about 6:00 IST; log in to Kite Connect"

const readToken = (file: string): Effect.Effect<string, FeedError> =>
  Effect.flatMap(
    Effect.tryPromise({
      try: () => readFile(file, "utf8"),
      catch: (cause) =>
        new FeedError({
          message: `KITE_ACCESS_TOKEN_FILE: cannot read ${file} (${(cause as NodeJS.ErrnoException).code})`
        })
    }),
    (text) => checked(text.trim(), `KITE_ACCESS_TOKEN_FILE: ${file}`)
  )

const checked = (token: string, where: string): Effect.Effect<string, FeedError> =>
  token.length <= MAX_TOKEN_CHARS && TOKEN.test(token)
    ? Effect.succeed(token)
    : Effect.fail(
        new FeedError({
          message: `${where}: expected an access token, 1 to ${MAX_TOKEN_CHARS} printable characters without spaces, got ${token === "" ? "nothing" : "another text"}`
        })
      )

export const makeSecrets = ({ apiKey, onRefused, source, waits }: SecretsOptions): Secrets => {
  const key = Redacted.value(apiKey)
  let refused: { readonly token: string; readonly at: number } | undefined
  /** Whatever was shown to a server, to be hidden in what it says. */
  const shown = new Set<string>()
  const current: Effect.Effect<string, FeedError> =
    "file" in source ? readToken(source.file) : checked(Redacted.value(source.token), "KITE_ACCESS_TOKEN")
  const hasNext = "file" in source
  const canCome = waits && hasNext
  const where = hasNext ? source.file : "KITE_ACCESS_TOKEN"
  let latest: string | undefined
  let before: string | undefined
  const show = (token: string): string => {
    shown.add(token)
    if (latest !== token) before = latest
    latest = token
    return token
  }
  /** What is not to be seen, also as an address or JSON has it; the longest first, since one may hold another. */
  const forms = (): ReadonlyArray<string> =>
    [...shown, key]
      .flatMap((secret) => {
        const quoted = JSON.stringify(secret).slice(1, -1)
        return [secret, encodeURIComponent(secret), quoted, quoted.replaceAll("/", "\\/")]
      })
      .sort((a, b) => b.length - a.length)
  const conceal = (text: string): string => forms().reduce((left, form) => left.replaceAll(form, "…"), text)
  /** Before any whole one is taken out, which may be the beginning of a longer one that was cut. */
  const withoutBeginning = (text: string): string => {
    let length = 0
    for (const form of forms()) {
      for (let most = form.length; most > length; most--) if (text.endsWith(form.slice(0, most))) length = most
    }
    return length < LEAST_BEGINNING ? text : `${text.slice(0, -length)}…`
  }
  /** The token of which it was last told that it is over. */
  let told: string | undefined
  const tell = (token: string, what: string): void => {
    if (told !== token) onRefused(what)
    told = token
  }

  const token: Effect.Effect<string, FeedError> = Effect.gen(function* () {
    for (;;) {
      // Whoever writes the file anew may have it empty, or away, for a moment.
      const found = yield* refused === undefined || !canCome ? current : Effect.orElseSucceed(current, () => "")
      const now = yield* Clock.currentTimeMillis
      if (
        found !== "" &&
        (refused === undefined || found !== refused.token || (canCome && now - refused.at >= AGAIN_MS))
      ) {
        return show(found)
      }
      if (!canCome) {
        return yield* new FeedError({ message: `${REFUSED}: ${HOW}, put the new token into ${where} and start again` })
      }
      yield* Effect.sleep(LOOK_MS)
    }
  })

  const another = (than: string): Effect.Effect<string> =>
    Effect.gen(function* () {
      for (;;) {
        yield* Effect.sleep(LOOK_MS)
        const found = yield* Effect.orElseSucceed(current, () => than)
        if (found !== than && found !== refused?.token) return show(found)
      }
    })

  return {
    apiKey: key,
    token,
    another: hasNext ? another : () => Effect.never,
    latest: () => latest,
    refuse: (token) =>
      Effect.map(Clock.currentTimeMillis, (at) => {
        refused = { token, at }
        // What the one before it opened may stand.
        if (latest === token && before !== undefined) latest = before
        if (canCome) tell(token, `${REFUSED}: ${HOW} and write the new token to ${where}; it is waited for`)
      }),
    lapse: (token) =>
      Effect.sync(() => {
        const next = hasNext
          ? `write the new token to ${where}; it takes the place of this one`
          : `put the new token into ${where} and start again before it does`
        tell(token, `${REFUSED}, though the ticker has not ended yet: ${HOW} and ${next}`)
      }),
    conceal,
    hide: (text) => printableUpTo(conceal(withoutBeginning(text)).replace(/\s+/g, " ").trim(), MAX_SHOWN_CHARS)
  }
}
