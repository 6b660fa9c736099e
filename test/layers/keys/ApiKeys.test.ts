import { renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schedule } from "effect"
import { ApiKeys, KeyRing, LiveKey, layer } from "../../../src/layers/keys/ApiKeys.ts"
import { writeKeysFile } from "../../../src/schema/ApiKey.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { keysFile, type MadeKey, makeKey } from "../../support/keys.ts"

const NOW = Date.parse("2026-02-01T00:00:00Z")
const stored = (keys: ReadonlyArray<MadeKey>) => keys.map((key) => key.stored)

const found = (ring: KeyRing, { text }: MadeKey, now = NOW): LiveKey => {
  const key = ring.find(text, now)
  assert(key instanceof LiveKey)
  return key
}

describe("the ring of keys", () => {
  it("finds a key by its text alone, and tells of one that is over only to who has it", () => {
    const ring = new KeyRing()
    const [desk, gone, late] = [
      makeKey("desk", { scopes: ["read"], instruments: ["738561"] }),
      makeKey("gone", { revoked: "2026-01-20T00:00:00Z" }),
      makeKey("late", { expires: "2026-01-31T00:00:00Z" })
    ]
    ring.take(stored([desk, gone, late]), NOW)
    const key = found(ring, desk)
    assert.deepStrictEqual(
      [key.name, [...key.scopes], key.isRestricted, key.expires],
      ["desk", ["read"], true, undefined]
    )
    assert.strictEqual(ring.find(gone.text, NOW), "revoked")
    assert.strictEqual(ring.find(late.text, NOW), "expired")
    // Of the same id, but another secret.
    for (const { text } of [desk, gone, late]) {
      assert.strictEqual(ring.find(`${text.slice(0, -1)}${text.endsWith("A") ? "B" : "A"}`, NOW), "unknown")
    }
    assert.strictEqual(ring.find(makeKey("desk").text, NOW), "unknown")
    for (const text of ["", "desk", desk.stored.hash, `${desk.text} `]) {
      assert.strictEqual(ring.find(text, NOW), "malformed")
    }
    assert.deepStrictEqual(
      ring.live.map(({ name }) => name),
      ["desk"]
    )
  })

  it("keeps a key that stays as it was, and ends those that are revoked, taken away or changed, once", () => {
    const ring = new KeyRing()
    const [a, b, c, d] = [makeKey("a"), makeKey("b"), makeKey("c"), makeKey("d")]
    ring.take(stored([a, b, c, d]), NOW)
    const before = [a, b, c, d].map((key) => found(ring, key))
    const told: Array<ReadonlyArray<string>> = []
    ring.onEnded((ended) => told.push([...ended].map(({ name, over }) => `${name} ${over}`).sort()))
    const revoked = { ...b.stored, revoked: "2026-01-31T00:00:00Z" }
    const changed = { ...d.stored, scopes: ["read"] as const }
    const { added, ended } = ring.take([a.stored, revoked, changed], NOW)
    assert.deepStrictEqual(told, [["b revoked", "c revoked", "d changed"]])
    assert.deepStrictEqual([added.map(({ name }) => name), ended.map(({ name }) => name)], [["d"], ["b", "c", "d"]])
    assert.strictEqual(found(ring, a), before[0])
    assert.strictEqual(ring.find(b.text, NOW), "revoked")
    assert.strictEqual(ring.find(c.text, NOW), "unknown")
    // What it changed to is another key by the same text.
    assert.notStrictEqual(found(ring, d), before[3])
    ring.take([a.stored, revoked, changed], NOW)
    assert.strictEqual(told.length, 1)
  })

  it("ends a key at its time, in the ring and for who asks in that moment", () => {
    const ring = new KeyRing()
    const key = makeKey("desk", { expires: "2026-02-01T00:00:01Z" })
    ring.take([key.stored], NOW)
    const live = found(ring, key)
    assert.strictEqual(live.expires, (NOW + 1000) * 1000)
    assert.deepStrictEqual(ring.expire(NOW + 999), [])
    assert.strictEqual(ring.find(key.text, NOW + 1000), "expired")
    const told: Array<string> = []
    const stop = ring.onEnded((ended) => told.push(...[...ended].map(({ name }) => name)))
    assert.deepStrictEqual(ring.expire(NOW + 1000), [live])
    assert.deepStrictEqual(ring.expire(NOW + 2000), [])
    assert.deepStrictEqual([told, live.over], [["desk"], "expired"])
    stop()
  })
})

