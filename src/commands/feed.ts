/** Decides the commands `mdp feed sim`, `mdp feed file` and `mdp feed kite`: their flags, and what they say while they run. */
import { Effect, Layer, Option, Redacted, Result, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as FileFeed from "../layers/feeds/FileFeed.ts"
import { checkRowOptions } from "../layers/feeds/fileFields.ts"
import { InstanceKey, type Patience, patiently, refusalOf } from "../layers/feeds/Instance.ts"
import { tickSizeOf, tokenOf } from "../layers/feeds/instrumentAnswers.ts"
import { describeRefused, type HttpSinkOptions, layerHttp, layerLog, type Refused } from "../layers/feeds/RawSink.ts"
import * as Simulator from "../layers/feeds/Simulator.ts"
import { FeedError, SettingError } from "../schema/Errors.ts"
import { explain } from "../schema/Explain.ts"
import type { Instrument } from "../schema/Instrument.ts"
import { KEY_CHARS, keyIdOf } from "../schema/keyText.ts"
import { instrumentsCsv } from "../schema/kite/instrumentsCsv.ts"
import { printable } from "../schema/printable.ts"
import { readSettings, type Settings } from "../schema/Settings.ts"
import { defaultSimulation, Simulation, simulatedInstruments, simulatedInstrumentsCsv } from "../schema/Simulation.ts"
import { tradingDay } from "../schema/Tick.ts"
import { TickStore } from "../streams/ports/TickStore.ts"
import { wrongUsage, wrongValue } from "./cli.ts"
import { parseDuration } from "./durations.ts"
import { fileExamples, fileFlags, rowOptionsOf, showPreview } from "./feedFile.ts"
import { feedKite, kiteFlags } from "./feedKite.ts"
import { isWatched, overwrite, say, tell } from "./lines.ts"
import { log, settings, store } from "./services.ts"
import { faultsOf, SERVED_PORT, servedFlags, serveSimulated } from "./simKite.ts"

const durationFlag = (name: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("duration"),
    Flag.mapTryCatch(
      (text) => {
        const ms = parseDuration(text)
        if (ms === undefined) throw new Error()
        return ms
      },
      () => "Expected a number with its unit: us, ms, s, m, h or d, such as 60s"
    )
  )

const described =
  (description: string, fallback?: string | number) =>
  <A>(self: Flag.Flag<A>): Flag.Flag<A> =>
    Flag.withDescription(self, fallback === undefined ? description : `${description} (default ${fallback})`)

export const urlFlag = Flag.String("url").pipe(
  described("running instance to speak to", "http://127.0.0.1:$PORT"),
  Flag.mapTryCatch(
    (text) => {
      const url = new URL(text)
      if (url.protocol !== "http:" && url.protocol !== "https:") throw new Error()
      return text.replace(/\/+$/, "")
    },
    () => "Expected an address such as http://127.0.0.1:8080"
  ),
  Flag.optional
)

/** The instance that `--url` names, or the one on this host's PORT. */
export const instanceUrl = (url: Option.Option<string>) =>
  Option.isSome(url)
    ? Effect.succeed(url.value)
    : Effect.map(
        Effect.fromResult(readSettings(process.env)),
        (settings) => `http://127.0.0.1:${settings.PORT === 0 ? 8080 : settings.PORT}`
      )

/** Speaks to an instance by the key that API_KEY is, where it is set. The key itself is in no message. */
export const byApiKey = <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E | SettingError, R> =>
  Effect.flatMap(settings, ({ API_KEY: key }): Effect.Effect<A, E | SettingError, R> => {
    if (key === undefined) return command
    if (keyIdOf(key) !== undefined) {
      return Effect.provideService(command, InstanceKey, Redacted.make(key, { label: "API_KEY" }))
    }
    const message = `API_KEY: expected a key as mdp keys add prints it, mdp_ and ${KEY_CHARS - 4} characters, got another text`
    return Effect.fail(new SettingError({ setting: "API_KEY", message }))
  })

/** The simulator's flags, for every command that can play a market. */
export const simulationFlags = {
  symbols: Flag.Int("symbols").pipe(
    described("instruments", defaultSimulation.symbols),
    Flag.withDefault(defaultSimulation.symbols)
  ),
  rate: Flag.Finite("rate").pipe(
    described("mean ticks a second, all instruments together", defaultSimulation.rate),
    Flag.withDefault(defaultSimulation.rate)
  ),
  duration: durationFlag("duration").pipe(
    described("how long to run, such as 60s (default: until stopped)"),
    Flag.optional
  ),
  loss: Flag.Finite("loss").pipe(
    described("share of each feed's packets that are lost", defaultSimulation.loss),
    Flag.withDefault(defaultSimulation.loss)
  ),
  duplicate: Flag.Finite("duplicate").pipe(
    described("share of the DMA feed's packets that come twice", defaultSimulation.duplicate),
    Flag.withDefault(defaultSimulation.duplicate)
  ),
  reorder: Flag.Finite("reorder").pipe(
    described("share of the DMA feed's packets that later ones overtake", defaultSimulation.reorder),
    Flag.withDefault(defaultSimulation.reorder)
  ),
  delay: durationFlag("delay").pipe(
    described("how much later the snapshot feed sends", `${defaultSimulation.delayMs}ms`),
    Flag.withDefault(defaultSimulation.delayMs)
  ),
  snapshotInterval: durationFlag("snapshot-interval").pipe(
    described("how often the snapshot feed sends what is new", `${defaultSimulation.snapshotIntervalMs}ms`),
    Flag.withDefault(defaultSimulation.snapshotIntervalMs)
  ),
  snapshotSequence: Flag.Literals("snapshot-sequence", ["exchange", "none"]).pipe(
    described("whether the snapshot feed carries the exchange's numbers", defaultSimulation.snapshotSequence),
    Flag.withDefault(defaultSimulation.snapshotSequence)
  ),
  seed: Flag.Int("seed").pipe(
    described("the same seed plays the same market", defaultSimulation.seed),
    Flag.withDefault(defaultSimulation.seed)
  ),
  ledger: Flag.String("ledger").pipe(
    described(
      "file to write every meant tick to, NDJSON, with the feeds that it reached and the quote that the snapshot feed has beside it; of --serve, every packet that was sent, and whether its client had read it"
    ),
    Flag.optional
  )
}

export type SimulationFlags = Command.Command.Config.Infer<typeof simulationFlags>

const flagOf: Readonly<Record<string, string>> = {
  durationMs: "duration",
  delayMs: "delay",
  snapshotIntervalMs: "snapshot-interval",
  snapshotSequence: "snapshot-sequence"
}

/** The simulation that the flags ask for; a value out of bounds names its flag and ends the command with 2. */
export const simulationOf = (flags: SimulationFlags) => {
  const asked = {
    symbols: flags.symbols,
    rate: flags.rate,
    durationMs: Option.getOrUndefined(flags.duration),
    loss: flags.loss,
    duplicate: flags.duplicate,
    reorder: flags.reorder,
    delayMs: flags.delay,
    snapshotIntervalMs: flags.snapshotInterval,
    snapshotSequence: flags.snapshotSequence,
    seed: flags.seed,
    ledger: Option.getOrUndefined(flags.ledger)
  }
  const decoded = Schema.decodeUnknownResult(Simulation)(asked)
  if (Result.isSuccess(decoded)) return Effect.succeed(decoded.success)
  const { path, message } = explain(decoded.failure.issue, asked)
  if (path === "") {
    const { duplicate, loss, reorder } = asked
    return Effect.fail(
      wrongUsage(`--loss ${loss}, --duplicate ${duplicate} and --reorder ${reorder}: expected at most 1 together`)
    )
  }
  const value = String(asked[path as keyof typeof asked])
  const expected = message.slice(path.length + 2, message.lastIndexOf(", got ")).replace(/^expected /, "")
  const unit = path.endsWith("Ms") ? " milliseconds" : ""
  return Effect.fail(wrongValue("flag", flagOf[path] ?? path, value, expected + unit))
}

/** Straight into Kafka where KAFKA_BROKERS names it and no instance is asked for by `--url`; else over REST. */
const isOnKafka = (given: Settings, asked: Option.Option<string>): boolean =>
  Option.isNone(asked) && given.KAFKA_BROKERS !== undefined

const DEFAULT_RETRY_MS = 60_000
const retryFlag = durationFlag("retry").pipe(
  described("how long an instance that goes away or is full is waited for, 0s: not at all", "60s"),
  Flag.withDefault(DEFAULT_RETRY_MS)
)

/** Says who is waited for: in the line of progress on a terminal, else once for each time that it goes away. */
const patienceOf = (url: string, limitMs: number): Patience => ({
  limitMs,
  onWait: ({ isFull, leftMs, nth, reason }) => {
    const text = `waiting for ${url}: ${printable(reason)}, ${Math.ceil(leftMs / 1000)} s more at most`
    if (isWatched()) overwrite(text)
    else if (nth === 1 && !isFull) say("warn", text)
  }
})

/** Says to the platform what instruments a feed has: to its database where that is named and no instance is, else over REST. */
const register = (
  given: Settings,
  asked: Option.Option<string>,
  url: string,
  patience: Patience,
  instruments: ReadonlyArray<Instrument>,
  csv: string
) =>
  Effect.gen(function* () {
    if (Option.isNone(asked) && given.DATABASE_URL !== undefined) {
      yield* Effect.flatMap(TickStore, (db) => db.putInstruments(instruments)).pipe(
        Effect.provide(store(given, undefined))
      )
      return
    }
    const request = { method: "POST", path: "/api/v1/instruments", contentType: "text/csv", body: csv } as const
    const answer = yield* patiently(url, patience)(request)
    if (answer.status !== 200) return yield* refusalOf(url, request, answer)
  })

const sim = Command.make(
  "sim",
  { ...simulationFlags, ...servedFlags, url: urlFlag, retry: retryFlag },
  Effect.fnUntraced(function* ({ url: asked, retry, serve, port, fault, ...flags }) {
    const simulation = yield* simulationOf(flags)
    const faults = yield* faultsOf({ serve, port, fault })
    if (Option.isSome(serve))
      return yield* serveSimulated(
        simulation,
        Option.getOrElse(port, () => SERVED_PORT),
        faults
      )
    const given = yield* settings
    const url = yield* instanceUrl(asked)
    const patience = patienceOf(url, retry)
    const { symbols } = simulation
    yield* register(given, asked, url, patience, simulatedInstruments(symbols), simulatedInstrumentsCsv(symbols))
    yield* Simulator.run({
      ...simulation,
      progress: (summary, isFinal) => {
        if (isFinal) {
          overwrite("")
          tell(Simulator.describeSummary(summary))
        } else {
          overwrite(
            `${summary.ticks} ticks, ${Math.round(summary.rate)}/s; dma ${summary.dmaSent}, snapshot ${summary.snapshotSent} with quotes`
          )
        }
      }
    }).pipe(
      Effect.provide(isOnKafka(given, asked) ? Layer.provide(layerLog, log(given)) : layerHttp(url, { patience }))
    )
  }, byApiKey)
).pipe(Command.withDescription("Play a market with a DMA and a snapshot feed, made up from a seed"))

/** Skipped rows that are named; the rest are counted. */
const MAX_NAMED_ROWS = 20

const file = Command.make(
  "file",
  { ...fileFlags, url: urlFlag, retry: retryFlag },
  Effect.fnUntraced(function* ({ url: asked, retry, ...flags }) {
    const rows = rowOptionsOf(flags)
    const wrong = checkRowOptions(rows)
    if (wrong !== undefined) return yield* wrongUsage(`--map, --set: ${wrong}`)
    if (flags.dryRun) return yield* showPreview({ ...rows, file: flags.file, onError: flags.onError })
    const given = yield* settings
    const url = yield* instanceUrl(asked)
    const onKafka = isOnKafka(given, asked)
    const patience = patienceOf(url, retry)
    let refused: Refused | undefined
    const overHttp: HttpSinkOptions = {
      patience,
      ...(flags.onError === "fail"
        ? {}
        : {
            onRefused: ({ reason, ticks }) => {
              refused = { ticks: ticks + (refused?.ticks ?? 0), reason: refused?.reason ?? reason }
            }
          })
    }
    const context = yield* Effect.context<never>()
    const asks = patiently(url, patience)
    const ask = (path: string) => asks({ method: "GET", path })
    const answered = <A>(answer: Effect.Effect<A, FeedError>) => Effect.runPromiseWith(context)(answer)
    let named = 0
    yield* FileFeed.run({
      ...rows,
      file: flags.file,
      onError: flags.onError,
      instruments: {
        token: (symbol, day) => answered(tokenOf(symbol, day, flags.tokens, ask)),
        // Into Kafka without an instance nobody may be there to ask.
        ...(onKafka ? {} : { tickSize: (token: number, day: number) => answered(tickSizeOf(token, day, ask)) })
      },
      onSkip: (reason) => {
        named += 1
        if (named <= MAX_NAMED_ROWS) say("warn", `skipped ${printable(reason)}`)
        if (named === MAX_NAMED_ROWS) say("warn", "further rows are skipped and counted without a line")
      },
      onSeen: (what) => say("info", printable(what)),
      refused: () => refused?.ticks ?? 0,
      ...(onKafka ? { maxAheadMs: given.MAX_FUTURE_SKEW_MS } : {}),
      progress: (p, isFinal) => {
        const share =
          p.totalBytes === undefined ? "" : `, ${((100 * p.bytes) / Math.max(1, p.totalBytes)).toFixed(0)} %`
        const quotes = p.quotes === 0 ? "" : `, quotes ${p.quotes}`
        const text = `rows read ${p.rows}, sent ${p.sent}${quotes}, skipped ${p.skipped}`
        if (isFinal) {
          overwrite("")
          if (refused !== undefined) say("warn", printable(describeRefused(refused)))
          if (p.reasons.size > 0 && flags.onError === "skip")
            say("warn", printable(`skipped: ${FileFeed.describeReasons(p.reasons)}`))
          tell(text)
        } else {
          overwrite(`${p.isChecking ? `rows looked at ${p.rows}` : text}${share}`)
        }
      }
    }).pipe(Effect.provide(onKafka ? Layer.provide(layerLog, log(given)) : layerHttp(url, overHttp)))
  }, byApiKey)
).pipe(
  Command.withDescription(
    "Feed a file of ticks, quotes or bars: CSV, or what else separates columns, or NDJSON; also gzipped or zipped"
  ),
  Command.withExamples(fileExamples)
)

const kite = Command.make(
  "kite",
  { ...kiteFlags, url: urlFlag, retry: retryFlag },
  Effect.fnUntraced(function* ({ url: asked, retry, ...flags }) {
    const given = yield* settings
    const url = yield* instanceUrl(asked)
    const patience = patienceOf(url, retry)
    const asks = patiently(url, patience)
    let refused = 0
    const overHttp: HttpSinkOptions = {
      patience,
      onRefused: (what) => {
        // A clock that is off refuses them one by one.
        if (refused === 0) say("warn", printable(describeRefused(what)))
        refused += what.ticks
      }
    }
    yield* feedKite(given, flags, {
      register: (instruments) =>
        register(given, asked, url, patience, instruments, instrumentsCsv(instruments)).pipe(
          Effect.catch((error) => Effect.fail(new FeedError({ message: error.message })))
        ),
      tokenOf: (symbol) =>
        Effect.map(
          tokenOf(symbol, tradingDay(Date.now() * 1000), new Map(), (path) => asks({ method: "GET", path })),
          ({ is }) => is
        )
    }).pipe(
      Effect.provide(isOnKafka(given, asked) ? Layer.provide(layerLog, log(given)) : layerHttp(url, overHttp)),
      Effect.onExit(() =>
        Effect.sync(() => {
          if (refused > 0) say("warn", `${refused} records were rejected in all`)
        })
      )
    )
  }, byApiKey)
).pipe(
  Command.withDescription(
    "Feed what Kite Connect's ticker says, ticks and quotes, from your own account. A lost connection is back within 10 s of the server's return; one that sends nothing is given up after 5 s, one that sends no ticks while instruments trade after 60 s"
  )
)

/** `mdp feed`. */
export const feed = Command.make("feed").pipe(
  Command.withDescription("Feed ticks into a running instance"),
  Command.withSubcommands([sim, file, kite])
)
