import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { instrumentLines } from "../../src/schema/InstrumentFile.ts"
import {
  defaultSimulation,
  FIRST_SIMULATED_TOKEN,
  Simulation,
  simulatedInstruments,
  simulatedInstrumentsCsv
} from "../../src/schema/Simulation.ts"

describe("simulated instruments", () => {
  it("have symbols and tokens of their own, however many there are", () => {
    const instruments = simulatedInstruments(5000)
    assert.strictEqual(new Set(instruments.map((i) => i.tradingsymbol)).size, 5000)
    assert.strictEqual(new Set(instruments.map((i) => i.instrument_token)).size, 5000)
    assert.strictEqual(instruments[0]?.instrument_token, FIRST_SIMULATED_TOKEN)
    assert.isTrue(instruments.every((i) => i.exchange === "SIM" && i.tick_size === 0.05))
  })

  it("are the same for any count", () => {
    assert.deepStrictEqual(simulatedInstruments(3000).slice(0, 60), simulatedInstruments(60))
  })

  it("hold futures and options too", () => {
    const classes = (n: number) => new Set(simulatedInstruments(n).map((i) => i.asset_class))
    assert.deepStrictEqual(classes(defaultSimulation.symbols), new Set(["EQ", "FUT", "OPT"]))
    const made = simulatedInstruments(1050).slice(50)
    assert.strictEqual(made.filter((i) => i.asset_class === "FUT").length, 100)
    for (const { asset_class, option_type, strike } of simulatedInstruments(1050)) {
      assert.deepStrictEqual([strike !== null, option_type !== null], Array(2).fill(asset_class === "OPT"))
    }
  })

  it("read back from the broker's file as they are", () => {
    const [header, ...lines] = simulatedInstrumentsCsv(300).trimEnd().split("\n")
    const reader = Result.getOrThrow(instrumentLines(header!))
    const read = lines.map((line, i) => reader.read(line, i + 2))
    assert.deepStrictEqual(read, [...simulatedInstruments(300)])
  })
})

describe("a simulation", () => {
  const decode = Schema.decodeUnknownResult(Simulation)

  it("has defaults within its bounds", () => {
    assert.deepStrictEqual(Result.getOrThrow(decode(defaultSimulation)), defaultSimulation)
  })

  it("cannot do more with a packet than lose, double or delay it", () => {
    assert.isTrue(Result.isFailure(decode({ ...defaultSimulation, loss: 0.5, duplicate: 0.4, reorder: 0.2 })))
    assert.isTrue(Result.isSuccess(decode({ ...defaultSimulation, loss: 0.5, duplicate: 0.3, reorder: 0.2 })))
  })
})
