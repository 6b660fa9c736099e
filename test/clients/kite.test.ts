/** Decides that the broker's own clients, unchanged, get from the gateway what the platform says, and stay with it. */
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { KITE_PYTHON } from "../../scripts/servers/install.ts"
import { openTicker } from "../http/kite/tickerClient.ts"
import { LONG_MS } from "../support/guards.ts"
import {
  getJson,
  type Instance,
  folder as newFolder,
  runToEnd,
  startInstance,
  untilDrained
} from "../support/processes.ts"
import { freePort, isInstalled } from "../support/services.ts"
import { type Client, client, type Language, languages, MANY, rootOf, type Said } from "./kiteClients.ts"
import { said, secondsOf } from "./kiteFields.ts"

const BOT = fileURLToPath(new URL("../../examples/python/kite_moving_average.py", import.meta.url))

/** The last minute of the day on which the bot trades: half an hour, or by `KITE_BOT_UNTIL=15:29` the whole of it. */
const BOT_UNTIL = process.env.KITE_BOT_UNTIL ?? "09:45"
/** The time of a day in India, in seconds. */
const secondsAt = (time: string): number => Date.parse(`2026-01-15T${time}:00+05:30`) / 1000

/** How long nothing comes but signs of life. */
const QUIET_MS = 60_000

/** Of its i-th tick. */
const priceOf = (i: number): number => Math.round((1500 + 10 * Math.sin(i / 25) + ((i * 7) % 11) / 10) * 20) / 20
const volumeOf = (i: number): number => 1 + (i % 7)

