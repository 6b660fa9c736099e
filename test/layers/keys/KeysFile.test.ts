import { spawn } from "node:child_process"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { changeKeys, keysSignature, readKeys } from "../../../src/layers/keys/KeysFile.ts"
import { MAX_KEYS_FILE_BYTES } from "../../../src/schema/ApiKey.ts"
import { keysFile, makeKey } from "../../support/keys.ts"

const refusal = (path: string) =>
  Effect.map(Effect.flip(readKeys(path)), ({ message }) => {
    assert.isTrue(message.startsWith("API_KEYS_FILE: "), message)
    return message
  })

const append = (path: string, name: string, waitMs?: number) =>
  changeKeys(path, (keys) => Result.succeed({ keys: [...keys, makeKey(name).stored], value: keys.length }), waitMs)

/** As a shell's `mdp keys add` each. */
const ADD = `
import { Effect, Result } from "effect"
import { changeKeys } from ${JSON.stringify(new URL("../../../src/layers/keys/KeysFile.ts", import.meta.url).href)}
import { newKey } from ${JSON.stringify(new URL("../../../src/layers/keys/secret.ts", import.meta.url).href)}
const [path, name] = process.argv.slice(-2)
for (let i = 0; i < 10; i++) {
  const { id, hash } = newKey(new Set())
  const stored = { name: name + "-" + i, id, hash, scopes: ["read"], created: "2026-01-15T03:45:00Z" }
  await Effect.runPromise(changeKeys(path, (keys) => Result.succeed({ keys: [...keys, stored], value: undefined })))
}
`

