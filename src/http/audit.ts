/**
 * Decides what the log says of whatever somebody changes by a key: one line each, with key and address. What is ingested
 * is told at once the first time, and then summed for a while: a feed sends many times a second.
 */
import type { AuditFields } from "../layers/keys/auditLine.ts"
import { printableUpTo } from "../schema/printable.ts"

/** How long ticks of one key from one address are summed. */
const SUM_MS = 10_000
/** Sums at a time; one more, and all are told. */
const MAX_SUMS = 1_000
const MAX_FIELD_CHARS = 200

/** Who did it. */
export interface Doer {
  readonly key: string
  readonly address: string
}

interface Sum {
  readonly doer: Doer
  requests: number
  ticks: number
  /** Ticks of which nobody knows whether the log has them. */
  failed: number
  timer: NodeJS.Timeout
}

/** `write` takes the fields of one line. */
export class Audit {
  private readonly sums = new Map<string, Sum>()
  private readonly write: (fields: AuditFields) => void

  constructor(write: (fields: AuditFields) => void) {
    this.write = write
  }

  /** One line; what is foreign in it is escaped and cut. */
  tell({ key, address }: Doer, action: string, fields: AuditFields = {}): void {
    const told: Record<string, string | number> = { key, address, action }
    for (const [name, value] of Object.entries(fields)) {
      told[name] = typeof value === "string" ? printableUpTo(value, MAX_FIELD_CHARS) : value
    }
    this.write(told)
  }

  /** One request brought so many ticks; of `failed` it is not known whether the log has them. */
  ingested(doer: Doer, ticks: number, failed = 0): void {
    const name = `${doer.key} ${doer.address}`
    const known = this.sums.get(name)
    if (known !== undefined) {
      known.requests++
      known.ticks += ticks
      known.failed += failed
      return
    }
    if (this.sums.size >= MAX_SUMS) this.close()
    this.tellSum(doer, 1, ticks, failed)
    this.sums.set(name, { doer, requests: 0, ticks: 0, failed: 0, timer: this.later(name) })
  }

  /** Tells what has not been told yet. */
  close(): void {
    for (const [name, sum] of this.sums) {
      clearTimeout(sum.timer)
      this.sums.delete(name)
      if (sum.requests > 0) this.tellSum(sum.doer, sum.requests, sum.ticks, sum.failed)
    }
  }

  private later(name: string): NodeJS.Timeout {
    return setTimeout(() => this.end(name), SUM_MS).unref()
  }

  /** The time of a sum is over: told, and begun anew, unless nothing came. */
  private end(name: string): void {
    const sum = this.sums.get(name)
    if (sum === undefined) return
    if (sum.requests === 0) {
      this.sums.delete(name)
      return
    }
    this.tellSum(sum.doer, sum.requests, sum.ticks, sum.failed)
    sum.requests = 0
    sum.ticks = 0
    sum.failed = 0
    sum.timer = this.later(name)
  }

  private tellSum(doer: Doer, requests: number, ticks: number, failed: number): void {
    this.tell(doer, "ingest", { requests, ticks, ...(failed > 0 ? { failed } : {}) })
  }
}
