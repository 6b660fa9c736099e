import { execFile } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { gzipSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Command } from "effect/cli"
import { PYTHON } from "../../scripts/servers/install.ts"
import { outcomeOf, program } from "../../src/commands/cli.ts"
import { feed } from "../../src/commands/feed.ts"
import { rowsOfParquet } from "../support/columns.ts"
import { LONG_MS } from "../support/guards.ts"
import { folder, getJson, getLines, getMetrics, runToEnd, startInstance, untilDrained } from "../support/processes.ts"
import { isInstalled } from "../support/services.ts"
import { zipOf } from "../support/zip.ts"

const run = promisify(execFile)
const RECOMPUTE = fileURLToPath(new URL("recompute.py", import.meta.url))

const mdp = Command.make("mdp").pipe(Command.withSubcommands([feed]))

interface Row {
  readonly ts: number
  readonly price: number
  readonly volume: number
}
interface Bar {
  readonly ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
  /** Where a quote told it. */
  readonly oi?: number
}
interface Oi {
  readonly ts: number
  readonly oi: number
}

const INTERVALS = { "1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "1d": 86_400 } as const
type Interval = keyof typeof INTERVALS
/** 2000-01-03 09:15 and 00:00 IST, in seconds. */
const ORIGIN = 946_871_100
const MIDNIGHT = ORIGIN - 33_300

const startOf = (ts: number, interval: Interval): number => {
  const width = INTERVALS[interval]
  const origin = interval === "1d" ? MIDNIGHT : ORIGIN
  return (Math.floor((Math.floor(ts / 1_000_000) - origin) / width) * width + origin) * 1_000_000
}

/** Bars of bars or of ticks, with nothing of the product. */
const rolledUp = (bars: ReadonlyArray<Bar>, interval: Interval): ReadonlyArray<Bar> => {
  const all = new Map<number, Bar>()
  for (const bar of bars) {
    const ts = startOf(bar.ts, interval)
    const was = all.get(ts)
    all.set(ts, {
      ts,
      open: was?.open ?? bar.open,
      high: Math.max(was?.high ?? bar.high, bar.high),
      low: Math.min(was?.low ?? bar.low, bar.low),
      close: bar.close,
      volume: (was?.volume ?? 0) + bar.volume
    })
  }
  return [...all.values()].sort((a, b) => a.ts - b.ts)
}

/** The bars with the last open interest of their time. */
const withOi = (bars: ReadonlyArray<Bar>, told: ReadonlyArray<Oi>, interval: Interval): ReadonlyArray<Bar> => {
  const last = new Map(told.map(({ oi, ts }) => [startOf(ts, interval), oi]))
  return bars.map((bar) => {
    const oi = last.get(bar.ts)
    return oi === undefined ? bar : { ...bar, oi }
  })
}

const asBar = ({ price, ts, volume }: Row): Bar => ({ ts, open: price, high: price, low: price, close: price, volume })

/** A market of two days, one of which tells the order of day and month. */
const rowsFor = (seed: number): ReadonlyArray<Row> => {
  let state = seed * 7919 + 1
  const random = () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return state / 2 ** 32
  }
  const rows: Array<Row> = []
  let steps = 349_000
  for (const day of ["2026-01-05", "2026-01-13"]) {
    let at = Date.parse(`${day}T09:15:00+05:30`) / 1000
    const end = Date.parse(`${day}T15:29:00+05:30`) / 1000
    while (at < end) {
      steps += Math.round((random() - 0.5) * 40)
      rows.push({ ts: at * 1_000_000, price: Number((steps / 20).toFixed(2)), volume: Math.floor(random() * 300) })
      at += 1 + Math.floor(random() * 90)
    }
  }
  return rows
}

const MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
const partsOf = (ts: number) => {
  const ist = new Date(ts / 1000 + 19_800_000).toISOString()
  const [y, m, d] = ist.slice(0, 10).split("-") as [string, string, string]
  return { y, m, d, time: ist.slice(11, 19), hour: Number(ist.slice(11, 13)), minutes: ist.slice(13, 19) }
}
const naive = (ts: number) => {
  const { d, m, time, y } = partsOf(ts)
  return `${y}-${m}-${d} ${time}`
}
const dmy = (ts: number) => `${partsOf(ts).d}/${partsOf(ts).m}/${partsOf(ts).y}`
const thousands = (price: number) => price.toLocaleString("en-IN", { minimumFractionDigits: 2 })
const lines = (rows: ReadonlyArray<Row>, each: (row: Row) => string, header?: string) =>
  `${[...(header === undefined ? [] : [header]), ...rows.map(each)].join("\n")}\n`

interface Shape {
  readonly name: string
  readonly args: ReadonlyArray<string>
  readonly make: (rows: ReadonlyArray<Row>, token: number) => string | Uint8Array
  /** The file holds bars of this interval. */
  readonly bars?: Interval
  /** Some of its rows are changes of the book alone. */
  readonly hasBook?: true
  /** The open interest that the file has at a time. */
  readonly oi?: (ts: number) => number
}

/** The rows that tell of a trade: something was traded, or the price is another than in the row before. */
const traded = (rows: ReadonlyArray<Row>): ReadonlyArray<Row> =>
  rows.filter(({ price, volume }, i) => volume > 0 || price !== (rows[i - 1]?.price ?? price))

const IST = ["--tz", "Asia/Kolkata"]
const one = (token: string) => ["--set", `instrument_token=${token}`]
const minuteBars = (rows: ReadonlyArray<Row>, interval: Interval) => rolledUp(rows.map(asBar), interval)
const barLine = ({ close, high, low, open, volume }: Bar) => `${open},${high},${low},${close},${volume}`
const T = "TOKEN"
/** An open interest that stays the same for three minutes, as the exchange's does. */
const threeMinutes = (ts: number) => Math.floor(ts / 180_000_000) % 991

