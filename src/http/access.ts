/**
 * Decides who is let in where keys are asked for: which key a request or connection shows, whether it holds, has the scope
 * and has room left, and what whoever shows wrong ones has to wait. Where no file of keys is set, nobody is asked.
 *
 * A key that holds is let in whatever its address did before: whoever guesses does not make the clients behind the same
 * address wait. It gains him nothing, as nobody guesses 256 bits, and a guess costs a look at a map and one SHA-256. After
 * the sixth within a minute wrong keys of his address are answered 429 instead of 401, with a wait that grows.
 */
import { Context, Effect, Layer } from "effect"
import { ApiKeys, type KeyRing, LiveKey, type NoKey } from "../layers/keys/ApiKeys.ts"
import { auditLine } from "../layers/keys/auditLine.ts"
import { MAX_KEYS, type Scope } from "../schema/ApiKey.ts"
import type { Settings } from "../schema/Settings.ts"
import * as metrics from "../streams/metrics.ts"
import { Audit } from "./audit.ts"
import type { Refusal } from "./exchange.ts"
import type { Head } from "./head.ts"
import type { Need } from "./needs.ts"
import { Penalties } from "./penalties.ts"
import { Rate } from "./rate.ts"

/** Seconds of a key's requests that it may make at once. */
const BURST_SECONDS = 2
/** Names that figures are kept by: keys come and go, and a figure stays. Those of later ones count as `other`. */
const MAX_NAMES = 2 * MAX_KEYS
const REALM = 'Bearer realm="market-data-platform"'
const BEARER = /^bearer +([^\s]+) *$/i

export type AccessSettings = Pick<Settings, "REQUESTS_PER_KEY" | "CONNECTIONS_PER_KEY">

/** Why somebody was not let in, as its figure is labelled. */
export type UnauthorizedReason = NoKey | "missing" | "waits" | "late" | "early"
/** What a key was refused, as its figure is labelled. */
export type KeyRefusedReason = "scope" | "instruments" | "rate" | "connections"

interface KeyFigures {
  readonly requests: () => void
  /** So many more; below 0: fewer. */
  readonly connections: (change: number) => void
  readonly refused: (why: KeyRefusedReason) => void
}

/** What access tells whoever counts. */
export interface AccessObserver {
  readonly unauthorized: (why: UnauthorizedReason) => void
  readonly figuresOf: (name: string) => KeyFigures
}

const SILENT: AccessObserver = {
  unauthorized: () => undefined,
  figuresOf: () => ({ requests: () => undefined, connections: () => undefined, refused: () => undefined })
}

const SAID: Readonly<Record<NoKey, string>> = {
  malformed: "Authorization: expected Bearer and an API key as mdp keys add prints it",
  unknown: "Authorization: the API key is not known",
  revoked: "Authorization: the API key was revoked",
  expired: "Authorization: the API key has expired"
}

/** Where people put keys that know another API. */
const QUERY_KEY = /(?:^|&)(key|api_?key|token|access_token|authorization)=/i

/** What to say of a query that a key may be in: who logs addresses keeps them. Of its value nothing is told. */
export const keyInQuery = (query: string): string => {
  const name = QUERY_KEY.exec(query)?.[1]?.toLowerCase()
  return name === undefined ? "" : `; ${name}= in the query is never read, as logs keep addresses`
}

const unauthorized = (message: string, isWrong: boolean): Refusal => ({
  status: 401,
  reason: "unauthorized",
  body: { _tag: "Unauthorized", message, parameter: "Authorization" },
  headers: { "www-authenticate": isWrong ? `${REALM}, error="invalid_token"` : REALM }
})

const tooMany = (reason: string, message: string, seconds: number, parameter?: string): Refusal => ({
  status: 429,
  reason,
  body: { _tag: "TooManyRequests", message, ...(parameter === undefined ? {} : { parameter }) },
  headers: { "retry-after": String(seconds) }
})

const forbidden = (key: LiveKey, message: string, parameter: string): Refusal => ({
  status: 403,
  reason: parameter,
  body: { _tag: "Forbidden", message, parameter },
  key: key.name
})

