/** Decides, for the store on every database, how the instruments are kept: their changes, their version, their limit. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { instrumentOf } from "../../support/instruments.ts"
import { onEachStore, sql } from "./stores.ts"

onEachStore("instruments", (it) => {
  it.effect("are added, changed and expired, each counted once, and a reused token keeps its older meaning", () =>
    Effect.gen(function* () {
      const { instruments, putInstruments } = yield* TickStore
      yield* TestClock.setTime(Date.parse("2026-01-29T04:00:00Z"))
      const equity = instrumentOf(408065, "INFY", "NSE", { name: "INFOSYS" })
      const option = instrumentOf(9_000_001, "NIFTY26JAN25000CE", "NFO", {
        asset_class: "OPT",
        name: "NIFTY",
        expiry: "2026-01-29",
        strike: 25_000.5,
        option_type: "CE",
        lot_size: 75
      })
      assert.deepStrictEqual(yield* putInstruments([equity, option]), { added: 2, changed: 0, expired: 0 })
      assert.deepStrictEqual(yield* instruments(10), [equity, option])
      assert.deepStrictEqual(yield* putInstruments([equity, option]), { added: 0, changed: 0, expired: 0 })
      const smaller = { ...equity, tick_size: 0.01 }
      assert.deepStrictEqual(yield* putInstruments([equity, smaller]), { added: 0, changed: 1, expired: 0 })
      // The day after the option's last one; the file no longer names it.
      yield* TestClock.setTime(Date.parse("2026-01-30T04:00:00Z"))
      assert.deepStrictEqual(yield* putInstruments([smaller]), { added: 0, changed: 0, expired: 1 })
      assert.deepStrictEqual(yield* putInstruments([smaller]), { added: 0, changed: 0, expired: 0 })
      assert.deepStrictEqual(yield* instruments(10), [smaller, option])
      const reused = { ...option, tradingsymbol: "NIFTY26FEB25000CE", expiry: "2026-02-26" }
      assert.deepStrictEqual(yield* putInstruments([reused]), { added: 0, changed: 1, expired: 0 })
      assert.deepStrictEqual(yield* instruments(10), [smaller, reused])
      const kept = yield* sql(
        "SELECT tradingsymbol, to_char(expiry, 'YYYY-MM-DD') AS expiry, known_since < known_until AS ended FROM instruments_history"
      )
      assert.deepStrictEqual(kept, [{ tradingsymbol: "NIFTY26JAN25000CE", expiry: "2026-01-29", ended: true }])
    })
  )

  it.effect("change their version with every change, whoever makes it, and not when they are read", () =>
    Effect.gen(function* () {
      const { instruments, instrumentsVersion, putInstruments } = yield* TickStore
      const before = yield* instrumentsVersion
      yield* instruments(10)
      assert.strictEqual(yield* instrumentsVersion, before)
      yield* putInstruments([instrumentOf(77_001, "INFY")])
      const put = yield* instrumentsVersion
      assert.notStrictEqual(put, before)
      const seen = [put]
      for (const text of [
        "UPDATE instruments SET name = 'B' WHERE instrument_token = 77001",
        "DELETE FROM instruments WHERE instrument_token = 77001"
      ]) {
        yield* sql(text)
        seen.push(yield* instrumentsVersion)
      }
      assert.strictEqual(new Set(seen).size, 3)
    })
  )

  it.effect("come whole up to a limit, names cut where anybody wrote long ones, expired ones left first", () =>
    Effect.gen(function* () {
      const { instruments, putInstruments } = yield* TickStore
      yield* TestClock.setTime(Date.parse("2026-01-30T04:00:00Z"))
      yield* sql("TRUNCATE instruments")
      const contract = (instrument_token: number, expiry: string) =>
        instrumentOf(instrument_token, `F${expiry}`, "NSE", { asset_class: "FUT", expiry })
      yield* putInstruments([
        contract(1, "2026-01-01"),
        contract(2, "2026-01-08"),
        contract(3, "2026-02-26"),
        instrumentOf(4, "INFY")
      ])
      yield* sql("UPDATE instruments SET name = repeat('a ', 24000) WHERE instrument_token = 4")
      const found = yield* instruments(3)
      assert.deepStrictEqual(
        found.map((i) => i.instrument_token),
        [2, 3, 4]
      )
      assert.strictEqual(found[2]?.name?.length, 201)
    })
  )
})