const shapes: ReadonlyArray<Shape> = [
  {
    name: "upper-case.csv",
    args: ["--map", "exchange_ts=time,price=ltp,volume=qty", ...one(T), ...IST],
    make: (rows) =>
      `\uFEFF${lines(rows, (r) => `${naive(r.ts)},${r.price},${r.volume}`, "TIME,LTP,Qty").replaceAll("\n", "\r\n")}`
  },
  {
    name: "semicolons.csv",
    args: ["--no-header", "--map", "date=1,time=2,price=3,volume=4", ...one(T), ...IST],
    make: (rows) => lines(rows, (r) => `${dmy(r.ts)};${partsOf(r.ts).time};${r.price};${r.volume}`)
  },
  {
    name: "month-names.txt",
    args: ["--map", "price=Last", ...one(T), ...IST],
    make: (rows) =>
      lines(
        rows,
        (r) => {
          const { d, hour, m, minutes, y } = partsOf(r.ts)
          const half = hour < 12 ? "AM" : "PM"
          return `${d}-${MONTHS[Number(m) - 1]}-${y}\t${hour % 12 === 0 ? 12 : hour % 12}${minutes} ${half}\t${r.price}\t${r.volume}`
        },
        "Date\tTime\tLast\tVolume"
      )
  },
  {
    name: "pipes.csv",
    args: ["--map", "date=D,time=T,price=P,volume=V", ...one(T), ...IST],
    make: (rows) =>
      lines(
        rows,
        (r) =>
          `${naive(r.ts).slice(0, 10).replaceAll("-", "")}|${partsOf(r.ts).time.replaceAll(":", "")}|${r.price}|${r.volume}`,
        "D|T|P|V"
      )
  },
  ...(
    [
      ["s", (ts: number) => String(ts / 1_000_000)],
      ["ms", (ts: number) => String(ts / 1000)],
      ["us", (ts: number) => String(ts)],
      ["ns", (ts: number) => `${ts}000`]
    ] as const
  ).map(([unit, write]) => ({
    name: `epoch-${unit}.csv`,
    args: ["--map", "exchange_ts=ts", ...one(T)],
    make: (rows: ReadonlyArray<Row>) => lines(rows, (r) => `${write(r.ts)},${r.price},${r.volume}`, "ts,price,volume")
  })),
  {
    name: "packed.csv.gz",
    args: [...one(T), ...IST],
    make: (rows) => gzipSync(lines(rows, (r) => `${naive(r.ts)},${r.price},${r.volume}`, "exchange_ts,price,volume"))
  },
  {
    name: "packed.zip",
    args: [...one(T), ...IST],
    make: (rows) => {
      const header = "exchange_ts,price,volume"
      const part = (some: ReadonlyArray<Row>) => lines(some, (r) => `${naive(r.ts)},${r.price},${r.volume}`, header)
      return zipOf([
        { name: "day/a.csv", data: Buffer.from(part(rows.slice(0, 300))) },
        { name: "day/b.csv", data: Buffer.from(part(rows.slice(300))), stored: true }
      ])
    }
  },
  {
    name: "quoted.csv",
    args: [...one(T), ...IST],
    make: (rows) =>
      lines(rows, (r) => `"${naive(r.ts)}","${thousands(r.price)}","${r.volume}"`, "exchange_ts,price,volume")
  },
  {
    name: "symbols.csv",
    args: ["--map", "symbol=Ticker,exchange_ts=time", ...IST],
    make: (rows, token) =>
      lines(rows, (r) => `NSE:T${token},${naive(r.ts)},${r.price},${r.volume}`, "Ticker,time,price,volume")
  },
  {
    name: "tokens.csv",
    args: [...IST],
    make: (rows, token) =>
      lines(rows, (r) => `${token},${naive(r.ts)},${r.price},${r.volume}`, "instrument_token,exchange_ts,price,volume")
  },
  {
    name: "american.csv",
    args: [...one(T), ...IST],
    make: (rows) =>
      lines(
        rows,
        (r) =>
          `${Number(partsOf(r.ts).m)}/${Number(partsOf(r.ts).d)}/${partsOf(r.ts).y} ${partsOf(r.ts).time}.000,${r.price},${r.volume}`,
        "exchange_ts,price,volume"
      )
  },
  {
    name: "macintosh.csv",
    args: [...one(T), ...IST],
    make: (rows) =>
      lines(rows, (r) => `${naive(r.ts)},${r.price},${r.volume}`, "exchange_ts,price,volume").replaceAll("\n", "\r")
  },
  {
    name: "unicode.txt",
    args: [...one(T), ...IST],
    make: (rows) =>
      Buffer.from(
        `\uFEFF${lines(rows, (r) => `${naive(r.ts)}\t${r.price}\t${r.volume}`, "exchange_ts\tprice\tvolume")}`,
        "utf16le"
      )
  },
  {
    name: "noise.csv",
    args: [...one(T), ...IST, "--round"],
    make: (rows) => lines(rows, (r) => `${naive(r.ts)},${r.price + 0.01},${r.volume}`, "exchange_ts,price,volume")
  },
  {
    name: "gdfl-ticks.csv",
    args: ["--preset", "gdfl"],
    hasBook: true,
    oi: (ts) => ts % 997,
    make: (rows, token) =>
      lines(
        rows,
        (r) => `T${token}.NSE,${dmy(r.ts)},${partsOf(r.ts).time},${r.price},1,2,3,4,${r.volume},${r.ts % 997}`,
        "Ticker,Date,Time,LTP,BuyPrice,BuyQty,SellPrice,SellQty,LTQ,OpenInterest"
      )
  },
  {
    name: "truedata.zip",
    args: ["--preset", "truedata"],
    oi: (ts) => ts % 977,
    make: (rows, token) => {
      const text = lines(
        rows,
        (r) =>
          `${naive(r.ts).slice(0, 10).replaceAll("-", "")},${partsOf(r.ts).time},${r.price},${r.volume},${r.ts % 977}`
      )
      return zipOf([{ name: `T${token}.csv`, data: Buffer.from(text) }])
    }
  },
  {
    name: "gdfl-bars.csv",
    args: ["--preset", "gdfl", "--bars", "1m"],
    bars: "1m",
    oi: threeMinutes,
    make: (rows, token) =>
      lines(
        minuteBars(rows, "1m") as never,
        ((bar: Bar) =>
          `T${token}.NSE,${dmy(bar.ts)},${partsOf(bar.ts).time.slice(0, 6)}59,${barLine(bar)},${threeMinutes(bar.ts)}`) as never,
        "Ticker,Date,Time,Open,High,Low,Close,Volume,Open Interest"
      )
  },
  {
    name: "minutes.csv",
    args: ["--bars", "1m", "--map", "exchange_ts=date", ...one(T), ...IST],
    bars: "1m",
    make: (rows) =>
      lines(
        minuteBars(rows, "1m") as never,
        ((bar: Bar) => `${naive(bar.ts)},${barLine(bar)}`) as never,
        "date,open,high,low,close,volume"
      )
  },
  {
    name: "kite-bars.csv",
    args: ["--preset", "kite", "--bars", "5m", ...one(T)],
    bars: "5m",
    oi: (ts) => ts % 983,
    make: (rows) =>
      lines(
        minuteBars(rows, "5m") as never,
        ((bar: Bar) => `${naive(bar.ts)}+05:30,${barLine(bar)},${bar.ts % 983}`) as never,
        "date,open,high,low,close,volume,oi"
      )
  },
  {
    name: "days.csv",
    args: ["--bars", "1d", ...one(T), ...IST],
    bars: "1d",
    make: (rows) =>
      lines(
        minuteBars(rows, "1d") as never,
        ((bar: Bar) => `${dmy(bar.ts)},${barLine(bar)}`) as never,
        "Date,Open,High,Low,Close,Volume"
      )
  }
]

