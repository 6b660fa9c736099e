/** Decides what a run and its crowds of clients, each a process, say to one another. */

/** Where the stream of each instrument stands in the log, by token. */
export type Places = Readonly<Record<string, readonly [epoch: number, position: number]>>

/** What a crowd is told: which servers there are, or that nothing more comes and where everything stands. */
export type Order = { readonly urls: ReadonlyArray<string> } | { readonly settle: Places }

/** What a crowd has seen, said once it has settled. */
export interface Sighted {
  readonly violations: ReadonlyArray<string>
  readonly unsettled: ReadonlyArray<string>
  readonly counts: Readonly<Record<string, number>>
  /** `token/interval/ts` to the text of each revision. */
  readonly bars: Readonly<Record<string, Readonly<Record<string, string>>>>
}
