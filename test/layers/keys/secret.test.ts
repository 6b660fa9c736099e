import { assert, describe, it } from "@effect/vitest"
import { hashOf, isKeyOf, newKey } from "../../../src/layers/keys/secret.ts"
import { keyIdOf } from "../../../src/schema/keyText.ts"

describe("a new key", () => {
  it("reads as one, and only its hash can tell it again", () => {
    const { hash, id, text } = newKey(new Set())
    assert.strictEqual(keyIdOf(text), id)
    assert.match(hash, /^[0-9a-f]{64}$/)
    assert.notInclude(hash, text.slice(13, 20))
    assert.isTrue(isKeyOf(text, Buffer.from(hash, "hex")))
    for (const other of [newKey(new Set()).text, `${text.slice(0, -1)}${text.endsWith("A") ? "B" : "A"}`, ""]) {
      assert.isFalse(isKeyOf(other, Buffer.from(hash, "hex")))
    }
  })

  it("is nobody's where there is no hash, whatever it hashes to", () => {
    assert.isFalse(isKeyOf(newKey(new Set()).text, undefined))
    assert.isFalse(isKeyOf("", undefined))
  })

  it("is another one each time, with an id that no other has", () => {
    const made = Array.from({ length: 1000 }, () => newKey(new Set()))
    assert.strictEqual(new Set(made.map(({ text }) => text)).size, 1000)
    const tried: Array<string> = []
    const { id } = newKey({ has: (one) => tried.push(one) < 3 })
    assert.deepStrictEqual([tried.length, tried.at(-1)], [3, id])
  })

  it("is hashed by SHA-256", () => {
    assert.strictEqual(
      hashOf("abc").toString("hex"),
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
  })
})
