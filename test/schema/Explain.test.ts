/** What is shown of a foreign value is bounded in depth and length, is fit for a terminal, and throws for none. */
import { describe, expect, it } from "@effect/vitest"
import { Arbitrary, Result, Schema } from "effect"
import { explain, showText, showValue } from "../../src/schema/Explain.ts"
import { readRawTick } from "../../src/schema/RawTick.ts"

const nested = (depth: number): unknown => JSON.parse("[".repeat(depth) + "]".repeat(depth))

const nestedObject = (depth: number): unknown => JSON.parse(`${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`)

const UNPRINTABLE = /[\p{Cc}\u2028-\u202e\u2066-\u2069\ufeff]/u

describe("showValue", () => {
  it("shows what is short as JSON", () => {
    expect(showValue({ a: [1, "x", null, true], b: { c: -0.5 } })).toBe('{"a":[1,"x",null,true],"b":{"c":-0.5}}')
    expect(showValue("a\nb")).toBe('"a\\nb"')
    expect(showValue([])).toBe("[]")
    expect(showValue({})).toBe("{}")
    expect(showValue(undefined)).toBe("nothing")
    expect(showValue(Number.NaN)).toBe("NaN")
    expect(showValue(12n)).toBe("12")
    expect(showValue(Symbol("s"))).toBe("Symbol(s)")
  })

  it("shows no more than four levels of a value nested deeper than the stack", () => {
    expect(showValue(nested(100_000))).toBe("[[[[[…]]]]]")
    expect(showValue(nestedObject(4_500))).toBe('{"a":{"a":{"a":{"a":{…}}}}}')
  })

  it("cuts a long value without reading it whole", () => {
    expect(showValue("x".repeat(10_000_000))).toBe(`"${"x".repeat(79)}…`)
    const wide = Array.from({ length: 100_000 }, () => 1)
    expect(showValue(wide)).toBe(`[${"1,".repeat(39)}1…`)
    expect(showValue(`${"x".repeat(78)}😀😀`)).toBe(`"${"x".repeat(78)}…`)
  })

  it("leaves nothing that a terminal would obey", () => {
    expect(showValue("\u001b[31m\u009b2J\u202e\u2028\ufeff")).toBe('"\\u001b[31m\\u009b2J\\u202e\\u2028\\ufeff"')
    expect(showText("a\u001b[2J\r\n\u007f")).toBe("a\\u001b[2J\\u000d\\u000a\\u007f")
    expect(showText("abcdef", 3)).toBe("abc…")
  })

  it("throws for no value", () => {
    const hostile = {
      get a() {
        throw new Error("no")
      }
    }
    expect(showValue(hostile)).toBe("something that cannot be shown")
    expect(showValue(Object.create(null))).toBe("{}")
  })

  it.prop("shows any JSON in one short line", [Arbitrary.schema(Schema.Unknown)], ([value]) => {
    const shown = showValue(value)
    return shown.length <= 81 && !UNPRINTABLE.test(shown)
  })
})

describe("explain", () => {
  it("names a field whose value is nested without end", () => {
    expect(readRawTick({ instrument_token: nested(5_000), exchange_ts: 1, price: 1 })).toMatch(
      /^instrument_token: .*, got \[\[\[\[\[…]]]]]$/
    )
    expect(readRawTick(nested(5_000))).toMatch(/^input: .*, got \[\[\[\[\[…]]]]]$/)
    expect(readRawTick(nestedObject(5_000))).toMatch(/^instrument_token: /)
  })

  it("cuts a key of the input's own in the path", () => {
    const decoded = Schema.decodeUnknownResult(Schema.Record(Schema.String, Schema.Int))({
      ["\u001b".repeat(900)]: "x"
    })
    if (Result.isSuccess(decoded)) throw new Error("expected a refusal")
    const { path, message } = explain(decoded.failure.issue, {})
    expect(path.length).toBeLessThanOrEqual(81)
    expect(UNPRINTABLE.test(message)).toBe(false)
  })
})
