/**
 * Decides how the REST API is asked: with the key, a time limit and a signal; what may be asked again is, after the wait
 * that the server names; and every failure has a type.
 */
import { retryAfterOf, waitOf } from "./backoff.ts"
import { ClientClosed, NetworkFailed, RequestFailed, TimedOut } from "./errors.ts"
import type { Key } from "./Link.ts"

/** What every request takes. */
export interface RequestOptions {
  readonly signal?: AbortSignal
  /** For one try; the client's own unless given. */
  readonly timeoutMs?: number
}

export type Query = Readonly<Record<string, string | number | undefined>>

interface Asked extends RequestOptions {
  readonly query?: Query
  readonly body?: unknown
}

export interface RestOptions {
  /** Up to and with `/api/v1`. */
  readonly base: string
  readonly keys: Keys
  readonly fetch: typeof globalThis.fetch
  readonly timeoutMs: number
  /** How often a request that changes nothing is sent again. */
  readonly retries: number
  /** Aborted when the client is closed. */
  readonly closed: AbortSignal
}

/** Waits between tries of one request. */
const WAIT = { minMs: 250, maxMs: 5_000 }
const UNAUTHORIZED = 401
const PASSING: ReadonlySet<number> = new Set([429, 502, 503, 504])

/** The key, asked for once and kept until it is refused. */
export class Keys {
  readonly #key: Key | undefined
  #known: Promise<string | undefined> | undefined

  constructor(key: Key | undefined) {
    this.#key = key
  }

  /** Undefined where there is no key at all. */
  get renewed(): (() => Promise<string>) | undefined {
    return this.#key === undefined ? undefined : () => this.renew() as Promise<string>
  }

  get isFixed(): boolean {
    return typeof this.#key !== "function"
  }

  known(): Promise<string | undefined> {
    return this.#known ?? this.renew()
  }

  renew(): Promise<string | undefined> {
    const key = this.#key
    // As a promise also where the function throws at once; one that failed is not kept.
    const asked = Promise.resolve().then(() => (typeof key === "function" ? key() : key))
    this.#known = asked
    asked.catch(() => {
      if (this.#known === asked) this.#known = undefined
    })
    return asked
  }
}

export class Rest {
  readonly #options: RestOptions

  constructor(options: RestOptions) {
    this.#options = options
  }

  get<A>(path: string, query: Query, options: RequestOptions = {}): Promise<A> {
    return this.#request<A>("GET", path, { ...options, query })
  }

  send<A>(method: "POST" | "PATCH" | "DELETE", path: string, body: unknown, options: RequestOptions = {}): Promise<A> {
    return this.#request<A>(method, path, { ...options, ...(body === undefined ? {} : { body }) })
  }

  /** All of a list that is answered in pages, one by one, each page when it is needed. */
  async *pages<A>(path: string, key: string, query: Query, options: RequestOptions = {}): AsyncGenerator<A, undefined> {
    let cursor: string | undefined
    do {
      const page = await this.get<Readonly<Record<string, unknown>>>(path, { ...query, cursor }, options)
      yield* page[key] as ReadonlyArray<A>
      cursor = (page.next_cursor as string | null) ?? undefined
    } while (cursor !== undefined)
    return undefined
  }

  async #request<A>(method: string, path: string, asked: Asked): Promise<A> {
    const { retries, closed, keys, timeoutMs } = this.#options
    const signal = asked.signal === undefined ? closed : AbortSignal.any([closed, asked.signal])
    let mayRenew = !keys.isFixed
    let left = method === "GET" ? retries : 0
    for (let failures = 0; ; failures++) {
      if (closed.aborted) throw new ClientClosed()
      signal.throwIfAborted()
      try {
        return await this.#once<A>(method, path, asked, signal)
      } catch (error) {
        if (closed.aborted) throw new ClientClosed()
        signal.throwIfAborted()
        if (error instanceof RequestFailed && error.status === UNAUTHORIZED && mayRenew) {
          mayRenew = false
          await keys.renew()
          continue
        }
        const retryAfterMs = error instanceof RequestFailed ? (error.retryAfter ?? 0) * 1000 : 0
        // Whoever is told to wait for longer than a try may take decides that for itself.
        if (left-- <= 0 || !mayPass(error) || retryAfterMs > (asked.timeoutMs ?? timeoutMs)) throw error
        await waited(waitOf(failures, WAIT, retryAfterMs), signal, closed)
      }
    }
  }

