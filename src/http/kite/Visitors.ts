/**
 * Decides who is let in to the gateway and to which market: the pair of `api_key` and `access_token` that clients send.
 * Where API keys exist the token is one of them; the `api_key` is anybody's own, unless it names a replay.
 */
import { LiveKey } from "../../layers/keys/ApiKeys.ts"
import type { Scope } from "../../schema/ApiKey.ts"
import { showText } from "../../schema/Explain.ts"
import { type DayReplay, dayReplayOf } from "../../schema/kite/asked.ts"
import { RecentMap } from "../../streams/log/recentMap.ts"
import { type KeyAccess, lacksScope } from "../access.ts"
import { Rate } from "../rate.ts"
import { BAD_TOKEN, type KiteRefusal, refused, tooMany } from "./answers.ts"

/** In any case: who writes REPLAY: means no live market. */
const REPLAY_KEY = /^replay:(.*)$/i
const MAX_API_KEY_CHARS = 100
/** Visitors whose allowances are remembered. */
const MAX_VISITORS = 1_000

/** The market that somebody asks for: the live one, a replay that runs, or a day that is replayed for him. */
export type Wish =
  | { readonly kind: "live" }
  | { readonly kind: "replay"; readonly id: string }
  | { readonly kind: "day"; readonly text: string; readonly day: DayReplay }

export interface Visitor {
  readonly apiKey: string
  readonly accessToken: string
  /** Undefined where nobody is asked for one. */
  readonly key: LiveKey | undefined
  readonly address: string
  readonly wish: Wish
  /** Whose limits are counted together. */
  readonly identity: string
}

export type Allowance = "quote" | "historical" | "other"

export interface Rates {
  readonly KITE_QUOTE_RATE: number
  readonly KITE_HISTORICAL_RATE: number
  readonly KITE_REQUEST_RATE: number
}

export interface VisitorSettings extends Rates {
  readonly KITE_REPLAY: string | undefined
}

/**
 * The pair of an `Authorization: token key:token`. A key may name a replay, and then has a colon of its own: the token is
 * what stands behind the last.
 */
export const pairOf = (authorization: string): readonly [apiKey: string, accessToken: string] | undefined => {
  const [, pair] = /^token +(\S+) *$/i.exec(authorization) ?? []
  const at = pair?.lastIndexOf(":") ?? -1
  return pair === undefined || at <= 0 || at === pair.length - 1 ? undefined : [pair.slice(0, at), pair.slice(at + 1)]
}

export class Visitors {
  private readonly access: KeyAccess | undefined
  private readonly settings: VisitorSettings
  private readonly rates = new RecentMap<string, Readonly<Record<Allowance, Rate>>>(MAX_VISITORS)

  constructor(access: KeyAccess | undefined, settings: VisitorSettings) {
    this.access = access
    this.settings = settings
  }

  private wishOf(apiKey: string): Wish | KiteRefusal {
    const [, named] = REPLAY_KEY.exec(apiKey) ?? []
    const text = named ?? this.settings.KITE_REPLAY
    if (text === undefined) return { kind: "live" }
    const day = dayReplayOf(text)
    if (day !== undefined) return { kind: "day", text, day }
    if (/^[0-9a-f]{1,40}$/.test(text)) return { kind: "replay", id: text }
    const expected = "replay: and a replay's id, or a day and a speed such as replay:2026-01-15@60"
    return refused("TokenException", `api_key: expected ${expected}, got ${showText(apiKey)}`)
  }

  /** The API key that a token is; undefined where nobody is asked for one. */
  private keyOf(accessToken: string, peer: string): LiveKey | KiteRefusal | undefined {
    const { access } = this
    if (access === undefined) return undefined
    const shown = access.shown([`Bearer ${accessToken}`], peer)
    if (!(shown instanceof LiveKey)) {
      return shown?.status === 429 ? tooMany(shown.body.message) : refused("TokenException", BAD_TOKEN)
    }
    return this.lacking(shown, "read") ?? shown
  }

  private lacking(key: LiveKey, scope: Scope): KiteRefusal | undefined {
    if (key.scopes.has(scope)) return undefined
    this.access?.observer.figuresOf(key.name).refused("scope")
    return refused("PermissionException", lacksScope(key, scope))
  }

  /** Who shows this pair. */
  enter(apiKey: string, accessToken: string, address: string, peer: string): Visitor | KiteRefusal {
    if (apiKey === "" || accessToken === "" || apiKey.length > MAX_API_KEY_CHARS) {
      return refused("TokenException", BAD_TOKEN)
    }
    const wish = this.wishOf(apiKey)
    // Nobody learns of replays who is not let in.
    const key = this.keyOf(accessToken, peer)
    if (key !== undefined && !(key instanceof LiveKey)) return key
    if (!("kind" in wish)) return wish
    const lacking = wish.kind === "live" || key === undefined ? undefined : this.lacking(key, "replay")
    return lacking ?? { apiKey, accessToken, key, address, wish, identity: key?.id ?? apiKey }
  }

  /** Whether somebody may ask once more now; else the answer. */
  spent({ identity }: Visitor, what: Allowance): KiteRefusal | undefined {
    let rates = this.rates.get(identity)
    if (rates === undefined) {
      const { KITE_HISTORICAL_RATE, KITE_QUOTE_RATE, KITE_REQUEST_RATE } = this.settings
      const rate = (perSecond: number) => new Rate(perSecond, perSecond)
      rates = {
        quote: rate(KITE_QUOTE_RATE),
        historical: rate(KITE_HISTORICAL_RATE),
        other: rate(KITE_REQUEST_RATE)
      }
      this.rates.set(identity, rates)
    }
    if (rates[what].take(1)) return undefined
    const names = { quote: "KITE_QUOTE_RATE", historical: "KITE_HISTORICAL_RATE", other: "KITE_REQUEST_RATE" } as const
    return tooMany(`Too many requests: ${this.settings[names[what]]} a second of one api_key, by ${names[what]}`)
  }
}
