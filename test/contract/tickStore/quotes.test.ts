/** Decides, for the store on every database, what is kept of quotes, and what bars say of open interest. */
import { assert } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { barStart, type Candle, type Interval, withOi } from "../../../src/schema/Candle.ts"
import { compareQuotes, MAX_LEVELS, type Quote } from "../../../src/schema/Quote.ts"
import { type Tick, tradingDayStart } from "../../../src/schema/Tick.ts"
import { supersedes } from "../../../src/streams/ports/RecentQuotes.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { DAY, EPOCH, makeQuote, makeTick, OPEN, storeBatch } from "../ticks.ts"
import { candles, FROM, HOUR, intervals, MINUTE, newToken, Rows, range, recompute, TO } from "./rows.ts"
import { onEachStore, sql } from "./stores.ts"

/** All that a quote may say, with what is hardest to keep: seven decimals, the largest numbers, prices below zero. */
const FULL: Partial<Quote> = {
  bid: [
    [83.1234567, 9_007_199_254_740_991, 3],
    [-0.0000001, 0, 9_007_199_254_740_991],
    [1_000_000_000, 1, 0],
    [-1_000_000_000, 2, 0],
    [0, 3, 1]
  ],
  ask: [[83.1234568, 75, 0]],
  total_buy_quantity: 9_007_199_254_740_991,
  total_sell_quantity: 0,
  oi: 12_345_678,
  oi_day_high: 13_000_000,
  oi_day_low: 12_000_000,
  average_price: 83.0000001,
  last_quantity: 75,
  last_trade_ts: OPEN - 999_999,
  open: 82.5,
  high: 84.75,
  low: -82.25,
  previous_close: 82.1,
  lower_circuit: 73.9,
  upper_circuit: 90.3,
  day_volume: 5_000_000_000,
  feed: 'snapshot ☂ "x"\t{,}'
}

/** As the store answers: the best level alone unless it keeps depth, and what a replay added without a source. */
const asAnswered = (quote: Quote, keepsDepth: boolean, isReplayed = false): Quote => ({
  ...quote,
  ...(keepsDepth ? {} : { bid: quote.bid?.slice(0, 1), ask: quote.ask?.slice(0, 1) }),
  ...(isReplayed ? { source: ["", -1, 1] } : {}),
  old: false
})

/** What the store is to keep of quotes, said with a map. */
class Quotes {
  readonly #rows = new Map<number, Quote>()