  async #once<A>(method: string, path: string, asked: Asked, given: AbortSignal): Promise<A> {
    const { base, fetch, keys } = this.#options
    const timeoutMs = asked.timeoutMs ?? this.#options.timeoutMs
    const what = `${method} ${path}`
    const limit = AbortSignal.timeout(timeoutMs)
    const signal = AbortSignal.any([given, limit])
    const key = await within(keys.known(), signal).catch((error: unknown) => {
      given.throwIfAborted()
      throw limit.aborted ? new TimedOut(what, timeoutMs) : error
    })
    const url = `${base}${path}${queryOf(asked.query)}`
    let response: Response
    let text: string
    try {
      response = await fetch(url, {
        method,
        signal,
        headers: {
          accept: "application/json",
          ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
          ...(asked.body === undefined ? {} : { "content-type": "application/json" })
        },
        ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) })
      })
      text = await response.text()
    } catch (error) {
      given.throwIfAborted()
      if (limit.aborted) throw new TimedOut(what, timeoutMs)
      throw new NetworkFailed(what, reasonOf(error), error)
    }
    if (response.status === 204) return undefined as A
    const answer = jsonOf(text)
    if (response.ok && answer !== undefined) return answer as A
    throw failureOf(url, response, answer, text)
  }
}

const mayPass = (error: unknown): boolean =>
  error instanceof NetworkFailed ||
  error instanceof TimedOut ||
  (error instanceof RequestFailed && PASSING.has(error.status))

const queryOf = (query: Query = {}): string => {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value !== undefined) params.set(name, String(value))
  const text = params.toString()
  return text === "" ? "" : `?${text}`
}

const jsonOf = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Of an answer that is not the platform's, such as a proxy's, no more is told than this. */
const MAX_TOLD = 200

const failureOf = (url: string, response: Response, answer: unknown, text: string): RequestFailed => {
  const told = (typeof answer === "object" && answer !== null ? answer : {}) as {
    readonly _tag?: unknown
    readonly message?: unknown
    readonly parameter?: unknown
  }
  const { status, statusText, headers } = response
  const retryAfterMs = retryAfterOf(headers.get("retry-after"))
  return new RequestFailed(url, {
    _tag: typeof told._tag === "string" ? told._tag : "RequestFailed",
    message:
      typeof told.message === "string"
        ? told.message
        : `answered ${`${status} ${statusText}`.trim()}: ${text.slice(0, MAX_TOLD)}`,
    status,
    parameter: typeof told.parameter === "string" ? told.parameter : undefined,
    retryAfter: retryAfterMs === undefined ? undefined : Math.ceil(retryAfterMs / 1000)
  })
}

/** What a promise comes to, or why it was not waited for. */
const within = <A>(promise: Promise<A>, signal: AbortSignal): Promise<A> =>
  new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason)
    signal.addEventListener("abort", abort)
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort))
  })

const waited = (ms: number, signal: AbortSignal, closed: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener("abort", done)
      if (!signal.aborted) resolve()
      else reject(closed.aborted ? new ClientClosed() : signal.reason)
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener("abort", done)
  })

/** What a runtime says of a request that failed: the cause is what helps. */
const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const { cause } = error
  if (!(cause instanceof Error)) return error.message
  const { code } = cause as { readonly code?: unknown }
  return cause.message === "" ? String(code ?? error.message) : cause.message
}
