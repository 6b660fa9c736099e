/** Decides what the gateway's routes and its ticker share: what they ask, of whom, and which instruments somebody may see. */
import type { Effect } from "effect"
import type { StoreError } from "../../schema/Errors.ts"
import { fullSymbol, type Instrument } from "../../schema/Instrument.ts"
import type { Settings } from "../../schema/Settings.ts"
import { tradingDay } from "../../schema/Tick.ts"
import type { History } from "../../streams/ports/History.ts"
import type { Instruments } from "../../streams/ports/Instruments.ts"
import { type Days, meantOn } from "../caller.ts"
import type { Head } from "../head.ts"
import type { KiteAnswer, KiteRefusal } from "./answers.ts"
import type { SeesDay } from "./Figures.ts"
import type { FindDays } from "./findDays.ts"
import type { Source, Sources } from "./Sources.ts"
import type { Allowance, Visitor, Visitors } from "./Visitors.ts"

export type GatewaySettings = Pick<
  Settings,
  | "KITE_CONNECTIONS"
  | "KITE_INSTRUMENTS"
  | "KITE_QUOTE_INSTRUMENTS"
  | "KITE_LTP_INSTRUMENTS"
  | "KITE_QUOTE_RATE"
  | "KITE_HISTORICAL_RATE"
  | "KITE_REQUEST_RATE"
  | "KITE_HISTORICAL_DAYS"
  | "KITE_REPLAY"
  | "KITE_SHIFT"
>

export interface Gateway {
  readonly settings: GatewaySettings
  readonly history: History["Service"]
  readonly instruments: Instruments["Service"]
  readonly visitors: Visitors
  readonly sources: Sources
  readonly findDays: FindDays
  /** Epoch microseconds. */
  readonly now: () => number
}

/** A request that was let in. */
export interface Asked {
  readonly head: Head
  /** What stands in the path where its route has a name. */
  readonly path: Readonly<Record<string, string>>
  readonly query: URLSearchParams
  readonly form: URLSearchParams
  readonly visitor: Visitor
}

export interface Route {
  readonly method: "GET" | "POST" | "PUT" | "DELETE"
  /** `{name}` stands for one part of a path, `*` for all that follows. */
  readonly path: string
  readonly allowance: Allowance
  /** Whether it is asked by who has no token yet. */
  readonly isOpen?: true
  readonly answer: (asked: Asked, gateway: Gateway) => Effect.Effect<KiteAnswer, KiteRefusal | StoreError>
}

/** What a token means in a market. */
export const meantIn = ({ day }: Source, { instruments }: Gateway, token: number): Instrument | undefined =>
  day === undefined ? instruments.get(token) : instruments.at(token, day)

/** Whether somebody may see what a token means in a market. */
export const maySee = ({ key }: Visitor, token: number, instrument: Instrument | undefined): boolean =>
  key === undefined || key.sees(token, instrument)

/** Whether somebody may see all that a token means on some trading days. */
export const maySeeAll = (visitor: Visitor, token: number, days: Days, { instruments }: Gateway): boolean =>
  visitor.key?.isRestricted !== true ||
  meantOn(token, instruments, days).every((instrument) => maySee(visitor, token, instrument))

/**
 * Whether somebody may see what a token meant on a trading day: what is known last of it may be of a former meaning.
 * Undefined where he may see everything.
 */
export const seenOn = (visitor: Visitor, token: number, { instruments }: Gateway): SeesDay | undefined =>
  visitor.key?.isRestricted === true ? (day) => maySee(visitor, token, instruments.at(token, day)) : undefined

/** The token that a client's `NSE:INFY`, or its number, names in a market; undefined where it is none of it that he may see. */
export const tokenOf = (name: string, visitor: Visitor, source: Source, gateway: Gateway): number | undefined => {
  const day = source.day ?? tradingDay(gateway.now())
  const all = /^\d{1,10}$/.test(name)
    ? [meantIn(source, gateway, Number(name))]
    : gateway.instruments
        .everNamed(name)
        .filter(({ from, instrument, through }) => {
          const isWhole = fullSymbol(instrument).toUpperCase() === name.toUpperCase()
          return isWhole && from <= day && day <= through
        })
        .map(({ instrument }) => instrument)
  const found = all.find(
    (one) => one !== undefined && source.holds(one.instrument_token) && maySee(visitor, one.instrument_token, one)
  )
  return found?.instrument_token
}
