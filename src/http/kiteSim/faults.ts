/** Decides which faults the simulated Kite plays, how one is asked for over its control route, and how on the command line. */
import { Result, Schema } from "effect"
import { explain, showValue } from "../../schema/Explain.ts"
import { unknownName } from "../../schema/Nearest.ts"

const whole = (minimum: number, maximum: number) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
/** How long it lasts; until `none` where it is not said. */
const Ms = Schema.optionalKey(whole(1, 86_400_000))
const Text = Schema.String.pipe(Schema.check(Schema.isMaxLength(120)))

const kinds = {
  /** Nothing is sent, signs of life neither. */
  stall: Schema.Struct({ fault: Schema.Literal("stall"), ms: Ms }),
  /** Signs of life go on, ticks do not. */
  mute: Schema.Struct({ fault: Schema.Literal("mute"), ms: Ms }),
  /** The market rests: nothing changes. */
  rest: Schema.Struct({ fault: Schema.Literal("rest"), ms: Ms }),
  /** The next frames of ticks are cut within a packet. */
  cut: Schema.Struct({ fault: Schema.Literal("cut"), frames: Schema.optionalKey(whole(1, 1_000_000)) }),
  /** The next frames hold packets of lengths that no kind has, and such of instruments that nobody asked for. */
  strange: Schema.Struct({ fault: Schema.Literal("strange"), frames: Schema.optionalKey(whole(1, 1_000_000)) }),
  /** Connections that are up are never read or written again, nor closed. */
  "half-open": Schema.Struct({ fault: Schema.Literal("half-open") }),
  /** Connections break within a frame. */
  reset: Schema.Struct({ fault: Schema.Literal("reset") }),
  /** Connections break, and none is let in before it is over: a server that starts again. */
  down: Schema.Struct({ fault: Schema.Literal("down"), ms: whole(1, 86_400_000) }),
  /** Connections are closed with a code. */
  close: Schema.Struct({
    fault: Schema.Literal("close"),
    code: whole(1000, 4999),
    reason: Schema.optionalKey(Text)
  }),
  /** Handshakes and answers come late by `by` ms. */
  late: Schema.Struct({ fault: Schema.Literal("late"), by: whole(1, 600_000), ms: Ms }),
  /** The next handshakes are refused with a code. */
  refuse: Schema.Struct({
    fault: Schema.Literal("refuse"),
    status: whole(400, 599),
    handshakes: Schema.optionalKey(whole(1, 1_000_000))
  }),
  /** A text error. */
  error: Schema.Struct({ fault: Schema.Literal("error"), message: Text }),
  /** The access token ends, and with it the connections; POST /session/token gives another. */
  expire: Schema.Struct({ fault: Schema.Literal("expire") }),
  /** The access token ends, and the connections that it made stay. */
  lapse: Schema.Struct({ fault: Schema.Literal("lapse") }),
  /** What lasts until it is said to be over is. */
  none: Schema.Struct({ fault: Schema.Literal("none") })
} as const

export type FaultKind = keyof typeof kinds
export type Fault = { [K in FaultKind]: (typeof kinds)[K]["Type"] }[FaultKind]
export const FAULT_KINDS = Object.keys(kinds) as ReadonlyArray<FaultKind>

/** Of `none` nobody is asked whether he meant it: it reads as if he meant nothing. */
const MEANT = FAULT_KINDS.filter((kind) => kind !== "none")

/** Codes that a close frame may have. */
const isSendable = (code: number): boolean =>
  code >= 3000 || (code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006)
/** Of a close frame's reason, in UTF-8. */
const MAX_REASON_BYTES = 123

/** Reads one fault; a sentence naming the field and the value where it is none. */
export const readFault = (value: unknown): Fault | string => {
  const kind = (value as { readonly fault?: unknown } | null)?.fault
  if (typeof kind !== "string" || !Object.hasOwn(kinds, kind)) {
    return `fault: ${typeof kind === "string" ? unknownName("fault", kind, FAULT_KINDS, MEANT) : `expected one of ${FAULT_KINDS.join(", ")}, got ${showValue(kind)}`}`
  }
  const decoded: Result.Result<unknown, Schema.SchemaError> = Schema.decodeUnknownResult(kinds[kind as FaultKind])(
    value
  )
  if (Result.isFailure(decoded)) return explain(decoded.failure.issue, value).message
  const fault = decoded.success as Fault
  if (fault.fault === "close" && !isSendable(fault.code)) {
    return `code: expected one that a server may send, got ${fault.code}`
  }
  if (fault.fault === "close" && Buffer.byteLength(fault.reason ?? "") > MAX_REASON_BYTES) {
    return `reason: expected at most ${MAX_REASON_BYTES} bytes, got ${Buffer.byteLength(fault.reason ?? "")}`
  }
  return fault
}

/** The field that stands after a colon on the command line. */
const shortOf: Readonly<Partial<Record<FaultKind, string>>> = {
  stall: "ms",
  mute: "ms",
  rest: "ms",
  down: "ms",
  cut: "frames",
  strange: "frames",
  close: "code",
  late: "by",
  refuse: "status",
  error: "message"
}

/** The kinds, each with what it must have beside its name, in brackets. */
export const FAULT_LIST = FAULT_KINDS.map((kind) =>
  typeof readFault({ fault: kind }) === "string" ? `${kind} (${shortOf[kind]})` : kind
).join(", ")

/** A fault of the command line, such as `reset@20s`, `close:1012@1m` or `late:500ms`: when after the start, and which. */
export const readTimedFault = (
  text: string,
  parseDuration: (text: string) => number | undefined
): { readonly afterMs: number; readonly fault: Fault } | string => {
  const at = text.lastIndexOf("@")
  const what = at < 0 ? text : text.slice(0, at)
  const afterMs = at < 0 ? 0 : parseDuration(text.slice(at + 1))
  if (afterMs === undefined) return `expected a time such as 20s after @, got ${showValue(text.slice(at + 1))}`
  const colon = what.indexOf(":")
  const kind = colon < 0 ? what : what.slice(0, colon)
  const value: Record<string, unknown> = { fault: kind }
  if (colon >= 0) {
    const field = shortOf[kind as FaultKind]
    const given = what.slice(colon + 1)
    if (field === undefined) return `expected ${kind} without a value, got ${showValue(text)}`
    value[field] = field === "message" ? given : (parseDuration(given) ?? (/^\d+$/.test(given) ? Number(given) : given))
  }
  const fault = readFault(value)
  return typeof fault === "string" ? fault : { afterMs, fault }
}
