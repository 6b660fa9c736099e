import { assert, describe, it } from "@effect/vitest"
import { concealNothing } from "../../../src/schema/Explain.ts"
import {
  describeKiteText,
  errorText,
  KITE_ERRORS,
  kiteFailure,
  kiteSuccess,
  MAX_KITE_TEXT_CHARS,
  messageText,
  modeText,
  orderText,
  readKiteAnswer as readAnswer,
  readKiteRequest,
  readKiteText as readText,
  subscribeText,
  unsubscribeText
} from "../../../src/schema/kite/messages.ts"

const readKiteAnswer = (text: string) => readAnswer(text, concealNothing)
const readKiteText = (text: string) => readText(text, concealNothing)
const SECRET = "s3cret".repeat(20)
const conceal = (text: string) => text.replaceAll(SECRET, "…")

describe("what a client asks of Kite's ticker", () => {
  it("is read as it is written", () => {
    assert.deepStrictEqual(readKiteRequest(subscribeText([1, 2_147_483_647])), {
      a: "subscribe",
      tokens: [1, 2_147_483_647]
    })
    assert.deepStrictEqual(readKiteRequest(unsubscribeText([])), { a: "unsubscribe", tokens: [] })
    assert.deepStrictEqual(readKiteRequest(modeText("full", [5, 6])), { a: "mode", mode: "full", tokens: [5, 6] })
  })

  it("may have its numbers in quotes, as browsers send them", () => {
    assert.deepStrictEqual(readKiteRequest(`{"a":"subscribe","v":["408065",884737]}`), {
      a: "subscribe",
      tokens: [408_065, 884_737]
    })
  })

  const refused: ReadonlyArray<readonly [text: string, sentence: RegExp]> = [
    ["", /^input: expected JSON, got /],
    ["\u0000\u001b[2J", /^input: expected JSON, got /],
    ["[1]", /^input: expected an object, got \[1\]/],
    ["null", /^input: expected an object, got null/],
    [`{"a":"buy"}`, /^a: expected "subscribe", "unsubscribe" or "mode", got "buy"/],
    [`{"v":[1]}`, /^a: .* got nothing/],
    [`{"a":"subscribe"}`, /^v: expected a list of instrument tokens, got nothing/],
    [`{"a":"subscribe","v":"1"}`, /^v: expected a list of instrument tokens, got "1"/],
    [`{"a":"subscribe","v":[1,-2]}`, /^v\.1: expected an instrument token, .*got -2/],
    [`{"a":"subscribe","v":[1.5]}`, /^v\.0: .*got 1\.5/],
    [`{"a":"subscribe","v":["12x"]}`, /^v\.0: .*got "12x"/],
    [`{"a":"subscribe","v":[2147483648]}`, /^v\.0: .*from 1 to 2147483647, got 2147483648/],
    [`{"a":"subscribe","v":[null]}`, /^v\.0: .*got null/],
    [`{"a":"mode","v":["full"]}`, /^v: expected \[mode, \[tokens\]\], got \["full"\]/],
    [`{"a":"mode","v":["FULL",[1]]}`, /^v\.0: expected "ltp", "quote" or "full", got "FULL"/],
    [`{"a":"mode","v":["full",1]}`, /^v\.1: expected a list/],
    [`{"a":"mode","v":["full",[0]]}`, /^v\.1\.0: .*got 0/],
    [`{"a":"subscribe","v":[${"1,".repeat(10_000)}1]}`, /^v: expected at most 10000 .*got 10001/],
    [" ".repeat(MAX_KITE_TEXT_CHARS + 1), /^input: expected at most 262144 characters, got 262145/],
    [`{"a":"subscribe","v":${"[".repeat(100_000)}${"]".repeat(100_000)}}`, /^v\.0: expected an instrument token/]
  ]
  for (const [text, sentence] of refused) {
    it(`is refused by name: ${JSON.stringify(text.slice(0, 40))}`, () => {
      const read = readKiteRequest(text)
      assert.isString(read)
      assert.match(read as string, sentence)
      assert.isBelow((read as string).length, 300)
    })
  }
})

