/** Decides whether every route names instruments as of the day that it is asked for. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { parquetReadObjects } from "hyparquet"
import * as ParquetFiles from "../../src/layers/archive/ParquetFiles.ts"
import * as SymbolsLayer from "../../src/layers/instruments/Symbols.ts"
import type { Instrument } from "../../src/schema/Instrument.ts"
import { tradingDayStart } from "../../src/schema/Tick.ts"
import { toColumns } from "../../src/schema/TickColumns.ts"
import { dayOfDate } from "../../src/schema/Time.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import { makeTick, NO_QUOTES } from "../contract/ticks.ts"
import { instrumentOf } from "../support/instruments.ts"
import { accessBy, bearer, keysFile, makeKey } from "../support/keys.ts"
import { memoryStore, Rows, storedTick } from "./memoryStore.ts"
import { type Asked, ask, serve } from "./serving.ts"

const HOUR = 3_600_000_000
/** 10:00 IST of a date. */
const at = (date: string): number => tradingDayStart(dayOfDate(date)!) + 10 * HOUR

const HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"
const line = (token: number, symbol: string, expiry = "", exchange = "NFO") =>
  `${token},1,${symbol},X,0,${expiry},0,0.05,1,${expiry === "" ? "EQ" : "FUT"},${exchange},${exchange}`

interface Answer {
  readonly message: string
  readonly parameter: string
  readonly tradingsymbol: string
  readonly instruments: ReadonlyArray<Instrument & { readonly expired: boolean }>
  readonly ticks: ReadonlyArray<{ readonly instrument_token: number; readonly price: number }>
  readonly candles: ReadonlyArray<{ readonly open: number }>
}

const has = (answer: object, fields: object): void => assert.deepInclude(answer, fields)

const open = (rows: Rows, more: Omit<Parameters<typeof serve>[0], "store"> = {}) =>
  Effect.map(serve({ store: memoryStore(rows), ...more }), ({ port }) => {
    const get = (path: string, asked?: Asked) =>
      Effect.map(ask(port, path, asked), ({ json, status }) => ({ status, ...(json as Answer) }))
    const put = (file: string, asOf?: string) =>
      ask(port, `/api/v1/instruments${asOf === undefined ? "" : `?as_of=${asOf}`}`, {
        method: "POST",
        headers: { "content-type": "text/csv" },
        body: file
      })
    return { get, put, port }
  })

