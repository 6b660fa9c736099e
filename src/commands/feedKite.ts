/** Decides the command `mdp feed kite`: its flags, where its instruments and secrets come from, and what it says while it runs. */
import { readFile } from "node:fs/promises"
import { Effect, Option, Redacted } from "effect"
import { type Command, Flag } from "effect/cli"
import { isLoopbackHost } from "../http/listen.ts"
import { CONNECTION_TIMES } from "../layers/kite/connection.ts"
import {
  type Asked,
  chooseInstruments,
  exchangesOf,
  listedIn,
  readAsked,
  readInstruments,
  type WhereOf
} from "../layers/kite/instruments.ts"
import * as KiteFeed from "../layers/kite/KiteFeed.ts"
import { getText } from "../layers/kite/rest.ts"
import { makeSecrets, type Secrets, type TokenSource } from "../layers/kite/secrets.ts"
import { FeedError, SettingError } from "../schema/Errors.ts"
import type { Instrument } from "../schema/Instrument.ts"
import { KITE_MODES } from "../schema/kite/packets.ts"
import { printable } from "../schema/printable.ts"
import type { Settings } from "../schema/Settings.ts"
import { wrongUsage, wrongValue } from "./cli.ts"
import { overwrite, say, tell } from "./lines.ts"

const ROOT = "https://api.kite.trade"
const WS_ROOT = "wss://ws.kite.trade"

const listFlag = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.withDescription(description),
    Flag.map((text) =>
      text
        .split(",")
        .map((part) => part.trim())
        .filter((part) => part !== "")
    ),
    Flag.withDefault([] as Array<string>)
  )

export const kiteFlags = {
  symbols: listFlag("symbols", "NAMES", "instruments, such as NSE:INFY,NSE:NIFTY 50 or tokens, comma-separated"),
  file: Flag.String("file").pipe(
    Flag.withDescription("list of instruments, a name or token a line; what follows # is a remark"),
    Flag.optional
  ),
  exchange: listFlag("exchange", "NAMES", "every instrument of these exchanges, such as NSE,NFO"),
  instruments: Flag.String("instruments").pipe(
    Flag.withDescription(
      "where names are looked up: broker (its instruments file, fetched), platform (a running instance, asked by --url), or a file that was fetched before (default broker)"
    ),
    Flag.withDefault("broker")
  ),
  mode: Flag.Literals("mode", KITE_MODES).pipe(
    Flag.withDescription(
      "what each packet says: full; quote, without book, open interest and times; ltp, the price alone (default full)"
    ),
    Flag.withDefault("full" as const)
  ),
  onExpiry: Flag.Literals("on-expiry", ["wait", "exit"]).pipe(
    Flag.withDescription(
      "once the access token is refused: wait for a new one in KITE_ACCESS_TOKEN_FILE, or exit with 1 (default wait, without that file exit)"
    ),
    Flag.withDefault("wait" as const)
  ),
  root: Flag.String("root").pipe(Flag.withDescription(`Kite's REST root (default ${ROOT})`), Flag.withDefault(ROOT)),
  wsRoot: Flag.String("ws-root").pipe(
    Flag.withDescription(`Kite's WebSocket root (default ${WS_ROOT})`),
    Flag.withDefault(WS_ROOT)
  ),
  insecureRoots: Flag.Boolean("insecure-roots").pipe(
    Flag.withDescription("let key and token go unencrypted to roots on other machines"),
    Flag.withDefault(false)
  )
}
type KiteFlags = Command.Command.Config.Infer<typeof kiteFlags>

/** A root as it is asked; key and token go to no other machine in the clear unless that is wanted. */
const rootOf = (flag: string, text: string, scheme: "http" | "ws", insecure: boolean) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const expected = `an address such as ${scheme === "ws" ? WS_ROOT : ROOT}`
  if (url === undefined || (url.protocol !== `${scheme}:` && url.protocol !== `${scheme}s:`) || url.search !== "") {
    return Effect.fail(wrongValue("flag", flag, text, expected))
  }
  if (url.protocol === `${scheme}:` && !isLoopbackHost(url.hostname) && !insecure) {
    const why = `${scheme}s://, since key and token would be read on the way; ${scheme}:// only to this machine, or with --insecure-roots`
    return Effect.fail(wrongValue("flag", flag, text, why))
  }
  return Effect.succeed(text.replace(/\/+$/, ""))
}

const secretsOf = (given: Settings, { onExpiry }: KiteFlags): Effect.Effect<Secrets, SettingError> => {
  const refuse = (setting: string, message: string) =>
    Effect.fail(new SettingError({ setting, message: `${setting}: ${message}` }))
  const { KITE_ACCESS_TOKEN: token, KITE_ACCESS_TOKEN_FILE: file, KITE_API_KEY: apiKey } = given
  if (apiKey === undefined) return refuse("KITE_API_KEY", "required: the key of your application at Kite Connect")
  if (token !== undefined && file !== undefined) {
    return refuse("KITE_ACCESS_TOKEN_FILE", "expected without KITE_ACCESS_TOKEN, got both")
  }
  if (token === undefined && file === undefined) {
    return refuse(
      "KITE_ACCESS_TOKEN_FILE",
      "required, or KITE_ACCESS_TOKEN: the access token that logging in to Kite Connect gives each day"
    )
  }
  const source: TokenSource =
    file === undefined ? { token: Redacted.make(token!, { label: "KITE_ACCESS_TOKEN" }) } : { file }
  return Effect.succeed(
    makeSecrets({
      apiKey: Redacted.make(apiKey, { label: "KITE_API_KEY" }),
      source,
      waits: onExpiry === "wait",
      onRefused: (what) => say("warn", printable(what))
    })
  )
}

