import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import {
  endOf,
  InstrumentList,
  isKeyInstrument,
  isKeyName,
  MAX_KEYS,
  readKeysFile,
  type StoredKey,
  writeKeysFile
} from "../../src/schema/ApiKey.ts"
import { instrumentOf } from "../support/instruments.ts"

const NOW = Date.parse("2026-02-01T00:00:00Z")
const stored = (given: Partial<StoredKey> = {}): StoredKey => ({
  name: "desk",
  id: "0123abcd",
  hash: "0".repeat(64),
  scopes: ["read"],
  created: "2026-01-15T03:45:00Z",
  ...given
})
const read = (keys: ReadonlyArray<object>) => readKeysFile(JSON.stringify({ version: 1, keys }), NOW)
const refused = (keys: ReadonlyArray<object>) => {
  const result = read(keys)
  assert(Result.isFailure(result))
  return result.failure
}

describe("the file of keys", () => {
  it("is read as it is written", () => {
    const keys = [
      stored({ instruments: ["738561", "NSE:NIFTY 50", "NFO:*"], expires: "2026-12-31T18:30:00Z" }),
      stored({ name: "bot@desk", id: "0123abce", scopes: ["read", "write", "replay"], revoked: "2026-01-16T00:00:00Z" })
    ]
    assert.deepStrictEqual(Result.getOrThrow(readKeysFile(writeKeysFile(keys), NOW)), keys)
    assert.deepStrictEqual(Result.getOrThrow(read([])), [])
  })

  it("is refused with what is wrong: a member that nobody reads, a value that is none, another version, no JSON", () => {
    const cases: ReadonlyArray<readonly [object, string]> = [
      [{ ...stored(), expire: "2026-12-31" }, "unknown key expire: did you mean expires?"],
      [{ ...stored(), scopes: ["admin"] }, 'keys.0.scopes.0: expected "read" or "write" or "replay", got "admin"'],
      [{ ...stored(), scopes: [] }, "keys.0.scopes: expected a value with a length between 1 and 3, got []"],
      [{ ...stored(), name: "a b" }, "keys.0.name: expected a name of 1 to 64 letters"],
      [{ ...stored(), expires: "2026-12-31" }, "keys.0.expires: expected a time such as 2026-01-15T03:45:00Z"],
      [{ ...stored(), hash: "00" }, "keys.0.hash: expected SHA-256 in hexadecimal digits"],
      [
        { ...stored(), instruments: ["1", "NSE"] },
        'keys.0.instruments: expected each to be a token, EXCHANGE:SYMBOL or EXCHANGE:*, which "NSE" is not'
      ],
      [{ ...stored(), instruments: [1] }, "keys.0.instruments: expected each to be a token"],
      [{ ...stored(), instruments: [] }, "keys.0.instruments: expected a list of 1 to 10000 instruments, got []"],
      [{ ...stored(), instruments: "NSE:INFY" }, "keys.0.instruments: expected"],
      [{ name: "desk" }, "keys.0.id: expected"]
    ]
    for (const [key, message] of cases) assert.include(refused([key]), message)
    for (const [text, message] of [
      ['{"version":2,"keys":[]}', "version: expected 1, got 2"],
      ["mdp_", "expected JSON, got 4 characters that are none"],
      ["", "expected JSON, got 0 characters that are none"],
      ["[]", "input: expected an object, got []"]
    ] as const) {
      const result = readKeysFile(text, NOW)
      assert(Result.isFailure(result))
      assert.strictEqual(result.failure, message)
    }
  })

  it("has a bounded number of keys, each with an id of its own, and one that holds of a name", () => {
    const many = Array.from({ length: MAX_KEYS + 1 }, (_, i) =>
      stored({ name: `k${i}`, id: i.toString(16).padStart(8, "0") })
    )
    assert.isTrue(Result.isSuccess(read(many.slice(1))))
    assert.include(refused(many), `keys: expected a value with a length of at most ${MAX_KEYS}`)
    assert.include(refused([stored(), stored({ name: "other" })]), "keys.1.id: expected another one")
    assert.include(refused([stored(), stored({ id: "0123abce" })]), "keys.1.name: expected a name that no other key")
    for (const over of [{ revoked: "2026-01-16T00:00:00Z" }, { expires: "2026-01-31T23:59:59Z" }]) {
      assert.isTrue(Result.isSuccess(read([stored(over), stored({ id: "0123abce" })])))
    }
  })
})

describe("a key", () => {
  it("is over once it is revoked, or its time has come", () => {
    assert.isUndefined(endOf({}, NOW))
    assert.strictEqual(endOf({ revoked: "2026-01-16T00:00:00Z" }, NOW), "revoked")
    assert.isUndefined(endOf({ expires: "2026-02-01T00:00:00.001Z" }, NOW))
    assert.strictEqual(endOf({ expires: "2026-02-01T00:00:00Z" }, NOW), "expired")
  })

  it("has a name that is fit for a log, a figure's label and a terminal", () => {
    for (const name of ["desk", "a", "Bot-7", "ops@example.com", "a.b_c", "x".repeat(64)])
      assert.isTrue(isKeyName(name))
    for (const name of ["", "-a", ".a", "a b", 'a"', "a\n", "a\u001b[2J", "ä", "x".repeat(65), "a,b", "a=b"]) {
      assert.isFalse(isKeyName(name), name)
    }
  })

  it("is for tokens, symbols and whole exchanges, and for nothing that only looks like them", () => {
    for (const entry of ["1", "2147483647", "NSE:INFY", "NSE:NIFTY 50", "NFO:*", "NSE:M&M"]) {
      assert.isTrue(isKeyInstrument(entry), entry)
    }
    for (const entry of ["", "0", "-1", "2147483648", "INFY", "nse:INFY", "NSE:", "NSE: INFY", "*", "*:*", "NSE:IN*"]) {
      assert.isFalse(isKeyInstrument(entry), entry)
    }
    const list = new InstrumentList(["738561", "NSE:INFY", "NFO:*"])
    assert.isTrue(list.has(738561, undefined))
    assert.isTrue(list.has(738561, instrumentOf(738561, "RELIANCE")))
    assert.isTrue(list.has(408065, instrumentOf(408065, "INFY", "NSE")))
    assert.isTrue(list.has(9, instrumentOf(9, "INFY26JANFUT", "NFO")))
    // The symbol of another exchange, a token that no instrument has, and one whose name merely begins so.
    assert.isFalse(list.has(408066, instrumentOf(408066, "INFY", "BSE")))
    assert.isFalse(list.has(408065, undefined))
    assert.isFalse(list.has(5, instrumentOf(5, "INFYX", "NSE")))
    assert.isFalse(new InstrumentList(["NSE:INFY"]).has(7, instrumentOf(7, "*", "NSE")))
  })
})
