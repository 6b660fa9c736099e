/** Decides that the broker's own clients, unchanged, get from the gateway what the platform says, and stay with it. */
import { type ChildProcess, spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { KITE_GO, KITE_MODULES, KITE_PYTHON } from "../../scripts/servers/install.ts"
import { openTicker } from "../http/kite/tickerClient.ts"
import { LONG_MS } from "../support/guards.ts"
import { keysFile, makeKey } from "../support/keys.ts"
import {
  getJson,
  type Instance,
  folder as newFolder,
  runToEnd,
  startInstance,
  untilDrained
} from "../support/processes.ts"
import { freePort, isInstalled } from "../support/services.ts"

const folder = fileURLToPath(new URL("kite/", import.meta.url))
const BOT = fileURLToPath(new URL("../../examples/python/kite_moving_average.py", import.meta.url))
const commands = {
  python: [KITE_PYTHON, "client.py"],
  javascript: [process.execPath, "client.js"],
  go: [KITE_GO]
} as const
type Language = keyof typeof commands
const languages = Object.keys(commands) as ReadonlyArray<Language>

type Said = Readonly<Record<string, unknown>>
interface Asked extends Said {
  readonly do: string
}

/** One client, and what it has said. */
class Client {
  readonly events: Array<Said> = []
  private readonly child: ChildProcess
  private readonly answers: Array<(said: Said) => void> = []
  private readonly waiting = new Set<() => void>()
  private complaints = ""

  constructor(child: ChildProcess) {
    this.child = child
    createInterface({ input: child.stdout! }).on("line", (line) => {
      if (!line.startsWith("{")) return
      const said = JSON.parse(line) as Said
      if ("event" in said) this.events.push(said)
      else this.answers.shift()?.(said)
      for (const look of this.waiting) look()
    })
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.complaints += text
    })
    child.on("close", (code) => {
      for (const answer of this.answers.splice(0)) answer({ failed: `ended with ${code}`, message: this.complaints })
    })
  }

  ask(asked: Asked): Effect.Effect<Said> {
    return Effect.callback((resume) => {
      this.answers.push((said) => resume(Effect.succeed(said)))
      this.child.stdin!.write(`${JSON.stringify(asked)}\n`)
    })
  }

  /** What it answers where nothing fails. */
  get<A>(asked: Asked): Effect.Effect<A> {
    return Effect.map(this.ask(asked), ({ failed, message, result }) => {
      if (failed !== undefined) throw new Error(`${asked.do}: ${String(failed)}: ${String(message)}`)
      return result as A
    })
  }

  until<A>(find: () => A | undefined | false): Effect.Effect<A> {
    return Effect.callback((resume) => {
      const look = () => {
        const found = find()
        if (found === undefined || found === false) return
        this.waiting.delete(look)
        resume(Effect.succeed(found))
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }

  count(event: string): number {
    return this.events.filter((one) => one.event === event).length
  }

  get ticks(): ReadonlyArray<Said> {
    return this.events.filter(({ event }) => event === "ticks").flatMap(({ ticks }) => ticks as ReadonlyArray<Said>)
  }
}

interface Pair {
  readonly root: string
  readonly key?: string
  readonly token?: string
}

const client = (
  language: Language,
  { root, key = language, token = "token" }: Pair
): Effect.Effect<Client, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [command, ...args] = commands[language]
      return spawn(command!, args, {
        cwd: `${folder}${language}`,
        env: {
          PATH: process.env.PATH ?? "",
          // Clients take the naive times of Kite for those of where they run.
          TZ: "Asia/Kolkata",
          KITE_ROOT: root,
          KITE_KEY: key,
          KITE_TOKEN: token,
          KITE_MODULES
        },
        stdio: ["pipe", "pipe", "pipe"]
      })
    }),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  ).pipe(Effect.map((child) => new Client(child)))

const MANY = { KITE_QUOTE_RATE: "1000", KITE_HISTORICAL_RATE: "1000", KITE_REQUEST_RATE: "1000" }

const rootOf = ({ mdp }: Instance): Effect.Effect<string, Error> =>
  mdp.until(() => /Kite gateway listening on (http:\/\/\S+?:\d+)/.exec(mdp.stdout)?.[1], "the gateway's address")

