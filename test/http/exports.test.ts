import { gunzipSync, zstdDecompressSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { StoredTick } from "../../src/streams/ports/TickStore.ts"
import { compareGlobally } from "../../src/streams/replay/reorderByWatermark.ts"
import { makeQuote } from "../contract/ticks.ts"
import { type Row, rowsOfArrow, rowsOfParquet } from "../support/columns.ts"
import { instrumentOf } from "../support/instruments.ts"
import { accessBy, bearer, keysFile, makeKey } from "../support/keys.ts"
import { memoryStore, OPEN, Rows, storedTick } from "./memoryStore.ts"
import { rawClient } from "./rawClient.ts"
import { type Answer, type Asked, ask, type Serving, serve } from "./serving.ts"

const BASE = "/api/v1/historical"
const DATE = "2026-01-16"
const MINUTE = 60_000_000
const TOKENS = [408065, 738561, 779521]
const NAMES = ["INFY", "RELIANCE", "SBIN"]

/** A day of three instruments: stamps that several share, numbers that are none, rows that a replay added. */
const day = (): Rows => {
  const rows = new Rows()
  for (const [i, token] of TOKENS.entries()) {
    rows.instruments.set(token, instrumentOf(token, NAMES[i]!))
    for (let n = 0; n < 1500 + 400 * i; n++) {
      const isReplayed = n % 7 === 3
      rows.ticks.push(
        storedTick({
          instrument_token: token,
          exchange_ts: OPEN + Math.floor(n / 3) * 1_000_000,
          price: 100 * (i + 1) + (n % 40) / 20,
          volume: n % 50,
          sequence_id: n % 5 === 4 ? -(n + 1) : n + 1,
          sequencing: n % 5 === 4 ? "none" : "contiguous",
          status: n % 11 === 0 ? "STALE" : "LIVE",
          feed: n % 3 === 0 ? "dma" : 'odd "feed", ☂',
          epoch: isReplayed ? null : 20_469_000_033_300,
          position: isReplayed ? null : n + 1,
          received_ts: OPEN + n
        })
      )
    }
  }
  // Of one of them open interest is known: of some minutes, of a minute without ticks, and lastly none.
  for (const [minute, oi] of [
    [0, 5000],
    [0.5, 5025],
    [3, 0],
    [20, 4975],
    [70, undefined]
  ] as const) {
    rows.quotes.push(makeQuote({ instrument_token: TOKENS[1]!, exchange_ts: OPEN + minute * MINUTE, oi }))
  }
  // Of another day, and of an instrument that nobody asks for by name.
  rows.ticks.push(storedTick({ instrument_token: TOKENS[0]!, exchange_ts: OPEN - 86_400_000_000, sequence_id: 9 }))
  return rows
}

const ofDay = (rows: Rows, tokens: ReadonlyArray<number> = TOKENS): ReadonlyArray<StoredTick> =>
  rows.ticks.filter((t) => tokens.includes(t.instrument_token) && t.exchange_ts >= OPEN).toSorted(compareGlobally)

const FORMATS = ["json", "ndjson", "csv", "arrow", "parquet"] as const

const csvCell = (text: string): unknown => {
  if (text === "") return null
  if (text === "true" || text === "false") return text === "true"
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text
}

/** Cells of a line, of which some are quoted. */
const cellsOf = (line: string): ReadonlyArray<string> =>
  [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)]
    .map(([, cell]) => (cell!.startsWith('"') ? cell!.slice(1, -1).replaceAll('""', '"') : cell!))
    .slice(0, line.split(",").length)

const rowsOf = (answer: Answer, format: (typeof FORMATS)[number]): Effect.Effect<ReadonlyArray<Row>> =>
  Effect.promise(async () => {
    switch (format) {
      case "json": {
        const { ticks, candles } = answer.json as Readonly<Record<string, ReadonlyArray<Row> | undefined>>
        return (ticks ?? candles)!
      }
      case "ndjson":
        return answer.text
          .split("\n")
          .filter((line) => line !== "")
          .map((line) => JSON.parse(line) as Row)
      case "csv": {
        const [head, ...lines] = answer.text.trimEnd().split("\n")
        const names = head!.split(",")
        return lines.map((line) => {
          const cells = cellsOf(line)
          return Object.fromEntries(names.map((name, i) => [name, csvCell(cells[i]!)]))
        })
      }
      case "arrow":
        return rowsOfArrow(answer.bytes)
      case "parquet":
        return rowsOfParquet(answer.bytes)
    }
  })

