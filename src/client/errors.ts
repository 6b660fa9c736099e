/** Decides how the client fails: each error has a `_tag` to tell it by, and says what was expected or what came. */
import type { InstrumentName, Place } from "./messages.ts"

export class MarketDataError extends Error {
  readonly _tag: string

  constructor(tag: string, message: string, options?: { readonly cause?: unknown }) {
    super(message, options)
    this.name = tag
    this._tag = tag
  }
}

/** An option that is none, or that this runtime cannot have. */
export class Unsupported extends MarketDataError {
  constructor(message: string) {
    super("Unsupported", message)
  }
}

/** No connection could be made, or made again, for as long as it was to be tried. */
export class ConnectionFailed extends MarketDataError {
  readonly url: string
  readonly attempts: number
  readonly reason: string

  constructor(url: string, attempts: number, forMs: number, reason: string) {
    const tries = attempts === 1 ? "1 try" : `${attempts} tries`
    super("ConnectionFailed", `${url}: no connection in ${Math.round(forMs / 1000)} s, ${tries}: ${reason}`)
    this.url = url
    this.attempts = attempts
    this.reason = reason
  }
}

/** The server will not have the key, or wants one. Nothing is tried again. */
export class Unauthorized extends MarketDataError {
  constructor(message: string) {
    super("Unauthorized", `key: refused: ${message}`)
  }
}

/** One instrument that the server does not send. */
export class SubscriptionRefused extends MarketDataError {
  readonly instrument: InstrumentName
  readonly reason: string

  constructor(instrument: InstrumentName, reason: string) {
    super("SubscriptionRefused", `${instrument}: not subscribed: ${reason}`)
    this.instrument = instrument
    this.reason = reason
  }
}

/** A message that the server does not take, with its code and words. */
export class MessageRefused extends MarketDataError {
  readonly code: string

  constructor(code: string, message: string) {
    super("MessageRefused", `${code}: ${message}`)
    this.code = code
  }
}

/**
 * The server broke the rule: positions go up by one, holes are told, the epoch only grows. `stood` is where the
 * instrument's stream stood, `came` what came instead of what follows it. What came is not handed on.
 */
export class RuleViolated extends MarketDataError {
  readonly instrument_token: number
  readonly stood: Place
  readonly came: Place
  readonly what: string

  constructor(token: number, stood: Place, came: Place, what: string) {
    const expected = came[0] === stood[0] ? stood[1] + 1 : came[0] > stood[0] ? "1" : `epoch ${stood[0]} or later`
    const where = `instrument ${token} stood at ${stood[0]}/${stood[1]}`
    super("RuleViolated", `${where}: ${what} ${came[0]}/${came[1]}, expected ${expected}`)
    this.instrument_token = token
    this.stood = stood
    this.came = came
    this.what = what
  }
}

/** The application did not take what its stream holds, and asked to be told so. */
export class BufferFull extends MarketDataError {
  readonly bufferSize: number

  constructor(bufferSize: number) {
    super("BufferFull", `the application is ${bufferSize} messages behind, as many as bufferSize allows`)
    this.bufferSize = bufferSize
  }
}

/** A replay that ended otherwise than by having told everything. */
export class ReplayFailed extends MarketDataError {
  readonly replay: string
  readonly reason: string

  constructor(replay: string, reason: string) {
    super("ReplayFailed", `replay ${replay}: ${reason}`)
    this.replay = replay
    this.reason = reason
  }
}

export class ClientClosed extends MarketDataError {
  constructor() {
    super("ClientClosed", "the client is closed")
  }
}

/** What the server answered a request with; `_tag` is its own, such as `BadRequest`, `NotFound` or `TooManyRequests`. */
export class RequestFailed extends MarketDataError {
  readonly url: string
  readonly status: number
  /** Which parameter was wrong, where it was one. */
  readonly parameter: string | undefined
  /** Seconds to wait before the next try, where the server says so. */
  readonly retryAfter: number | undefined

  constructor(
    url: string,
    answer: {
      readonly _tag: string
      readonly message: string
      readonly status: number
      readonly parameter: string | undefined
      readonly retryAfter: number | undefined
    }
  ) {
    super(answer._tag, answer.message)
    this.url = url
    this.status = answer.status
    this.parameter = answer.parameter
    this.retryAfter = answer.retryAfter
  }
}

/** A request that was not answered in time. */
export class TimedOut extends MarketDataError {
  readonly forMs: number

  constructor(what: string, forMs: number) {
    super("TimedOut", `${what}: no answer in ${forMs / 1000} s`)
    this.forMs = forMs
  }
}

/** A request that did not reach the server, or whose answer did not come through. */
export class NetworkFailed extends MarketDataError {
  readonly reason: string

  constructor(what: string, reason: string, cause: unknown) {
    super("NetworkFailed", `${what}: ${reason}`, { cause })
    this.reason = reason
  }
}
