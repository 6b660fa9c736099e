/** Decides the command `mdp instruments import`: the broker's file sent to a running instance, and what came of it. */
import { readFile } from "node:fs/promises"
import { buffer } from "node:stream/consumers"
import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { askInstance, refusalOf } from "../layers/feeds/Instance.ts"
import { FeedError } from "../schema/Errors.ts"
import { printable } from "../schema/printable.ts"
import { byApiKey, instanceUrl, urlFlag } from "./feed.ts"
import { say, tell } from "./lines.ts"

const CARRIAGE_RETURN = 0x0d

/** What a running instance answers; read as data from outside. */
interface ImportAnswer {
  readonly added: number
  readonly changed: number
  readonly expired: number
  readonly rejected: ReadonlyArray<{ readonly line: number; readonly reason: string }>
  readonly rejected_total: number
}

const isImportAnswer = (body: unknown): body is ImportAnswer => {
  const answer = body as Partial<ImportAnswer> | null | undefined
  return (
    typeof answer === "object" &&
    answer !== null &&
    [answer.added, answer.changed, answer.expired, answer.rejected_total].every((n) => typeof n === "number") &&
    Array.isArray(answer.rejected)
  )
}

/** Lines that are not empty, but the first. */
const linesAfterHeader = (body: Buffer): number => {
  let lines = -1
  for (let at = 0; at < body.length; ) {
    const newline = body.indexOf("\n", at)
    const end = newline < 0 ? body.length : newline
    if (end > at && !(end === at + 1 && body[at] === CARRIAGE_RETURN)) lines += 1
    at = end + 1
  }
  return Math.max(0, lines)
}

const readInput = (file: string): Effect.Effect<Buffer, FeedError> =>
  Effect.tryPromise({
    try: () => (file === "-" ? buffer(process.stdin) : readFile(file)),
    catch: (error) => {
      const code = (error as NodeJS.ErrnoException).code
      return new FeedError({ message: `${file}: ${code === "ENOENT" ? "no such file" : String(code ?? error)}` })
    }
  })

const importFile = Command.make(
  "import",
  {
    file: Argument.String("FILE").pipe(
      Argument.withDescription("the broker's instruments file, CSV; - is standard input")
    ),
    onError: Flag.Literals("on-error", ["fail", "skip"]).pipe(
      Flag.withDescription("what a refused line does, the others being taken (default fail: exit 1)"),
      Flag.withDefault("fail")
    ),
    url: urlFlag
  },
  Effect.fnUntraced(function* ({ file, onError, url: asked }) {
    const url = yield* instanceUrl(asked)
    const body = yield* readInput(file)
    const request = { method: "POST", path: "/api/v1/instruments", contentType: "text/csv", body } as const
    const answer = yield* askInstance(url, request)
    if (answer.status !== 200 || !isImportAnswer(answer.body)) return yield* refusalOf(url, request, answer)
    const { added, changed, expired, rejected, rejected_total } = answer.body
    for (const { line, reason } of rejected) say("warn", printable(`${file}:${line}: ${reason}`))
    if (rejected_total > rejected.length) {
      say("warn", `${rejected_total - rejected.length} further lines were rejected`)
    }
    tell(`added ${added}, changed ${changed}, expired ${expired}, rejected ${rejected_total}`)
    const lines = linesAfterHeader(body)
    if (lines <= rejected_total) {
      const what = lines === 0 ? "it has no lines after its header" : `none of its ${lines} lines was taken`
      return yield* new FeedError({ message: `nothing of ${file} went in: ${what}` })
    }
    if (rejected_total > 0 && onError === "fail") {
      return yield* new FeedError({
        message: `${rejected_total} of ${lines} lines were rejected, the others are in; --on-error skip allows it`
      })
    }
  }, byApiKey)
).pipe(Command.withDescription("Import the broker's instruments file"))

/** `mdp instruments`. */
export const instruments = Command.make("instruments").pipe(
  Command.withDescription("The list of instruments of a running instance"),
  Command.withSubcommands([importFile])
)