describe("a symbol", () => {
  const JULY = [HEADER, line(7, "NIFTY25JULFUT", "2025-07-31"), line(8, "OLDNAME", "", "NSE"), ""].join("\n")
  const AUGUST = [
    HEADER,
    line(7, "NIFTY26AUGFUT", "2026-08-25"),
    line(8, "NEWNAME", "", "NSE"),
    line(9, "OLDNAME", "", "NSE"),
    ""
  ].join("\n")

  /** A token's ticks of the two days, at 1 and 2 rupees. */
  const ticksOf = (token: number) => [
    storedTick({ instrument_token: token, exchange_ts: at("2025-07-10"), price: 1 }),
    storedTick({ instrument_token: token, exchange_ts: at("2026-08-03"), price: 2 })
  ]

  const opened = Effect.gen(function* () {
    const rows = new Rows()
    for (const token of [7, 8, 9]) rows.ticks.push(...ticksOf(token))
    const { get, put, port } = yield* open(rows)
    // The newer one first.
    assert.strictEqual((yield* put(AUGUST, "2026-08-01")).status, 200)
    assert.strictEqual((yield* put(JULY, "2025-07-01")).status, 200)
    const prices = (query: string) =>
      Effect.map(get(`/api/v1/historical/ticks?${query}`), (answer) =>
        answer.status === 200 ? answer.ticks.map(({ price }) => price) : `${answer.parameter}: ${answer.message}`
      )
    return { get, port, prices, put }
  })

  it.live("means what it meant on the days asked for, and only their ticks are its", () =>
    Effect.gen(function* () {
      const { get, prices } = yield* opened
      assert.deepStrictEqual(yield* prices("symbol=NFO:NIFTY25JULFUT&from=2025-07-10&to=2025-07-10"), [1])
      assert.deepStrictEqual(yield* prices("symbol=NFO:NIFTY25JULFUT"), [1])
      assert.deepStrictEqual(yield* prices("symbol=nifty26augfut"), [2])
      assert.deepStrictEqual(yield* prices("symbol=NIFTY26AUGFUT&from=2025-01-01&to=2026-12-31"), [2])
      assert.deepStrictEqual(yield* prices("instrument_token=7"), [1, 2])
      assert.deepStrictEqual(yield* prices("instrument_token=7&as_of=2025-07-10"), [1])
      const { candles } = yield* get("/api/v1/historical/candles?symbol=NIFTY25JULFUT&interval=1d")
      assert.deepStrictEqual(
        candles.map((bar) => bar.open),
        [1]
      )
      assert.strictEqual(
        yield* prices("symbol=NFO:NIFTY26AUGFUT&from=2025-07-10&to=2025-07-10"),
        'symbol: symbol: no instrument was "NFO:NIFTY26AUGFUT" on 2025-07-10: it is NFO:NIFTY26AUGFUT (7) from 2025-08-01'
      )
    }).pipe(Effect.scoped)
  )

  it.live("that was two tokens' over the range is refused with the days of each, unless a day says which", () =>
    Effect.gen(function* () {
      const { get, prices } = yield* opened
      assert.deepStrictEqual(yield* prices("symbol=NSE:OLDNAME&from=2025-07-10&to=2025-07-31"), [1])
      assert.strictEqual(
        yield* prices("symbol=NSE:OLDNAME"),
        'symbol: symbol: "NSE:OLDNAME" is not the same on all these days: NSE:OLDNAME (8) through 2026-07-31, NSE:OLDNAME (9) from 2026-08-01'
      )
      assert.deepStrictEqual(yield* prices("symbol=NSE:OLDNAME&as_of=2025-07-10"), [1])
      assert.deepStrictEqual(yield* prices("symbol=NSE:OLDNAME&as_of=2026-08-03"), [2])
      assert.deepStrictEqual(yield* prices("symbol=NSE:NEWNAME"), [2])
      has(yield* get("/api/v1/instruments/9"), { valid_from: "2026-08-01", valid_through: null })
    }).pipe(Effect.scoped)
  )

  it.live("that changed its token is one chart over the change", () =>
    Effect.gen(function* () {
      const { get } = yield* opened
      const history = (range: string) =>
        Effect.map(get(`/udf/history?symbol=NSE:OLDNAME&resolution=1D&${range}`), (answer) => ({
          ...(answer as object)
        }))
      const [july, august] = ["2025-07-10", "2026-08-03"].map((date) => Date.parse(`${date}T00:00:00Z`) / 1000)
      has(yield* history(`from=${july}&to=${august! + 86_400}`), { s: "ok", t: [july, august], c: [1, 2] })
      has(yield* history(`from=0&to=${august! + 86_400}&countback=1`), { s: "ok", t: [august], c: [2] })
      has(yield* history(`from=0&to=${august}&countback=5`), { s: "ok", t: [july], c: [1] })
    }).pipe(Effect.scoped)
  )

  it.live("is found as of a day; without one, contracts that are over are, and say so", () =>
    Effect.gen(function* () {
      const { get } = yield* opened
      const found = (query: string) =>
        Effect.map(get(`/api/v1/instruments/search?${query}`), ({ instruments }) =>
          instruments.map((one) => `${one.tradingsymbol} ${one.expired ? "expired" : "live"}`)
        )
      assert.deepStrictEqual(yield* found("query=nifty&as_of=2025-07-10"), ["NIFTY25JULFUT live"])
      assert.deepStrictEqual(yield* found("query=nifty&as_of=2026-08-03"), ["NIFTY26AUGFUT live"])
      assert.deepStrictEqual(yield* found("query=nifty25jul"), ["NIFTY25JULFUT expired"])
      assert.deepStrictEqual(yield* found("query=oldname"), ["OLDNAME live"])
      assert.deepStrictEqual(yield* found("query=newname&as_of=2025-07-10"), [])
      const one = yield* get("/api/v1/instruments/7?as_of=2025-07-10")
      has(one, {
        tradingsymbol: "NIFTY25JULFUT",
        expired: false,
        valid_from: null,
        valid_through: "2025-07-31"
      })
      has(yield* get("/api/v1/instruments/7"), {
        tradingsymbol: "NIFTY26AUGFUT",
        valid_from: "2025-08-01"
      })
      const udf = yield* get("/udf/symbols?symbol=NFO:NIFTY25JULFUT")
      has(udf, { ticker: "NFO:NIFTY25JULFUT", expired: true })
      const bars = yield* get("/udf/history?symbol=NFO:NIFTY25JULFUT&resolution=1D&from=0&to=1800000000&countback=10")
      has(bars, { s: "ok", c: [1] })
    }).pipe(Effect.scoped)
  )

  it.live("of a file that is of a day to come is refused", () =>
    Effect.gen(function* () {
      const { put } = yield* opened
      const answer = yield* put(JULY, "2099-01-01")
      assert.strictEqual(answer.status, 400)
      has(answer.json as object, { _tag: "BadRequest", parameter: "as_of" })
    }).pipe(Effect.scoped)
  )

  it.live("may be seen by a key on the days on which it means what the key is for", () =>
    Effect.gen(function* () {
      const key = makeKey("desk", { instruments: ["NFO:NIFTY25JULFUT"] })
      const rows = new Rows()
      rows.ticks.push(...ticksOf(7))
      rows.sightings.set(7, [
        { instrument: instrumentOf(7, "NIFTY25JULFUT", "NFO", { expiry: "2025-07-31" }), first: 20_270, last: 20_270 },
        { instrument: instrumentOf(7, "NIFTY26AUGFUT", "NFO", { expiry: "2026-08-25" }), first: 20_600, last: 20_600 }
      ])
      const file = yield* keysFile([key])
      const { get } = yield* open(rows, { access: accessBy(file.path) })
      const status = (path: string) => Effect.map(get(`/api/v1/${path}`, { headers: bearer(key) }), (a) => a.status)
      const statuses = (paths: ReadonlyArray<string>) => Effect.forEach(paths, status)
      assert.deepStrictEqual(
        yield* statuses([
          "historical/ticks?symbol=NFO:NIFTY25JULFUT",
          "historical/ticks?instrument_token=7&from=2025-07-01&to=2025-07-31",
          "historical/candles?instrument_token=7&interval=1d&as_of=2025-07-10",
          "instruments/7?as_of=2025-07-10"
        ]),
        [200, 200, 200, 200]
      )
      assert.deepStrictEqual(
        yield* statuses([
          "historical/ticks?symbol=NFO:NIFTY26AUGFUT",
          "historical/ticks?instrument_token=7",
          "historical/ticks?instrument_token=7&from=2026-08-01",
          "instruments/7",
          "quotes?tokens=7"
        ]),
        [403, 403, 403, 403, 403]
      )
    }).pipe(Effect.scoped)
  )
})

