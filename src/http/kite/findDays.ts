/**
 * Decides where the gateway finds what is known of instruments before it carries on by itself: the live market's day in
 * the store, what of a replayed day lies before its run in the past's bars, ticks and quotes, and what the day before
 * closed at.
 */
import { Clock, Effect, Exit, type Scope, Semaphore } from "effect"
import type { Candle } from "../../schema/Candle.ts"
import type { StoreError } from "../../schema/Errors.ts"
import type { Quote } from "../../schema/Quote.ts"
import { tradingDay, tradingDayStart } from "../../schema/Tick.ts"
import { MIN_MICROS } from "../../schema/Time.ts"
import type { FoundQuotes } from "../../streams/fanOut/history.ts"
import type { LogPlace } from "../../streams/fanOut/parts.ts"
import { RecentMap } from "../../streams/log/recentMap.ts"
import { History } from "../../streams/ports/History.ts"
import { type DaySoFar, type TickCursor, TickStore } from "../../streams/ports/TickStore.ts"
import { newestBars } from "../newestBars.ts"
import { newestQuote } from "../newestQuote.ts"
import { type Close, Figures, type Known, type Part } from "./Figures.ts"
import type { Market, Watched } from "./Market.ts"

/** Instruments asked of the store in one question. */
const ASKED_AT_ONCE = 300
/** Instruments whose bars are looked at a time, for one request. */
const LOOKS = 4
/** Questions of watchers under way at a time. */
const FINDS = 2
/**
 * How often the store is asked again while it does not answer, or is behind the stream; after so many times only each so
 * many times.
 */
const AGAIN_MS = 250
const QUICK_TRIES = 20
const SLOW_ROUNDS = 20
/** Closes of days that are remembered. */
const MAX_CLOSES = 10_000
const PAGE = 10_000
const MICROS_PER_MINUTE = 60_000_000

const joined = (parts: ReadonlyArray<Part>): Part | undefined => {
  const [first] = parts
  return first === undefined
    ? undefined
    : {
        open: first.open,
        high: Math.max(...parts.map(({ high }) => high)),
        low: Math.min(...parts.map(({ low }) => low)),
        close: parts.at(-1)!.close,
        volume: parts.reduce((sum, { volume }) => sum + volume, 0)
      }
}

/** What a bar's pieces were paid with, as near as a bar tells. */
const paid = ({ high, low, close, volume }: Candle): number => ((high + low + close) / 3) * volume

/** A run of a market, and the market's time when something of it was asked for. */
interface At {
  readonly run: number
  readonly from: number
}

/** Instruments that somebody watches and of which not all is known, each with how often it was asked for again. */
interface Lacking extends At {
  readonly tries: Map<Watched, number>
}

const tellWatchers = ({ figures, watchers }: Watched): void => {
  for (const watcher of watchers) {
    watcher.changed(figures)
    watcher.flush()
  }
}

export interface FindDays {
  /** The figures of these instruments, those of which nothing is known left out. Nothing of it is carried on with. */
  readonly read: (
    market: Market,
    tokens: ReadonlyArray<number>,
    from: number
  ) => Effect.Effect<ReadonlyMap<number, Figures>, StoreError>
  /**
   * Finds the day so far of instruments that somebody watches: once before it answers, and where that fails, or does not
   * tell all, again by and by for as long as they are watched.
   */
  readonly find: (market: Market, wanted: ReadonlyArray<Watched>, from: number) => Effect.Effect<void, StoreError>
}

/** The live market's newest quotes of instruments, of those that have any. */
export type FindQuotes = (tokens: ReadonlyArray<number>) => Effect.Effect<FoundQuotes, StoreError>

