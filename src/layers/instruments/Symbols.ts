/**
 * Decides how a process without a list of instruments knows what tokens are called: the store's, read when it is asked
 * for and the store's version says that it changed. Whoever writes waits for that a moment at most: ticks are the more
 * urgent.
 */
import { Clock, Effect, Layer } from "effect"
import { fullSymbol, usable } from "../../schema/Instrument.ts"
import { meaningsOf } from "../../schema/Meaning.ts"
import { Symbols } from "../../streams/ports/Symbols.ts"
import { type KnownInstrument, TickStore } from "../../streams/ports/TickStore.ts"
import { inTurns, pause, type Slices } from "../../streams/run/slices.ts"
import { MAX_INSTRUMENTS } from "./Instruments.ts"

/** Between two looks at the version. */
const LOOK_MS = 10_000
/** How long a look, and a reading, is waited for. */
const PATIENCE = "5 seconds"

/** What a token is called through a trading day. */
interface Named {
  readonly symbol: string
  readonly through: number
}

function* naming(rows: ReadonlyArray<KnownInstrument>): Slices<ReadonlyMap<number, ReadonlyArray<Named>>> {
  const names = new Map<number, ReadonlyArray<Named>>()
  for (let n = 0, from = 0; n < rows.length; n++) {
    const token = rows[n]!.instrument.instrument_token
    if (rows[n + 1]?.instrument.instrument_token !== token) {
      const known = rows.slice(from, n + 1).filter(({ instrument }) => usable(instrument) !== undefined)
      const named = meaningsOf(known).map(({ instrument, through }) => ({ symbol: fullSymbol(instrument), through }))
      if (named.length > 0) names.set(token, named)
      from = n + 1
    }
    if (pause(n)) yield
  }
  return names
}

/** Names of the store's instruments. */
export const layer: Layer.Layer<never, never, TickStore> = Layer.effect(
  Symbols,
  Effect.gen(function* () {
    const store = yield* TickStore
    let names: ReadonlyMap<number, ReadonlyArray<Named>> = new Map()
    let version: string | undefined
    let lookedAt = Number.NEGATIVE_INFINITY
    const read = Effect.gen(function* () {
      const found = yield* store.instrumentsVersion
      if (found === version) return
      names = yield* inTurns(naming(yield* store.instruments(MAX_INSTRUMENTS)))
      version = found
    })
    return {
      refresh: Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        if (now - lookedAt < LOOK_MS) return
        lookedAt = now
        yield* read.pipe(
          Effect.timeout(PATIENCE),
          Effect.catch((error) =>
            Effect.logWarning(`names of instruments are kept as they were, ${error._tag}: ${error.message}`)
          )
        )
      }),
      of: (token, day) => names.get(token)?.find(({ through }) => day <= through)?.symbol
    }
  })
)