export const lacksScope = (key: LiveKey, scope: Scope): string =>
  `scope: key "${key.name}" lacks ${scope}, it has ${[...key.scopes].join(", ")}`

/** The connections of each key, and how many there may be. */
export class KeyConnections<C> {
  readonly most: number
  private readonly byKey = new Map<LiveKey, Set<C>>()
  private readonly told: (key: LiveKey, change: number) => void

  /** `told`: so many more connections speak by a key, or, below 0, fewer. */
  constructor(most: number, told: (key: LiveKey, change: number) => void) {
    this.most = most
    this.told = told
  }

  isFull(key: LiveKey): boolean {
    return (this.byKey.get(key)?.size ?? 0) >= this.most
  }

  of(key: LiveKey): ReadonlyArray<C> {
    return [...(this.byKey.get(key) ?? [])]
  }

  add(key: LiveKey, connection: C): void {
    let own = this.byKey.get(key)
    if (own === undefined) {
      own = new Set()
      this.byKey.set(key, own)
    }
    if (own.has(connection)) return
    own.add(connection)
    this.told(key, 1)
  }

  remove(key: LiveKey, connection: C): void {
    const own = this.byKey.get(key)
    if (own?.delete(connection) !== true) return
    if (own.size === 0) this.byKey.delete(key)
    this.told(key, -1)
  }
}

export class KeyAccess {
  readonly ring: KeyRing
  readonly settings: AccessSettings
  readonly audit: Audit
  readonly observer: AccessObserver
  private readonly now: () => number
  private readonly penalties: Penalties
  /** Of keys that hold; those of others go with them. */
  private readonly rates = new WeakMap<LiveKey, Rate>()

  /** `now` is epoch milliseconds, `monotonic` milliseconds of a clock that only goes on. */
  constructor(options: {
    readonly ring: KeyRing
    readonly settings: AccessSettings
    readonly audit: Audit
    readonly observer?: AccessObserver
    readonly now?: () => number
    readonly monotonic?: () => number
  }) {
    this.ring = options.ring
    this.settings = options.settings
    this.audit = options.audit
    this.observer = options.observer ?? SILENT
    this.now = options.now ?? Date.now
    this.penalties = new Penalties(options.monotonic)
  }

  /** The key that a peer shows, or the answer to one that does not hold. */
  identify(text: string, peer: string): LiveKey | Refusal {
    const found = this.ring.find(text, this.now())
    if (typeof found !== "string") return found
    const wait = Math.ceil(this.penalties.left(peer) / 1000)
    if (wait > 0) {
      this.observer.unauthorized("waits")
      const message = `Authorization: wrong API keys came from ${peer} again and again: expected to wait ${wait} s`
      return tooMany("unauthorized", message, wait, "Authorization")
    }
    this.penalties.add(peer)
    this.observer.unauthorized(found)
    return { ...unauthorized(SAID[found], true), key: this.ring.nameOf(text) }
  }

  /** Whether a text is a key that was shown before. It tells nothing else of the text. */
  isSame(text: string, key: LiveKey): boolean {
    return this.ring.find(text, this.now()) === key
  }

  /** The key in an `Authorization` header, if any; `undefined` where there is no such header. */
  bearer(values: ReadonlyArray<string>, peer: string): LiveKey | Refusal | undefined {
    const [value] = values
    if (value === undefined || value === "") return undefined
    // Two readers could take each another one.
    const text = values.length > 1 ? undefined : BEARER.exec(value)?.[1]
    return this.identify(text ?? "", peer)
  }

  /** Whether a key may ask once more now; else the answer. */
  private spent(key: LiveKey): Refusal | undefined {
    const { REQUESTS_PER_KEY } = this.settings
    let rate = this.rates.get(key)
    if (rate === undefined) {
      rate = new Rate(REQUESTS_PER_KEY * BURST_SECONDS, REQUESTS_PER_KEY)
      this.rates.set(key, rate)
    }
    if (rate.take(1)) return undefined
    this.observer.figuresOf(key.name).refused("rate")
    const message = `key "${key.name}" may make ${REQUESTS_PER_KEY} requests a second: REQUESTS_PER_KEY`
    return { ...tooMany("key_rate", message, Math.max(1, Math.ceil(rate.secondsUntil(1)))), key: key.name }
  }

