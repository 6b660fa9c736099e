/** Decides the command `mdp replay`: a stored day started on a running instance, followed to its end, stopped with it. */
import { Effect, Option, Result, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { askInstance, type InstanceRequest, refusalOf } from "../layers/feeds/Instance.ts"
import { FeedError } from "../schema/Errors.ts"
import { IST_OFFSET_MICROS } from "../schema/Tick.ts"
import { Replay, ReplayRequest, Speed } from "../streams/replay/Replays.ts"
import { wrongUsage } from "./cli.ts"
import { byApiKey, instanceUrl, urlFlag } from "./feed.ts"
import { overwrite, tell } from "./lines.ts"

const PATH = "/api/v1/replays"
const POLL = "250 millis"
/** How long a stop may take once the command is interrupted. */
const STOP_DEADLINE = "5 seconds"

const decodeReplay = Schema.decodeUnknownResult(Replay)

const speedOf = (text: string): Speed => {
  const speed = Schema.decodeUnknownResult(Speed)(text === "inf" ? text : text.trim() === "" ? undefined : Number(text))
  if (Result.isFailure(speed)) throw new Error()
  return speed.success
}

const checked = (field: "date" | "from" | "to", expected: string) => (text: string) => {
  if (Result.isFailure(Schema.decodeUnknownResult(ReplayRequest.fields[field])(text))) throw new Error(expected)
  return text
}
const because = (error: unknown): string => `Expected ${(error as Error).message}`

/** Symbols may have commas between them, and blanks around. */
const listOf = (text: string): ReadonlyArray<string> => {
  const symbols = text.split(",").map((symbol) => symbol.trim())
  if (symbols.some((symbol) => symbol === "")) throw new Error("symbols separated by commas, such as NSE:INFY,NSE:TCS")
  return symbols
}

const flags = {
  symbols: Flag.String("symbols").pipe(
    Flag.withMetavar("A,B"),
    Flag.withDescription("instruments, EXCHANGE:TRADINGSYMBOL or the bare symbol, separated by commas"),
    Flag.mapTryCatch(listOf, because),
    Flag.optional
  ),
  all: Flag.Boolean("all").pipe(
    Flag.withDescription("every instrument that has ticks of that day"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  date: Flag.String("date").pipe(
    Flag.withMetavar("YYYY-MM-DD"),
    Flag.withDescription("the trading day (IST)"),
    Flag.mapTryCatch(checked("date", "a date such as 2026-01-15"), because)
  ),
  speed: Flag.String("speed").pipe(
    Flag.withMetavar("1|10|inf"),
    Flag.withDescription("times the market's own pace; inf: as fast as it goes (default 1)"),
    Flag.mapTryCatch(speedOf, () => "Expected a number above 0, or inf"),
    Flag.withDefault(1 as Speed)
  ),
  from: Flag.String("from").pipe(
    Flag.withMetavar("HH:MM"),
    Flag.withDescription("start of the part to replay, IST (default: the whole day)"),
    Flag.mapTryCatch(checked("from", "a time of day such as 09:15"), because),
    Flag.optional
  ),
  to: Flag.String("to").pipe(
    Flag.withMetavar("HH:MM"),
    Flag.withDescription("end of the part to replay, IST"),
    Flag.mapTryCatch(checked("to", "a time of day such as 15:30"), because),
    Flag.optional
  ),
  source: Flag.Literals("source", ["store", "archive"]).pipe(
    Flag.withDescription("where the ticks are read (default: the store, and what it has dropped in the archive)"),
    Flag.optional
  ),
  url: urlFlag
}

const timeOfDay = (micros: number): string =>
  `${new Date((micros + IST_OFFSET_MICROS) / 1000).toISOString().slice(11, 19)} IST`

const progressOf = ({ sent, total, clock, state }: Replay): string =>
  `${sent} of ${total} ticks (${total === 0 ? 100 : Math.floor((100 * sent) / total)} %)` +
  `${clock === null ? "" : `, ${timeOfDay(clock)}`}${state === "paused" ? ", paused" : ""}`

/** Asks for one replay, and reads the answer. */
const ask = (url: string, request: InstanceRequest, status: number): Effect.Effect<Replay, FeedError> =>
  Effect.flatMap(askInstance(url, request), (answer) => {
    if (answer.status !== status) return Effect.fail(refusalOf(url, request, answer))
    const decoded = decodeReplay(answer.body)
    return Result.isSuccess(decoded)
      ? Effect.succeed(decoded.success)
      : Effect.fail(new FeedError({ message: `${request.method} ${url}${request.path} answered no replay` }))
  })

export const replay = Command.make(
  "replay",
  flags,
  Effect.fnUntraced(function* ({ symbols, all, date, speed, from, to, source, url: asked }) {
    if (Option.isSome(symbols) === all) return yield* wrongUsage("expected --symbols or --all, one of them")
    const url = yield* instanceUrl(asked)
    const request: ReplayRequest = {
      ...(Option.isSome(symbols) ? { symbols: symbols.value } : { all: true }),
      date,
      speed,
      ...(Option.isSome(from) ? { from: from.value } : {}),
      ...(Option.isSome(to) ? { to: to.value } : {}),
      ...(Option.isSome(source) ? { source: source.value } : {}),
      // This command is its listener: it ends the replay itself.
      detached: true
    }
    const start = {
      method: "POST",
      path: PATH,
      contentType: "application/json",
      body: JSON.stringify(request)
    } as const
    let last: Replay | undefined
    const isOver = () => last?.state === "ended" || last?.state === "failed"
    yield* Effect.acquireUseRelease(
      ask(url, start, 201),
      Effect.fnUntraced(function* (started) {
        last = started
        tell(`replay ${started.id}: ${started.total} ticks of ${date}`)
        while (!isOver()) {
          overwrite(progressOf(last))
          yield* Effect.sleep(POLL)
          last = yield* ask(url, { method: "GET", path: `${PATH}/${started.id}` }, 200)
        }
      }),
      (started) =>
        Effect.suspend(() => {
          overwrite("")
          if (isOver()) return Effect.void
          return askInstance(url, { method: "DELETE", path: `${PATH}/${started.id}` }).pipe(
            Effect.interruptible,
            Effect.timeoutOption(STOP_DEADLINE),
            Effect.ignore,
            Effect.andThen(Effect.sync(() => tell(`stopped: ${progressOf(last ?? started)}`)))
          )
        })
    )
    if (last?.state === "failed") {
      return yield* new FeedError({
        message: `replay ${last.id} failed: ${last.failure?.message ?? "no reason given"}`
      })
    }
    if (last !== undefined) tell(`ended: ${progressOf(last)}`)
  }, byApiKey)
).pipe(Command.withDescription("Replay a stored day on a running instance, and follow it"))
