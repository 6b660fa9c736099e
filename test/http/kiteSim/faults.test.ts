import { assert, describe, it } from "@effect/vitest"
import { parseDuration } from "../../../src/commands/durations.ts"
import { readTimedFault } from "../../../src/http/kiteSim/faults.ts"

const read = (text: string) => readTimedFault(text, parseDuration)

describe("a fault of the command line", () => {
  it("says what, how, and when after the start", () => {
    for (const [text, afterMs, fault] of [
      ["reset", 0, { fault: "reset" }],
      ["reset@20s", 20_000, { fault: "reset" }],
      ["close:1012@1m", 60_000, { fault: "close", code: 1012 }],
      ["late:500ms", 0, { fault: "late", by: 500 }],
      ["stall:10s@30s", 30_000, { fault: "stall", ms: 10_000 }],
      ["down:2s@1m", 60_000, { fault: "down", ms: 2000 }],
      ["lapse@6h", 21_600_000, { fault: "lapse" }],
      ["cut:5", 0, { fault: "cut", frames: 5 }],
      ["refuse:503@1s", 1000, { fault: "refuse", status: 503 }],
      ["error:no such user: x", 0, { fault: "error", message: "no such user: x" }]
    ] as const) {
      assert.deepStrictEqual(read(text), { afterMs, fault }, text)
    }
  })

  it("is refused where it is none", () => {
    for (const [text, sentence] of [
      ["", /unknown fault/],
      ["halfopen", /did you mean half-open\?/],
      ["nope", /unknown fault nope: known: stall, .*, none$/],
      ["reset@soon", /expected a time such as 20s after @, got "soon"/],
      ["down", /ms/],
      ["reset:5", /expected reset without a value/],
      ["close", /code/],
      ["close:x", /code: .*got "x"/],
      ["late:-5", /by: .*got "-5"/]
    ] as const) {
      const found = read(text)
      assert.isString(found, text)
      assert.match(found as string, sentence)
    }
  })
})
