import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { layer } from "../../../src/layers/instruments/Symbols.ts"
import { StoreError } from "../../../src/schema/Errors.ts"
import { Symbols } from "../../../src/streams/ports/Symbols.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"
import { instrumentOf } from "../../support/instruments.ts"

describe("the names of tokens, of the store's instruments", () => {
  it.effect("are those of the day, read again once the store says that they changed", () => {
    const rows = new Rows()
    let reads = 0
    let isDown = false
    const store = memoryStore(rows, {
      instruments: () =>
        Effect.sync(() => {
          reads += 1
          return rows.known()
        }),
      instrumentsVersion: Effect.suspend(() =>
        isDown
          ? Effect.fail(new StoreError({ operation: "instrumentsVersion", message: "gone", transient: true }))
          : Effect.succeed(String(rows.puts))
      )
    })
    return Effect.gen(function* () {
      const symbols = yield* Symbols
      const names = [20_299, 20_300, 20_600, 20_700]
      const now = () => names.map((day) => symbols.of(7, day))
      assert.deepStrictEqual(now(), [undefined, undefined, undefined, undefined])
      rows.sightings.set(7, [
        { instrument: instrumentOf(7, "OLD", "NFO", { expiry: "2025-08-01" }), first: 20_300, last: 20_300 },
        { instrument: instrumentOf(7, "NEW", "NFO"), first: 20_600, last: 20_600 }
      ])
      yield* symbols.refresh
      assert.deepStrictEqual(now(), ["NFO:OLD", "NFO:OLD", "NFO:NEW", "NFO:NEW"])
      assert.strictEqual(symbols.of(8, 20_300), undefined)
      rows.instruments.set(8, instrumentOf(8, "EIGHT"))
      rows.puts += 1
      yield* symbols.refresh
      assert.strictEqual(reads, 1)
      yield* TestClock.adjust("10 seconds")
      yield* symbols.refresh
      yield* TestClock.adjust("10 seconds")
      yield* symbols.refresh
      assert.deepStrictEqual([reads, symbols.of(8, 20_300)], [2, "NSE:EIGHT"])
      // A store that does not answer takes no name away, and stops nobody.
      isDown = true
      yield* TestClock.adjust("10 seconds")
      yield* symbols.refresh
      assert.strictEqual(symbols.of(8, 20_300), "NSE:EIGHT")
    }).pipe(Effect.provide(Layer.provide(layer, store)))
  })
})