const data = (name: string) => fileURLToPath(new URL(`../../../shared/data/${name}`, import.meta.url))
const realFuture = data("nifty-futures-2022-01-ticks.csv")
const realIndices = ["nifty50-2022-08-10.csv", "nifty50-2022-08-12.csv"].map(data)

const candlesOf = (url: string, token: number, interval: Interval) =>
  Effect.map(
    getJson(
      `${url}/api/v1/historical/candles?instrument_token=${token}&interval=${interval}&limit=10000&from=2022-01-01T00:00:00Z&to=2026-02-01T00:00:00Z`
    ),
    (answer) =>
      (answer as { readonly candles: ReadonlyArray<Bar> }).candles.map(
        ({ close, high, low, oi, open, ts, volume }) => ({
          ts,
          open,
          high,
          low,
          close,
          volume,
          ...(oi === undefined ? {} : { oi })
        })
      )
  )

/** A row of the future's file. */
interface FutureRow extends Row, Oi {
  readonly bid: ReadonlyArray<number>
  readonly ask: ReadonlyArray<number>
}

const futureRows = (): ReadonlyArray<FutureRow> =>
  readFileSync(realFuture, "utf8")
    .trim()
    .split(/\r?\n/)
    .slice(1)
    .map((line) => {
      const [, date, time, ...numbers] = line.split(",")
      const [d, m, y] = date!.split("/")
      const [price, bid, bids, ask, asks, volume, oi] = numbers.map(Number) as [number, ...Array<number>]
      const ts = Date.parse(`${y}-${m}-${d}T${time}+05:30`) * 1000
      return { ts, price, volume: volume!, oi: oi!, bid: [bid!, bids!], ask: [ask!, asks!] }
    })

interface RestingQuote extends Oi {
  readonly bid: ReadonlyArray<number>
  readonly ask: ReadonlyArray<number>
}

