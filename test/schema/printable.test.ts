import { assert, describe, it } from "@effect/vitest"
import { printable, printableUpTo } from "../../src/schema/printable.ts"

describe("text from outside", () => {
  it("is shown in one line, with nothing in it that a terminal obeys", () => {
    assert.strictEqual(
      printable("a\u001b[31mb\r\nc\u009b2Jd\u007fe\u202ef"),
      "a\\u001b[31mb\\u000d\\u000ac\\u009b2Jd\\u007fe\\u202ef"
    )
    assert.strictEqual(printable("\ud800x"), "\\ud800x")
  })

  it("stays as it is where it is text of any language", () => {
    for (const text of ["NSE:M&M", "ऊर्जा ₹ 2,500.50", "émoji 📈 and \\u001b as written"]) {
      assert.strictEqual(printable(text), text)
    }
  })

  it("stays the same JSON", () => {
    const value = { reason: "\u001b]0;title\u0007 \u009b \u2028 \u202e" }
    assert.deepStrictEqual(JSON.parse(printable(JSON.stringify(value))), value)
  })

  it("is cut before it is worked on", () => {
    assert.strictEqual(printableUpTo("\u0007".repeat(1000), 3), "\\u0007\\u0007\\u0007…")
  })
})
