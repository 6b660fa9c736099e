import { assert, describe, it } from "@effect/vitest"
import { INNER_MODULES, innerModule } from "../../../src/layers/kafka/kafkajsModules.ts"

describe("the inner modules of kafkajs", () => {
  for (const [name, uses] of Object.entries(INNER_MODULES)) {
    it(`have ${name}, with what is used of it`, () => {
      assert.isDefined(innerModule(name, uses))
    })
  }

  it("are missed by their names, with what to do, where an update has taken one away", () => {
    const gone = () => {
      throw new Error("Cannot find module")
    }
    const sentence = /^kafkajs has no .* any more, which KAFKA_ENGINE=kafkajs needs: take version 2\.2\.4/
    assert.throws(() => innerModule("kafkajs/src/broker", "call", gone), sentence)
    assert.throws(() => innerModule("kafkajs/src/broker", "call", () => ({})), /no function in kafkajs\/src\/broker/)
    assert.throws(
      () => innerModule("kafkajs/src/loggers", ["LEVELS"], () => ({})),
      /no LEVELS in kafkajs\/src\/loggers/
    )
  })
})