/** Of the fields that the platform has, as each language's tick calls them. */
const tickOf = (language: Language, tick: Said) => {
  if (language !== "go") {
    const { average_traded_price, instrument_token, last_price, last_traded_quantity, mode, ohlc, volume_traded } = tick
    return {
      token: instrument_token,
      mode,
      last: last_price,
      quantity: last_traded_quantity,
      average: average_traded_price,
      volume: volume_traded,
      ohlc
    }
  }
  const { Open, High, Low, Close } = tick.OHLC as Record<string, number>
  const ohlc = tick.OHLC as Record<string, number>
  return {
    token: tick.InstrumentToken,
    mode: tick.Mode,
    last: tick.LastPrice,
    quantity: tick.LastTradedQuantity,
    average: tick.AverageTradePrice,
    volume: tick.VolumeTraded,
    ohlc: {
      open: Open ?? ohlc.open,
      high: High ?? ohlc.high,
      low: Low ?? ohlc.low,
      close: Close ?? ohlc.close
    }
  }
}

/** Open, high, low, close and volume of a candle, and its start in seconds. */
const candleOf = (candle: Said) => {
  const { close, date, high, low, open, volume } = candle
  return [Date.parse(String(date)) / 1000, open, high, low, close, volume]
}

interface Bar {
  readonly ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
}

const joinedBars = (bars: ReadonlyArray<Bar>, minutes: number): ReadonlyArray<ReadonlyArray<number>> => {
  const width = minutes * 60_000_000
  // Bars are counted from 09:15 in India: 2000-01-03.
  const start = (ts: number) => ts - ((((ts - 946_871_100_000_000) % width) + width) % width)
  const made: Array<Bar> = []
  for (const bar of bars) {
    const last = made.at(-1)
    if (last === undefined || last.ts !== start(bar.ts)) made.push({ ...bar, ts: start(bar.ts) })
    else {
      made[made.length - 1] = {
        ...last,
        high: Math.max(last.high, bar.high),
        low: Math.min(last.low, bar.low),
        close: bar.close,
        volume: last.volume + bar.volume
      }
    }
  }
  return made.map(({ ts, open, high, low, close, volume }) => [ts / 1_000_000, open, high, low, close, volume])
}

const inIndia = (micros: number): string =>
  new Date(micros / 1000 + 19_800_000).toISOString().slice(0, 19).replace("T", " ")

