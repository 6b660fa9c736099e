/** Decides which instrument a symbol means on the days that are asked for, of those that the caller may see. */
import { Effect } from "effect"
import { showValue } from "../schema/Explain.ts"
import { fullSymbol, type Instrument } from "../schema/Instrument.ts"
import { describeMeaning, type Meaning } from "../schema/Meaning.ts"
import { tradingDate } from "../schema/Tick.ts"
import { didYouMean, type Instruments } from "../streams/ports/Instruments.ts"
import { Caller, type Days, refuseInstruments } from "./caller.ts"
import { BadRequest, type Forbidden, NotFound } from "./errors.ts"

/** Instruments named where a symbol may mean several. */
const MAX_CHOICES = 10

/** Those of one token that follow each other without a day between, as one. */
const joined = (meanings: ReadonlyArray<Meaning>): ReadonlyArray<Meaning> => {
  const all: Array<Meaning> = []
  for (const one of meanings.toSorted((a, b) => a.from - b.from)) {
    const at = all.findIndex(
      ({ instrument, through }) =>
        instrument.instrument_token === one.instrument.instrument_token && through + 1 >= one.from
    )
    if (at < 0) all.push(one)
    else all[at] = { ...one, from: all[at]!.from }
  }
  return all
}

const within = ({ from, through, ...rest }: Meaning, days: Days): ReadonlyArray<Meaning> =>
  from > days.through || through < days.from
    ? []
    : [{ ...rest, from: Math.max(from, days.from), through: Math.min(through, days.through) }]

const listed = (meanings: ReadonlyArray<Meaning>, show: (one: Meaning) => string): string =>
  `${meanings.slice(0, MAX_CHOICES).map(show).join(", ")}${meanings.length > MAX_CHOICES ? ", …" : ""}`

const shownDays = (asked: Asked): string => {
  if (asked === "latest") return "on any day"
  if ("asOf" in asked) return `on ${tradingDate(asked.asOf)}`
  if (asked.from === asked.through) return `on ${tradingDate(asked.from)}`
  const since = Number.isFinite(asked.from) ? `from ${tradingDate(asked.from)} on` : ""
  const until = Number.isFinite(asked.through) ? `through ${tradingDate(asked.through)}` : ""
  return `${since} ${until}`.trim()
}

/** All that a name ever was of what `latest` is on its exchange, ascending: one follows another. */
export const allOf = (
  latest: Meaning,
  instruments: Pick<Instruments["Service"], "everNamed">,
  sees: (token: number, instrument: Instrument) => boolean
): ReadonlyArray<Meaning> =>
  joined(
    instruments
      .everNamed(fullSymbol(latest.instrument))
      .filter(({ instrument }) => sees(instrument.instrument_token, instrument))
  )

/** Some days, or one of the days on which a symbol means the same, or the last on which it means anything. */
export type Asked = Days | { readonly asOf: number } | "latest"

/** What is meant of all that a symbol ever meant. */
const pick = (all: ReadonlyArray<Meaning>, asked: Asked): ReadonlyArray<Meaning> => {
  if (asked === "latest") {
    const last = Math.max(...all.map(({ through }) => through))
    return all.filter(({ through }) => through === last)
  }
  if ("asOf" in asked) return all.filter(({ from, through }) => from <= asked.asOf && asked.asOf <= through)
  return all.flatMap((one) => within(one, asked))
}

/**
 * What a symbol means as it is asked for, and on which days: one instrument, or it is refused with the choices.
 * `parameter` says where it was asked for.
 */
export const meantBy = (
  symbol: string,
  asked: Asked,
  instruments: Pick<Instruments["Service"], "everNamed" | "nearest">,
  parameter: string
): Effect.Effect<Meaning, BadRequest | Forbidden | NotFound> =>
  Effect.gen(function* () {
    const { key } = yield* Caller
    const ever = instruments.everNamed(symbol)
    const seen =
      key === undefined || !key.isRestricted
        ? ever
        : ever.filter(({ instrument }) => key.sees(instrument.instrument_token, instrument))
    // A key that may not see all that the symbol could be is not told whether there is another.
    if (seen.length === 0 && key?.seesAllOf(symbol) === false) {
      return yield* refuseInstruments(parameter, `${parameter}: key "${key.name}" is not for ${showValue(symbol)}`)
    }
    if (seen.length === 0) {
      const hint = key?.isRestricted === true ? "" : yield* didYouMean(symbol, instruments)
      return yield* new NotFound({ parameter, message: `${parameter}: no instrument is ${showValue(symbol)}${hint}` })
    }
    const all = joined(seen)
    const meant = pick(all, asked)
    const [first, second] = meant
    if (first === undefined) {
      return yield* new NotFound({
        parameter,
        message: `${parameter}: no instrument was ${showValue(symbol)} ${shownDays(asked)}: it is ${listed(all, describeMeaning)}`
      })
    }
    if (second === undefined) return first
    const names = new Set(meant.map(({ instrument }) => fullSymbol(instrument)))
    const what =
      names.size > 1
        ? `may be ${listed(meant, ({ instrument }) => `${fullSymbol(instrument)} (${instrument.instrument_token})`)}`
        : `is not the same on all these days: ${listed(meant, describeMeaning)}`
    return yield* new BadRequest({
      parameter,
      message: `${parameter}: ${showValue(symbol)} ${what}`
    })
  })
