import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Schema } from "effect"
import * as MemoryCheckpoints from "../../src/layers/memory/MemoryCheckpoints.ts"
import * as RedisCheckpoints from "../../src/layers/redis/RedisCheckpoints.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import { type Checkpoint, Checkpoints } from "../../src/streams/ports/Checkpoints.ts"
import { redisLayer } from "../support/redis.ts"
import { redisUrl } from "../support/services.ts"

const url = await redisUrl()
const redis = redisLayer(url ?? "")

/** Every layer of the checkpoints. */
const layers: ReadonlyArray<{
  readonly name: string
  readonly isMissing: boolean
  readonly layer: () => Layer.Layer<Checkpoints, StartError>
}> = [
  { name: "memory", isMissing: false, layer: () => MemoryCheckpoints.layer },
  {
    name: "Redis",
    isMissing: url === undefined,
    layer: () => RedisCheckpoints.layer({ keep: "1 hour" }).pipe(Layer.provide(redis))
  }
]

const bytes = (...values: ReadonlyArray<number>): Uint8Array => Uint8Array.from(values)

const checkpoint = (rawOffset: number, instruments: ReadonlyArray<readonly [number, Uint8Array]>): Checkpoint => ({
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
  describe.skipIf(isMissing)(`Checkpoints on ${name}`, () => {
    it.effect("has nothing for a partition that was never saved", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        assert.isUndefined(yield* checkpoints.load("raw-1", 0))
        yield* checkpoints.save(0, checkpoint(1, []))
        assert.isUndefined(yield* checkpoints.load("raw-1", 1))
        assert.isUndefined(yield* checkpoints.load("raw-2", 0))
      }).pipe(Effect.provide(layer()))
    )

    it.effect("keeps the first number of partitions of each life of the topic", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        assert.strictEqual(yield* checkpoints.partitions("raw-1", 12), 12)
        assert.strictEqual(yield* checkpoints.partitions("raw-1", 24), 12)
        assert.strictEqual(yield* checkpoints.partitions("raw-2", 24), 24)
      }).pipe(Effect.provide(layer()))
    )

    it.effect("puts what changed over what there was, and the marks with it", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        yield* checkpoints.save(
          0,
          checkpoint(10, [
            [1, bytes(1)],
            [2, bytes(2, 2)],
            [3, bytes()]
          ])
        )
        yield* checkpoints.save(0, checkpoint(20, [[2, bytes(0, 255)]]))
        const kept = yield* checkpoints.load("raw-1", 0)
        assert.deepStrictEqual(
          kept,
          checkpoint(20, [
            [1, bytes(1)],
            [2, bytes(0, 255)],
            [3, bytes()]
          ])
        )
      }).pipe(Effect.provide(layer()))
    )

    it.effect("takes out the instruments that are gone, by name or all that are not named", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        const many = Array.from({ length: 2500 }, (_, i) => [10 + i, bytes(1)] as const)
        yield* checkpoints.save(0, checkpoint(10, [[1, bytes(1)], [2, bytes(2)], ...many]))
        yield* checkpoints.save(
          0,
          { ...checkpoint(20, [[3, bytes(3)]]), gone: [2, 9, ...many.map(([token]) => token)] },
          10
        )
        assert.deepStrictEqual(
          yield* checkpoints.load("raw-1", 0),
          checkpoint(20, [
            [1, bytes(1)],
            [3, bytes(3)]
          ])
        )
        yield* checkpoints.save(0, { ...checkpoint(30, [[4, bytes(4)]]), gone: "others" })
        assert.deepStrictEqual(yield* checkpoints.load("raw-1", 0), checkpoint(30, [[4, bytes(4)]]))
        // One who stands behind takes nothing out.
        yield* checkpoints.save(0, { ...checkpoint(20, []), gone: "others" })
        assert.deepStrictEqual(yield* checkpoints.load("raw-1", 0), checkpoint(30, [[4, bytes(4)]]))
      }).pipe(Effect.provide(layer()))
    )

    it.effect("keeps partitions apart, and another life of the topic from the one before", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        yield* checkpoints.save(0, checkpoint(10, [[1, bytes(1)]]))
        yield* checkpoints.save(1, checkpoint(5, [[1, bytes(9)]]))
        yield* checkpoints.save(0, { ...checkpoint(3, [[2, bytes(7)]]), rawIncarnation: "raw-2" })
        assert.deepStrictEqual(yield* checkpoints.load("raw-1", 0), checkpoint(10, [[1, bytes(1)]]))
        assert.deepStrictEqual(yield* checkpoints.load("raw-1", 1), checkpoint(5, [[1, bytes(9)]]))
        assert.deepStrictEqual(yield* checkpoints.load("raw-2", 0), {
          ...checkpoint(3, [[2, bytes(7)]]),
          rawIncarnation: "raw-2"
        })
      }).pipe(Effect.provide(layer()))
    )

    it.effect("takes nothing from one that stands behind what is kept: it has lost the partition", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        yield* checkpoints.save(0, checkpoint(10, [[1, bytes(1)]]))
        yield* checkpoints.save(
          0,
          checkpoint(9, [
            [1, bytes(0)],
            [2, bytes(0)]
          ])
        )
        assert.deepStrictEqual(yield* checkpoints.load("raw-1", 0), checkpoint(10, [[1, bytes(1)]]))
        yield* checkpoints.save(0, checkpoint(10, [[2, bytes(2)]]))
        assert.deepStrictEqual(
          yield* checkpoints.load("raw-1", 0),
          checkpoint(10, [
            [1, bytes(1)],
            [2, bytes(2)]
          ])
        )
      }).pipe(Effect.provide(layer()))
    )

    it.effect("takes no part of a state for the whole: where what it changes is gone, it asks for all of it", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        // Nothing is there, as after the loss of all data.
        assert.isFalse(yield* checkpoints.save(0, checkpoint(20, [[1, bytes(1)]]), 10))
        assert.isUndefined(yield* checkpoints.load("raw-1", 0))
        assert.isTrue(yield* checkpoints.save(0, checkpoint(20, [[1, bytes(1)]])))
        assert.isTrue(yield* checkpoints.save(0, checkpoint(30, [[2, bytes(2)]]), 20))
        // One older than what it changes, as from an older copy of the data.
        assert.isFalse(yield* checkpoints.save(0, checkpoint(50, [[3, bytes(3)]]), 40))
        // One newer, by another owner that went the same way.
        assert.isTrue(yield* checkpoints.save(0, checkpoint(40, [[3, bytes(3)]]), 20))
        assert.deepStrictEqual(
          yield* checkpoints.load("raw-1", 0),
          checkpoint(40, [
            [1, bytes(1)],
            [2, bytes(2)],
            [3, bytes(3)]
          ])
        )
        // One that has lost the partition is not told to save all of it.
        assert.isTrue(yield* checkpoints.save(0, checkpoint(35, [[1, bytes(9)]]), 5))
        assert.isTrue(yield* checkpoints.save(0, checkpoint(35, [[1, bytes(9)]]), 34))
      }).pipe(Effect.provide(layer()))
    )

    it.effect("holds copies: what is done to the bytes and maps afterwards does not show", () =>
      Effect.gen(function* () {
        const checkpoints = yield* Checkpoints
        const state = bytes(1)
        const given = checkpoint(1, [[1, state]])
        yield* checkpoints.save(0, given)
        state[0] = 9
        const loaded = yield* checkpoints.load("raw-1", 0)
        yield* checkpoints.save(0, checkpoint(2, [[2, bytes(2)]]))
        assert.deepStrictEqual(loaded, checkpoint(1, [[1, bytes(1)]]))
      }).pipe(Effect.provide(layer()))
    )

    it.effect.prop(
      "agrees with plain maps on any saves",
      [Arbitrary.array(Arbitrary.schema(Save), { maxLength: 30 })],
      ([saves]) =>
        Effect.gen(function* () {
          const checkpoints = yield* Checkpoints
          const naive: Array<Checkpoint | undefined> = [undefined, undefined]
          for (const { partition, offset, tokens, state } of saves) {
            const changed = checkpoint(
              offset,
              tokens.map((token) => [token, bytes(state, token)])
            )
            yield* checkpoints.save(partition, changed)
            const before = naive[partition]
            if (before === undefined || offset >= before.rawOffset) {
              naive[partition] = checkpoint(offset, [...(before?.instruments ?? []), ...changed.instruments])
            }
          }
          for (const partition of [0, 1]) {
            assert.deepStrictEqual(yield* checkpoints.load("raw-1", partition), naive[partition])
          }
        }).pipe(Effect.provide(layer()))
    )
  })
}