/** What is known at each stamp at which something changed: the last row of it. */
const quotesOf = (rows: ReadonlyArray<FutureRow>): ReadonlyArray<RestingQuote> => {
  const says = ({ ask, bid, oi }: FutureRow) => `${bid} ${ask} ${oi}`
  const changed = rows.filter((row, i) => i === 0 || says(row) !== says(rows[i - 1]!))
  return [...new Map(changed.map(({ ask, bid, oi, ts }) => [ts, { ts, bid, ask, oi }])).values()]
}

/** The quotes of an instrument in cold storage, the latest of each stamp. */
const archivedQuotes = (url: string, date: string, token: number) =>
  Effect.gen(function* () {
    const answer = (yield* getJson(`${url}/api/v1/archive?date=${date}`)) as {
      readonly objects: ReadonlyArray<{ readonly kind: string; readonly path: string }>
    }
    const rows: Array<Readonly<Record<string, number>>> = []
    for (const { kind, path } of answer.objects) {
      if (kind !== "quotes") continue
      const bytes = yield* Effect.promise(() => fetch(`${url}${path}`).then((object) => object.arrayBuffer()))
      rows.push(...((yield* Effect.promise(() => rowsOfParquet(new Uint8Array(bytes)))) as typeof rows))
    }
    const latest = new Map(
      rows
        .filter((row) => row.instrument_token === token)
        .sort((a, b) => a.exchange_ts! - b.exchange_ts! || a.source_offset! - b.source_offset!)
        .map((row) => [row.exchange_ts!, row])
    )
    return [...latest.values()].map(
      (row): RestingQuote => ({
        ts: row.exchange_ts!,
        bid: [row.bid_price_1!, row.bid_quantity_1!],
        ask: [row.ask_price_1!, row.ask_quantity_1!],
        oi: row.oi!
      })
    )
  })
const countOf = (url: string, token: number) =>
  Effect.map(
    getLines(
      `${url}/api/v1/historical/ticks?instrument_token=${token}&from=2022-01-01T00:00:00Z&to=2026-02-01T00:00:00Z`
    ),
    (ticks) => ticks.length
  )

interface Fed {
  readonly path: string
  readonly args: ReadonlyArray<string>
  readonly token: number
  readonly bars: ReadonlyArray<Bar>
  readonly ois: ReadonlyArray<Oi>
  readonly finest: Interval
  readonly name: string
}