const open = (rows: Rows = day(), more: Partial<Serving> = {}, change: Parameters<typeof memoryStore>[1] = {}) =>
  serve({ store: memoryStore(rows, change), ...more })

const get = (port: number, path: string, asked: Asked = {}) =>
  Effect.tap(ask(port, `${BASE}/${path}`, asked), ({ status, text }) =>
    Effect.sync(() => assert.strictEqual(status, 200, text.slice(0, 300)))
  )

describe("an export of ticks", () => {
  it.live("has the same rows in every format, those of several instruments in the order of a replay", () =>
    Effect.gen(function* () {
      const rows = day()
      const { port } = yield* open(rows)
      for (const [selection, tokens] of [
        [`all=true&date=${DATE}`, TOKENS],
        [`symbols=NSE:SBIN,infy&date=${DATE}`, [TOKENS[0]!, TOKENS[2]!]],
        [`tokens=${TOKENS[1]},${TOKENS[1]}&date=${DATE}`, [TOKENS[1]!]],
        [`symbol=SBIN&date=${DATE}`, [TOKENS[2]!]]
      ] as const) {
        const expected = ofDay(rows, tokens)
        for (const format of FORMATS) {
          // A page of one instrument holds no more than it may.
          const limit = format === "json" && selection.startsWith("symbol=") ? "&limit=10000" : ""
          const answer = yield* get(port, `ticks?${selection}&format=${format}${limit}`)
          assert.deepStrictEqual(yield* rowsOf(answer, format), expected, `${selection} ${format}`)
        }
      }
    }).pipe(Effect.scoped)
  )

  it.live("is in the form that `format` names, else in the first that `Accept` does", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const path = `ticks?symbol=SBIN&date=${DATE}`
      for (const [query, accept, type] of [
        ["", "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"],
        ["", "application/vnd.apache.parquet, text/csv", "application/vnd.apache.parquet"],
        ["", "text/html, text/csv;q=0.5", "text/csv; charset=utf-8"],
        ["", "*/*", "application/json"],
        ["&format=ndjson", "text/csv", "application/x-ndjson"],
        ["&format=json", "text/csv", "application/json"]
      ] as const) {
        const answer = yield* get(port, `${path}${query}`, { headers: { accept } })
        assert.strictEqual(answer.headers["content-type"], type, `${query} ${accept}`)
        assert.strictEqual(answer.headers.vary, "accept, accept-encoding")
      }
      const head = yield* get(port, `${path}&format=parquet`, { method: "HEAD" })
      assert.strictEqual(head.headers["content-type"], "application/vnd.apache.parquet")
      assert.strictEqual(head.bytes.length, 0)
    }).pipe(Effect.scoped)
  )

  it.live("takes the first rows that `limit` says, and the part of the day between `from` and `to`", () =>
    Effect.gen(function* () {
      const rows = day()
      const { port } = yield* open(rows)
      const all = ofDay(rows)
      for (const format of ["ndjson", "csv", "arrow", "parquet"] as const) {
        const first = yield* get(port, `ticks?all=true&date=${DATE}&format=${format}&limit=7`)
        assert.deepStrictEqual(yield* rowsOf(first, format), all.slice(0, 7), format)
      }
      const [from, to] = [OPEN + MINUTE, OPEN + 2 * MINUTE]
      const part = yield* get(port, `ticks?all=true&date=${DATE}&format=ndjson&from=${from}&to=${to}`)
      assert.deepStrictEqual(
        yield* rowsOf(part, "ndjson"),
        all.filter((t) => t.exchange_ts >= from && t.exchange_ts < to)
      )
      const none = yield* get(port, `ticks?all=true&date=2026-01-19&format=parquet`)
      assert.deepStrictEqual(yield* rowsOf(none, "parquet"), [])
      const nothing = yield* get(port, `ticks?all=true&date=2026-01-19&format=json`)
      assert.deepStrictEqual(nothing.json, { ticks: [], next_cursor: null })
    }).pipe(Effect.scoped)
  )

  it.live("goes on after a cursor that a page gave", () =>
    Effect.gen(function* () {
      const rows = day()
      const { port } = yield* open(rows)
      const page = yield* get(port, `ticks?symbol=SBIN&date=${DATE}&limit=10`)
      const { next_cursor } = page.json as { readonly next_cursor: string }
      const rest = yield* get(port, `ticks?symbol=SBIN&date=${DATE}&format=arrow&cursor=${next_cursor}`)
      assert.deepStrictEqual(yield* rowsOf(rest, "arrow"), ofDay(rows, [TOKENS[2]!]).slice(10))
    }).pipe(Effect.scoped)
  )

  it.live("that cannot be is refused, by parameter and with what to write instead", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      for (const [path, status, parameter, said] of [
        ["ticks?all=true", 400, "date", "trading date (YYYY-MM-DD)"],
        ["ticks?symbols=SBIN&date=2026-02-31", 400, "date", "a date such as"],
        [`ticks?all=true&symbol=SBIN&date=${DATE}`, 400, "all", "got symbol and all"],
        [`ticks?all=yes&date=${DATE}`, 400, "all", '"true"'],
        [`ticks?all=true&date=${DATE}&format=xlsx`, 400, "format", '"parquet"'],
        [`ticks?all=true&date=${DATE}&limit=5`, 400, "limit", "the JSON of several is whole, got 5"],
        [`ticks?all=true&date=${DATE}&format=csv&limit=0`, 400, "limit", "10000"],
        [`ticks?all=true&date=${DATE}&format=csv&cursor=abc`, 400, "cursor", "the whole day is one answer"],
        [`ticks?symbol=SBIN&format=csv&cursor=abc`, 400, "cursor", "expected a next_cursor of the same request"],
        [
          `ticks?all=true&date=${DATE}&format=csv&from=2026-01-17`,
          400,
          "from",
          "a time of the trading date 2026-01-16"
        ],
        [`ticks?all=true&date=${DATE}&format=csv&from=${OPEN + 9}&to=${OPEN}`, 400, "to", "a time after from"],
        [`ticks?all=true&date=${DATE}&format=csv&from=${OPEN}&to=${OPEN}`, 400, "to", "a time after from"],
        [`ticks?all=true&date=${DATE}&format=csv&to=2026-01-16T00:00:00%2B05:30`, 400, "to", "a time of the trading"],
        [`ticks?symbols=SBIN&date=${DATE}&as_of=${DATE}`, 400, "as_of", `it is the date, ${DATE}`],
        [`ticks?symbols=SBIN,,INFY&date=${DATE}`, 400, "symbols", "comma-separated"],
        [`ticks?symbols=SBIN,NOPE&date=${DATE}`, 404, "symbols", "NOPE"],
        [`ticks?tokens=1,2&date=${DATE}`, 404, "tokens", `no instrument has 1, and no tick of it came on ${DATE}`],
        [`ticks?instrument_token=1&format=parquet`, 404, "instrument_token", "no tick of it came"],
        [`candles?all=true&date=${DATE}&interval=2m&format=csv`, 400, "interval", '"5m"']
      ] as const) {
        const answer = yield* ask(port, `${BASE}/${path}`)
        assert.strictEqual(answer.status, status, `${path} ${answer.text}`)
        const told = answer.json as { readonly parameter: string; readonly message: string }
        assert.strictEqual(told.parameter, parameter, path)
        assert.include(told.message, said, path)
      }
    }).pipe(Effect.scoped)
  )

  it.live("of several instruments is given to so many at a time, and its place is free once its client goes", () =>
    Effect.gen(function* () {
      const { port } = yield* open(
        day(),
        {},
        {
          // Without an end, to clients that read no further.
          ticks: ({ after, limit }) =>
            Effect.succeed(
              Array.from({ length: limit }, (_, i) =>
                storedTick({ exchange_ts: OPEN, sequence_id: (after?.sequence_id ?? 0) + i + 1 })
              )
            ),
          tokens: () => Effect.succeed([7])
        }
      )
      const path = `${BASE}/ticks?all=true&date=${DATE}&format=ndjson`
      const clients = yield* Effect.forEach(Array.from({ length: 4 }), () =>
        Effect.tap(rawClient(port, `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`), ({ until }) =>
          until(/"position"/)
        )
      )
      const refused = yield* ask(port, path)
      assert.strictEqual(refused.status, 429, refused.text)
      assert.include(refused.text, "as many exports of several instruments")
      assert.strictEqual(refused.headers["retry-after"], "5")
      for (const { socket } of clients) socket.destroy()
      let again = refused
      while (again.status === 429) again = yield* ask(port, path, { method: "HEAD" })
      assert.strictEqual(again.status, 200)
    }).pipe(Effect.scoped)
  )

  it.live(
    "is of what a key is for: all is refused to one that is for some, and so is a symbol that it is not for",
    () =>
      Effect.gen(function* () {
        const [some, whole] = [makeKey("some", { instruments: ["NSE:INFY", "NSE:SBIN"] }), makeKey("whole")]
        const { path } = yield* keysFile([some, whole])
        const rows = day()
        const { port } = yield* open(rows, { access: accessBy(path) })
        const by = (key: typeof some, query: string) =>
          ask(port, `${BASE}/ticks?${query}&date=${DATE}&format=ndjson`, { headers: bearer(key) })
        for (const [query, parameter] of [
          ["all=true", "all"],
          ["symbols=INFY,RELIANCE", "symbols"],
          [`tokens=${TOKENS.join()}`, "tokens"]
        ] as const) {
          const refused = yield* by(some, query)
          assert.strictEqual(refused.status, 403, refused.text)
          assert.strictEqual((refused.json as { readonly parameter: string }).parameter, parameter)
        }
        const own = yield* by(some, "symbols=INFY,SBIN")
        assert.deepStrictEqual(yield* rowsOf(own, "ndjson"), ofDay(rows, [TOKENS[0]!, TOKENS[2]!]))
        assert.deepStrictEqual(yield* rowsOf(yield* by(whole, "all=true"), "ndjson"), ofDay(rows))
      }).pipe(Effect.scoped)
  )
})

