/**
 * Decides how instruments are kept in memory: read from the store at start, after a change here, and where its version
 * says that they changed, which is looked at every minute, and soon after somebody asked for one that is not there:
 * another process may just have put it into the store. What the store has that is no instrument is left out.
 */
import { Clock, Effect, Latch, Layer, Semaphore } from "effect"
import { fullSymbol, type Instrument, SIMULATED_EXCHANGE, usable } from "../../schema/Instrument.ts"
import {
  type InstrumentLines,
  instrumentLines,
  MAX_REJECTED_LINES,
  type RejectedLine
} from "../../schema/InstrumentFile.ts"
import { inTurn, type Meaning, meaningsOf } from "../../schema/Meaning.ts"
import { type Segment, segmentOf } from "../../schema/Sessions.ts"
import { tradingDate, tradingDay } from "../../schema/Tick.ts"
import { instrumentsLeftOut, unknownInstruments } from "../../streams/metrics.ts"
import { Instruments } from "../../streams/ports/Instruments.ts"
import { type KnownInstrument, TickStore } from "../../streams/ports/TickStore.ts"
import { Readiness } from "../../streams/run/Readiness.ts"
import { inTurns, pause, type Slices } from "../../streams/run/slices.ts"
import { building, type InstrumentIndex } from "./instrumentIndex.ts"

/**
 * Instruments held, some 600 bytes each, former meanings of tokens among them; where the store has more, these are left
 * there first, then those that expired longest ago.
 */
export const MAX_INSTRUMENTS = 400_000
/** Unknown tokens listed at most; full: drop-newest, which are only counted. */
const MAX_UNKNOWN_LISTED = 10_000
/** Tokens remembered besides, so that each is counted once; full: the count is a lower bound. */
const MAX_UNKNOWN_COUNTED = 100_000
/** Lines of a file read before others get a turn: about a millisecond's work. */
const LINES_AT_A_TIME = 500

/** Contracts of these exchanges carry their underlying's symbol as name. */
const DERIVATIVES = ["NFO", "BFO"]
/** The broker's numbering: the last byte of a token is its segment. */
const SEGMENT_BYTES: Readonly<Record<number, Segment>> = {
  1: "NSE_EQ",
  2: "NFO_OPT",
  3: "CDS",
  4: "BSE_EQ",
  5: "BFO_OPT",
  6: "BCD",
  7: "MCX",
  9: "NSE_INDEX"
}

const REFRESH = "60 seconds"
/** At most so often, whatever is asked for. */
const REFRESH_AT_MOST = "3 seconds"
/** After a reading there is none for so many times as long as it took: whoever puts again and again waits, not others. */
const REST_TIMES = 4
const MAX_REST_MS = 5000

interface Loaded {
  /** What tokens mean now. */
  readonly list: ReadonlyArray<Instrument>
  readonly byToken: ReadonlyMap<number, Instrument>
  /** All meanings of those tokens that have had another. */
  readonly reused: ReadonlyMap<number, ReadonlyArray<Meaning>>
  /** By full and by bare symbol, in capitals: what means it now. */
  readonly bySymbol: ReadonlyMap<string, ReadonlyArray<Instrument>>
  /** The same of all days, for symbols that have not always meant the same. */
  readonly inTurns: ReadonlyMap<string, ReadonlyArray<Meaning>>
  readonly index: InstrumentIndex
  /** `NFO NIFTY`: what has derivatives, by their exchange. */
  readonly underlyings: ReadonlySet<string>
}

/** What the store's rows are worth: instruments, how many rows are none, and how many names had to be cut. */
interface Usable {
  readonly list: ReadonlyArray<KnownInstrument>
  readonly leftOut: number
  readonly cut: number
  /** The first token whose row is no instrument, or whose name was cut. */
  readonly first: number | undefined
}

function* reading(rows: ReadonlyArray<KnownInstrument>): Slices<Usable> {
  const list: Array<KnownInstrument> = []
  let cut = 0
  let first: number | undefined
  for (const [n, row] of rows.entries()) {
    const instrument = usable(row.instrument)
    if (instrument !== undefined) list.push(instrument === row.instrument ? row : { ...row, instrument })
    if (instrument !== undefined && instrument !== row.instrument) cut += 1
    if (instrument !== row.instrument) first ??= row.instrument.instrument_token
    if (pause(n)) yield
  }
  return { list, leftOut: rows.length - list.length, cut, first }
}

