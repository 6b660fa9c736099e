/** Decides how the gateway answers: Kite's envelope round data and round failures, each with its code. */
import { Effect, Schema } from "effect"
import type { StoreError } from "../../schema/Errors.ts"
import { showText } from "../../schema/Explain.ts"
import {
  KITE_ERRORS,
  type KiteErrorName,
  kiteFailure,
  kiteSuccess,
  TOO_MANY_REQUESTS
} from "../../schema/kite/messages.ts"
import type { Refusal } from "../exchange.ts"
import { SIMULATED_HEADER } from "../simulatedMark.ts"

/** What a route says; a body of bytes is packed already. */
export interface KiteAnswer {
  readonly status: number
  readonly type: string
  readonly body: string | Uint8Array<ArrayBuffer>
  readonly headers?: Readonly<Record<string, string>>
}

/** A failure as Kite names them; `status` where it is not the one of its name. */
export class KiteRefusal extends Schema.TaggedError<KiteRefusal>()("KiteRefusal", {
  error_type: Schema.Literals(Object.keys(KITE_ERRORS) as Array<KiteErrorName>),
  message: Schema.String,
  status: Schema.Int
}) {}

const JSON_TYPE = "application/json"
const MAX_TOLD_CHARS = 300

/** `data` is JSON already. */
export const success = (data: string): KiteAnswer => ({ status: 200, type: JSON_TYPE, body: kiteSuccess(data) })

/** Of an answer in which something is simulated, marked as the platform's own are. */
export const marked = (answer: KiteAnswer, isSimulated: boolean): KiteAnswer =>
  isSimulated ? { ...answer, headers: { ...answer.headers, [SIMULATED_HEADER]: "true" } } : answer

export const failure = ({ error_type, message, status }: KiteRefusal): KiteAnswer => ({
  status,
  type: JSON_TYPE,
  body: kiteFailure(error_type, message)
})

export const refused = (error_type: KiteErrorName, message: string, status: number = KITE_ERRORS[error_type]) =>
  new KiteRefusal({ error_type, message, status })

export const badInput = (message: string) => Effect.fail(refused("InputException", message))

/** Kite's own words, of a key or a token that is none. */
export const BAD_TOKEN = "Incorrect `api_key` or `access_token`."

export const tooMany = (message: string): KiteRefusal =>
  refused(TOO_MANY_REQUESTS.name, message, TOO_MANY_REQUESTS.code)

/** Who is told of the network asks again; what asking again cannot mend has a name of its own. */
export const storeRefusal = ({ operation, message, transient }: StoreError): KiteRefusal =>
  refused(
    transient ? "NetworkException" : "DataException",
    `the store did not do ${operation}: ${showText(message, MAX_TOLD_CHARS)}`
  )

/** What those who stand before the routes call their failures, in Kite's names. */
const namesOf: Readonly<Record<string, KiteErrorName>> = {
  Unauthorized: "TokenException",
  Forbidden: "PermissionException",
  BadRequest: "InputException",
  PayloadTooLarge: "InputException",
  RequestTimeout: "InputException",
  NotImplemented: "InputException",
  UpgradeRequired: "InputException",
  TooManyRequests: "NetworkException",
  Unavailable: "NetworkException",
  NotReady: "NetworkException"
}

/** The same as Kite's clients read it; what it is called elsewhere stands beside. */
export const toldByKite = (_path: string, body: Refusal["body"]): Refusal["body"] => ({
  ...{ status: "error", error_type: namesOf[body._tag] ?? "GeneralException", data: null },
  ...body
})

/** A failure before there is a place for the request. */
export const refusalOf = ({ error_type, message, status }: KiteRefusal): Refusal => ({
  status,
  reason: error_type,
  body: {
    ...{ status: "error", error_type, data: null },
    _tag: Object.entries(namesOf).find(([, name]) => name === error_type)?.[0] ?? error_type,
    message
  },
  ...(status === TOO_MANY_REQUESTS.code ? { headers: { "retry-after": "1" } } : {})
})
