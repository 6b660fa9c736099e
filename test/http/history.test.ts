import { connect } from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Pglite from "../../src/layers/postgres/Pglite.ts"
import * as Timescale from "../../src/layers/postgres/Timescale.ts"
import { barStart, withOi } from "../../src/schema/Candle.ts"
import { compareTicks, type Tick, tradingDate, tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"
import { type StoredTick, TickStore } from "../../src/streams/ports/TickStore.ts"
import { makeQuote, storeBatch, toStored } from "../contract/ticks.ts"
import { quoteAt } from "../support/hub.ts"
import { instrumentOf } from "../support/instruments.ts"
import { barsOf, memoryStore, OPEN, Rows } from "./memoryStore.ts"
import { ask, serve } from "./serving.ts"

const MINUTE = 60_000_000
const DAY = tradingDayStart(tradingDay(OPEN))

/** Ticks with many shared stamps, some late, over the day's session and a little before it. */
const recorded = (token: number, count: number): ReadonlyArray<Tick> =>
  Array.from({ length: count }, (_, i) => {
    const exchange_ts = OPEN - 5 * MINUTE + Math.floor((i * 380 * MINUTE) / count / 1_000_000) * 1_000_000
    return {
      instrument_token: token,
      exchange_ts,
      price: 100 + ((i * 7) % 400) / 20,
      volume: i % 50,
      sequence_id: i % 5 === 4 ? -(i + 1) : i + 1,
      status: "LIVE",
      gap_from: 0,
      session: 0,
      sequencing: i % 5 === 4 ? "none" : "contiguous",
      epoch: 20_469_000_033_300,
      position: i + 1,
      feed: i % 3 === 0 ? "dma" : 'odd "feed", quoted',
      received_ts: exchange_ts + 350,
      source: ["a", i, 0],
      old: false
    }
  })

const TICKS = recorded(408065, 2500)
const SORTED = TICKS.map(toStored).toSorted(compareTicks)

/** Every other minute, the last of it without an open interest. */
const QUOTES = Array.from({ length: 20 }, (_, n) => {
  const exchange_ts = OPEN + n * 2 * MINUTE + 7
  return makeQuote({ instrument_token: 408065, exchange_ts, oi: n === 19 ? undefined : 1000 + n, source: ["r", n, 1] })
})

/** The real store, with two thousand and a half ticks of one instrument. */
const Filled = Layer.effect(
  TickStore,
  Effect.gen(function* () {
    const { url } = yield* Pglite.Pglite
    const store = yield* Timescale.make({ url, embedded: true })
    yield* store.putInstruments([instrumentOf(408065, "INFY"), instrumentOf(7, "TCS"), instrumentOf(8, "TCS", "BSE")])
    yield* store.write(
      storeBatch({
        ticks: TICKS,
        quotes: QUOTES,
        bookmarks: [{ partition: 0, incarnation: "n", offset: TICKS.length, mark: undefined }]
      })
    )
    return store
  })
).pipe(Layer.provide(Pglite.layer({ dataDir: undefined })))

interface TicksPage {
  readonly ticks: ReadonlyArray<StoredTick>
  readonly next_cursor: string | null
}
interface CandlesPage {
  readonly candles: ReadonlyArray<{ readonly ts: number; readonly volume: number }>
  readonly next_cursor: string | null
}

const BASE = "/api/v1/historical"

layer(Filled, { excludeTestServices: true })("history over REST", (it) => {
  const served = Effect.gen(function* () {
    const store = yield* TickStore
    return yield* serve({ store: Layer.succeed(TickStore, store) })
  })

  it.effect("pages of ticks, put together, are the whole in order, wherever they are cut", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      for (const limit of [7, 500, 2500]) {
        const found: Array<StoredTick> = []
        let cursor: string | null = ""
        while (cursor !== null) {
          const answer = yield* ask(
            port,
            `${BASE}/ticks?symbol=nse:infy&limit=${limit}${cursor === "" ? "" : `&cursor=${cursor}`}`
          )
          assert.strictEqual(answer.status, 200)
          const page = answer.json as TicksPage
          assert.isAtMost(page.ticks.length, limit)
          found.push(...page.ticks)
          cursor = page.next_cursor
        }
        assert.deepStrictEqual(found, SORTED)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("keep to a half-open range, given in either form", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const [from, to] = [OPEN, OPEN + 2 * MINUTE]
      const expected = SORTED.filter((t) => t.exchange_ts >= from && t.exchange_ts < to)
      for (const range of [`from=${from}&to=${to}`, "from=2026-01-16T09:15:00%2B05:30&to=2026-01-16T03:47:00Z"]) {
        const answer = yield* ask(port, `${BASE}/ticks?instrument_token=408065&${range}`)
        assert.deepStrictEqual(answer.json, { ticks: expected, next_cursor: null })
      }
      for (const [what, end] of [
        ["ticks?", from],
        ["candles?interval=1m&", from],
        ["ticks?", from - 1]
      ] as const) {
        const none = yield* ask(port, `${BASE}/${what}instrument_token=408065&from=${from}&to=${end}`)
        assert.deepStrictEqual(
          [none.status, none.json],
          [
            400,
            {
              _tag: "BadRequest",
              parameter: "to",
              message: `to: expected a time after from, got ${end} <= ${from}`
            }
          ]
        )
      }
    }).pipe(Effect.scoped)
  )

  it.effect("stream the whole range as NDJSON or CSV, equal to the pages", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const path = `${BASE}/ticks?instrument_token=408065`
      const ndjson = yield* ask(port, path, { headers: { accept: "application/x-ndjson" } })
      assert.strictEqual(ndjson.headers["content-type"], "application/x-ndjson")
      assert.deepStrictEqual(
        ndjson.text
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line) as unknown),
        SORTED
      )
      const csv = yield* ask(port, path, { headers: { accept: "text/csv;q=1, */*;q=0.1" } })
      assert.strictEqual(csv.headers["content-type"], "text/csv; charset=utf-8")
      const lines = csv.text.trimEnd().split("\n")
      assert.strictEqual(lines.length, SORTED.length + 1)
      assert.strictEqual(
        lines[0],
        "instrument_token,exchange_ts,price,volume,sequence_id,status,session,sequencing,epoch,position,feed,received_ts"
      )
      assert.include(csv.text, '"odd ""feed"", quoted"')
      const head = yield* ask(port, path, { method: "HEAD", headers: { accept: "text/csv" } })
      assert.strictEqual(head.status, 200)
      assert.strictEqual(head.headers["content-type"], "text/csv; charset=utf-8")
      const empty = yield* ask(port, `${path}&to=1768000000000000`, { headers: { accept: "application/x-ndjson" } })
      assert.deepStrictEqual([empty.status, empty.text], [200, ""])
      const unknown = yield* ask(port, `${BASE}/ticks?instrument_token=5`, { headers: { accept: "text/csv" } })
      assert.strictEqual(unknown.status, 404)
    }).pipe(Effect.scoped)
  )

  it.effect("bars of every interval are those of the ticks, by pages too", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      for (const interval of ["1m", "5m", "15m", "30m", "1h", "1d"] as const) {
        const oi = new Map(
          QUOTES.filter((quote) => quote.oi !== undefined).map((quote) => [
            barStart(quote.exchange_ts, interval),
            quote.oi
          ])
        )
        const expected = barsOf(SORTED, interval).map((bar) => withOi(bar, oi.get(bar.ts)))
        assert.isTrue(expected.some((bar) => bar.oi !== undefined))
        const found: Array<CandlesPage["candles"][number]> = []
        let cursor: string | null = ""
        while (cursor !== null) {
          const answer = yield* ask(
            port,
            `${BASE}/candles?symbol=INFY&interval=${interval}&limit=100${cursor === "" ? "" : `&cursor=${cursor}`}`
          )
          assert.strictEqual(answer.status, 200, answer.text)
          const page = answer.json as CandlesPage
          found.push(...page.candles)
          cursor = page.next_cursor
        }
        assert.deepStrictEqual(
          found.map((bar) => ({ ...bar, phase: undefined, final: undefined })),
          expected.map((bar) => ({ ...bar, phase: undefined, final: undefined }))
        )
      }
    }).pipe(Effect.scoped)
  )

  it.effect("bars of the regular session, filled, cover each of its minutes once", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const answer = yield* ask(
        port,
        `${BASE}/candles?symbol=INFY&interval=1m&session=regular&fill=previous&from=${DAY}&to=${DAY + 1440 * MINUTE}`
      )
      const { candles } = answer.json as CandlesPage
      assert.deepStrictEqual(
        candles.map(({ ts }) => ts),
        Array.from({ length: 375 }, (_, i) => OPEN + i * MINUTE)
      )
      assert.isTrue(candles.every(({ ts }) => ts === barStart(ts, "1m")))
    }).pipe(Effect.scoped)
  )

  it.effect("a bare date is a trading day, a day's bar is there for any part of it, and its calendar is known", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const of = (range: string) => ask(port, `${BASE}/candles?symbol=INFY&interval=1d&${range}`)
      const date = tradingDate(tradingDay(OPEN))
      const day = (yield* of(`from=${date}&to=${date}`)).json
      assert.deepInclude(day, { known: true, next_cursor: null })
      assert.deepStrictEqual(
        (day as CandlesPage).candles.map(({ ts }) => ts),
        [DAY]
      )
      assert.deepStrictEqual((yield* of(`from=${OPEN + MINUTE}&to=${OPEN + 2 * MINUTE}`)).json, day)
      const refused = yield* of("from=2026-02-30")
      assert.strictEqual(refused.status, 400)
      assert.include(refused.text, "a trading date such as")
    }).pipe(Effect.scoped)
  )

  it.effect("a symbol on several exchanges is refused with the choices, a cursor of another request too", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const ambiguous = yield* ask(port, `${BASE}/ticks?symbol=TCS`)
      assert.strictEqual(ambiguous.status, 400)
      assert.include(ambiguous.text, "BSE:TCS (8)")
      assert.include(ambiguous.text, "NSE:TCS (7)")
      assert.strictEqual((yield* ask(port, `${BASE}/ticks?symbol=BSE:TCS`)).status, 200)
      const page = (yield* ask(port, `${BASE}/ticks?symbol=INFY&limit=1`)).json as TicksPage
      for (const path of ["ticks?instrument_token=7", "candles?symbol=INFY&interval=1m"]) {
        const answer = yield* ask(port, `${BASE}/${path}&cursor=${page.next_cursor}`)
        assert.strictEqual(answer.status, 400)
        assert.deepInclude(answer.json, { parameter: "cursor" })
      }
    }).pipe(Effect.scoped)
  )

  it.effect("quotes are the last tick and the day so far, one for each token asked", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const answer = yield* ask(port, "/api/v1/quotes?tokens=408065,7")
      const [day] = barsOf(SORTED, "1d")
      assert.deepStrictEqual(answer.json, {
        quotes: [
          {
            instrument_token: 408065,
            last: SORTED.at(-1),
            open: day!.open,
            high: day!.high,
            low: day!.low,
            volume: day!.volume
          },
          { instrument_token: 7, last: null, open: null, high: null, low: null, volume: null }
        ]
      })
    }).pipe(Effect.scoped)
  )

  it.effect("quotes add what is known of book and day, also of a token without a tick", () =>
    Effect.gen(function* () {
      const store = yield* TickStore
      const at = SORTED.at(-1)!.exchange_ts
      const { port } = yield* serve({
        store: Layer.succeed(TickStore, store),
        quotes: [
          quoteAt(408065, at, 1, { bid: [[100.05, 5, 2]], ask: [], oi: 0, high: 1, day_volume: 9 }),
          quoteAt(7, at + 1, 2, { oi: 12 })
        ]
      })
      const { json } = yield* ask(port, "/api/v1/quotes?tokens=408065,7,8")
      const { quotes } = json as { readonly quotes: ReadonlyArray<Record<string, unknown>> }
      const [day] = barsOf(SORTED, "1d")
      assert.deepInclude(quotes[0], { high: day!.high, volume: day!.volume })
      assert.deepStrictEqual(
        quotes.map(({ quote }) => quote),
        [
          { exchange_ts: at, bid: [[100.05, 5, 2]], ask: [], oi: 0, high: 1, day_volume: 9 },
          { exchange_ts: at + 1, oi: 12 },
          undefined
        ]
      )
      assert.isNull(quotes[1]!.last)
    }).pipe(Effect.scoped)
  )

  it.effect("a reader that stops is not read ahead for, and still gets every row in the end", () =>
    Effect.gen(function* () {
      const ROWS = 400_000
      const template = SORTED[0]!
      let asked = 0
      const endless = memoryStore(new Rows(), {
        ticks: ({ limit, after }) =>
          Effect.sync(() => {
            const first = (after?.sequence_id ?? 0) + 1
            const count = Math.max(0, Math.min(limit, ROWS - first + 1))
            asked += count
            return Array.from({ length: count }, (_, i) => ({ ...template, sequence_id: first + i }))
          })
      })
      const { port } = yield* serve({ store: endless })
      const socket = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof connect>>((resume) => {
          const opened = connect(port, "127.0.0.1", () => resume(Effect.succeed(opened)))
        }),
        (opened) => Effect.sync(() => opened.destroy())
      )
      socket.pause()
      socket.write(
        `GET ${BASE}/ticks?instrument_token=1 HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\nConnection: close\r\n\r\n`
      )
      // It stands still once the socket's buffers are full: nothing more is asked for in a while.
      let before = -1
      while (asked === 0 || asked !== before) {
        before = asked
        yield* Effect.sleep("300 millis")
      }
      assert.isBelow(asked, ROWS / 4)
      const lines = yield* Effect.callback<number>((resume) => {
        let count = 0
        let last = ""
        socket.on("data", (data: Buffer) => {
          for (const byte of data) if (byte === 0x7d) count += 1
          last = (last + data.toString("latin1")).slice(-5)
          // The last chunk is empty: an answer that broke off would not have it.
          if (last === "0\r\n\r\n") resume(Effect.succeed(count))
        })
        socket.resume()
      })
      assert.strictEqual(lines, ROWS)
      // And one more: whether there is any was asked before the answer began.
      assert.strictEqual(asked, ROWS + 1)
    }).pipe(Effect.scoped)
  )

  it.effect("an answer that breaks off in the middle does not look whole", () =>
    Effect.gen(function* () {
      let pages = 0
      const breaking = memoryStore(new Rows(), {
        ticks: ({ limit }) =>
          Effect.suspend(() => {
            pages += 1
            return pages > 2
              ? Effect.die("the disk is on fire")
              : Effect.succeed(Array.from({ length: limit }, (_, i) => ({ ...SORTED[0]!, sequence_id: i + 1 })))
          })
      })
      const { port } = yield* serve({ store: breaking })
      const answer = yield* Effect.exit(
        ask(port, `${BASE}/ticks?instrument_token=1`, { headers: { accept: "text/csv" } })
      )
      assert.strictEqual(answer._tag, "Failure")
    }).pipe(Effect.scoped)
  )
})