const add = <K, V>(map: Map<K, Array<V>>, key: K, value: V): void => {
  const same = map.get(key)
  if (same === undefined) map.set(key, [value])
  else same.push(value)
}

const replace = <K, V>(map: Map<K, Array<V>>, key: K, values: Array<V>): void => {
  if (values.length === 0) map.delete(key)
  else map.set(key, values)
}

const namesOf = (instrument: Instrument): readonly [bare: string, full: string] => [
  instrument.tradingsymbol.toUpperCase(),
  fullSymbol(instrument).toUpperCase()
]

const always = (instrument: Instrument): Meaning => ({ instrument, from: -Infinity, through: Infinity })

/** From rows by token and day. */
function* loading(rows: ReadonlyArray<KnownInstrument>): Slices<Loaded> {
  const list: Array<Instrument> = []
  const bySymbol = new Map<string, Array<Instrument>>()
  const byToken = new Map<number, Instrument>()
  const reused = new Map<number, ReadonlyArray<Meaning>>()
  const underlyings = new Set<string>()
  /** Full symbols that several rows have, or that are not of all days. */
  const taken = new Set<string>()
  for (let n = 0, from = 0; n < rows.length; n += 1) {
    const { instrument } = rows[n]!
    const [bare, full] = namesOf(instrument)
    if (instrument.expiry !== null) underlyings.add(`${instrument.exchange} ${instrument.name ?? ""}`)
    if (rows[n + 1]?.instrument.instrument_token === instrument.instrument_token) taken.add(full)
    else {
      list.push(instrument)
      byToken.set(instrument.instrument_token, instrument)
      if (bySymbol.has(full)) taken.add(full)
      add(bySymbol, bare, instrument)
      add(bySymbol, full, instrument)
      if (n > from) {
        taken.add(full)
        reused.set(instrument.instrument_token, meaningsOf(rows.slice(from, n + 1)))
      }
      from = n + 1
    }
    if (pause(n)) yield
  }
  const turns = yield* takingTurns(rows, taken, reused, bySymbol)
  const index = yield* building(rows.map(({ instrument }) => instrument))
  return { list, byToken, reused, bySymbol, inTurns: turns, index, underlyings }
}

/** Of full symbols that were several's, and of the bare ones; what means them now is put right by it. */
function* takingTurns(
  rows: ReadonlyArray<KnownInstrument>,
  taken: ReadonlySet<string>,
  reused: ReadonlyMap<number, ReadonlyArray<Meaning>>,
  bySymbol: Map<string, Array<Instrument>>
): Slices<ReadonlyMap<string, ReadonlyArray<Meaning>>> {
  const seen = new Map<string, Array<{ readonly meaning: Meaning; readonly first: number }>>()
  if (taken.size === 0) return new Map()
  for (const [n, { first, instrument }] of rows.entries()) {
    const [, full] = namesOf(instrument)
    if (taken.has(full)) {
      const meanings = reused.get(instrument.instrument_token) ?? [always(instrument)]
      add(seen, full, { meaning: meanings.find((one) => one.instrument === instrument)!, first })
    }
    if (pause(n)) yield
  }
  const turns = new Map<string, Array<Meaning>>()
  let done = 0
  for (const [full, all] of seen) {
    const inOrder = inTurn(all)
    turns.set(full, [...inOrder])
    const bare = full.slice(full.indexOf(":") + 1)
    const others = (bySymbol.get(bare) ?? []).filter((one) => fullSymbol(one).toUpperCase() !== full)
    const now = inOrder.flatMap(({ instrument, through }) => (through === Infinity ? [instrument] : []))
    replace(bySymbol, full, now)
    replace(bySymbol, bare, [...others, ...now])
    for (const one of inOrder) add(turns, bare, one)
    if (pause(done++)) yield
  }
  for (const [bare, all] of turns) {
    if (bare.includes(":")) continue
    // Others of that name have always been what they are.
    const rest = (bySymbol.get(bare) ?? []).filter((one) => !turns.has(fullSymbol(one).toUpperCase()))
    turns.set(bare, [...rest.map(always), ...all])
  }
  return turns
}

