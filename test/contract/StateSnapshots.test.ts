import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Schema } from "effect"
import * as MemorySnapshots from "../../src/layers/memory/MemorySnapshots.ts"
import * as RedisSnapshots from "../../src/layers/redis/RedisSnapshots.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import { type StateSnapshot, StateSnapshots } from "../../src/streams/ports/StateSnapshots.ts"
import { redisLayer } from "../support/redis.ts"
import { redisUrl } from "../support/services.ts"

const url = await redisUrl()
const redis = redisLayer(url ?? "")

/** Every layer of the snapshots. */
const layers: ReadonlyArray<{
  readonly name: string
  readonly isMissing: boolean
  readonly layer: () => Layer.Layer<StateSnapshots, StartError>
}> = [
  { name: "memory", isMissing: false, layer: () => MemorySnapshots.layer },
  {
    name: "Redis",
    isMissing: url === undefined,
    layer: () => RedisSnapshots.layer({ keep: "1 hour" }).pipe(Layer.provide(redis))
  }
]

const bytes = (...values: ReadonlyArray<number>): Uint8Array => Uint8Array.from(values)

const snapshot = (rawOffset: number, instruments: ReadonlyArray<readonly [number, Uint8Array]>): StateSnapshot => ({
  rawIncarnation: "raw-1",
  rawOffset,
  normalizedIncarnation: "normalized-1",
  normalizedOffset: rawOffset * 2,
  instruments: new Map(instruments)
})

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Save = Schema.Struct({
  partition: int(0, 1),
  offset: int(0, 30),
  tokens: Schema.Array(int(1, 5)).pipe(Schema.check(Schema.isMaxLength(4))),
  state: int(0, 255)
})