  put(quotes: ReadonlyArray<Quote>, replayed: ReadonlyArray<Quote>): void {
    for (const quote of quotes) {
      const there = this.#rows.get(quote.exchange_ts)
      if (there !== undefined && !supersedes(quote, there)) continue
      this.#rows.set(quote.exchange_ts, asAnswered({ ...quote, oi: quote.oi ?? there?.oi }, false))
    }
    for (const quote of replayed) {
      if (!this.#rows.has(quote.exchange_ts)) this.#rows.set(quote.exchange_ts, asAnswered(quote, false, true))
    }
  }

  sorted(): ReadonlyArray<Quote> {
    return [...this.#rows.values()].sort(compareQuotes)
  }

  /** The last open interest in each bar's time. */
  oi(interval: Interval): ReadonlyMap<number, number> {
    return new Map(
      this.sorted().flatMap(({ exchange_ts, oi }) =>
        oi === undefined ? [] : [[barStart(exchange_ts, interval), oi] as const]
      )
    )
  }

  bars(rows: Rows, token: number, interval: Interval): ReadonlyArray<Candle> {
    const oi = this.oi(interval)
    return recompute(rows.of(token), interval).map((bar) => withOi(bar, oi.get(bar.ts)))
  }
}

const put = (batch: Parameters<typeof storeBatch>[0]) => Effect.flatMap(TickStore, (s) => s.write(storeBatch(batch)))

const quotesOf = Effect.fnUntraced(function* (token: number, limit = 10_000, from = FROM, to = TO) {
  const { quotePage } = yield* TickStore
  const all: Array<Quote> = []
  let after: number | undefined
  for (;;) {
    const query = { instrument_token: token, from, to, limit }
    const page = yield* quotePage(after === undefined ? query : { ...query, after })
    all.push(...page)
    if (page.length < limit) return all
    after = page.at(-1)!.exchange_ts
  }
})

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/** Few minutes and few instants in them: equal stamps, late quotes and repeats are the rule. */
const MINUTES = [-1066, -556, -555, -1, 0, 1, 89, 90]
const INSTANTS = [0, 19_999_999, 59_999_999]
const At = { minute: int(0, MINUTES.length - 1), instant: int(0, INSTANTS.length - 1) }
const AnyQuote = Schema.Struct({ ...At, oi: Schema.UndefinedOr(int(0, 5)) })
const AnyTick = Schema.Struct({ ...At, price: int(1, 20) })
/** Takes up the log of quotes some records before where it was left, as whoever comes after a kill. */
const Step = Schema.Struct({
  ticks: Schema.Array(AnyTick),
  again: int(0, 4),
  quotes: Schema.Array(AnyQuote),
  replayed: Schema.Array(AnyQuote),
  refreshes: Schema.Boolean
})
/** From so many quotes on they are of another incarnation of the log: one that was left never comes back. */
const anew = Arbitrary.schema(int(0, 30))
const steps = Arbitrary.array(Arbitrary.schema(Step), { minLength: 1, maxLength: 10 })

for (const depth of [false, true]) {
  onEachStore(
    depth ? "quotes with their depth" : "quotes",
    (it) => {
      it.effect("are answered whole, exact to the last decimal", () =>
        Effect.gen(function* () {
          const { latestQuotes } = yield* TickStore
          const [full, bare, empty] = [newToken(), newToken(), newToken()]
          const quotes = [
            makeQuote({ ...FULL, instrument_token: full, source: ["raw ☂", 9_007_199_254_740_991, 1] }),
            // Of which next to nothing is known, and one whose book is known to be empty on one side.
            makeQuote({ instrument_token: bare, bid: undefined, oi: 0 }),
            makeQuote({ instrument_token: empty, bid: [], ask: undefined })
          ]
          assert.deepStrictEqual(yield* put({ quotes }), { added: 0, quotes: { added: 3, dropped: 0 } })
          for (const quote of quotes) {
            assert.deepStrictEqual(yield* quotesOf(quote.instrument_token), [asAnswered(quote, depth)])
          }
          const latest = yield* latestQuotes([full, newToken(), empty, full])
          assert.deepStrictEqual(
            latest,
            new Map([
              [full, asAnswered(quotes[0]!, depth)],
              [empty, asAnswered(quotes[2]!, depth)]
            ])
          )
          assert.deepStrictEqual(yield* latestQuotes([]), new Map())
          assert.strictEqual(FULL.bid!.length, MAX_LEVELS)
          const [row] = yield* sql(
            `SELECT bid_price, depth IS NOT NULL AS has_depth,
                    ('x' || encode(substr(depth, 3, 8), 'hex'))::bit(64)::bigint AS price
             FROM quotes WHERE instrument_token = ${full}`
          )
          assert.deepStrictEqual(row, {
            bid_price: "83.1234567",
            has_depth: depth,
            price: depth ? "831234567" : null
          })
        })
      )
    },
    { depth }
  )
}

onEachStore("quotes", (it) => {
  it.effect.prop(
    "are one a stamp, the later one, and bars of every interval tell the last open interest of their time",
    [steps, anew],
    ([taken, another]) =>
      Effect.gen(function* () {
        const { latestQuotes, minuteOi, refreshCandles } = yield* TickStore
        const token = newToken()
        const rows = new Rows()
        const kept = new Quotes()
        let position = 0
        const at = ({ minute, instant }: { readonly minute: number; readonly instant: number }) =>
          OPEN + MINUTES[minute]! * MINUTE + INSTANTS[instant]!
        const tick = (t: typeof AnyTick.Type): Tick => {
          position++
          return makeTick({
            instrument_token: token,
            exchange_ts: at(t),
            price: t.price,
            sequence_id: position,
            epoch: EPOCH,
            position
          })
        }
        const log: Array<Quote> = []
        const quote = (q: typeof AnyQuote.Type, offset: number): Quote =>
          makeQuote({
            instrument_token: token,
            exchange_ts: at(q),
            oi: q.oi,
            // Tells one from another.
            last_quantity: offset,
            source: [offset < another ? "raw-1" : "raw-2", offset < another ? offset : offset - another, 1]
          })
        for (const step of taken) {
          const from = Math.max(log.length > another ? another : 0, log.length - step.again)
          for (const one of step.quotes) log.push(quote(one, log.length))
          const [ticks, quotes] = [step.ticks.map(tick), log.slice(from)]
          const replayedQuotes = step.replayed.map((one) => quote(one, 999))
          rows.write(ticks, [])
          kept.put(quotes, replayedQuotes)
          yield* put({ ticks, quotes, replayedQuotes })
          if (step.refreshes) yield* refreshCandles
          for (const interval of intervals) {
            assert.deepStrictEqual(yield* candles(token, interval), kept.bars(rows, token, interval), interval)
          }
        }
        const all = kept.sorted()
        assert.deepStrictEqual(yield* quotesOf(token), all)
        assert.deepStrictEqual(yield* quotesOf(token, 2), all)
        const [from, to] = [OPEN - MINUTE, OPEN + 90 * MINUTE]
        assert.deepStrictEqual(
          yield* quotesOf(token, 3, from, to),
          all.filter(({ exchange_ts }) => exchange_ts >= from && exchange_ts < to)
        )
        assert.deepStrictEqual((yield* latestQuotes([token])).get(token), all.at(-1))
        const told = new Map(
          all.flatMap(({ exchange_ts, oi, source }) => {
            const ts = barStart(exchange_ts, "1m")
            return oi === undefined ? [] : [[ts, { ts, oi, exchange_ts, offset: source[1] }] as const]
          })
        )
        const oi = [...told.values()]
        assert.deepStrictEqual(yield* minuteOi({ instrument_token: token, from: FROM, to: TO, limit: 10_000 }), oi)
        assert.deepStrictEqual(
          yield* minuteOi({ instrument_token: token, from, to, limit: 2 }),
          oi.filter(({ ts }) => ts >= from && ts < to).slice(0, 2)
        )
      }),
    { arbitrary: { runs: 40 } }
  )

  it.effect("of a replay are added where their stamp has none, and give way to a live one", () =>
    Effect.gen(function* () {
      const token = newToken()
      const live = makeQuote({ instrument_token: token, oi: 1, source: ["raw-1", 5, 1] })
      const later = { ...live, exchange_ts: OPEN + 1 }
      const replayed = { ...live, oi: 2, source: ["raw-1", 900, 1] as const }
      assert.deepStrictEqual(yield* put({ quotes: [live] }), { added: 0, quotes: { added: 1, dropped: 0 } })
      const replayedQuotes = [replayed, { ...replayed, exchange_ts: OPEN + 1 }]
      assert.deepStrictEqual(yield* put({ replayedQuotes }), { added: 0, quotes: { added: 1, dropped: 0 } })
      assert.deepStrictEqual(yield* put({ replayedQuotes }), { added: 0, quotes: { added: 0, dropped: 0 } })
      assert.deepStrictEqual(yield* quotesOf(token), [live, { ...replayedQuotes[1]!, source: ["", -1, 1] }])
      assert.deepStrictEqual(yield* put({ quotes: [later] }), { added: 0, quotes: { added: 1, dropped: 0 } })
      assert.deepStrictEqual(yield* quotesOf(token), [live, later])
    })
  )

  it.effect(
    "come from many days at once, the bookmark with the last of them, and the latest is found among the newest of them",
    () =>
      Effect.gen(function* () {
        const { bookmarks, latestQuotes } = yield* TickStore
        const token = newToken()
        const days = range(70).map((day) =>
          makeQuote({ instrument_token: token, exchange_ts: tradingDayStart(DAY - 10 * day) + 10 * HOUR, oi: day })
        )
        const bookmark = { partition: 0, incarnation: "days of quotes", offset: 70, mark: undefined }
        assert.deepStrictEqual(yield* put({ quotes: days, bookmarks: [bookmark] }), {
          added: 0,
          quotes: { added: 70, dropped: 0 }
        })
        assert.deepStrictEqual(yield* bookmarks("days of quotes"), [bookmark])
        assert.deepStrictEqual(yield* quotesOf(token, 13), days.toReversed())
        const [quiet, gone] = [newToken(), newToken()]
        const month = { ...days[25]!, instrument_token: quiet }
        // A book of so long ago is none of now: whoever has none is not looked for in all that is stored.
        const old = { ...days.at(-1)!, instrument_token: gone }
        yield* put({ quotes: [month, old] })
        assert.deepStrictEqual(
          yield* latestQuotes([token, quiet, gone, newToken()]),
          new Map([
            [token, days[0]!],
            [quiet, month]
          ])
        )
        assert.deepStrictEqual(yield* quotesOf(gone), [old])
      })
  )

  it.effect("that a row has no room for are refused with all that is beside them, and say so", () =>
    Effect.gen(function* () {
      const token = newToken()
      const { write } = yield* TickStore
      const refused = makeQuote({ instrument_token: token, oi: Number.POSITIVE_INFINITY })
      const error = yield* Effect.flip(
        write(storeBatch({ ticks: [makeTick({ instrument_token: token })], quotes: [refused] }))
      )
      assert.isFalse(error.transient)
      assert.deepStrictEqual(yield* candles(token, "1m"), [])
      assert.deepStrictEqual(yield* quotesOf(token), [])
    })
  )
})
