/** Decides how the instruments of a market's day are answered: the broker's CSV of twelve columns, of all or of an exchange. */
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import { Effect, Semaphore } from "effect"
import { showText } from "../../schema/Explain.ts"
import { type AssetClass, type Instrument, isExchange, SIMULATED_EXCHANGE } from "../../schema/Instrument.ts"
import { isExpired } from "../../schema/Meaning.ts"
import { tradingDay } from "../../schema/Tick.ts"
import { header } from "../head.ts"
import { badInput, type KiteAnswer, marked, refused } from "./answers.ts"
import { type Asked, type Gateway, maySee, type Route, seenOn } from "./Gateway.ts"

const COLUMNS =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"
/** Exactly this: one client parses what is so called and nothing else. */
const CSV_TYPE = "text/csv"
/** What Kite has instruments of. */
const BROKER_EXCHANGES: ReadonlySet<string> = new Set(["NSE", "BSE", "NFO", "BFO", "MCX", "CDS", "BCD", "NCO"])
/** Exchanges named where one is not known. */
const MAX_EXCHANGES = 20
/** Lines written before others have their turn. */
const LINES_AT_ONCE = 2000

const pack = promisify(gzip)
const field = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

const typeOf = ({ asset_class, option_type }: Instrument): string =>
  asset_class === "FUT" ? "FUT" : asset_class === "OPT" ? (option_type ?? "CE") : "EQ"
const SEGMENT_ENDS: Readonly<Record<AssetClass, string>> = { EQ: "", FUT: "-FUT", OPT: "-OPT", INDEX: "" }
const segmentOf = ({ asset_class, exchange }: Instrument): string =>
  asset_class === "INDEX" ? "INDICES" : exchange + SEGMENT_ENDS[asset_class]

/** A date as it is told where stamps are moved by so many microseconds. */
const movedDate = (date: string, shift: number): string =>
  shift === 0 ? date : new Date(Date.parse(`${date}T00:00:00Z`) + shift / 1000).toISOString().slice(0, 10)

const line = (one: Instrument, lastPrice: number, shift: number): string =>
  [
    one.instrument_token,
    // The broker's tokens are made of the exchange's, and of the segment in the last byte.
    Math.floor(one.instrument_token / 256),
    field(one.tradingsymbol),
    field(one.name ?? ""),
    lastPrice,
    one.expiry === null ? "" : movedDate(one.expiry, shift),
    one.strike ?? 0,
    one.tick_size,
    one.lot_size ?? (one.asset_class === "INDEX" ? 0 : 1),
    typeOf(one),
    segmentOf(one),
    one.exchange
  ].join(",")

/** One at a time: a hundred thousand lines are too many to be written beside one another. */
const writing = Semaphore.makeUnsafe(1)

const answerInstruments = ({ head, path, visitor }: Asked, gateway: Gateway) =>
  Effect.gen(function* () {
    const { instruments, now, sources } = gateway
    const exchange = path.exchange?.toUpperCase()
    if (exchange !== undefined && !isExchange(exchange)) {
      return yield* badInput(`exchange: expected one such as NSE, got ${showText(path.exchange!)}`)
    }
    const known = instruments.exchanges()
    // A bot may ask for each of the broker's, whatever there is of it; where nothing is known yet, any may still come.
    if (exchange !== undefined && known.length > 0 && !known.includes(exchange) && !BROKER_EXCHANGES.has(exchange)) {
      const names = `${known.slice(0, MAX_EXCHANGES).join(", ")}${known.length > MAX_EXCHANGES ? ", …" : ""}`
      return yield* badInput(`exchange: expected ${known.length === 1 ? names : `one of ${names}`}, got ${exchange}`)
    }
    const source = yield* sources.of(visitor, "starts")
    const { day: replayed, market } = source
    const day = replayed ?? tradingDay(now())
    const shift = source.shift()
    const lines = [COLUMNS]
    let isSimulated = false
    const all = instruments.all()
    for (let i = 0; i < all.length; i++) {
      if (i % LINES_AT_ONCE === LINES_AT_ONCE - 1) yield* Effect.yieldNow
      const { instrument_token: token } = all[i]!
      if (!source.holds(token)) continue
      const one = replayed === undefined ? all[i] : instruments.at(token, day)
      if (one === undefined || isExpired(one, day) || !maySee(visitor, token, one)) continue
      if (exchange !== undefined && one.exchange !== exchange) continue
      isSimulated ||= one.exchange === SIMULATED_EXCHANGE
      const last = replayed === undefined ? market.channel.lastMinute(token) : undefined
      const isSeen = last !== undefined && seenOn(visitor, token, gateway)?.(tradingDay(last.ts)) !== false
      lines.push(line(one, isSeen ? last.close.price : 0, shift))
    }
    // Without a line break at the end: one client would take what follows it for an instrument.
    const text = lines.join("\n")
    if (!/\bgzip\b/.test(header(head, "accept-encoding"))) {
      return marked({ status: 200, type: CSV_TYPE, body: text }, isSimulated)
    }
    const body = yield* Effect.tryPromise({
      try: async () => new Uint8Array(await pack(text)),
      catch: () => refused("GeneralException", "the instruments could not be packed")
    })
    const headers = { "content-encoding": "gzip", vary: "accept-encoding" }
    const answer: KiteAnswer = { status: 200, type: CSV_TYPE, body, headers }
    return marked(answer, isSimulated)
  }).pipe(writing.withPermits(1))

export const instrumentRoutes: ReadonlyArray<Route> = [
  { method: "GET", path: "/instruments", allowance: "other", answer: answerInstruments },
  { method: "GET", path: "/instruments/{exchange}", allowance: "other", answer: answerInstruments }
]
