/**
 * Decides `mdp dlq`: dead letters listed with their reasons, and sent again once what was wrong is mended. In Kafka where
 * KAFKA_BROKERS is set, else by way of a running instance, whose log is its own.
 */
import { Effect, Option, Result, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { askInstance, type InstanceRequest, refusalOf } from "../layers/feeds/Instance.ts"
import { FeedError, type LogError, StartError } from "../schema/Errors.ts"
import { printable } from "../schema/printable.ts"
import {
  dlqBounds,
  type LetterPlace,
  listLetters,
  type Resent,
  retryLetters,
  showLetter,
  type Wanted
} from "../streams/deadLetters.ts"
import { TickLog } from "../streams/log/TickLog.ts"
import { wrongUsage } from "./cli.ts"
import { byApiKey, instanceUrl, urlFlag } from "./feed.ts"
import { say, tell } from "./lines.ts"
import { log, settings } from "./services.ts"

const PATH = "/api/v1/dlq"
/** Letters asked for at a time. */
const PAGE = 500
/** How often, and how long after each other, an instance whose log is full is asked again. */
const OVERLOAD_TIMES = 60

const START: LetterPlace = { partition: 0, offset: 0 }

const partitionFlag = Flag.Int("partition").pipe(Flag.withDescription("DLQ partition"), Flag.optional)
const offsetFlag = Flag.Int("offset").pipe(Flag.withDescription("DLQ offset in that partition"), Flag.optional)
const reasonFlag = Flag.String("reason").pipe(Flag.withDescription("only reasons that hold this text"), Flag.optional)

/** On the log that the settings name, or, where they name none or `--url` says so, on an instance. */
const onEither = <A, E, R>(
  url: Option.Option<string>,
  direct: Effect.Effect<A, E, R | TickLog>,
  through: (url: string) => Effect.Effect<A, FeedError>
) =>
  Effect.gen(function* () {
    const given = yield* settings
    if (given.KAFKA_BROKERS !== undefined && Option.isNone(url)) {
      return yield* Effect.scoped(Effect.provide(direct, log(given)))
    }
    return yield* byApiKey(through(yield* instanceUrl(url)))
  })

const Letters = Schema.Struct({
  letters: Schema.Array(Schema.Unknown),
  next_cursor: Schema.NullOr(Schema.String)
})
const Report = Schema.Struct({
  sent: Schema.Int,
  cut: Schema.Int,
  batches: Schema.Int,
  next_cursor: Schema.NullOr(Schema.String)
})

const ask = <A>(url: string, request: InstanceRequest, answer: Schema.Decoder<A>): Effect.Effect<A, FeedError> =>
  Effect.gen(function* () {
    for (let times = 0; ; times++) {
      const { status, body, retryAfter } = yield* askInstance(url, request)
      if (status === 429 && times < OVERLOAD_TIMES) {
        yield* Effect.sleep((retryAfter ?? 1) * 1000)
        continue
      }
      if (status !== 200) return yield* refusalOf(url, request, { status, body, retryAfter })
      const decoded = Schema.decodeUnknownResult(answer)(body)
      if (Result.isSuccess(decoded)) return decoded.success
      return yield* new FeedError({ message: `${request.method} ${url}${request.path} answered no letters` })
    }
  })

const list = Command.make(
  "list",
  {
    limit: Flag.Int("limit").pipe(Flag.withDescription("letters shown at most (default 100)"), Flag.withDefault(100)),
    reason: reasonFlag,
    url: urlFlag
  },
  Effect.fnUntraced(function* ({ limit, reason, url: asked }) {
    if (limit < 1) return yield* wrongUsage(`mdp dlq list: --limit: expected 1 or more, got ${limit}`)
    const wanted: Wanted = { reason: Option.getOrUndefined(reason) }
    const print = (letter: unknown) => {
      process.stdout.write(`${printable(JSON.stringify(letter))}\n`)
    }
    const direct = Effect.gen(function* () {
      const topic = yield* TickLog
      let left = limit
      let from: LetterPlace | undefined = START
      while (from !== undefined && left > 0) {
        const page: Effect.Success<ReturnType<typeof listLetters<object>>> = yield* listLetters(
          topic,
          wanted,
          { from, limit: Math.min(left, PAGE) },
          showLetter
        )
        for (const letter of page.letters) print(letter)
        left -= page.letters.length
        from = page.next
      }
    })
    const through = Effect.fnUntraced(function* (url: string) {
      let left = limit
      let cursor: string | null = ""
      while (cursor !== null && left > 0) {
        const query = new URLSearchParams({ limit: String(Math.min(left, PAGE)) })
        if (cursor !== "") query.set("cursor", cursor)
        if (wanted.reason !== undefined) query.set("reason", wanted.reason)
        const page: typeof Letters.Type = yield* ask(url, { method: "GET", path: `${PATH}?${query}` }, Letters)
        for (const letter of page.letters) print(letter)
        left -= page.letters.length
        cursor = page.next_cursor
      }
    })
    yield* onEither(asked, direct, through)
  })
).pipe(Command.withDescription("Dead letters as NDJSON: where each came from, why, and what it was"))

const add = (a: Resent, b: Resent): Resent => ({
  sent: a.sent + b.sent,
  cut: a.cut + b.cut,
  batches: a.batches + b.batches
})
const NOTHING: Resent = { sent: 0, cut: 0, batches: 0 }

const retryDirect = (wanted: Wanted) =>
  Effect.gen(function* () {
    const topic = yield* TickLog
    const { ends } = yield* dlqBounds(topic)
    let done = NOTHING
    let from: LetterPlace | undefined = START
    while (from !== undefined) {
      const piece: Effect.Success<ReturnType<typeof retryLetters<LogError>>> = yield* retryLetters(
        topic,
        wanted,
        { from, ends },
        (partition, records) => topic.append("raw_ticks", partition, records)
      )
      if (piece.stopped !== undefined) return yield* piece.stopped
      done = add(done, piece)
      from = piece.next
    }
    return done
  })

const retryThrough = (wanted: Wanted, all: boolean) =>
  Effect.fnUntraced(function* (url: string) {
    let done = NOTHING
    let cursor: string | null = ""
    while (cursor !== null) {
      const body = JSON.stringify({ ...(all ? { all } : {}), ...wanted, ...(cursor === "" ? {} : { cursor }) })
      const request = { method: "POST", path: `${PATH}/retry`, contentType: "application/json", body } as const
      const report: typeof Report.Type = yield* ask(url, request, Report)
      done = add(done, report)
      cursor = report.next_cursor
    }
    return done
  })

const retry = Command.make(
  "retry",
  {
    partition: partitionFlag,
    offset: offsetFlag,
    all: Flag.Boolean("all").pipe(
      Flag.withDescription("every dead letter that the log holds"),
      Flag.withDefault(false)
    ),
    reason: reasonFlag,
    url: urlFlag
  },
  Effect.fnUntraced(function* ({ partition, offset, all, reason, url }) {
    const isPlace = Option.isSome(partition) || Option.isSome(offset)
    if (all && isPlace) return yield* wrongUsage("mdp dlq retry: --all goes without --partition and --offset")
    if (!all && !isPlace && Option.isNone(reason)) {
      return yield* wrongUsage("mdp dlq retry: expected --all, --reason, or --partition with or without --offset")
    }
    if (Option.isSome(offset) && Option.isNone(partition)) {
      return yield* wrongUsage("mdp dlq retry: --offset needs --partition")
    }
    const wanted: Wanted = {
      ...(Option.isSome(reason) ? { reason: reason.value } : {}),
      ...(Option.isSome(partition) ? { partition: partition.value } : {}),
      ...(Option.isSome(offset) ? { offset: offset.value } : {})
    }
    const { sent, cut, batches } = yield* onEither(url, retryDirect(wanted), retryThrough(wanted, all))
    if (cut > 0) {
      say("warn", `${cut} kept: the DLQ has only their beginning, or a sink refused them after they were published`)
    }
    if (batches > 0) say("warn", `${batches} kept: batches of records that cannot be read`)
    if (sent + cut + batches === 0 && isPlace) {
      return yield* new StartError({ message: "mdp dlq retry: the DLQ holds no such letter (mdp dlq list)" })
    }
    tell(`${sent} sent again${sent === 0 ? "" : "; what is still wrong comes back to the DLQ"}`)
  })
).pipe(Command.withDescription("Send dead letters through the pipeline again"))

export const dlq = Command.make("dlq").pipe(
  Command.withDescription("What could not go on"),
  Command.withSubcommands([list, retry])
)
