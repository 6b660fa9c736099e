import { assert, describe, it } from "@effect/vitest"

const module = new URL("../../src/http/dashboard/format.js", import.meta.url).href
const { foreign } = (await import(module)) as { readonly foreign: (text: string, most: number) => string }

describe("what the page shows of foreign text", () => {
  it("is as it came where all of it can be seen", () => {
    assert.strictEqual(
      foreign('price: expected ₹ a number, got "<b>रु</b>"', 100),
      'price: expected ₹ a number, got "<b>रु</b>"'
    )
  })

  it("spells out what hides or turns round, and is cut", () => {
    assert.strictEqual(
      foreign("a\u202eb\u0000c\u200bd\ne\u001b[31m", 100),
      "a\\u{202e}b\\u{0}c\\u{200b}d\\u{a}e\\u{1b}[31m"
    )
    assert.strictEqual(foreign("x".repeat(5000), 10), `${"x".repeat(10)}…`)
    // Half a character at the cut is spelt out too.
    assert.strictEqual(foreign("a😀", 2), "a\\u{d83d}…")
  })
})