/** What a search shows: what there is on a day; else what there is now, and contracts that are over, each once. */
const shown = ({ inTurns: turns, reused }: Loaded, asOf: number | undefined): ((one: Instrument) => boolean) => {
  if (reused.size === 0 && turns.size === 0) return () => true
  return (one) => {
    const all = turns.get(fullSymbol(one).toUpperCase())
    if (all === undefined) return true
    const at = all.findIndex(({ instrument }) => instrument === one)
    const { from, through } = all[at]!
    if (asOf !== undefined) return from <= asOf && asOf <= through
    return through === Infinity || (one.expiry !== null && at === all.length - 1)
  }
}

/** The lines of a text, one after another, without their ends. */
function* linesOf(text: string): Generator<string> {
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf("\n", at)
    const line = text.slice(at, end < 0 ? text.length : end)
    yield line.endsWith("\r") ? line.slice(0, -1) : line
    if (end < 0) return
    at = end + 1
  }
}

const readLines = (lines: InstrumentLines, rest: Iterable<string>) =>
  Effect.gen(function* () {
    const instruments: Array<Instrument> = []
    const rejected: Array<RejectedLine> = []
    let rejectedTotal = 0
    let number = 1
    for (const line of rest) {
      number += 1
      if (number % LINES_AT_A_TIME === 0) yield* Effect.yieldNow
      if (line === "") continue
      const read = lines.read(line, number)
      if (typeof read !== "string") instruments.push(read)
      else {
        rejectedTotal += 1
        if (rejected.length < MAX_REJECTED_LINES) rejected.push({ line: number, reason: read })
      }
    }
    return { instruments, rejected, rejectedTotal }
  })

const today = Effect.map(Clock.currentTimeMillis, (now) => tradingDate(tradingDay(now * 1000)))

