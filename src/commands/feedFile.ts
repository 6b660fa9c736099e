/** Decides the flags of `mdp feed file`, what they are for, and how the first rows of a file are shown. */
import { Effect, Option } from "effect"
import { Argument, type Command, Flag } from "effect/cli"
import { BAR_INTERVALS, BAR_STAMPS } from "../layers/feeds/barTicks.ts"
import { describeSeen, type FileFeedOptions, preview } from "../layers/feeds/FileFeed.ts"
import { type FileField, fileFields, isFileField, type RowOptions } from "../layers/feeds/fileFields.ts"
import { PRESETS, presetOf } from "../layers/feeds/filePresets.ts"
import { TIME_UNITS } from "../layers/feeds/fileTimes.ts"
import type { OfDays } from "../layers/feeds/instrumentAnswers.ts"
import { DELIMITERS } from "../schema/delimited.ts"
import { FeedError } from "../schema/Errors.ts"
import { makeZone } from "../schema/NaiveTime.ts"
import { printable } from "../schema/printable.ts"
import { type Level, type QuoteFieldName, quoteFields } from "../schema/Quote.ts"
import type { RawRecord } from "../schema/RawTick.ts"
import { MAX_TOKEN } from "../schema/RawValues.ts"
import { DATE_ORDERS } from "../schema/WrittenTime.ts"
import { say, tell } from "./lines.ts"

/** Rows that a dry run shows. */
const SHOWN_ROWS = 10
const MAX_CELL_CHARS = 32

/** `name=value` pairs separated by commas. */
const pairsOf = (text: string): ReadonlyArray<readonly [string, string]> =>
  text.split(",").map((pair) => {
    const [name, value] = [pair.slice(0, pair.indexOf("=")).trim(), pair.slice(pair.indexOf("=") + 1).trim()]
    if (!pair.includes("=") || name === "" || value === "") {
      throw new Error(`field=value, got ${JSON.stringify(pair)}`)
    }
    return [name, value] as const
  })

const withPairs = <A>(name: string, metavar: string, read: (pairs: ReturnType<typeof pairsOf>) => A, empty: A) =>
  Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.mapTryCatch(
      (text) => read(pairsOf(text)),
      (error) => `Expected ${(error as Error).message}`
    ),
    Flag.withDefault(empty)
  )

const fieldsFlag = (name: string) =>
  withPairs(
    name,
    "field=…,field=…",
    (pairs) => {
      const fields = new Map<FileField, string>()
      for (const [field, value] of pairs) {
        if (!isFileField(field)) throw new Error(`one of ${fileFields.join(", ")}, got ${JSON.stringify(field)}`)
        if (fields.has(field)) throw new Error(`${field} once`)
        fields.set(field, value)
      }
      return fields as ReadonlyMap<FileField, string>
    },
    new Map() as ReadonlyMap<FileField, string>
  )

const tokensFlag = withPairs(
  "tokens",
  "symbol=…,symbol=…",
  (pairs) =>
    new Map(
      pairs.map(([symbol, text]) => {
        const token = Number(text)
        if (!/^\d+$/.test(text) || token < 1 || token > MAX_TOKEN) {
          throw new Error(`a token from 1 to ${MAX_TOKEN}, got ${JSON.stringify(text)}`)
        }
        return [symbol.toLowerCase(), token] as const
      })
    ) as ReadonlyMap<string, number>,
  new Map() as ReadonlyMap<string, number>
)