/** An instance that has a day of an instrument: a tick each five seconds from the open until a time. */
const dayOf = Effect.fnUntraced(function* (until: string) {
  const DATA_DIR = yield* newFolder
  const instance = yield* startInstance(["run", "--kite-port", "0"], { ...MANY, DATA_DIR, ARCHIVE_FLUSH_MS: "100" })
  const root = yield* rootOf(instance)
  const files = yield* newFolder
  const header =
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"
  writeFileSync(join(files, "i.csv"), `${header}\n408065,1594,INFY,INFOSYS,0,,0,0.05,1,EQ,NSE,NSE\n`)
  const open = secondsAt("09:15")
  const lines = Array.from({ length: (secondsAt(until) - open) / 5 + 1 }, (_, i) =>
    JSON.stringify({
      instrument_token: 408_065,
      exchange_ts: (open + i * 5) * 1_000_000,
      price: priceOf(i),
      volume: volumeOf(i)
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
  return { instance, root }
})

/** A replay of that day at 60 times its pace, paused, and how it is steered. */
const replayOf = Effect.fnUntraced(function* ({ url }: Instance) {
  const replays = `${url}/api/v1/replays`
  const send = (path: string, method: string, body: object) =>
    Effect.promise(async () => {
      const answer = await fetch(path, {
        method,
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body)
      })
      assert.isTrue(answer.ok, `${method} ${path}`)
      return (await answer.json()) as { readonly id: string }
    })
  const asked = { symbols: ["NSE:INFY"], date: "2026-01-15", speed: 60, paused: true }
  const { id } = yield* send(replays, "POST", asked)
  return {
    id,
    change: (body: object) => send(`${replays}/${id}`, "PATCH", body),
    state: Effect.map(getJson(`${replays}/${id}`), (replay) => replay as { readonly sent: number })
  }
})

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
          const full = kite.ticks.map((tick) => said(language, tick)).filter(({ mode }) => mode === "full")
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

  it.live("stay through a quiet minute, and come back by themselves to a server that was killed", () =>
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
      // By the signs of life themselves: the most impatient of them waits five seconds for one.
      const watching = yield* openTicker(Number(KITE_PORT))
      yield* watching.until(() => watching.beats.length > 1 && watching.beats.at(-1)! - watching.beats[0]! >= QUIET_MS)
      for (const { kite, language } of clients) {
        assert.strictEqual(kite.count("close") + kite.count("error") + kite.count("reconnect"), 0, language)
        assert.strictEqual(kite.count("connect"), 1, language)
      }
      first.mdp.kill("SIGKILL")
      yield* first.mdp.ended
      for (const { kite } of clients) yield* kite.until(() => kite.count("close") > 0 || kite.count("error") > 0)
      const before = clients.map(({ kite }) => kite.ticks.length)
      yield* startInstance(["demo", "--symbols", "2", "--rate", "200"], { ...MANY, KITE_PORT })
      for (const [i, { kite, language }] of clients.entries()) {
        yield* kite.until(
          () =>
            kite.ticks.slice(before[i]).filter((tick) => said(language, tick).mode === "full").length > 20 || undefined
        )
      }
    }).pipe(Effect.scoped)
  )

  it.live("wait with a replay that is paused, and go on with it", () =>
    Effect.gen(function* () {
      const { instance, root } = yield* dayOf("09:45")
      const { change, id, state } = yield* replayOf(instance)
      const key = `replay:${id}`
      const watching = yield* openTicker(Number(new URL(root).port), `?api_key=${key}&access_token=any`)
      const clients: Array<{ readonly language: Language; readonly kite: Client }> = []
      for (const language of languages) {
        const kite = yield* client(language, { root, key })
        yield* kite.get({ do: "listen", tokens: [408_065], mode: "full" })
        yield* kite.until(() => kite.count("connect") === 1)
        clients.push({ language, kite })
      }
      const newest = (language: Language, kite: Client): number => {
        const last = kite.ticks.at(-1)
        return last === undefined ? 0 : (said(language, last).at as number)
      }
      yield* change({ state: "running" })
      for (const { kite, language } of clients) yield* kite.until(() => newest(language, kite) > secondsAt("09:16"))
      yield* change({ state: "paused" })
      const { sent } = yield* state
      const reached = secondsAt("09:15") + (sent - 1) * 5
      for (const { kite, language } of clients) yield* kite.until(() => newest(language, kite) === reached)
      // Twice as long as the most impatient of them waits.
      const beats = watching.beats.length
      yield* watching.until(() => watching.beats.length > beats + 5)
      for (const { kite, language } of clients) {
        assert.strictEqual(newest(language, kite), reached, language)
        assert.strictEqual(kite.count("close") + kite.count("error") + kite.count("reconnect"), 0, language)
        // Who asks is told of where the replay stands.
        const { "NSE:INFY": quote } = yield* kite.get<Record<string, Said>>({ do: "quote", i: ["NSE:INFY"] })
        assert.strictEqual(secondsOf(language, quote!.timestamp), reached, language)
      }
      yield* change({ state: "running" })
      for (const { kite, language } of clients) {
        yield* kite.until(() => newest(language, kite) > reached + 60)
        // Nothing was left out on the way, and nothing told twice.
        const stamps = kite.ticks.map((tick) => said(language, tick).at as number)
        const all = Array.from({ length: (stamps.at(-1)! - stamps[0]!) / 5 + 1 }, (_, i) => stamps[0]! + i * 5)
        assert.deepStrictEqual(stamps, all, language)
        assert.strictEqual(kite.count("connect"), 1, language)
      }
    }).pipe(Effect.scoped)
  )

  it.live("follow a replay that is sought, forwards and back: the day so far is that of where it stands", () =>
    Effect.gen(function* () {
      const { instance, root } = yield* dayOf("09:45")
      const { change, id } = yield* replayOf(instance)
      const clients: Array<{ readonly language: Language; readonly kite: Client }> = []
      for (const language of languages) {
        const kite = yield* client(language, { root, key: `replay:${id}` })
        yield* kite.get({ do: "listen", tokens: [408_065], mode: "full" })
        yield* kite.until(() => kite.count("connect") === 1)
        clients.push({ language, kite })
      }
      const newest = (language: Language, kite: Client, since: number) => {
        const [last] = kite.ticks.slice(since).slice(-1)
        return last === undefined ? undefined : said(language, last)
      }
      yield* change({ state: "running" })
      for (const { kite, language } of clients) {
        yield* kite.until(() => (newest(language, kite, 0)?.at as number) > secondsAt("09:17"))
      }
      yield* change({ state: "paused" })
      for (const time of ["09:30", "09:16", "09:40"]) {
        const before = clients.map(({ kite }) => kite.ticks.length)
        yield* change({ seek: `${time}:02` })
        const day = Array.from({ length: (secondsAt(time) - secondsAt("09:15")) / 5 + 1 }, (_, i) => i)
        const prices = day.map(priceOf)
        const ohlc = {
          open: prices[0],
          high: Math.max(...prices),
          low: Math.min(...prices),
          // The day before has no bar.
          close: 0
        }
        const volume = day.reduce((sum, i) => sum + volumeOf(i), 0)
        for (const [i, { kite, language }] of clients.entries()) {
          // What was under way comes before what is found of where it stands.
          const tick = yield* kite.until(() => {
            const found = newest(language, kite, before[i]!)
            return found?.volume === volume && found
          })
          assert.strictEqual(tick.last, prices.at(-1), `${language} ${time}`)
          assert.deepStrictEqual(tick.ohlc, ohlc, `${language} ${time}`)
          const { "NSE:INFY": quote } = yield* kite.get<Record<string, Said>>({ do: "quote", i: ["NSE:INFY"] })
          assert.strictEqual(quote!.volume, volume, `${language} ${time}`)
          assert.strictEqual(quote!.last_price, prices.at(-1), `${language} ${time}`)
        }
        // And goes on from there, each tick once.
        yield* change({ state: "running" })
        for (const [i, { kite, language }] of clients.entries()) {
          const told = yield* kite.until(() => {
            const stamps = kite.ticks.slice(before[i]!).map((one) => said(language, one).at as number)
            const from = stamps.indexOf(secondsAt(time) + 5)
            return from >= 0 && stamps.length > from + 10 && stamps.slice(from, from + 10)
          })
          assert.deepStrictEqual(
            told,
            Array.from({ length: 10 }, (_, n) => secondsAt(time) + 5 * (n + 1)),
            `${language} ${time}`
          )
        }
        yield* change({ state: "paused" })
      }
      for (const { kite, language } of clients) assert.strictEqual(kite.count("connect"), 1, language)
    }).pipe(Effect.scoped)
  )

  it.live(
    `trade a day replayed at 60 times its pace till ${BOT_UNTIL}, twice with the same fills`,
    () =>
      Effect.gen(function* () {
        const { root } = yield* dayOf(BOT_UNTIL)
        const trade = Effect.callback<string>((resume) => {
          const child = spawn(KITE_PYTHON, [BOT, "NSE", "INFY", BOT_UNTIL], {
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
        const second = yield* trade
        assert.strictEqual(second, first)
      }).pipe(Effect.scoped),
    { timeout: LONG_MS + 2 * (secondsAt(BOT_UNTIL) - secondsAt("09:15")) * (1000 / 60) }
  )
})
