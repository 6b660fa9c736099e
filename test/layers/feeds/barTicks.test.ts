import { assert, describe, it } from "@effect/vitest"
import { startOf } from "../../../src/layers/feeds/barTicks.ts"

const at = (clock: string): number => Date.parse(`2026-01-16T${clock}:00+05:30`) * 1000
const [NSE, MCX, CDS] = [738561, 58_424_839, 1_078_019]

describe("the bar that a row's time is of", () => {
  it("starts where the bars of its segment do: from 09:00 on for commodities and currency, from 09:15 for others", () => {
    for (const interval of ["30m", "1h"] as const) {
      assert.strictEqual(startOf(at("09:15"), interval, "start", NSE), at("09:15"))
      assert.strictEqual(startOf(at("10:00"), interval, "end", MCX), at(interval === "1h" ? "09:00" : "09:30"))
      for (const token of [MCX, CDS]) {
        assert.strictEqual(startOf(at("09:00"), interval, "start", token), at("09:00"))
        assert.include(startOf(at("09:15"), interval, "start", token), "counted from 09:00 IST")
      }
      assert.include(startOf(at("09:00"), interval, "start", NSE), "counted from 09:15 IST")
    }
    // On both.
    for (const token of [NSE, MCX]) assert.strictEqual(startOf(at("09:00"), "15m", "start", token), at("09:00"))
  })
})