describe("an export of bars", () => {
  it.live("has the bars of every instrument's own pages, by their start, in every format", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      for (const query of ["interval=1m", "interval=5m&fill=previous", "interval=1h&session=regular", "interval=1d"]) {
        const expected: Array<Row> = []
        for (const [i, token] of TOKENS.entries()) {
          const page = yield* get(port, `candles?symbol=${NAMES[i]}&date=${DATE}&${query}&limit=10000`)
          const { candles } = page.json as { readonly candles: ReadonlyArray<Row> }
          assert.isNotEmpty(candles)
          expected.push(...candles.map((bar) => ({ ...bar, instrument_token: token, known: true })))
        }
        expected.sort((a, b) => Number(a.ts) - Number(b.ts) || Number(a.instrument_token) - Number(b.instrument_token))
        for (const format of FORMATS) {
          const answer = yield* get(port, `candles?all=true&date=${DATE}&${query}&format=${format}`)
          const found = yield* rowsOf(answer, format)
          const isText = format === "json" || format === "ndjson"
          // A column has a place for every bar: null where none is known, which text leaves out.
          assert.deepStrictEqual(
            found,
            isText ? expected : expected.map((bar) => ({ oi: null, ...bar })),
            `${query} ${format}`
          )
          if (format === "json") assert.deepInclude(answer.json as object, { next_cursor: null, known: true })
        }
        const few = yield* get(port, `candles?all=true&date=${DATE}&${query}&format=csv&limit=2`)
        assert.deepStrictEqual(
          yield* rowsOf(few, "csv"),
          expected.slice(0, 2).map((bar) => ({ oi: null, ...bar }))
        )
        const known = expected.filter((bar) => "oi" in bar)
        assert.isNotEmpty(known)
        assert.isTrue(known.every((bar) => bar.instrument_token === TOKENS[1]))
      }
    }).pipe(Effect.scoped)
  )

  it.live("says where the calendar does not know a day, and where no hours are known at all", () =>
    Effect.gen(function* () {
      const rows = day()
      // 2009-01-16, and an instrument of a segment that nobody knows.
      rows.ticks.push(storedTick({ instrument_token: TOKENS[0]!, exchange_ts: 1_232_077_500_000_000, sequence_id: 5 }))
      rows.ticks.push(storedTick({ instrument_token: 99, exchange_ts: OPEN }))
      const { port } = yield* open(rows)
      const old = yield* get(port, "candles?symbols=INFY&date=2009-01-16&interval=1d&format=json")
      assert.deepInclude(old.json as object, { known: false })
      assert.deepInclude((yield* rowsOf(old, "json"))[0], { known: false })
      const nobodys = yield* get(port, `candles?tokens=99&date=${DATE}&interval=1d&format=parquet`)
      assert.deepInclude((yield* rowsOf(nobodys, "parquet"))[0], { phase: null, known: false })
      const refused = yield* ask(port, `${BASE}/candles?tokens=99&date=${DATE}&interval=1m&fill=previous&format=csv`)
      assert.strictEqual(refused.status, 400)
      assert.include(refused.text, "no trading hours are known of 99")
    }).pipe(Effect.scoped)
  )
})