export const fileFlags = {
  file: Argument.String("FILE").pipe(
    Argument.withDescription("the file, also gzipped, or a zip of such files; - is standard input")
  ),
  preset: Flag.Literals("preset", PRESETS).pipe(
    Flag.withDescription("a vendor's files: their columns, dates, time zone and what their bars are stamped with"),
    Flag.optional
  ),
  format: Flag.Literals("format", ["csv", "ndjson"]).pipe(
    Flag.withDescription("the file's format (default: by its name, NDJSON for standard input)"),
    Flag.optional
  ),
  noHeader: Flag.Boolean("no-header").pipe(
    Flag.withDescription("a CSV file without a line of column names"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  delimiter: Flag.String("delimiter").pipe(
    Flag.withDescription(
      `what separates columns: ${Object.keys(DELIMITERS).join(", ")}, or that character (default: as the first lines have it)`
    ),
    Flag.mapTryCatch(
      (text) => {
        const named = (DELIMITERS as Readonly<Record<string, string>>)[text]
        const found = named ?? (text === "\\t" ? "\t" : Object.values<string>(DELIMITERS).find((one) => one === text))
        if (found === undefined) throw new Error()
        return found
      },
      () => `Expected one of ${Object.keys(DELIMITERS).join(", ")}`
    ),
    Flag.optional
  ),
  map: fieldsFlag("map").pipe(
    Flag.withDescription(
      "which column is which field, by name in any case or by number from 1: date=2,time=3,price=LTP; of a quote too: bid_price=BuyPrice,bid_quantity=BuyQty,bid_orders=…, down to ask_price_5=…, and oi, last_quantity, average_price, total_buy_quantity, open, high, low, previous_close and what else a quote has; then a row without a price is a quote alone"
    )
  ),
  set: fieldsFlag("set").pipe(
    Flag.withDescription(
      "fields that are the same in every row: instrument_token=256265,volume=0,feed=snapshot; symbol=@name is the file's own name"
    )
  ),
  tokens: tokensFlag.pipe(
    Flag.withDescription("tokens of symbols in the file that the instance does not know: NIFTY-I.NFO=12345")
  ),
  tz: Flag.String("tz").pipe(
    Flag.withDescription("time zone of times written without an offset, such as Asia/Kolkata"),
    Flag.mapTryCatch(
      (name) => {
        const zone = makeZone(name)
        if (zone === undefined) throw new Error()
        return zone
      },
      () => "Expected an IANA time zone, such as Asia/Kolkata"
    ),
    Flag.optional
  ),
  dates: Flag.Literals("dates", DATE_ORDERS).pipe(
    Flag.withDescription(
      "order of year, month and day in dates of numbers (default: as a row has it that has only one)"
    ),
    Flag.optional
  ),
  unit: Flag.Literals("unit", TIME_UNITS).pipe(
    Flag.withDescription("unit of epoch numbers (default: by their size, and said)"),
    Flag.optional
  ),
  bars: Flag.Literals("bars", BAR_INTERVALS).pipe(
    Flag.withDescription(
      "rows are bars of this interval, with open, high, low, close, volume, and oi where there is one: four ticks each, of feed bars_1m and alike, of which the same bars are made; a corrected file fed again adds to what is there, as ticks are never taken back"
    ),
    Flag.optional
  ),
  stamp: Flag.Literals("stamp", BAR_STAMPS).pipe(
    Flag.withDescription("what of its bar a row's time is: start, end, or last: its last second (default start)"),
    Flag.optional
  ),
  untraded: Flag.Literals("untraded", ["tick", "quote"]).pipe(
    Flag.withDescription(
      "what a row is that has a book, volume 0 and the price of its instrument's row before: a tick, or a quote alone (default tick; presets of ticks: quote)"
    ),
    Flag.optional
  ),
  tickSize: Flag.Finite("tick-size").pipe(
    Flag.withDescription(
      "prices finer than this are refused, 0: none (default: the instrument's, as the instance knows it)"
    ),
    Flag.filter(
      (size) => size >= 0,
      () => "Expected a number from 0"
    ),
    Flag.optional
  ),
  round: Flag.Boolean("round").pipe(
    Flag.withDescription("round prices to their tick size instead, and to 7 decimals where there is none"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  dryRun: Flag.Boolean("dry-run").pipe(
    Flag.withDescription("show the first rows as they are understood, and send nothing"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  onError: Flag.Literals("on-error", ["fail", "skip"]).pipe(
    Flag.withDescription(
      "what a bad row does: keeps the whole file out (of standard input, what comes after it), or is skipped (default fail)"
    ),
    Flag.withDefault("fail")
  )
}

export type FileFlags = Command.Command.Config.Infer<typeof fileFlags>

export const fileExamples = [
  {
    command: "mdp feed file ticks.csv --tz Asia/Kolkata --map exchange_ts=time,price=ltp --set instrument_token=256265",
    description: "Ticks with a header, of one instrument"
  },
  {
    command:
      "mdp feed file day.csv --no-header --map exchange_ts=1,price=2 --set instrument_token=256265 --tz Asia/Kolkata",
    description: "Without a header: columns by number"
  },
  {
    command:
      "mdp feed file ticks.txt --delimiter tab --map date=1,time=2,symbol=3,price=4 --no-header --dates dmy --tz Asia/Kolkata",
    description: "Date and time in two columns, several instruments by symbol"
  },
  {
    command: "mdp feed file trades.csv.gz --map exchange_ts=ts,instrument_token=token --unit ms --round",
    description: "Epoch milliseconds, prices rounded to the tick size"
  },
  {
    command:
      "mdp feed file book.csv --tz Asia/Kolkata --map exchange_ts=time,price=ltp,bid_price=BuyPrice,bid_quantity=BuyQty,ask_price=SellPrice,ask_quantity=SellQty,bid_price_2=BuyPrice2,bid_quantity_2=BuyQty2,oi=OpenInterest --set instrument_token=256265",
    description: "Quotes beside the ticks, or alone in rows without a price"
  },
  {
    command: "mdp feed file minutes.csv --bars 1m --tz Asia/Kolkata --map exchange_ts=date --set symbol=NSE:RELIANCE",
    description: "Bars of a minute"
  },
  { command: "mdp feed file GDFLNFO_TICK_01072025.zip --preset gdfl --on-error skip", description: "A vendor's day" },
  { command: "mdp feed file NIFTY-I.csv --preset gdfl --bars 1m --tokens NIFTY-I.NFO=12345", description: "Its bars" },
  {
    command: "mdp feed file NSE_IDX_TICK_20221003.zip --preset truedata",
    description: "One file an instrument, named by it"
  },
  { command: "zcat ticks.ndjson.gz | mdp feed file -", description: "NDJSON from standard input" },
  {
    command: "mdp feed file ticks.csv --dry-run --tz Asia/Kolkata --set instrument_token=256265",
    description: "Look first"
  }
]

/** By the file's name; a missing header, columns and a vendor can only be CSV's. */
const formatOf = ({ delimiter, file, noHeader, preset }: FileFlags): "csv" | "ndjson" =>
  noHeader || Option.isSome(delimiter) || Option.isSome(preset) || /\.(csv|tsv|txt|zip)(\.gz)?$/i.test(file)
    ? "csv"
    : "ndjson"

/** How rows are read, as the flags say; a preset gives what they do not. */
export const rowOptionsOf = (flags: FileFlags): RowOptions => {
  const preset = Option.isSome(flags.preset) ? presetOf(flags.preset.value) : undefined
  const isNamed = (["instrument_token", "symbol"] as const).some(
    (field) => flags.map.has(field) || flags.set.has(field)
  )
  const symbol = isNamed ? undefined : preset?.symbol
  return {
    format: Option.getOrElse(flags.format, () => formatOf(flags)),
    hasHeader: !flags.noHeader && preset?.hasHeader !== false,
    map: flags.map,
    set: symbol === undefined ? flags.set : new Map([...flags.set, ["symbol", symbol]]),
    columns: preset?.columns,
    zone: Option.getOrElse(flags.tz, () => (preset?.tz === undefined ? undefined : makeZone(preset.tz))),
    dates: Option.getOrElse(flags.dates, () => preset?.dates),
    unit: Option.getOrUndefined(flags.unit),
    delimiter: Option.getOrUndefined(flags.delimiter),
    ...(Option.isSome(flags.bars) ? { bars: flags.bars.value } : {}),
    stamp: Option.getOrElse(flags.stamp, () => preset?.stamp),
    tickSize: Option.getOrUndefined(flags.tickSize),
    round: flags.round,
    untraded: Option.getOrElse(flags.untraded, () => preset?.untraded)
  }
}

const cut = (text: string): string => {
  const shown = printable(text)
  return shown.length > MAX_CELL_CHARS ? `${shown.slice(0, MAX_CELL_CHARS - 1)}…` : shown
}

/** Rows of cells below each other, numbers to the right. */
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const all = [head, ...rows]
  const widths = head.map((_, at) => Math.max(...all.map((row) => row[at]!.length)))
  const isNumber = head.map((_, at) => rows.every((row) => /^-?[\d.]*$/.test(row[at]!)))
  return all
    .map((row) =>
      row
        .map((cell, at) => (isNumber[at] ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!)))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

const IST = new Intl.DateTimeFormat("sv-SE", { timeZone: "Asia/Kolkata", dateStyle: "short", timeStyle: "medium" })

/** In India, with the fraction that there is. */
const timeText = (micros: number): string => {
  const fraction = String(micros % 1_000_000)
    .padStart(6, "0")
    .replace(/0+$/, "")
  return `${IST.format(Math.floor(micros / 1000))}${fraction === "" ? "" : `.${fraction}`} IST`
}

/** Best of a side as price × quantity, and how many levels lie behind it. */
const sideText = (levels: ReadonlyArray<Level>): string => {
  const [best] = levels
  if (best === undefined) return "none"
  return `${best[0]} × ${best[1]}${levels.length === 1 ? "" : ` + ${levels.length - 1}`}`
}

const QUOTE_NAMES = Object.keys(quoteFields) as ReadonlyArray<QuoteFieldName>

/** What the quotes of some rows say, a column for each field that one of them has. */
const quoteTable = (rows: ReadonlyArray<ReadonlyArray<RawRecord>>) => {
  const quotes = rows.map((records) => records[records.length - 1]?.quote?.state)
  const head = QUOTE_NAMES.filter((name) => quotes.some((quote) => quote?.[name] !== undefined))
  const cellsOf = (quote: (typeof quotes)[number]) =>
    head.map((name) => {
      const value = quote?.[name]
      if (value === undefined) return ""
      return typeof value !== "number" ? sideText(value) : name === "last_trade_ts" ? timeText(value) : String(value)
    })
  return { head, cells: quotes.map(cellsOf) }
}

/** Shows the first rows of a file as they are understood; fails where one of them is bad. Asks no instance, sends nothing. */
export const showPreview = (options: FileFeedOptions): Effect.Effect<void, FeedError> =>
  Effect.gen(function* () {
    const symbols = new Map<number, string>()
    const token = async (symbol: string): Promise<OfDays<number>> => {
      symbols.set(symbols.size + 1, symbol)
      return { is: symbols.size, from: -Infinity, through: Infinity }
    }
    const { name, rows, seen } = yield* preview({ ...options, instruments: { token } }, SHOWN_ROWS)
    const bad = rows.flatMap(({ records }) => (typeof records === "string" ? [records] : []))
    const good = rows.flatMap(({ line, records }) => (typeof records === "string" ? [] : [{ line, records }]))
    const quotes = quoteTable(good.map(({ records }) => records))
    const cells = good.map(({ line, records }, at) => {
      const { exchange_ts, feed, instrument_token: token } = (records[0]!.tick ?? records[0]!.quote)!
      const start = [String(line), cut(symbols.get(token) ?? String(token)), timeText(exchange_ts)]
      const ticks = records.flatMap(({ tick }) => (tick === undefined ? [] : [tick]))
      const [first] = ticks
      if (options.bars === undefined || first === undefined) {
        const volume = first === undefined ? "" : String(first.day_volume >= 0 ? first.day_volume : first.volume)
        const tick = [String(first?.price ?? ""), volume, cut(feed), String(first?.sequence_id ?? "")]
        return [...start, ...tick, ...quotes.cells[at]!]
      }
      const prices = ticks.map(({ price }) => price)
      const volume = ticks.reduce((sum, tick) => sum + tick.volume, 0)
      const ends = [Math.max(...prices), Math.min(...prices), prices[prices.length - 1]!, volume]
      return [...start, String(first.price), ...ends.map(String), ...quotes.cells[at]!]
    })
    const columns = seen.columns.map(([field, column]) => `${field} from ${cut(column)}`)
    if (columns.length > 0) tell(`columns: ${columns.join(", ")}`)
    const order = seen.dates === undefined ? [] : [`dates are read in the order --dates ${seen.dates}`]
    for (const what of [...describeSeen(seen), ...order]) tell(printable(what))
    const head =
      options.bars === undefined
        ? ["line", "instrument", "exchange_ts", "price", "volume", "feed", "sequence_id"]
        : ["line", "instrument", "first tick", "open", "high", "low", "close", "volume"]
    if (cells.length > 0) tell(table([...head, ...quotes.head], cells))
    for (const reason of bad) say("warn", printable(reason))
    if (bad.length > 0) {
      return yield* new FeedError({ message: `${bad.length} of the first ${rows.length} rows of ${name} are bad` })
    }
    tell("nothing was sent (--dry-run)")
  })
