/** Decides what the platform asks of its list of instruments: by token, symbol, search and day, and who is unknown. */
import { Context, Effect } from "effect"
import type { StoreError } from "../../schema/Errors.ts"
import { type AssetClass, fullSymbol, type Instrument } from "../../schema/Instrument.ts"
import type { InstrumentFileRefused, RejectedLine } from "../../schema/InstrumentFile.ts"
import type { Meaning } from "../../schema/Meaning.ts"
import type { Segment } from "../../schema/Sessions.ts"

export interface InstrumentSearch {
  /** Words in any order, each the beginning of a word of symbol, name, exchange, expiry, strike or kind. */
  readonly query: string
  readonly exchange?: string
  readonly asset_class?: AssetClass
  readonly limit: number
  /** Only those it is true of; every instrument unless given. */
  readonly only?: (instrument: Instrument) => boolean
  /** The last price of a token, where it is known: strikes near the underlying's come first. */
  readonly price?: (token: number) => number | undefined
  /** `YYYY-MM-DD`: what expired before it comes last. */
  readonly today?: string
  /** A trading day, since 1970: the instruments of that day, instead of today's and what has expired. */
  readonly asOf?: number
}

export interface InstrumentImport {
  readonly added: number
  readonly changed: number
  readonly expired: number
  /** The first of the refused lines, at most `MAX_REJECTED_LINES`. */
  readonly rejected: ReadonlyArray<RejectedLine>
  /** How many lines were refused in all. */
  readonly rejected_total: number
}

/** Lookups are plain functions on what is in memory: the tick path asks them. */
export class Instruments extends Context.Service<
  Instruments,
  {
    /** What a token means now, also where it has expired. */
    readonly get: (token: number) => Instrument | undefined
    /** What it means, and meant before, ascending: every day is in one of them, where there is any. */
    readonly meanings: (token: number) => ReadonlyArray<Meaning>
    /** What it means on a trading day (since 1970). */
    readonly at: (token: number, day: number) => Instrument | undefined
    /** `EXCHANGE:TRADINGSYMBOL`, or the bare symbol: every instrument of that name now, any case. */
    readonly named: (symbol: string) => ReadonlyArray<Instrument>
    /** Every instrument that has or had that name, and on which days. */
    readonly everNamed: (symbol: string) => ReadonlyArray<Meaning>
    /** Best first, as `instrumentIndex` orders them; today unless a day is given. */
    readonly search: (search: InstrumentSearch) => Effect.Effect<ReadonlyArray<Instrument>>
    /** What may be meant by a symbol that no instrument has. */
    readonly nearest: (symbol: string) => Effect.Effect<Instrument | undefined>
    /** Those that instruments are of, the best known first. */
    readonly exchanges: () => ReadonlyArray<string>
    readonly all: () => ReadonlyArray<Instrument>
    /**
     * The segment that a token trades in on a trading day (since 1970), now unless one is given; a token that no
     * instrument has is judged by its last byte, as the broker numbers them. `undefined` where no trading hours are known.
     */
    readonly segment: (token: number, day?: number) => Segment | undefined
    /** Whether one of these tokens is an instrument of the simulator's exchange. */
    readonly isSimulated: (tokens: Iterable<number>) => boolean
    /** Notes tokens that ticks came for; those that no instrument has are listed. */
    readonly seen: (tokens: Iterable<number>) => void
    /** Tokens seen that no instrument has, in the order seen; a bounded number, then only counted. */
    readonly unknown: () => { readonly tokens: ReadonlyArray<number>; readonly unlisted: number }
    /**
     * Takes the broker's file of a trading day (since 1970), today unless one is given; refused lines are left out, a
     * file without the needed columns is refused whole.
     */
    readonly importFile: (
      text: string,
      day?: number
    ) => Effect.Effect<InstrumentImport, StoreError | InstrumentFileRefused>
    readonly put: (
      instruments: ReadonlyArray<Instrument>,
      day?: number
    ) => Effect.Effect<{ readonly added: number; readonly changed: number; readonly expired: number }, StoreError>
    /** Reads the store's instruments again. */
    readonly refresh: Effect.Effect<void, StoreError>
  }
>()("market-data-platform/streams/Instruments") {}

/** What an error adds for a symbol that no instrument has: the nearest one, where there is any. */
export const didYouMean = (
  symbol: string,
  instruments: Pick<Instruments["Service"], "nearest">
): Effect.Effect<string> =>
  Effect.map(instruments.nearest(symbol), (near) => (near === undefined ? "" : `: did you mean ${fullSymbol(near)}?`))