const readText = (flag: string, path: string): Effect.Effect<string, FeedError> =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (cause) =>
      new FeedError({ message: `--${flag}: cannot read ${path} (${(cause as NodeJS.ErrnoException).code})` })
  })

/** Tokens named in one line. */
const MAX_NAMED = 10

/** Names of a list are told from those of the command line, in any case. */
const whereOf = ({ file, symbols }: KiteFlags): WhereOf => {
  const given = new Set(symbols.map((name) => name.toUpperCase()))
  return (name) => (Option.isNone(file) || given.has(name.toUpperCase()) ? "--symbols" : `--file ${file.value}`)
}

const askedOf = (flags: KiteFlags) =>
  Effect.gen(function* () {
    const listed = Option.isSome(flags.file) ? listedIn(yield* readText("file", flags.file.value)) : []
    const names = [...flags.symbols, ...listed]
    if (names.length === 0 && flags.exchange.length === 0) {
      return yield* wrongUsage("--symbols, --file or --exchange: expected an instrument at least")
    }
    const asked = readAsked(
      names,
      flags.exchange.map((name) => name.toUpperCase()),
      whereOf(flags)
    )
    return typeof asked === "string" ? yield* wrongUsage(asked) : asked
  })

/** The broker's instruments of what is asked for, from its own file or one that was kept: none where tokens say it all. */
const brokersOf = (
  asked: Asked,
  flags: KiteFlags,
  root: string,
  secrets: Secrets
): Effect.Effect<ReadonlyArray<Instrument>, FeedError> =>
  Effect.gen(function* () {
    const known: Array<Instrument> = []
    const take = (text: string, where: string) => {
      const read = readInstruments(text)
      if (typeof read === "string") return Effect.fail(new FeedError({ message: `${where}: ${read}` }))
      if (read.rejected > 0) say("warn", `${where}: ${read.rejected} lines are no instrument, and passed over`)
      for (const one of read.instruments) known.push(one)
      return Effect.void
    }
    const exchanges = exchangesOf(asked)
    if (exchanges.length === 0) return known
    if (flags.instruments !== "broker") {
      yield* take(yield* readText("instruments", flags.instruments), flags.instruments)
      return known
    }
    for (const exchange of exchanges) {
      const path = `/instruments/${exchange}`
      yield* take(yield* getText(root, path, secrets), `${root}${path}`)
    }
    return known
  })

/** The same with its names as the tokens that the platform knows them by. */
const asPlatformKnows = (asked: Asked, flags: KiteFlags, { tokenOf }: KiteRun) =>
  Effect.gen(function* () {
    if (asked.exchanges.length > 0) {
      return yield* wrongUsage(
        "--exchange: a whole exchange is the broker's to list, expected without --instruments platform"
      )
    }
    const tokens = [...asked.tokens]
    for (const symbol of asked.symbols) {
      const token = yield* tokenOf(symbol)
      if (typeof token === "string") return yield* wrongUsage(`${whereOf(flags)(symbol)}: ${symbol}: ${token}`)
      tokens.push(token)
    }
    return { tokens, symbols: [], exchanges: [] } satisfies Asked
  })

export interface KiteRun {
  /** Registers what the broker says of the instruments that are fed. */
  readonly register: (instruments: ReadonlyArray<Instrument>) => Effect.Effect<void, FeedError>
  /** The token that the platform knows a symbol by, or why there is none. */
  readonly tokenOf: (symbol: string) => Effect.Effect<number | string, FeedError>
}

/** Feeds until it is stopped; into whatever sink there is. */
export const feedKite = (given: Settings, flags: KiteFlags, run: KiteRun) =>
  Effect.gen(function* () {
    const root = yield* rootOf("root", flags.root, "http", flags.insecureRoots)
    const wsRoot = yield* rootOf("ws-root", flags.wsRoot, "ws", flags.insecureRoots)
    const secrets = yield* secretsOf(given, flags)
    const named = yield* askedOf(flags)
    const asked = flags.instruments === "platform" ? yield* asPlatformKnows(named, flags, run) : named
    const brokers = yield* brokersOf(asked, flags, root, secrets)
    const chosen = chooseInstruments(asked, brokers, whereOf(flags))
    if (typeof chosen === "string") return yield* wrongUsage(chosen)
    const listed = new Set(chosen.known.map(({ instrument_token }) => instrument_token))
    const unlisted = chosen.tokens.filter((token) => !listed.has(token))
    if (brokers.length > 0 && unlisted.length > 0) {
      const more = unlisted.length > MAX_NAMED ? ` and ${unlisted.length - MAX_NAMED} more` : ""
      const tokens = `${unlisted.slice(0, MAX_NAMED).join(", ")}${more}`
      say("warn", `no instrument of ${exchangesOf(asked).join(", ")} has token ${tokens}: asked for all the same`)
    }
    if (chosen.known.length > 0) yield* run.register(chosen.known)
    if (flags.mode !== "full") {
      say(
        "warn",
        `packets of mode ${flags.mode} have no time: their ticks are stamped with the second in which they came, and a second feed beside this one may double some`
      )
    }
    return yield* KiteFeed.run({
      wsRoot,
      root,
      secrets,
      tokens: chosen.tokens,
      mode: flags.mode,
      maxAheadMs: given.MAX_FUTURE_SKEW_MS,
      times: CONNECTION_TIMES,
      onSay: (level, text) => say(level, printable(text)),
      progress: (summary, isFinal) => {
        if (isFinal) {
          overwrite("")
          tell(KiteFeed.describeSummary(summary))
        } else {
          overwrite(
            `${summary.up} of ${summary.connections} connections, ${summary.instruments} instruments; ` +
              `${summary.packets.ticks} ticks, ${summary.packets.quotes} quotes, ${summary.waiting} waiting`
          )
        }
      }
    })
  })