  /** The key of a request or handshake that shows one in its head, counted; `undefined` where it shows none. */
  shown(authorizations: ReadonlyArray<string>, peer: string): LiveKey | Refusal | undefined {
    const key = this.bearer(authorizations, peer)
    if (!(key instanceof LiveKey)) return key
    const spent = this.spent(key)
    if (spent !== undefined) return spent
    this.observer.figuresOf(key.name).requests()
    return key
  }

  /** The key of a request, or why it is not let in. `need` is its route's; without one any key will do. */
  request(head: Head, need: Need | undefined): LiveKey | Refusal {
    const authorizations = head.headers.filter(([name]) => name === "authorization").map(([, value]) => value)
    const key = this.shown(authorizations, head.peer)
    if (key === undefined) {
      this.observer.unauthorized("missing")
      const message = `Authorization: expected Bearer and an API key, got nothing${keyInQuery(head.query)}`
      return unauthorized(message, false)
    }
    if (!(key instanceof LiveKey)) return key
    if (need?.scope !== undefined && !key.scopes.has(need.scope)) {
      this.observer.figuresOf(key.name).refused("scope")
      return forbidden(key, lacksScope(key, need.scope), "scope")
    }
    if (need?.isWhole === true && key.isRestricted) {
      this.observer.figuresOf(key.name).refused("instruments")
      return forbidden(key, `instruments: key "${key.name}" is for some instruments, and this is of all`, "instruments")
    }
    return key
  }

  /** The answer to what is still under way when its key ends. */
  gone(key: LiveKey): Refusal {
    return { ...unauthorized(`Authorization: the API key ${ENDED[key.over ?? "revoked"]}`, true), key: key.name }
  }
}

/** As it stands in the reason of a close: `the API key was revoked`. */
export const ENDED = { revoked: "was revoked", expired: "has expired", changed: "has changed" } as const

/** Who is let in; `undefined`: nobody is asked for a key. */
export class Access extends Context.Service<Access, { readonly keys: KeyAccess | undefined }>()(
  "market-data-platform/http/Access"
) {}

/** Nobody is asked for a key. */
export const layerOpen: Layer.Layer<Access> = Layer.succeed(Access, { keys: undefined })

const observed = (context: Context.Context<never>): AccessObserver => {
  const byName = new Map<string, KeyFigures>()
  const figuresOf = (name: string): KeyFigures => {
    const known = byName.get(name)
    if (known !== undefined) return known
    if (byName.size >= MAX_NAMES && name !== OTHER) return figuresOf(OTHER)
    const labels = { key: name }
    const requests = metrics.bind(metrics.keyRequests, labels, context)
    const connections = metrics.bind(metrics.keyConnections, labels, context)
    // By name: a key that was changed is another, and connections by the one before are still going.
    let connected = 0
    const figures: KeyFigures = {
      requests: () => requests.add(1),
      connections: (change) => {
        connected += change
        connections.add(connected)
      },
      refused: (reason) => metrics.bind(metrics.keyRefused, { ...labels, reason }, context).add(1)
    }
    byName.set(name, figures)
    return figures
  }
  return {
    unauthorized: (reason) => metrics.bind(metrics.unauthorized, { reason }, context).add(1),
    figuresOf
  }
}
const OTHER = "other"

/** Only who has a key of the file is let in. */
export const layer = (settings: AccessSettings): Layer.Layer<Access, never, ApiKeys> =>
  Layer.effect(
    Access,
    Effect.gen(function* () {
      const ring = yield* ApiKeys
      const context = yield* Effect.context<never>()
      const run = Effect.runForkWith(context)
      const audit = new Audit((fields) => {
        run(auditLine(fields))
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => audit.close()))
      return { keys: new KeyAccess({ ring, settings, audit, observer: observed(context) }) }
    })
  )