/** Instruments of the store, in memory. */
export const layer = Layer.effect(
  Instruments,
  Effect.gen(function* () {
    const store = yield* TickStore
    const readiness = yield* Readiness
    const context = yield* Effect.context<never>()
    let loaded = yield* inTurns(loading([]))
    let version: string | undefined
    const unknown = new Set<number>()
    // Two refreshes at once could put the older list over the newer.
    const one = yield* Semaphore.make(1)
    const searches = yield* Semaphore.make(1)
    let asked = 0
    let answered = 0
    let restsUntil = 0

    const noteUnknown = () => unknownInstruments.updateUnsafe(unknown.size, context)
    const read = Effect.gen(function* () {
      // Before the list: what changes between the two is seen the next time.
      const found = yield* store.instrumentsVersion
      if (found === version) return
      const begun = yield* Clock.currentTimeMillis
      const rows = yield* store.instruments(MAX_INSTRUMENTS + 1)
      const { list, leftOut, cut, first } = yield* inTurns(reading(rows.slice(0, MAX_INSTRUMENTS)))
      loaded = yield* inTurns(loading(list))
      version = found
      instrumentsLeftOut.updateUnsafe(rows.length - list.length, context)
      if (leftOut + cut > 0) {
        yield* Effect.logWarning(
          `instruments: ${leftOut} rows of the store are none and left out, ${cut} names are cut; first instrument_token ${first}`
        )
      }
      if (rows.length > MAX_INSTRUMENTS) {
        yield* Effect.logWarning(
          `instruments: the store has more than ${MAX_INSTRUMENTS}; those that expired longest ago cannot be found`
        )
      }
      const ended = yield* Clock.currentTimeMillis
      restsUntil = ended + Math.min(MAX_REST_MS, REST_TIMES * (ended - begun))
      for (const token of unknown) if (loaded.byToken.has(token)) unknown.delete(token)
      noteUnknown()
    })
    // Whoever asks while one is under way waits for the next, which is one for all of them.
    const refresh = Effect.suspend(() => {
      asked += 1
      const mine = asked
      return one.withPermits(1)(
        Effect.gen(function* () {
          if (answered >= mine) return
          const rest = restsUntil - (yield* Clock.currentTimeMillis)
          if (rest > 0) yield* Effect.sleep(rest)
          const through = asked
          yield* read
          answered = through
        })
      )
    })

    yield* refresh
    noteUnknown()
    const missed = yield* Latch.make()
    const miss = (): void => {
      missed.openUnsafe()
    }
    yield* Effect.sleep(REFRESH_AT_MOST).pipe(
      Effect.andThen(Effect.timeoutOption(missed.await, REFRESH)),
      Effect.andThen(missed.close),
      Effect.andThen(refresh),
      Effect.andThen(readiness.degrade("instruments", false)),
      Effect.catch((error) =>
        Effect.andThen(
          Effect.logWarning(`instruments: kept as they were, ${error.operation}: ${error.message}`),
          readiness.degrade("instruments", true)
        )
      ),
      Effect.forever,
      Effect.forkScoped
    )

    const put = (instruments: ReadonlyArray<Instrument>, day?: number) =>
      Effect.tap(store.putInstruments(instruments, day), () => refresh)

    const meanings = (token: number): ReadonlyArray<Meaning> => {
      const known = loaded.reused.get(token)
      if (known !== undefined) return known
      const instrument = loaded.byToken.get(token)
      return instrument === undefined ? [] : [always(instrument)]
    }
    const at = (token: number, day: number): Instrument | undefined => {
      const known = loaded.reused.get(token)
      if (known === undefined) return loaded.byToken.get(token)
      return known.find(({ through }) => day <= through)?.instrument
    }

    return Instruments.of({
      get: (token) => loaded.byToken.get(token),
      meanings,
      at,
      named: (symbol) => {
        const found = loaded.bySymbol.get(symbol.toUpperCase())
        if (found === undefined) miss()
        return found ?? []
      },
      everNamed: (symbol) => {
        const name = symbol.toUpperCase()
        const found = loaded.inTurns.get(name) ?? loaded.bySymbol.get(name)?.map(always)
        if (found === undefined) miss()
        return found ?? []
      },
      // One at a time: each takes memory in proportion to the list.
      search: (search) =>
        searches.withPermits(1)(
          Effect.gen(function* () {
            const { asOf, only } = search
            const isShown = shown(loaded, asOf)
            const found = yield* inTurns(
              loaded.index.searching({
                today: asOf === undefined ? yield* today : tradingDate(asOf),
                ...search,
                only: only === undefined ? isShown : (one) => isShown(one) && only(one)
              })
            )
            if (found.length === 0) miss()
            return found
          })
        ),
      nearest: (symbol) =>
        searches.withPermits(1)(
          Effect.gen(function* () {
            return yield* inTurns(loaded.index.nearest(symbol, { today: yield* today }))
          })
        ),
      exchanges: () => loaded.index.exchanges,
      all: () => loaded.list,
      segment: (token, day) => {
        const instrument = day === undefined ? loaded.byToken.get(token) : at(token, day)
        if (instrument === undefined) return SEGMENT_BYTES[token & 0xff]
        const { exchange, asset_class, tradingsymbol } = instrument
        // A stock has its closing auction on both exchanges if it has derivatives on either.
        const hasDerivatives =
          asset_class === "EQ" &&
          DERIVATIVES.some((contracts) => loaded.underlyings.has(`${contracts} ${tradingsymbol}`))
        return segmentOf({ exchange, asset_class, hasDerivatives })
      },
      isSimulated: (tokens) => {
        for (const token of tokens) if (loaded.byToken.get(token)?.exchange === SIMULATED_EXCHANGE) return true
        return false
      },
      seen: (tokens) => {
        const before = unknown.size
        for (const token of tokens) {
          if (!loaded.byToken.has(token) && unknown.size < MAX_UNKNOWN_COUNTED) unknown.add(token)
        }
        if (unknown.size === before) return
        noteUnknown()
        miss()
      },
      unknown: () => {
        const tokens = [...unknown].slice(0, MAX_UNKNOWN_LISTED)
        return { tokens, unlisted: unknown.size - tokens.length }
      },
      importFile: (text, day) =>
        Effect.gen(function* () {
          const rows = linesOf(text)
          const header = rows.next()
          const lines = yield* Effect.fromResult(instrumentLines(header.done === true ? "" : header.value))
          const { instruments, rejected, rejectedTotal } = yield* readLines(lines, rows)
          const { added, changed, expired } =
            instruments.length === 0 ? { added: 0, changed: 0, expired: 0 } : yield* put(instruments, day)
          return { added, changed, expired, rejected, rejected_total: rejectedTotal }
        }),
      put,
      refresh
    })
  })
)