describe("what Kite's ticker says in text", () => {
  it("is read as it is written, errors as strings", () => {
    assert.deepStrictEqual(readKiteText(errorText('no "such" token')), { type: "error", data: 'no "such" token' })
    assert.deepStrictEqual(readKiteText(messageText("market closed")), { type: "message", data: "market closed" })
    assert.deepStrictEqual(readKiteText(orderText({ order_id: "1" })), { type: "order", data: { order_id: "1" } })
    assert.deepStrictEqual(readKiteText(`{"type":"instruments_meta","data":{}}`), {
      type: "instruments_meta",
      data: {}
    })
  })

  it("is refused where it is no object with a type", () => {
    for (const text of ["", "x", "1", "[]", "{}", `{"type":1}`]) assert.isString(readKiteText(text), text)
  })
})

describe("a secret in what Kite says", () => {
  // Each is cut where it stands.
  const [near, far] = ["x".repeat(70), "x".repeat(185)]

  it("is in no name or message of an answer, wherever that is cut", () => {
    for (const error_type of [SECRET, `${near}${SECRET}`]) {
      for (const message of [SECRET, `${far}${SECRET}`]) {
        const read = readAnswer(JSON.stringify({ status: "error", error_type, message }), conceal)
        assert.notInclude(JSON.stringify(read), "s3c")
        assert.include(JSON.stringify(read), "…")
      }
    }
  })

  it("is in no sentence that says what was expected", () => {
    const values = [SECRET, `${near}${SECRET}`, [near, SECRET], { [SECRET]: 1 }, { a: { b: SECRET } }]
    for (const value of values) {
      assert.notInclude(readAnswer(JSON.stringify({ status: value }), conceal) as string, "s3c")
      assert.notInclude(readText(JSON.stringify({ type: [value] }), conceal) as string, "s3c")
      assert.notInclude(readText(JSON.stringify([value]), conceal) as string, "s3c")
      assert.notInclude(describeKiteText({ type: "message", data: [value] }, conceal), "s3c")
    }
    for (const read of [readAnswer, readText])
      assert.notInclude(read(`<html>${near}${SECRET}`, conceal) as string, "s3c")
  })

  it("hides nothing else, of data of any kind", () => {
    const deep: unknown = JSON.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`)
    for (const [data, told] of [
      ["closed", "message: closed"],
      [{ toString: 1 }, `message: {"toString":1}`],
      [null, "message: null"],
      [undefined, "message: nothing"],
      [deep, "message: [[[[[…]]]]]"]
    ] as const) {
      assert.strictEqual(describeKiteText({ type: "message", data }, conceal), told)
    }
  })
})

describe("a REST answer of Kite's", () => {
  it("wraps data and failures as clients look for them", () => {
    assert.deepStrictEqual(JSON.parse(kiteSuccess("[1]")), { status: "success", data: [1] })
    assert.deepStrictEqual(JSON.parse(kiteFailure("TokenException", 'Incorrect "api_key"')), {
      status: "error",
      message: 'Incorrect "api_key"',
      error_type: "TokenException",
      data: null
    })
    assert.strictEqual(KITE_ERRORS.TokenException, 403)
    assert.strictEqual(KITE_ERRORS.InputException, 400)
  })

  it("is read as it is wrapped", () => {
    assert.deepStrictEqual(readKiteAnswer(kiteSuccess("{}")), { ok: true, data: {} })
    assert.deepStrictEqual(readKiteAnswer(kiteFailure("InputException", "invalid token")), {
      ok: false,
      name: "InputException",
      message: "invalid token"
    })
    assert.deepStrictEqual(readKiteAnswer(`{"status":"error"}`), {
      ok: false,
      name: "GeneralException",
      message: "no reason given"
    })
    for (const text of ["", "null", "1", "{}", `"success"`, "<html>"]) assert.isString(readKiteAnswer(text), text)
  })
})