describe("an answer about the past", () => {
  const paths = [
    `ticks?symbol=SBIN&date=${DATE}`,
    `ticks?symbol=SBIN&date=${DATE}&format=csv`,
    `ticks?all=true&date=${DATE}&format=parquet`,
    `candles?symbol=SBIN&date=${DATE}&interval=1m`,
    `candles?all=true&date=${DATE}&interval=5m&format=arrow`
  ]

  it.live("whose range is over is asked for again by its tag: 304, until a tick of it comes or finds its place", () =>
    Effect.gen(function* () {
      const rows = day()
      const { port } = yield* open(rows)
      const again = (path: string, tag: string) =>
        ask(port, `${BASE}/${path}`, { headers: { "if-none-match": `"other", ${tag}` } })
      const tags = new Map<string, string>()
      for (const path of paths) {
        const answer = yield* get(port, path)
        assert.match(answer.headers.etag!, /^"[\w-]{27}"$/, path)
        assert.strictEqual(answer.headers["cache-control"], "private, no-cache")
        tags.set(path, answer.headers.etag!)
        const same = yield* again(path, answer.headers.etag!)
        assert.deepStrictEqual([same.status, same.text, same.headers.etag], [304, "", answer.headers.etag], path)
        assert.isUndefined(same.headers["content-length"])
      }
      assert.strictEqual(new Set(tags.values()).size, paths.length)
      const late = storedTick({ instrument_token: TOKENS[2]!, exchange_ts: OPEN + 1, sequence_id: 77_777, epoch: null })
      rows.ticks.push(late)
      for (const path of paths) {
        const changed = yield* again(path, tags.get(path)!)
        assert.strictEqual(changed.status, 200, path)
        assert.notStrictEqual(changed.headers.etag, tags.get(path), path)
        tags.set(path, changed.headers.etag!)
      }
      // A bar may tell another open interest, though no tick of it is another.
      rows.quotes.push(makeQuote({ instrument_token: TOKENS[2]!, exchange_ts: OPEN + 2, oi: 1 }))
      for (const path of paths.filter((path) => path.startsWith("candles"))) {
        const changed = yield* again(path, tags.get(path)!)
        assert.strictEqual(changed.status, 200, path)
        tags.set(path, changed.headers.etag!)
      }
      rows.ticks[rows.ticks.length - 1] = { ...late, epoch: 20_469_000_033_300, position: 5000 }
      for (const path of paths.filter((path) => path.startsWith("ticks"))) {
        assert.strictEqual((yield* again(path, tags.get(path)!)).status, 200, path)
      }
    }).pipe(Effect.scoped)
  )

  it.live("varies by what was accepted, and by who asks from another origin", () =>
    Effect.gen(function* () {
      const { port } = yield* open(day(), { settings: { ALLOWED_ORIGINS: "https://app.example.com" } })
      const answer = yield* get(port, paths[0]!, { headers: { origin: "https://app.example.com" } })
      assert.strictEqual(answer.headers.vary, "accept, accept-encoding, origin")
      assert.include(answer.headers["access-control-expose-headers"], "etag")
    }).pipe(Effect.scoped)
  )

  it.live("whose range still goes on has no tag, and is not kept", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      for (const path of [
        "ticks?symbol=SBIN",
        "ticks?symbol=SBIN&format=ndjson",
        "candles?symbol=SBIN&interval=1m",
        "candles?symbol=SBIN&interval=1d&to=2099-01-01&format=csv"
      ]) {
        const answer = yield* get(port, path)
        assert.isUndefined(answer.headers.etag, path)
        assert.strictEqual(answer.headers["cache-control"], "no-store", path)
      }
    }).pipe(Effect.scoped)
  )

  it.live("is compressed as its client likes it, to the same bytes; its tag then speaks of what is in them", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const unpack = { gzip: gunzipSync, zstd: zstdDecompressSync }
      for (const path of paths) {
        const plain = yield* get(port, path)
        assert.isUndefined(plain.headers["content-encoding"])
        for (const [accepted, coding] of [
          ["gzip, deflate, br", "gzip"],
          ["gzip, zstd", "zstd"],
          ["zstd;q=0.5, gzip;q=0.8", "gzip"],
          ["*", "zstd"],
          ["gzip;q=0, zstd;q=0", undefined],
          ["identity, gzip;q=0.5", undefined],
          ["br", undefined]
        ] as const) {
          const answer = yield* get(port, path, { headers: { "accept-encoding": accepted } })
          // Parquet is compressed by itself.
          const expected = path.endsWith("parquet") ? undefined : coding
          assert.strictEqual(answer.headers["content-encoding"], expected, `${path} ${accepted}`)
          const bytes = expected === undefined ? answer.bytes : unpack[expected](answer.bytes)
          assert.isTrue(bytes.equals(plain.bytes), `${path} ${accepted}`)
          assert.strictEqual(answer.headers.etag, `${expected === undefined ? "" : "W/"}${plain.headers.etag}`)
          if (expected !== undefined) assert.isBelow(answer.bytes.length, plain.bytes.length / 2)
        }
      }
    }).pipe(Effect.scoped)
  )
})
