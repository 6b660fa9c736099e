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
import type { RawTick } from "../schema/RawTick.ts"
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
      "which column is which field, by name in any case or by number from 1: date=2,time=3,price=LTP; bid, ask, their quantities and oi are taken and not used"
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
      "rows are bars of this interval, with open, high, low, close and volume: four ticks each, of feed bars_1m and alike, of which the same bars are made; a corrected file fed again adds to what is there, as ticks are never taken back"
    ),
    Flag.optional
  ),
  stamp: Flag.Literals("stamp", BAR_STAMPS).pipe(
    Flag.withDescription("what of its bar a row's time is: start, end, or last: its last second (default start)"),
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
    round: flags.round
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

/** Shows the first rows of a file as they are understood; fails where one of them is bad. Asks no instance, sends nothing. */
export const showPreview = (options: FileFeedOptions): Effect.Effect<void, FeedError> =>
  Effect.gen(function* () {
    const symbols = new Map<number, string>()
    const token = async (symbol: string): Promise<OfDays<number>> => {
      symbols.set(symbols.size + 1, symbol)
      return { is: symbols.size, from: -Infinity, through: Infinity }
    }
    const { name, rows, seen } = yield* preview({ ...options, instruments: { token } }, SHOWN_ROWS)
    const bad = rows.flatMap(({ ticks }) => (typeof ticks === "string" ? [ticks] : []))
    const named = (tick: RawTick): string => cut(symbols.get(tick.instrument_token) ?? String(tick.instrument_token))
    const good = rows.flatMap(({ line, ticks }) => {
      if (typeof ticks === "string") return []
      const first = ticks[0]!
      const start = [String(line), named(first), timeText(first.exchange_ts)]
      if (options.bars === undefined) {
        const volume = first.day_volume >= 0 ? first.day_volume : first.volume
        return [[...start, String(first.price), String(volume), cut(first.feed), String(first.sequence_id ?? "")]]
      }
      const prices = ticks.map(({ price }) => price)
      const volume = ticks.reduce((sum, tick) => sum + tick.volume, 0)
      const ends = [Math.max(...prices), Math.min(...prices), prices[prices.length - 1]!, volume]
      return [[...start, String(first.price), ...ends.map(String)]]
    })
    const columns = seen.columns.map(([field, column]) => `${field} from ${cut(column)}`)
    if (columns.length > 0) tell(`columns: ${columns.join(", ")}`)
    const order = seen.dates === undefined ? [] : [`dates are read in the order --dates ${seen.dates}`]
    for (const what of [...describeSeen(seen), ...order]) tell(printable(what))
    const head =
      options.bars === undefined
        ? ["line", "instrument", "exchange_ts", "price", "volume", "feed", "sequence_id"]
        : ["line", "instrument", "first tick", "open", "high", "low", "close", "volume"]
    if (good.length > 0) tell(table(head, good))
    for (const reason of bad) say("warn", printable(reason))
    if (bad.length > 0) {
      return yield* new FeedError({ message: `${bad.length} of the first ${rows.length} rows of ${name} are bad` })
    }
    tell("nothing was sent (--dry-run)")
  })