/** The ring of a file that is watched. */
const watched = (path: string) =>
  Effect.map(Layer.build(Layer.provideMerge(layer(path), Readiness.layer)), (context) => ({
    ring: Context.get(context, ApiKeys),
    degraded: Effect.map(Context.get(context, Readiness).report, ({ degraded }) => degraded)
  }))

const until = <E>(condition: Effect.Effect<boolean, E>) =>
  Effect.repeat(condition, { until: (holds) => holds, schedule: Schedule.spaced("10 millis") })

describe("a key whose time is over in the moment that the file is read again", () => {
  it("is ended all the same, once, and whoever speaks by it is told", () => {
    const end = Date.parse("2026-02-01T00:00:00Z")
    const [late, other] = [makeKey("late", { expires: "2026-02-01T00:00:00Z" }), makeKey("other")]
    const ring = new KeyRing()
    ring.take(stored([late]), end - 1000)
    const told: Array<string> = []
    ring.onEnded((ended) => {
      for (const { name, over } of ended) told.push(`${name} ${over}`)
    })
    const { ended } = ring.take(stored([late, other]), end + 100)
    assert.deepStrictEqual([ended.map(({ name }) => name), told], [["late"], ["late expired"]])
    ring.expire(end + 250)
    ring.take(stored([late]), end + 300)
    assert.deepStrictEqual(told, ["late expired", "other revoked"])
  })
})

describe("a file of keys that is watched", () => {
  it.live("is taken as it changes, whether it is renamed into place or written over", () =>
    Effect.gen(function* () {
      const [a, b, c] = [makeKey("a"), makeKey("b"), makeKey("c")]
      const { path, write } = yield* keysFile([a])
      const { ring } = yield* watched(path)
      const names = () => ring.live.map(({ name }) => name).join()
      assert.strictEqual(names(), "a")
      writeFileSync(`${path}.new`, writeKeysFile(stored([a, b])), { mode: 0o600 })
      renameSync(`${path}.new`, path)
      yield* until(Effect.sync(() => names() === "a,b"))
      write([b, c])
      yield* until(Effect.sync(() => names() === "b,c"))
      write([])
      yield* until(Effect.sync(() => names() === ""))
    }).pipe(Effect.scoped)
  )

  it.live("is looked at also where the system tells of no change: a link leads out of the folder that it watches", () =>
    Effect.gen(function* () {
      const key = makeKey("a")
      const { path, write } = yield* keysFile([key])
      const link = (yield* keysFile()).path
      rmSync(link)
      symlinkSync(path, link)
      const { ring } = yield* watched(link)
      const live = found(ring, key)
      write([])
      yield* until(Effect.sync(() => live.over === "revoked"))
    }).pipe(Effect.scoped)
  )

  it.live("that breaks or is gone leaves the keys as they were, and is named as degraded until it is mended", () =>
    Effect.gen(function* () {
      const [a, b] = [makeKey("a"), makeKey("b")]
      const { path, write, writeText } = yield* keysFile([a])
      const { degraded, ring } = yield* watched(path)
      const isDegraded = Effect.map(degraded, (names) => names.includes("keys"))
      for (const broken of [
        () => writeText("{"),
        () => writeText(writeKeysFile(stored([a, b])), 0o666),
        () => rmSync(path)
      ]) {
        broken()
        yield* until(isDegraded)
        assert.deepStrictEqual(
          ring.live.map(({ name }) => name),
          ["a"]
        )
        write([a])
        yield* until(Effect.map(isDegraded, (is) => !is))
      }
    }).pipe(Effect.scoped)
  )

  it.live("that cannot be used is no file to start with", () =>
    Effect.gen(function* () {
      const { path, writeText } = yield* keysFile()
      writeText("{}")
      const { _tag, message } = yield* Effect.flip(watched(path))
      assert.strictEqual(_tag, "StartError")
      assert.strictEqual(message, `API_KEYS_FILE: ${path}: version: expected 1, got nothing`)
    }).pipe(Effect.scoped)
  )
})
