/** Decides how a ledger is written: NDJSON, a block at a time, and what is left of it at the end. */
import { open } from "node:fs/promises"
import { Effect } from "effect"
import { FeedError } from "../../schema/Errors.ts"

/** Text written at a time. */
const BLOCK_CHARS = 64 * 1024

export interface Ledger {
  readonly write: (text: string) => Effect.Effect<void, FeedError>
  readonly end: Effect.Effect<void, FeedError>
}

export const openLedger = (path: string): Effect.Effect<Ledger, FeedError> =>
  Effect.gen(function* () {
    const refuse = (error: unknown) =>
      new FeedError({ message: `ledger ${path}: ${error instanceof Error ? error.message : String(error)}` })
    const handle = yield* Effect.tryPromise({ try: () => open(path, "w"), catch: refuse })
    let waiting = ""
    const flush = Effect.suspend(() => {
      const text = waiting
      waiting = ""
      return text === ""
        ? Effect.void
        : Effect.asVoid(Effect.tryPromise({ try: () => handle.appendFile(text), catch: refuse }))
    })
    return {
      write: (text) =>
        Effect.suspend(() => {
          waiting += text
          return waiting.length >= BLOCK_CHARS ? flush : Effect.void
        }),
      end: flush.pipe(Effect.ensuring(Effect.promise(() => handle.close())))
    }
  })

export const noLedger: Ledger = { write: () => Effect.void, end: Effect.void }
