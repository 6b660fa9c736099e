/** Decides how many requests are under way at a time: by kind, so that none of them takes the others' places. */
import type { Context } from "effect"
import * as metrics from "../streams/metrics.ts"
import { Allowance, type Spent } from "./allowance.ts"

/**
 * `operator`: health, readiness, figures. `body`: a body is being received. `ordinary`: being answered. `stream`: the
 * answer is of no known length. `drain`: refused, while the client goes on sending.
 */
export type Kind = "operator" | "body" | "ordinary" | "stream" | "drain"
/** Requests at a time, by kind. */
export type SlotLimits = Readonly<Record<Kind, number>>

interface Places {
  readonly allowance: Allowance
  readonly active: { readonly add: (value: number) => void }
}

export class Slots {
  private readonly places: Readonly<Record<Kind, Places>>
  /** Called whenever nothing is under way any more. */
  idle: (() => void) | undefined

  constructor(
    limits: SlotLimits,
    addressPercent: number,
    context: Context.Context<never>,
    labels: Readonly<Record<string, string>> = {}
  ) {
    const places = (kind: Kind): Places => ({
      allowance: new Allowance(limits[kind], addressPercent),
      active: metrics.bind(metrics.httpRequestsActive, { ...labels, kind }, context)
    })
    this.places = {
      operator: places("operator"),
      body: places("body"),
      ordinary: places("ordinary"),
      stream: places("stream"),
      drain: places("drain")
    }
  }

  /** All of them, of every kind. */
  get size(): number {
    return Object.values(this.places).reduce((size, { allowance }) => size + allowance.used, 0)
  }

  /** Takes a place of the kind, or answers why there is none. */
  enter(kind: Kind, address: string): Spent | undefined {
    const { allowance, active } = this.places[kind]
    const spent = allowance.take(address)
    if (spent === undefined) active.add(allowance.used)
    return spent
  }

  leave(kind: Kind, address: string): void {
    const { allowance, active } = this.places[kind]
    allowance.free(address)
    active.add(allowance.used)
    if (this.size === 0) this.idle?.()
  }

  /** Gives one place for one of another kind; where there is none, the old one is kept. */
  move(from: Kind, to: Kind, address: string): Spent | undefined {
    const spent = this.enter(to, address)
    if (spent === undefined) this.leave(from, address)
    return spent
  }
}