for (const { name, layer, isMissing } of layers) {
  describe.skipIf(isMissing)(`StateSnapshots on ${name}`, () => {
    it.effect("has nothing for a partition that was never saved", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        assert.isUndefined(yield* snapshots.load("raw-1", 0))
        yield* snapshots.save(0, snapshot(1, []))
        assert.isUndefined(yield* snapshots.load("raw-1", 1))
        assert.isUndefined(yield* snapshots.load("raw-2", 0))
      }).pipe(Effect.provide(layer()))
    )

    it.effect("keeps the first number of partitions of each life of the topic", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        assert.strictEqual(yield* snapshots.partitions("raw-1", 12), 12)
        assert.strictEqual(yield* snapshots.partitions("raw-1", 24), 12)
        assert.strictEqual(yield* snapshots.partitions("raw-2", 24), 24)
      }).pipe(Effect.provide(layer()))
    )

    it.effect("puts what changed over what there was, and the marks with it", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        yield* snapshots.save(
          0,
          snapshot(10, [
            [1, bytes(1)],
            [2, bytes(2, 2)],
            [3, bytes()]
          ])
        )
        yield* snapshots.save(0, snapshot(20, [[2, bytes(0, 255)]]))
        const kept = yield* snapshots.load("raw-1", 0)
        assert.deepStrictEqual(
          kept,
          snapshot(20, [
            [1, bytes(1)],
            [2, bytes(0, 255)],
            [3, bytes()]
          ])
        )
      }).pipe(Effect.provide(layer()))
    )

    it.effect("takes out the instruments that are gone, by name or all that are not named", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        const many = Array.from({ length: 2500 }, (_, i) => [10 + i, bytes(1)] as const)
        yield* snapshots.save(0, snapshot(10, [[1, bytes(1)], [2, bytes(2)], ...many]))
        yield* snapshots.save(
          0,
          { ...snapshot(20, [[3, bytes(3)]]), gone: [2, 9, ...many.map(([token]) => token)] },
          10
        )
        assert.deepStrictEqual(
          yield* snapshots.load("raw-1", 0),
          snapshot(20, [
            [1, bytes(1)],
            [3, bytes(3)]
          ])
        )
        yield* snapshots.save(0, { ...snapshot(30, [[4, bytes(4)]]), gone: "others" })
        assert.deepStrictEqual(yield* snapshots.load("raw-1", 0), snapshot(30, [[4, bytes(4)]]))
        // One who stands behind takes nothing out.
        yield* snapshots.save(0, { ...snapshot(20, []), gone: "others" })
        assert.deepStrictEqual(yield* snapshots.load("raw-1", 0), snapshot(30, [[4, bytes(4)]]))
      }).pipe(Effect.provide(layer()))
    )

    it.effect("keeps partitions apart, and another life of the topic from the one before", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        yield* snapshots.save(0, snapshot(10, [[1, bytes(1)]]))
        yield* snapshots.save(1, snapshot(5, [[1, bytes(9)]]))
        yield* snapshots.save(0, { ...snapshot(3, [[2, bytes(7)]]), rawIncarnation: "raw-2" })
        assert.deepStrictEqual(yield* snapshots.load("raw-1", 0), snapshot(10, [[1, bytes(1)]]))
        assert.deepStrictEqual(yield* snapshots.load("raw-1", 1), snapshot(5, [[1, bytes(9)]]))
        assert.deepStrictEqual(yield* snapshots.load("raw-2", 0), {
          ...snapshot(3, [[2, bytes(7)]]),
          rawIncarnation: "raw-2"
        })
      }).pipe(Effect.provide(layer()))
    )

    it.effect("takes nothing from one that stands behind what is kept: it has lost the partition", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        yield* snapshots.save(0, snapshot(10, [[1, bytes(1)]]))
        yield* snapshots.save(
          0,
          snapshot(9, [
            [1, bytes(0)],
            [2, bytes(0)]
          ])
        )
        assert.deepStrictEqual(yield* snapshots.load("raw-1", 0), snapshot(10, [[1, bytes(1)]]))
        yield* snapshots.save(0, snapshot(10, [[2, bytes(2)]]))
        assert.deepStrictEqual(
          yield* snapshots.load("raw-1", 0),
          snapshot(10, [
            [1, bytes(1)],
            [2, bytes(2)]
          ])
        )
      }).pipe(Effect.provide(layer()))
    )

    it.effect("takes no part of a state for the whole: where what it changes is gone, it asks for all of it", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        // Nothing is there, as after the loss of all data.
        assert.isFalse(yield* snapshots.save(0, snapshot(20, [[1, bytes(1)]]), 10))
        assert.isUndefined(yield* snapshots.load("raw-1", 0))
        assert.isTrue(yield* snapshots.save(0, snapshot(20, [[1, bytes(1)]])))
        assert.isTrue(yield* snapshots.save(0, snapshot(30, [[2, bytes(2)]]), 20))
        // One older than what it changes, as from an older copy of the data.
        assert.isFalse(yield* snapshots.save(0, snapshot(50, [[3, bytes(3)]]), 40))
        // One newer, by another owner that went the same way.
        assert.isTrue(yield* snapshots.save(0, snapshot(40, [[3, bytes(3)]]), 20))
        assert.deepStrictEqual(
          yield* snapshots.load("raw-1", 0),
          snapshot(40, [
            [1, bytes(1)],
            [2, bytes(2)],
            [3, bytes(3)]
          ])
        )
        // One that has lost the partition is not told to save all of it.
        assert.isTrue(yield* snapshots.save(0, snapshot(35, [[1, bytes(9)]]), 5))
        assert.isTrue(yield* snapshots.save(0, snapshot(35, [[1, bytes(9)]]), 34))
      }).pipe(Effect.provide(layer()))
    )

    it.effect("holds copies: what is done to the bytes and maps afterwards does not show", () =>
      Effect.gen(function* () {
        const snapshots = yield* StateSnapshots
        const state = bytes(1)
        const given = snapshot(1, [[1, state]])
        yield* snapshots.save(0, given)
        state[0] = 9
        const loaded = yield* snapshots.load("raw-1", 0)
        yield* snapshots.save(0, snapshot(2, [[2, bytes(2)]]))
        assert.deepStrictEqual(loaded, snapshot(1, [[1, bytes(1)]]))
      }).pipe(Effect.provide(layer()))
    )

    it.effect.prop(
      "agrees with plain maps on any saves",
      [Arbitrary.array(Arbitrary.schema(Save), { maxLength: 30 })],
      ([saves]) =>
        Effect.gen(function* () {
          const snapshots = yield* StateSnapshots
          const naive: Array<StateSnapshot | undefined> = [undefined, undefined]
          for (const { partition, offset, tokens, state } of saves) {
            const changed = snapshot(
              offset,
              tokens.map((token) => [token, bytes(state, token)])
            )
            yield* snapshots.save(partition, changed)
            const before = naive[partition]
            if (before === undefined || offset >= before.rawOffset) {
              naive[partition] = snapshot(offset, [...(before?.instruments ?? []), ...changed.instruments])
            }
          }
          for (const partition of [0, 1]) {
            assert.deepStrictEqual(yield* snapshots.load("raw-1", partition), naive[partition])
          }
        }).pipe(Effect.provide(layer()))
    )
  })
}