export const makeFindDays = (
  findQuotes: FindQuotes
): Effect.Effect<FindDays, never, History | TickStore | Scope.Scope> =>
  Effect.gen(function* () {
    const history = yield* History
    const store = yield* TickStore
    const scope = yield* Effect.scope
    const closes = new RecentMap<string, { readonly close: Close | undefined }>(MAX_CLOSES)

    const minutes = (token: number, from: number, to: number) =>
      history.candles({ instrument_token: token, interval: "1m", from, to, limit: PAGE })

    /** What the newest day before one closed at; asked once a day. */
    const closeBefore = Effect.fnUntraced(function* (token: number, day: number) {
      const key = `${token} ${day}`
      const known = closes.get(key)
      if (known !== undefined) return known.close
      const found = yield* newestBars(history, {
        token,
        segment: undefined,
        interval: "1d",
        from: MIN_MICROS,
        to: tradingDayStart(day),
        limit: 1,
        session: "all",
        now: (yield* Clock.currentTimeMillis) * 1000
      })
      const [bar] = found
      const close = bar === undefined ? undefined : { price: bar.close, day: tradingDay(bar.ts) }
      closes.set(key, { close })
      return close
    })

    const withClose = Effect.fnUntraced(function* (figures: Figures) {
      const { lacksClose, newestDay, token } = figures
      if (newestDay !== undefined && lacksClose) figures.closedAt(yield* closeBefore(token, newestDay))
    })

    /** The store's word on a day so far. What was paid in it is told by its bars, where no quote says the average. */
    const knownOf = Effect.fnUntraced(function* (
      { last, open, high, low, volume }: DaySoFar,
      quote: Quote | undefined
    ) {
      const day = tradingDay(last.exchange_ts)
      const lacksAverage = (quote?.average_price ?? 0) === 0 || tradingDay(quote!.exchange_ts) < day
      const from = tradingDayStart(day)
      const bars = lacksAverage ? yield* minutes(last.instrument_token, from, last.exchange_ts + 1) : []
      const pieces = bars.reduce((sum, bar) => sum + bar.volume, 0)
      const turnover = bars.reduce((sum, bar) => sum + paid(bar), 0)
      const { epoch, position } = last
      const known: Known = {
        day,
        price: last.price,
        volume: last.volume,
        exchange_ts: last.exchange_ts,
        place: epoch === null || position === null ? undefined : { epoch, position },
        so_far: { open, high, low, close: last.price, volume },
        turnover: pieces === 0 ? 0 : (turnover / pieces) * volume,
        previousClose: undefined
      }
      return known
    })

    /** Asks the store for the live market's days, and tells `take` of each instrument; `failed`: quotes, it did not say. */
    const ofStore = (
      tokens: ReadonlyArray<number>,
      take: (token: number, quote: Quote | undefined, failed: boolean) => Figures,
      found: (token: number, known: Known | undefined) => void
    ): Effect.Effect<void, StoreError> =>
      Effect.gen(function* () {
        for (let at = 0; at < tokens.length; at += ASKED_AT_ONCE) {
          const some = tokens.slice(at, at + ASKED_AT_ONCE)
          const [days, { failed, quotes }] = yield* Effect.all([store.daysSoFar(some), findQuotes(some)])
          yield* Effect.forEach(
            some,
            Effect.fnUntraced(function* (token) {
              const day = days.get(token)
              const figures = take(token, quotes.get(token), failed)
              found(token, day === undefined ? undefined : yield* knownOf(day, quotes.get(token)))
              yield* withClose(figures)
            }),
            { concurrency: LOOKS, discard: true }
          )
        }
      })

    /** Whether the store has come to places in the log by now. */
    const reached = Effect.fnUntraced(function* (needs: ReadonlyArray<LogPlace | undefined>) {
      const incarnations = new Set(needs.flatMap((need) => (need === undefined ? [] : [need.incarnation])))
      const offsets = new Map<string, number>()
      for (const incarnation of incarnations) {
        for (const { partition, offset } of yield* store.bookmarks(incarnation)) {
          offsets.set(`${incarnation} ${partition}`, offset)
        }
      }
      return ({ incarnation, partition, offset }: LogPlace) =>
        (offsets.get(`${incarnation} ${partition}`) ?? 0) >= offset
    })

    const findLive = (market: Market, wanted: ReadonlyArray<Watched>): Effect.Effect<void, StoreError> =>
      Effect.gen(function* () {
        const isReached = yield* reached(wanted.map(({ need }) => need))
        const asked = new Map<number, { readonly one: Watched; readonly need: LogPlace | undefined }>()
        for (const one of wanted) {
          const { need } = one
          // What was found before is no more by now, as far as anybody can tell.
          const isSame = one.isFound && need !== undefined && !isReached(need)
          if (!isSame) asked.set(one.figures.token, { one, need })
        }
        yield* ofStore(
          [...asked.keys()],
          (token, quote, failed) => {
            const { need, one } = asked.get(token)!
            const { channel } = market
            const isInMemory = channel.hasNewestQuote(token)
            const newest = isInMemory ? channel.quote(token) : quote
            if (newest !== undefined) one.figures.takeQuote(newest)
            // Nobody knows how far the store is to come, or it has.
            const isTold = !failed && need === one.need && (need === undefined || isReached(need))
            if (isInMemory || isTold) one.isQuoteNewest = true
            return one.figures
          },
          (token, known) => {
            const { need, one } = asked.get(token)!
            // Where it changed meanwhile it was asked too early.
            const hasPassed = need !== undefined && need === one.need && isReached(need)
            market.found(one, known, hasPassed || one.reaches(known?.place))
          }
        )
      })

    /** The last of what came of an instrument within a minute, and what it makes. */
    const ticksOf = Effect.fnUntraced(function* (token: number, from: number, to: number) {
      const parts: Array<Part> = []
      let turnover = 0
      let after: TickCursor | undefined
      while (from < to) {
        const page = yield* history.ticks({
          instrument_token: token,
          from,
          to,
          limit: PAGE,
          ...(after === undefined ? {} : { after })
        })
        for (const { price, volume } of page) {
          parts.push({ open: price, high: price, low: price, close: price, volume })
          turnover += price * volume
        }
        after = page.at(-1)
        if (page.length < PAGE) break
      }
      return {
        parts,
        turnover,
        last: after as (TickCursor & { readonly price: number; readonly volume: number }) | undefined
      }
    })

    /** What of a replayed day lies before its run. */
    const before = Effect.fnUntraced(function* (token: number, day: number, cut: number) {
      const start = tradingDayStart(day)
      const minute = cut - (cut % MICROS_PER_MINUTE)
      const bars = start < minute ? yield* minutes(token, start, minute) : []
      const rest = yield* ticksOf(token, Math.max(start, minute), cut)
      // A bar does not say how much its last trade was of, and when; one that was brought as it is has no ticks.
      const bar = bars.at(-1)
      const ofBar =
        rest.last !== undefined || bar === undefined
          ? undefined
          : ((yield* ticksOf(token, bar.ts, bar.ts + MICROS_PER_MINUTE)).last ?? {
              price: bar.close,
              volume: 0,
              exchange_ts: bar.ts + MICROS_PER_MINUTE - 1
            })
      return {
        part: joined([...bars, ...rest.parts]),
        turnover: bars.reduce((sum, one) => sum + paid(one), 0) + rest.turnover,
        last: rest.last ?? ofBar
      }
    })

    const findOfRun = (market: Market, one: Watched, at: At): Effect.Effect<void, StoreError> =>
      Effect.gen(function* () {
        const { from, run } = at
        const day = market.channel.day
        if (one.isFound || day === undefined || market.run !== run) return
        const { figures } = one
        const { token } = figures
        const cut = market.since ?? from
        const close = yield* closeBefore(token, day)
        const { last, part, turnover } = yield* before(token, day, cut)
        const quote = yield* newestQuote(history, token, tradingDayStart(day), cut)
        // Somebody else may have found it meanwhile, or the run begun anew, whose watchers find what lies before it.
        if (one.isFound || market.run !== run) return
        if ((market.since ?? from) !== cut) return yield* findOfRun(market, one, at)
        one.isFound = true
        if (figures.isKnown) figures.precede(part, turnover)
        else if (last !== undefined || close !== undefined) {
          figures.begin({
            day,
            price: last?.price ?? close!.price,
            volume: last?.volume ?? 0,
            exchange_ts: last?.exchange_ts ?? 0,
            place: undefined,
            so_far: part,
            turnover,
            previousClose: close
          })
        }
        figures.closedAt(close)
        if (quote !== undefined) figures.takeQuote(quote)
      })

    const finding = Semaphore.makeUnsafe(FINDS)
    const findNow = (market: Market, wanted: ReadonlyArray<Watched>, at: At): Effect.Effect<void, StoreError> =>
      finding.withPermits(1)(
        market.isLive
          ? findLive(market, wanted)
          : Effect.forEach(wanted, (one) => findOfRun(market, one, at), { concurrency: LOOKS, discard: true })
      )

    const lacking = new Map<Market, Lacking>()
    let isAsking = false

    const lack = (market: Market, some: ReadonlyArray<Watched>, at: At): void => {
      const known = lacking.get(market)
      const tries = known?.run === at.run ? known.tries : new Map<Watched, number>()
      for (const one of some) tries.set(one, 0)
      lacking.set(market, { ...at, tries })
    }

    /** Asks once more for those of a market whose turn it is in a round. */
    const findSome = (market: Market, some: Lacking, round: number): Effect.Effect<void> =>
      Effect.gen(function* () {
        const { run, tries } = some
        const due: Array<Watched> = []
        for (const [one, tried] of tries) {
          const isGone = market.isOver || market.run !== run || market.of(one.figures.token) !== one
          if (isGone || one.watchers.size === 0) tries.delete(one)
          else if (tried < QUICK_TRIES || round % SLOW_ROUNDS === 0) {
            tries.set(one, tried + 1)
            due.push(one)
          }
        }
        const wereFound = new Set(due.filter(({ isFound }) => isFound))
        const exit = due.length === 0 ? Exit.void : yield* Effect.exit(findNow(market, due, some))
        for (const one of due) {
          // Its day may be found, and what the store was to say after it not.
          if (one.isSettled && Exit.isSuccess(exit)) tries.delete(one)
          if (one.isSettled || (one.isFound && !wereFound.has(one))) tellWatchers(one)
        }
        if (tries.size === 0 && lacking.get(market)?.tries === tries) lacking.delete(market)
      })

    const findOn = Effect.gen(function* () {
      for (let round = 1; lacking.size > 0; round++) {
        yield* Effect.sleep(AGAIN_MS)
        for (const [market, some] of [...lacking]) {
          yield* Effect.catchCause(findSome(market, some, round), (cause) =>
            Effect.logError("what was found of instruments could not be told", cause)
          )
        }
      }
      isAsking = false
    })

    const find: FindDays["find"] = (market, wanted, from) =>
      Effect.gen(function* () {
        const at = { run: market.run, from }
        const exit = yield* Effect.exit(findNow(market, wanted, at))
        const rest = Exit.isSuccess(exit) ? wanted.filter(({ isSettled }) => !isSettled) : wanted
        // A run that begins anew has its watchers ask anew.
        if (rest.length > 0 && market.run === at.run) {
          lack(market, rest, at)
          if (!isAsking) {
            isAsking = true
            yield* Effect.forkIn(findOn, scope)
          }
        }
        return yield* exit
      })

    const read: FindDays["read"] = Effect.fnUntraced(function* (market, tokens, from) {
      const all = new Map<number, Figures>()
      const missing: Array<number> = []
      if (!market.isLive) {
        const wanted = tokens.map((token) => market.want(token))
        yield* findNow(market, wanted, { run: market.run, from })
        for (const { figures } of wanted) if (figures.isTold) all.set(figures.token, figures)
        return all
      }
      for (const token of tokens) {
        const one = market.of(token)
        if (one?.isSettled === true && one.figures.isTold) all.set(token, one.figures)
        else missing.push(token)
      }
      const fresh = new Map(missing.map((token) => [token, new Figures(token)]))
      yield* ofStore(
        missing,
        (token, quote) => {
          const figures = fresh.get(token)!
          if (quote !== undefined) figures.takeQuote(quote)
          return figures
        },
        (token, known) => {
          if (known !== undefined) fresh.get(token)!.begin(known)
        }
      )
      for (const [token, figures] of fresh) if (figures.isTold) all.set(token, figures)
      return all
    })

    return { read, find }
  })