// Long: an instance takes some twenty files, three times.
describe("files of every shape", { timeout: LONG_MS * 3 }, () => {
  it.live("go in with one command each, give the bars and quotes of a recompute, and change nothing again", () =>
    Effect.gen(function* () {
      const dir = yield* folder
      const { url } = yield* startInstance(["run"], { DATA_DIR: join(dir, "data"), ARCHIVE_FLUSH_MS: "500" })
      const fed: Array<Fed> = shapes.map(({ args, bars, hasBook, make, name, oi }, i) => {
        const token = 1001 + i
        const rows = rowsFor(i + 1)
        const path = join(dir, name)
        writeFileSync(path, make(rows, token))
        const told = args.map((arg) => arg.replace(T, String(token)))
        const times = (bars === undefined ? rows : minuteBars(rows, bars)).map(({ ts }) => ts)
        const ois = oi === undefined ? [] : times.map((ts) => ({ ts, oi: oi(ts) }))
        return {
          path,
          args: told,
          token,
          bars: (hasBook ? traded(rows) : rows).map(asBar),
          ois,
          finest: bars ?? "1m",
          name
        }
      })
      for (const [i, path] of realIndices.entries()) {
        if (!existsSync(path)) {
          console.warn(`skipped: ${path} is not beside this checkout`)
          continue
        }
        const rows = readFileSync(path, "utf8")
          .trim()
          .split(/\r?\n/)
          .map((line) => line.split(",") as [string, string])
        fed.push({
          path,
          args: [
            "--no-header",
            "--map",
            "exchange_ts=1,price=2",
            "--set",
            `instrument_token=${2001 + i},feed=snapshot`,
            ...IST
          ],
          token: 2001 + i,
          bars: rows.map(([at, price]) =>
            asBar({ ts: Date.parse(`${at.replace(" ", "T")}+05:30`) * 1000, price: Number(price), volume: 0 })
          ),
          ois: [],
          finest: "1m",
          name: `index ${i}`
        })
      }
      const future = existsSync(realFuture) ? futureRows() : undefined
      if (future !== undefined) {
        fed.push({
          path: realFuture,
          args: ["--preset", "gdfl", "--tokens", "NIFTY-I.NFO=3001"],
          token: 3001,
          bars: traded(future).map(asBar),
          ois: future,
          finest: "1m",
          name: "future"
        })
      } else console.warn(`skipped: ${realFuture} is not beside this checkout`)

      const master = join(dir, "instruments.csv")
      writeFileSync(
        master,
        `instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange\n${shapes
          .map((_, i) => `${1001 + i},1,T${1001 + i},,0,,0,0.05,1,EQ,NSE,NSE\n`)
          .join("")}`
      )
      assert.strictEqual((yield* runToEnd(["instruments", "import", master, "--url", url])).code, 0)

      // The command itself, without a process for each file: that is most of the time otherwise.
      const feedAll = Effect.forEach(
        fed,
        ({ args, path }) =>
          Effect.map(Effect.exit(program(mdp, ["feed", "file", path, ...args, "--url", url], "0")), (done) =>
            assert.deepStrictEqual(outcomeOf(done, "mdp"), { code: 0, line: undefined }, path)
          ),
        { discard: true }
      )
      const look = Effect.forEach(fed, ({ finest, token }) =>
        Effect.gen(function* () {
          const intervals = (Object.keys(INTERVALS) as Array<Interval>).filter(
            (one) => INTERVALS[one] >= INTERVALS[finest]
          )
          const candles = yield* Effect.forEach(intervals, (interval) => candlesOf(url, token, interval))
          return { intervals, candles, count: yield* countOf(url, token) }
        })
      )
      yield* feedAll
      yield* untilDrained(url)
      const first = yield* look
      for (const [i, { bars, name, ois }] of fed.entries()) {
        const { candles, intervals } = first[i]!
        for (const [at, interval] of intervals.entries()) {
          assert.deepStrictEqual(candles[at], withOi(rolledUp(bars, interval), ois, interval), `${name} ${interval}`)
        }
      }
      const quotesRest =
        future === undefined
          ? Effect.void
          : Effect.gen(function* () {
              const quotes = quotesOf(future)
              assert.deepStrictEqual(yield* archivedQuotes(url, "2022-01-03", 3001), quotes)
              const { ask, bid, oi, ts } = quotes.at(-1)!
              const answer = (yield* getJson(`${url}/api/v1/quotes?tokens=3001`)) as {
                readonly quotes: ReadonlyArray<{ readonly quote: unknown }>
              }
              assert.deepStrictEqual(answer.quotes[0]!.quote, {
                exchange_ts: ts,
                bid: [[...bid, 0]],
                ask: [[...ask, 0]],
                oi
              })
            })
      yield* quotesRest
      if (isInstalled("python")) {
        const asked = JSON.stringify(fed.map(({ token }, i) => [token, first[i]!.intervals]))
        const agreed = yield* Effect.promise(() => run(PYTHON, [RECOMPUTE, url, asked], { timeout: LONG_MS }))
        const bars = first.reduce((sum, { candles }) => sum + candles.reduce((of, all) => of + all.length, 0), 0)
        assert.strictEqual(Number(agreed.stdout), bars)
      } else
        console.warn("skipped: the recompute with pandas, without Python's tools (npm run services -- install python)")
      const figures = yield* getMetrics(url)
      yield* feedAll
      yield* feedAll
      yield* untilDrained(url)
      assert.deepStrictEqual(yield* look, first)
      yield* quotesRest
      const archived = `topology_stage_received_events_total{stage="archive"}`
      assert.strictEqual((yield* getMetrics(url)).get(archived), figures.get(archived))
    }).pipe(Effect.scoped)
  )
})