const FILES = [
  { day: "2025-07-10", of: "2025-07-01", name: "2025-07" },
  { day: "2026-08-03", of: "2026-08-01", name: "2026-08" }
].map((file) => ({ ...file, path: new URL(`../../../shared/data/instruments-${file.name}.csv`, import.meta.url) }))

describe.skipIf(!FILES.every(({ path }) => existsSync(path)))("two files of a broker a year apart", () => {
  const read = ({ path, ...file }: (typeof FILES)[number]) => {
    const text = readFileSync(path, "utf8")
    const symbols = new Map<number, string>()
    for (const row of text.split("\n").slice(1)) {
      const fields = row.trim().split(",")
      if (fields.length > 1) symbols.set(Number(fields[0]), `${fields.at(-1)}:${fields[2]}`)
    }
    return { ...file, text, symbols }
  }
  const [earlier, later] = [read(FILES[0]!), read(FILES[1]!)]
  const shared = [...earlier.symbols.keys()].filter((token) => later.symbols.has(token))

  const namesOf = ({ symbols }: typeof earlier) => shared.map((token) => symbols.get(token)!)

  /** One of all symbols of a day has a tick of each, and none of the other day's has any. */
  const namedInReplays = Effect.fnUntraced(function* (port: number) {
    for (const [file, other] of [
      [earlier, later],
      [later, earlier]
    ] as const) {
      const replay = (symbols: ReadonlyArray<string>) =>
        ask(port, "/api/v1/replays", {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ symbols, date: file.day, paused: true })
        })
      const { json } = yield* replay(namesOf(file))
      const { id, total } = json as { readonly id: string; readonly total: number }
      assert.strictEqual(total, shared.length)
      yield* ask(port, `/api/v1/replays/${id}`, { method: "DELETE" })
      assert.strictEqual((yield* replay(namesOf(other).slice(0, 1))).status, 404)
    }
  })

  /** The archive's objects of the ticks, as a tool reads them. */
  const namedInParquet = Effect.fnUntraced(function* (rows: Rows) {
    const made = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "names-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )
    const ticks = rows.ticks.map((tick, position) =>
      makeTick({ instrument_token: tick.instrument_token, exchange_ts: tick.exchange_ts, position })
    )
    const names = Layer.provide(SymbolsLayer.layer, memoryStore(rows))
    yield* Effect.flatMap(Archive, (archive) =>
      archive.write(
        { incarnation: "log-1", partition: 0, first: 0, last: ticks.length - 1 },
        toColumns(ticks),
        NO_QUOTES
      )
    ).pipe(Effect.provide(Layer.provide(Layer.orDie(ParquetFiles.layer(made)), names)))
    for (const { day, symbols } of [earlier, later]) {
      const bytes = new Uint8Array(
        readFileSync(join(made, "ticks", `date=${day}`, `log-1-0-0-${ticks.length - 1}.parquet`))
      )
      const file = { byteLength: bytes.length, slice: (from: number, to?: number) => bytes.slice(from, to).buffer }
      const read = yield* Effect.promise(() => parquetReadObjects({ file, columns: ["instrument_token", "symbol"] }))
      assert.strictEqual(read.length, shared.length)
      for (const { instrument_token: token, symbol } of read) assert.strictEqual(symbol, symbols.get(token))
    }
  })

  for (const [how, order] of [
    ["the earlier one first", [earlier, later]],
    ["the later one first", [later, earlier]],
    ["again and again", [later, earlier, later, earlier]]
  ] as const) {
    it.live(`name each of the tokens that both have by date, everywhere: ${how}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(shared.length, 150)
        const rows = new Rows()
        for (const token of shared) {
          for (const { day } of FILES) {
            rows.ticks.push(storedTick({ instrument_token: token, exchange_ts: at(day), price: dayOfDate(day)! }))
          }
        }
        const { get, port, put } = yield* open(rows)
        for (const { of, text } of order) assert.strictEqual((yield* put(text, of)).status, 200)
        yield* namedInReplays(port)
        yield* namedInParquet(rows)
        for (const token of shared) {
          for (const { day, symbols } of [earlier, later]) {
            const symbol = symbols.get(token)!
            const encoded = encodeURIComponent(symbol)
            const named = ({ exchange, tradingsymbol }: Instrument) => `${exchange}:${tradingsymbol}`
            const one = yield* get(`/api/v1/instruments/${token}?as_of=${day}`)
            assert.strictEqual(named(one as unknown as Instrument), symbol)
            const { instruments } = yield* get(`/api/v1/instruments/search?query=${encoded}&as_of=${day}&limit=1`)
            assert.deepStrictEqual(
              instruments.map((found) => [found.instrument_token, named(found)]),
              [[token, symbol]]
            )
            for (const range of [`&from=${day}&to=${day}`, "", `&as_of=${day}`]) {
              const { ticks } = yield* get(`/api/v1/historical/ticks?symbol=${encoded}${range}`)
              assert.deepStrictEqual(
                ticks.map((t) => [t.instrument_token, t.price]),
                [[token, dayOfDate(day)]]
              )
            }
            const { candles } = yield* get(`/api/v1/historical/candles?symbol=${encoded}&interval=1d`)
            assert.deepStrictEqual(
              candles.map((bar) => bar.open),
              [dayOfDate(day)]
            )
            const udf = yield* get(`/udf/history?symbol=${encoded}&resolution=1D&from=0&to=1900000000&countback=10`)
            has(udf, { c: [dayOfDate(day)] })
          }
        }
      }).pipe(Effect.scoped)
    )
  }
})
