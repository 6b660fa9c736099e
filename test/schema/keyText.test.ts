import { assert, describe, it } from "@effect/vitest"
import { showText, showValue } from "../../src/schema/Explain.ts"
import { hideKeys, KEY_CHARS, keyIdOf } from "../../src/schema/keyText.ts"
import { errorFrame } from "../../src/schema/Protocol.ts"
import { printable, printableUpTo } from "../../src/schema/printable.ts"

const SECRET = "BLWYj9y0UGfwR5rX9oC5X-hTv1jJqsf8ICZSotkc_Qx"
const KEY = `mdp_99fc62d0_${SECRET}`

describe("the text of a key", () => {
  it("has an id, and nothing else has one", () => {
    assert.strictEqual(KEY.length, KEY_CHARS)
    assert.strictEqual(keyIdOf(KEY), "99fc62d0")
    for (const text of [
      "",
      `${KEY}x`,
      KEY.slice(1),
      KEY.slice(0, -1),
      KEY.replace("mdp", "MDP"),
      KEY.replace("99fc", "99FC"),
      `${KEY.slice(0, -1)}+`,
      ` ${KEY.slice(1)}`,
      `${KEY.slice(0, -1)}\n`
    ]) {
      assert.isUndefined(keyIdOf(text), text)
    }
  })

  it("is hidden but for its id wherever foreign text is shown, however it is cut or wrapped", () => {
    const wrapped = `GET /x/${KEY}?a=${KEY} "${KEY}"`
    const shown = [
      hideKeys(wrapped),
      printable(wrapped),
      printableUpTo(wrapped, 40),
      printableUpTo(wrapped, 1000),
      showText(wrapped),
      showText(wrapped, 300),
      showValue({ key: [KEY] }),
      showValue(wrapped),
      errorFrame({ code: "bad_message", message: wrapped, id: 1 })
    ]
    for (const text of shown) {
      assert.include(text, "mdp_99fc62d0_…")
      assert.notInclude(text, SECRET.slice(0, 4))
    }
    assert.strictEqual(hideKeys("mdp_ is how keys begin"), "mdp_ is how keys begin")
  })
})