// Long: the platform and the clients are real processes.
describe.skipIf(!isInstalled("kite"))("Kite's own clients, unchanged,", { timeout: LONG_MS }, () => {
  it.live("hand their users what the platform says: instruments, quotes, candles of every interval, and ticks", () =>
    Effect.gen(function* () {
      const instance = yield* startInstance(
        ["demo", "--symbols", "3", "--rate", "300", "--duration", "8s", "--kite-port", "0"],
        MANY
      )
      const root = yield* rootOf(instance)
      yield* instance.mdp.until(
        () => /reached|ticks meant|sent/.test(instance.mdp.stdout) || undefined,
        "the market's end"
      )
      yield* untilDrained(instance.url)
      const known = (yield* getJson(`${instance.url}/api/v1/instruments/search?query=&exchange=SIM`)) as {
        instruments: ReadonlyArray<Said>
      }
      const tokens = known.instruments.map(({ instrument_token }) => instrument_token as number)
      assert.strictEqual(tokens.length, 3)
      const { quotes } = (yield* getJson(`${instance.url}/api/v1/quotes?tokens=${tokens.join()}`)) as {
        quotes: ReadonlyArray<{
          instrument_token: number
          last: Said
          high: number
          low: number
          volume: number
          open: number
        }>
      }
      const names = known.instruments.map(({ tradingsymbol }) => `SIM:${String(tradingsymbol)}`)
      const day = quotes[0]!.last.exchange_ts as number
      const [start, end] = [`${inIndia(day).slice(0, 10)} 00:00:00`, `${inIndia(day).slice(0, 10)} 23:59:59`]
      const midnight = Date.parse(`${inIndia(day).slice(0, 10)}T00:00:00+05:30`) * 1000
      const bars = function* (interval: string) {
        const range = `from=${midnight}&to=${midnight + 86_400_000_000}&interval=${interval}`
        const url = `${instance.url}/api/v1/historical/candles?instrument_token=${tokens[0]}&${range}`
        return ((yield* getJson(url)) as { candles: ReadonlyArray<Bar> }).candles
      }
      const minutes = yield* bars("1m")
      const daily = yield* bars("1d")

      for (const language of languages) {
        const kite = yield* client(language, { root })
        const instruments = yield* kite.get<ReadonlyArray<Said>>({ do: "instruments" })
        const ofSim = yield* kite.get<ReadonlyArray<Said>>({ do: "instruments", exchange: "SIM" })
        assert.strictEqual(instruments.length, ofSim.length, language)
        assert.deepStrictEqual(
          ofSim.map((one) => String(one.tradingsymbol ?? one.Tradingsymbol)).sort(),
          known.instruments.map(({ tradingsymbol }) => tradingsymbol).sort(),
          language
        )
        const whole = yield* kite.get<Record<string, Said>>({ do: "quote", i: names })
        const last = yield* kite.get<Record<string, Said>>({ do: "ltp", i: names })
        const ohlc = yield* kite.get<Record<string, Said>>({ do: "ohlc", i: names })
        assert.deepStrictEqual(Object.keys(whole).sort(), [...names].sort())
        yield* kite.get({ do: "listen", tokens, mode: "full" })
        const ticks = yield* kite.until(() => {
          const full = kite.ticks.map((tick) => tickOf(language, tick)).filter(({ mode }) => mode === "full")
          return new Set(full.map(({ token }) => token)).size === 3 && full
        })
        for (const [i, quote] of quotes.entries()) {
          const name = names[i]!
          const { price } = quote.last as { price: number }
          assert.containsSubset(whole[name], { instrument_token: quote.instrument_token, last_price: price })
          assert.strictEqual(last[name]!.last_price, price)
          const made = whole[name]!.ohlc as Record<string, number>
          assert.deepStrictEqual(ohlc[name]!.ohlc, made)
          assert.isAtMost(made.open!, made.high!)
          assert.isAtLeast(made.high!, quote.high)
          assert.isAtMost(made.low!, quote.low)
          assert.isAtLeast(whole[name]!.volume as number, quote.volume)
          // What the ticker says at rest is what REST does.
          const tick = ticks.find(({ token }) => token === quote.instrument_token)!
          assert.strictEqual(tick.last, price, language)
          assert.strictEqual(tick.volume, whole[name]!.volume)
          assert.strictEqual(tick.quantity, whole[name]!.last_quantity)
          assert.strictEqual(tick.average, whole[name]!.average_price)
          assert.deepStrictEqual(tick.ohlc, made, language)
        }
        for (const [interval, width] of Object.entries({
          minute: 1,
          "3minute": 3,
          "5minute": 5,
          "10minute": 10,
          "15minute": 15,
          "30minute": 30,
          "60minute": 60
        })) {
          const asked = { do: "historical", token: tokens[0]!, start, end, interval, oi: false }
          const candles = yield* kite.get<ReadonlyArray<Said>>(asked)
          assert.deepStrictEqual(candles.map(candleOf), joinedBars(minutes, width) as never, `${language} ${interval}`)
        }
        const asked = { do: "historical", token: tokens[0]!, start, end, interval: "day", oi: true }
        const [candle] = yield* kite.get<ReadonlyArray<Said>>(asked)
        assert.deepStrictEqual(candleOf(candle!), [
          midnight / 1_000_000,
          daily[0]!.open,
          daily[0]!.high,
          daily[0]!.low,
          daily[0]!.close,
          daily[0]!.volume
        ])
        // JavaScript's leaves out an open interest of 0.
        if (language !== "javascript") assert.strictEqual(candle!.oi, 0, language)
      }
    }).pipe(Effect.scoped)
  )

  it.live("get each failure by its class, and stand in for an account", () =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const reads = makeKey("reads", { scopes: ["read"] })
      const { path } = yield* keysFile([desk, reads])
      const instance = yield* startInstance(["demo", "--symbols", "2", "--rate", "50", "--kite-port", "0"], {
        ...MANY,
        API_KEYS_FILE: path,
        KITE_QUOTE_RATE: "20"
      })
      const root = yield* rootOf(instance)
      for (const language of languages) {
        const kite = yield* client(language, { root, token: desk.text })
        const failed = (asked: Asked, by = kite) => Effect.map(by.ask(asked), ({ failed }) => failed)
        const profile = yield* kite.get<Said>({ do: "profile" })
        assert.strictEqual(profile.broker ?? profile.Broker, "ZERODHA")
        yield* kite.get({ do: "margins" })
        assert.deepStrictEqual(yield* kite.get({ do: "orders" }), [])
        yield* kite.get({ do: "positions" })
        const session = yield* kite.get<Said>({ do: "session", request_token: desk.text })
        assert.strictEqual(session.access_token ?? session.AccessToken, desk.text)
        assert.strictEqual(yield* failed({ do: "order" }), "InputException")
        const candles = { do: "historical", start: "2026-01-16 00:00:00", end: "2026-01-16 12:00:00", oi: false }
        assert.strictEqual(yield* failed({ ...candles, token: 1, interval: "minute" }), "InputException")
        assert.strictEqual(yield* failed({ ...candles, token: 9_000_001, interval: "2minute" }), "InputException")
        assert.strictEqual(yield* failed({ do: "session", request_token: "guess" }), "TokenException")
        const other = yield* client(language, { root, key: "replay:abc", token: reads.text })
        assert.strictEqual(yield* failed({ do: "ltp", i: ["SIM:RELIANCE"] }, other), "PermissionException")
        let answer: unknown
        while (answer !== "NetworkException") answer = yield* failed({ do: "ltp", i: ["SIM:RELIANCE"] })
        yield* kite.get({ do: "logout" })
        yield* kite.ask({ do: "as", token: "wrong" })
        assert.strictEqual(yield* failed({ do: "profile" }), "TokenException")
        if (language !== "go") yield* kite.until(() => kite.count("session_expired") >= 1)
      }
    }).pipe(Effect.scoped)
  )

  it.live("stay through a quiet spell, and come back by themselves to a server that was killed", () =>
    Effect.gen(function* () {
      const KITE_PORT = String(yield* Effect.promise(() => freePort()))
      // A market that is over at once: nothing comes but signs of life.
      const quiet = ["demo", "--symbols", "2", "--rate", "50", "--duration", "1s"]
      const first = yield* startInstance(quiet, { ...MANY, KITE_PORT })
      const root = yield* rootOf(first)
      const clients: Array<{ readonly language: Language; readonly kite: Client }> = []
      for (const language of languages) {
        const kite = yield* client(language, { root })
        yield* kite.get({ do: "listen", tokens: [9_000_001, 9_000_002], mode: "full" })
        yield* kite.until(() => kite.count("connect") === 1)
        clients.push({ language, kite })
      }
      // Twice as long as the most impatient of them waits, by the signs of life themselves.
      const watching = yield* openTicker(Number(KITE_PORT))
      yield* watching.until(() => watching.beats.length > 5)
      for (const { kite, language } of clients) {
        assert.strictEqual(kite.count("close") + kite.count("error") + kite.count("reconnect"), 0, language)
      }
      first.mdp.kill("SIGKILL")
      yield* first.mdp.ended
      for (const { kite } of clients) yield* kite.until(() => kite.count("close") > 0 || kite.count("error") > 0)
      const before = clients.map(({ kite }) => kite.ticks.length)
      yield* startInstance(["demo", "--symbols", "2", "--rate", "200"], { ...MANY, KITE_PORT })
      for (const [i, { kite, language }] of clients.entries()) {
        yield* kite.until(
          () =>
            kite.ticks.slice(before[i]).filter((tick) => tickOf(language, tick).mode === "full").length > 20 ||
            undefined
        )
      }
    }).pipe(Effect.scoped)
  )

  it.live("trade a replayed morning at 60 times its pace, twice with the same fills", () =>
    Effect.gen(function* () {
      const DATA_DIR = yield* newFolder
      const instance = yield* startInstance(["run", "--kite-port", "0"], { DATA_DIR, ARCHIVE_FLUSH_MS: "100" })
      const root = yield* rootOf(instance)
      const files = yield* newFolder
      const header =
        "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"
      writeFileSync(join(files, "i.csv"), `${header}\n408065,1594,INFY,INFOSYS,0,,0,0.05,1,EQ,NSE,NSE\n`)
      const open = Date.parse("2026-01-15T09:15:00+05:30") * 1000
      const lines = Array.from({ length: 361 }, (_, i) =>
        JSON.stringify({
          instrument_token: 408_065,
          exchange_ts: open + i * 5_000_000,
          price: Math.round((1500 + 10 * Math.sin(i / 25) + ((i * 7) % 11) / 10) * 20) / 20,
          volume: 1 + (i % 7)
        })
      )
      writeFileSync(join(files, "t.ndjson"), `${lines.join("\n")}\n`)
      for (const args of [
        ["instruments", "import", join(files, "i.csv"), "--url", instance.url],
        ["feed", "file", join(files, "t.ndjson"), "--url", instance.url]
      ]) {
        const ended = yield* runToEnd(args)
        assert.strictEqual(ended.code, 0, ended.stderr)
      }
      yield* untilDrained(instance.url)
      const trade = Effect.callback<string>((resume) => {
        const child = spawn(KITE_PYTHON, [BOT, "NSE", "INFY", "09:45"], {
          env: {
            PATH: process.env.PATH ?? "",
            TZ: "Asia/Kolkata",
            KITE_API_KEY: "replay:2026-01-15@60",
            KITE_ACCESS_TOKEN: "any",
            KITE_ROOT: root
          },
          stdio: ["ignore", "pipe", "inherit"]
        })
        let said = ""
        child.stdout.setEncoding("utf8").on("data", (text: string) => {
          said += text
        })
        child.on("close", () => resume(Effect.succeed(said)))
        return Effect.sync(() => child.kill("SIGKILL"))
      })
      const first = yield* trade
      assert.isAtLeast(first.split("\n").filter((line) => /^(BUY|SELL)/.test(line)).length, 2, first)
      assert.match(first, /profit -?\d+\.\d\d/)
      assert.strictEqual(yield* trade, first)
    }).pipe(Effect.scoped)
  )
})
