/** Decides what a route knows of who asks: his key, which instruments it is for, and where what he changes leaves its line. */
import { Context, Effect } from "effect"
import type { LiveKey } from "../layers/keys/ApiKeys.ts"
import type { AuditFields } from "../layers/keys/auditLine.ts"
import type { Instruments } from "../streams/ports/Instruments.ts"
import type { KeyAccess } from "./access.ts"
import type { ClientLog } from "./clientLog.ts"
import { Forbidden } from "./errors.ts"
import type { Head } from "./head.ts"

export interface CallerShape {
  /** `undefined`: nobody is asked for one. */
  readonly key: LiveKey | undefined
  /** He has changed something. */
  readonly did: (action: string, fields?: AuditFields) => void
  /** He has sent so many ticks; of `failed` more nobody knows whether the log has them. */
  readonly ingested: (ticks: number, failed?: number) => void
  /** He was refused what his key is not for. */
  readonly refused: (message: string) => void
}

const nothing = () => undefined

/** Who asks a route. Where nobody is asked for a key, everybody may see everything, and leaves no line. */
export const Caller = Context.Reference<CallerShape>("market-data-platform/http/Caller", {
  defaultValue: () => ({ key: undefined, did: nothing, ingested: nothing, refused: nothing })
})

export const callerOf = (access: KeyAccess, key: LiveKey, head: Head, log: ClientLog): CallerShape => {
  const doer = { key: key.name, address: head.address }
  return {
    key,
    did: (action, fields) => access.audit.tell(doer, action, fields),
    ingested: (ticks, failed) => access.audit.ingested(doer, ticks, failed),
    refused: (message) => {
      access.observer.figuresOf(key.name).refused("instruments")
      const { address, method, path } = head
      const about = { status: 403, reason: "instruments", method, path, key: key.name }
      log.tell("refused", address, `${method} ${path}: ${message}`, about)
    }
  }
}

/** Refuses what the caller's key is not for; `parameter` says where it was asked for. */
export const refuseInstruments = (parameter: string, message: string): Effect.Effect<never, Forbidden> =>
  Effect.flatMap(Caller, (caller) => {
    caller.refused(message)
    return Effect.fail(new Forbidden({ parameter, message }))
  })

/** Trading days since 1970, both included; infinite where nothing bounds them. */
export interface Days {
  readonly from: number
  readonly through: number
}

/** What a token means on some days; now, where none are given. */
export const meantOn = (token: number, instruments: Pick<Instruments["Service"], "get" | "meanings">, days?: Days) => {
  if (days === undefined) return [instruments.get(token)]
  const meant = instruments.meanings(token).filter(({ from, through }) => from <= days.through && through >= days.from)
  return meant.length === 0 ? [undefined] : meant.map(({ instrument }) => instrument)
}

/** Refuses tokens that the caller's key is not for on all of some days, naming the first; now, where none are given. */
export const maySee = (
  tokens: Iterable<number>,
  instruments: Pick<Instruments["Service"], "get" | "meanings">,
  parameter: string,
  days?: Days
): Effect.Effect<void, Forbidden> =>
  Effect.flatMap(Caller, ({ key }) => {
    if (key === undefined || !key.isRestricted) return Effect.void
    for (const token of tokens) {
      if (meantOn(token, instruments, days).every((one) => key.sees(token, one))) continue
      return refuseInstruments(parameter, `${parameter}: key "${key.name}" is not for ${token}`)
    }
    return Effect.void
  })