describe("the file of keys", () => {
  it.live("is made where there is none, for its owner only, and changed without another name or a torn moment", () =>
    Effect.gen(function* () {
      const { path } = yield* keysFile()
      const other = join(dirname(path), "other.json")
      assert.strictEqual(yield* append(other, "a"), 0)
      assert.strictEqual(statSync(other).mode & 0o777, 0o600)
      assert.strictEqual(yield* append(other, "b"), 1)
      const { keys, warning } = yield* readKeys(other)
      assert.deepStrictEqual([keys.map(({ name }) => name), warning], [["a", "b"], undefined])
      assert.sameMembers(readdirSync(dirname(path)), ["keys.json", "other.json"])
    }).pipe(Effect.scoped)
  )

  it.live("loses nothing of what several write at once", () =>
    Effect.gen(function* () {
      const { path } = yield* keysFile()
      const writers = ["a", "b", "c", "d"]
      yield* Effect.forEach(
        writers,
        (name) =>
          Effect.callback<void>((resume) => {
            const child = spawn(process.execPath, ["--input-type=module", "-e", ADD, path, name])
            let said = ""
            child.stderr.on("data", (text: Buffer) => {
              said += text.toString()
            })
            child.on("close", (code) => {
              assert.strictEqual(code, 0, said)
              resume(Effect.void)
            })
          }),
        { concurrency: "unbounded" }
      )
      const { keys } = yield* readKeys(path)
      assert.sameMembers(
        keys.map(({ name }) => name),
        writers.flatMap((name) => Array.from({ length: 10 }, (_, i) => `${name}-${i}`))
      )
      assert.deepStrictEqual(readdirSync(dirname(path)), ["keys.json"])
    }).pipe(Effect.scoped)
  )

  it.live("stays as it was where a change is refused or what it comes to cannot be read, and is free again", () =>
    Effect.gen(function* () {
      const { path } = yield* keysFile([makeKey("desk")])
      const before = readFileSync(path, "utf8")
      const refused = yield* Effect.flip(changeKeys(path, () => Result.fail("no more")))
      assert.strictEqual(refused.message, "no more")
      const broken = yield* Effect.flip(
        changeKeys(path, () => Result.succeed({ keys: [{ ...makeKey("x").stored, name: "a b" }], value: 0 }))
      )
      assert.include(broken.message, "keys.0.name: expected a name")
      assert.strictEqual(readFileSync(path, "utf8"), before)
      assert.isFalse(existsSync(`${path}.lock`))
      assert.strictEqual(yield* append(path, "bot"), 1)
    }).pipe(Effect.scoped)
  )

  it.live("that another writer has is waited for, and then told with the lock's name", () =>
    Effect.gen(function* () {
      const { path } = yield* keysFile()
      writeFileSync(`${path}.lock`, "")
      const { message } = yield* Effect.flip(append(path, "a", 50))
      assert.match(
        message,
        /^API_KEYS_FILE: .*\/keys\.json\.lock has been there for \d+ s: another mdp keys is at work/
      )
      assert.deepStrictEqual((yield* readKeys(path)).keys, [])
    }).pipe(Effect.scoped)
  )

  it.live("keeps its mode and the link that leads to it", () =>
    Effect.gen(function* () {
      const { path } = yield* keysFile()
      const link = join(dirname(path), "link.json")
      symlinkSync(path, link)
      chmodSync(path, 0o640)
      yield* append(link, "a")
      assert.strictEqual(readdirSync(dirname(path)).includes("link.json.lock"), false)
      assert.strictEqual(statSync(path).mode & 0o777, 0o640)
      assert.strictEqual((yield* readKeys(path)).keys.length, 1)
      assert.strictEqual((yield* readKeys(link)).keys.length, 1)
    }).pipe(Effect.scoped)
  )

  it.live("is refused where others may write to it, and used with a warning where they may read it", () =>
    Effect.gen(function* () {
      const { path } = yield* keysFile([makeKey("desk")])
      for (const [mode, text] of [
        [0o620, "0620"],
        [0o602, "0602"],
        [0o666, "0666"]
      ] as const) {
        chmodSync(path, mode)
        assert.include(yield* refusal(path), `may be written by others (mode ${text})`)
      }
      for (const mode of [0o640, 0o604, 0o644]) {
        chmodSync(path, mode)
        assert.include((yield* readKeys(path)).warning ?? "", "may be read by others (mode 0")
      }
    }).pipe(Effect.scoped)
  )

  it.live(
    "is refused where it is not there, is no file, is too large or is broken, in one line without what it holds",
    () =>
      Effect.gen(function* () {
        const key = makeKey("desk")
        const { path, writeText } = yield* keysFile([key])
        const folder = dirname(path)
        assert.include(yield* refusal(join(folder, "none.json")), "is not there; mdp keys add makes it")
        mkdirSync(join(folder, "folder"))
        assert.include(yield* refusal(join(folder, "folder")), "is no file")
        const { message } = yield* Effect.flip(append(join(folder, "nowhere", "keys.json"), "a"))
        assert.strictEqual(message, `API_KEYS_FILE: the folder ${join(folder, "nowhere")} is not there`)
        writeText(`${" ".repeat(MAX_KEYS_FILE_BYTES)} `)
        assert.include(yield* refusal(path), `expected at most ${MAX_KEYS_FILE_BYTES} bytes`)
        writeText(`{"version":1,"keys":[{"name":"${key.text}"`)
        const broken = yield* refusal(path)
        assert.include(broken, "expected JSON")
        assert.notInclude(broken, key.text.slice(13, 20))
      }).pipe(Effect.scoped)
  )

  it.live("has another signature whenever it is another file, or was written or closed to others anew", () =>
    Effect.gen(function* () {
      const { path, write } = yield* keysFile()
      const seen = [yield* Effect.promise(() => keysSignature(path))]
      for (const change of [() => write([makeKey("a")]), () => write([makeKey("b")]), () => chmodSync(path, 0o640)]) {
        change()
        seen.push(yield* Effect.promise(() => keysSignature(path)))
      }
      yield* append(path, "c")
      seen.push(yield* Effect.promise(() => keysSignature(path)))
      assert.strictEqual(new Set(seen).size, seen.length)
      assert.strictEqual((yield* readKeys(path)).signature, seen.at(-1))
    }).pipe(Effect.scoped)
  )
})
