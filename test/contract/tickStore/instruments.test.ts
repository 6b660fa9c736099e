/** Decides, for the store on every database, how the instruments are kept: their changes, their version, their limit. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { instrumentOf } from "../../support/instruments.ts"
import { onEachStore, sql } from "./stores.ts"

onEachStore("instruments", (it) => {
  it.effect("are added, changed and expired, each counted once, and a reused token keeps what it meant before", () =>
    Effect.gen(function* () {
      const { instruments, putInstruments } = yield* TickStore
      const [january29, january30, february2] = [20_482, 20_483, 20_486]
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
      const before = [
        { instrument: equity, first: january29 },
        { instrument: option, first: january29 }
      ]
      assert.deepStrictEqual(yield* instruments(10), before)
      assert.deepStrictEqual(yield* putInstruments([equity, option]), { added: 0, changed: 0, expired: 0 })
      const named = { ...equity, name: "INFOSYS LIMITED" }
      assert.deepStrictEqual(yield* putInstruments([equity, named]), { added: 0, changed: 1, expired: 0 })
      // The day after the option's last one; the file no longer names it.
      yield* TestClock.setTime(Date.parse("2026-01-30T04:00:00Z"))
      assert.deepStrictEqual(yield* putInstruments([named]), { added: 0, changed: 0, expired: 1 })
      assert.deepStrictEqual(yield* putInstruments([named]), { added: 0, changed: 0, expired: 0 })
      const smaller = { ...named, tick_size: 0.01 }
      yield* TestClock.setTime(Date.parse("2026-02-02T04:00:00Z"))
      assert.deepStrictEqual(yield* putInstruments([smaller]), { added: 0, changed: 1, expired: 0 })
      const reused = { ...option, tradingsymbol: "NIFTY26FEB25000CE", expiry: "2026-02-26" }
      assert.deepStrictEqual(yield* putInstruments([reused], january30), { added: 0, changed: 1, expired: 0 })
      const after = [
        { instrument: named, first: january29 },
        { instrument: smaller, first: february2 },
        { instrument: option, first: january29 },
        { instrument: reused, first: january30 }
      ]
      assert.deepStrictEqual(yield* instruments(10), after)
      // What an older file says again, or another of its day, changes nothing of today.
      assert.deepStrictEqual(yield* putInstruments([option, equity], january29), { added: 0, changed: 0, expired: 0 })
      assert.deepStrictEqual(yield* instruments(10), after)
      const kept = yield* sql(
        `SELECT tradingsymbol, to_char(first_seen, 'YYYY-MM-DD') AS first, to_char(last_seen, 'YYYY-MM-DD') AS last
         FROM instruments_history ORDER BY instrument_token`
      )
      assert.deepStrictEqual(kept, [
        { tradingsymbol: "INFY", first: "2026-01-29", last: "2026-01-30" },
        { tradingsymbol: "NIFTY26JAN25000CE", first: "2026-01-29", last: "2026-01-29" }
      ])
    })
  )

  it.effect("of two days are the same in whichever order they come, and again", () =>
    Effect.gen(function* () {
      const { instruments, putInstruments } = yield* TickStore
      const [earlier, later] = [20_300, 20_600]
      const contract = (symbol: string, expiry: string) =>
        instrumentOf(9_000_002, symbol, "NFO", { asset_class: "FUT", expiry })
      const july = [contract("NIFTY25JULFUT", "2025-07-31")]
      const august = [contract("NIFTY26AUGFUT", "2026-08-25")]
      const orders = [
        [july, august],
        [august, july],
        [august, july, july, august]
      ]
      for (const order of orders) {
        yield* sql("TRUNCATE instruments, instruments_history")
        for (const file of order) yield* putInstruments(file, file === july ? earlier : later)
        assert.deepStrictEqual(yield* instruments(10), [
          { instrument: july[0]!, first: earlier },
          { instrument: august[0]!, first: later }
        ])
      }
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
        "DELETE FROM instruments WHERE instrument_token = 77001",
        "DELETE FROM instruments_history WHERE instrument_token = 77001"
      ]) {
        yield* sql(text)
        seen.push(yield* instrumentsVersion)
      }
      assert.strictEqual(new Set(seen).size, 4)
    })
  )

  it.effect("come whole up to a limit, names cut where anybody wrote long ones, expired ones left first", () =>
    Effect.gen(function* () {
      const { instruments, putInstruments } = yield* TickStore
      yield* TestClock.setTime(Date.parse("2026-01-30T04:00:00Z"))
      yield* sql("TRUNCATE instruments, instruments_history")
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
        found.map((one) => one.instrument.instrument_token),
        [2, 3, 4]
      )
      assert.strictEqual(found[2]?.instrument.name?.length, 201)
    })
  )
})
