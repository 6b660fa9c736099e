/** Decides the command `mdp instruments import`: the broker's file sent to a running instance, and what came of it. */
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { describeReasons } from "../layers/feeds/FileFeed.ts"
import { askInstance, refusalOf } from "../layers/feeds/Instance.ts"
import { BROKER_FIELDS, BROKERS, type BrokerField, TOKEN_KINDS } from "../layers/instruments/brokerFile.ts"
import { FeedError } from "../schema/Errors.ts"
import { printable } from "../schema/printable.ts"
import { dayOfDate } from "../schema/Time.ts"
import { type Refusal, readBrokerFile } from "./brokerInput.ts"
import { byApiKey, instanceUrl, urlFlag } from "./feed.ts"
import { say, tell } from "./lines.ts"

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

/** Refused lines that are named; the rest are counted. */
const MAX_NAMED = 100

const mapFlag = Flag.String("map").pipe(
  Flag.withMetavar("field=…,field=…"),
  Flag.withDescription(
    "which column is which field, where the preset's names are others: tradingsymbol=Symbol,expiry=Expiry"
  ),
  Flag.mapTryCatch(
    (text) => {
      const fields = new Map<BrokerField, string>()
      for (const pair of text.split(",")) {
        const [, field, column] = /^\s*(\w+)\s*=\s*(.*\S)\s*$/.exec(pair) ?? []
        const known = BROKER_FIELDS.find((one) => one === field)
        if (known === undefined || column === undefined) {
          throw new Error(`field=column, the field one of ${BROKER_FIELDS.join(", ")}, got ${JSON.stringify(pair)}`)
        }
        fields.set(known, column)
      }
      return fields as ReadonlyMap<BrokerField, string>
    },
    (error) => `Expected ${(error as Error).message}`
  ),
  Flag.withDefault(new Map() as ReadonlyMap<BrokerField, string>)
)

/** Lines by why they were refused, whatever their values are. */
const reasonsOf = (refusals: ReadonlyArray<Refusal>): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>()
  for (const { reason } of refusals) {
    const what = reason.replace(/, got .*$/s, "")
    counts.set(what, (counts.get(what) ?? 0) + 1)
  }
  return counts
}

const importFile = Command.make(
  "import",
  {
    file: Argument.String("FILE").pipe(
      Argument.withDescription(
        "the broker's instruments file, CSV or JSON, also gzipped or zipped; - is standard input"
      )
    ),
    preset: Flag.Literals("preset", BROKERS).pipe(
      Flag.withDescription("whose file it is (default kite)"),
      Flag.withDefault("kite")
    ),
    map: mapFlag,
    tokens: Flag.Literals("tokens", TOKEN_KINDS).pipe(
      Flag.withDescription(
        "which tokens instruments have: kite, made of the exchange's numbers as Kite makes its own, or own, the file's numbers (default kite)"
      ),
      Flag.withDefault("kite")
    ),
    onError: Flag.Literals("on-error", ["fail", "skip"]).pipe(
      Flag.withDescription("what a refused line does, the others being taken (default fail: exit 1)"),
      Flag.withDefault("fail")
    ),
    asOf: Flag.String("as-of").pipe(
      Flag.withMetavar("YYYY-MM-DD"),
      Flag.withDescription("the trading day that the file is of: what tokens mean on other days stays (default today)"),
      Flag.mapTryCatch(
        (text) => {
          if (dayOfDate(text) === undefined) throw new Error(`a date such as 2026-01-15, got ${JSON.stringify(text)}`)
          return text
        },
        (error) => `Expected ${(error as Error).message}`
      ),
      Flag.optional
    ),
    url: urlFlag
  },
  Effect.fnUntraced(function* ({ asOf, file, map, onError, preset, tokens, url: asked }) {
    const url = yield* instanceUrl(asked)
    const input = yield* readBrokerFile(file, { broker: preset, map, tokens })
    const path = `/api/v1/instruments${Option.isSome(asOf) ? `?as_of=${asOf.value}` : ""}`
    const request = { method: "POST", path, contentType: "text/csv", body: input.body } as const
    const answer = yield* askInstance(url, request)
    if (answer.status !== 200 || !isImportAnswer(answer.body)) return yield* refusalOf(url, request, answer)
    const { added, changed, expired } = answer.body
    const theirs = answer.body.rejected.map(({ line, reason }) => ({ line: input.lineOf(line), reason }))
    const refusals = [...input.refusals, ...theirs].sort((a, b) => a.line - b.line)
    const rejected = input.refusals.length + answer.body.rejected_total
    const named = refusals.slice(0, MAX_NAMED)
    for (const { line, reason } of named) say("warn", printable(`${file}:${line}: ${reason}`))
    if (rejected > named.length) say("warn", `${rejected - named.length} further lines were rejected`)
    tell(`added ${added}, changed ${changed}, expired ${expired}, rejected ${rejected}`)
    const why = describeReasons(reasonsOf(refusals))
    if (input.records <= rejected) {
      const what =
        input.records === 0
          ? "it has no lines after its header"
          : `none of its ${input.records} lines was taken: ${why}`
      return yield* new FeedError({ message: `nothing of ${file} went in: ${what}` })
    }
    if (rejected > 0 && onError === "fail") {
      return yield* new FeedError({
        message: `${rejected} of ${input.records} lines were rejected, the others are in; --on-error skip allows it: ${why}`
      })
    }
    if (rejected > 0) say("warn", printable(`rejected: ${why}`))
  }, byApiKey)
).pipe(Command.withDescription("Import a broker's instruments file"))

/** `mdp instruments`. */
export const instruments = Command.make("instruments").pipe(
  Command.withDescription("The list of instruments of a running instance"),
  Command.withSubcommands([importFile])
)
