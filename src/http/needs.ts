/**
 * Decides how a route says what it asks of a key: its scope, and whether a key for some instruments only will do. Every
 * endpoint of the API says so; one that did not would let nobody in.
 */
import { Context } from "effect"
import type { Scope } from "../schema/ApiKey.ts"

export interface Need {
  /** `undefined`: open to everybody. */
  readonly scope: Scope | undefined
  /** What it answers or changes is of the whole market: a key for some instruments only will not do. */
  readonly isWhole: boolean
}

export const OPEN: Need = { scope: undefined, isWhole: false }
export const READ: Need = { scope: "read", isWhole: false }
export const WRITE: Need = { scope: "write", isWhole: false }
export const REPLAY: Need = { scope: "replay", isWhole: false }
/** Of the whole market. */
export const whole = (need: Need): Need => ({ ...need, isWhole: true })

/** An endpoint's annotation. */
export class Needs extends Context.Service<Needs, Need>()("market-data-platform/http/Needs") {}

/** The scheme's name in the API's description. */
export const SECURITY_SCHEME = "apiKey"

/** What an operation's description says of its need: none is asked for where the server has no keys. */
export const securityOf = ({ scope }: Need): ReadonlyArray<Readonly<Record<string, ReadonlyArray<string>>>> =>
  scope === undefined ? [] : [{}, { [SECURITY_SCHEME]: [scope] }]
