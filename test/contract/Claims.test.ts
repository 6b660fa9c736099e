import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Schema } from "effect"
import * as MemoryClaims from "../../src/layers/memory/MemoryClaims.ts"
import * as RedisClaims from "../../src/layers/redis/RedisClaims.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import type { Tick } from "../../src/schema/Tick.ts"
import { Claims } from "../../src/streams/ports/Claims.ts"
import { redisLayer } from "../support/redis.ts"
import { redisUrl } from "../support/services.ts"
import { makeTick, OPEN } from "./ticks.ts"

const url = await redisUrl()
const redis = redisLayer(url ?? "")

/** Every layer of the claims. */
const layers: ReadonlyArray<{
  readonly name: string
  readonly isMissing: boolean
  readonly layer: () => Layer.Layer<Claims, StartError>
}> = [
  { name: "memory", isMissing: false, layer: () => MemoryClaims.layer() },
  {
    name: "Redis",
    isMissing: url === undefined,
    layer: () => RedisClaims.layer({ keep: "1 hour" }).pipe(Layer.provide(redis))
  }
]

const A_DAY = 86_400_000_000

/** Who asks: a raw partition, and how far it has come with this batch. */
const raw = (through: number, partition = 0, incarnation = "raw-1") => ({ incarnation, partition, through })

const numbered = (sequence_id: number, offset: number, given: Partial<Tick> = {}): Tick =>
  makeTick({ sequence_id, source: ["raw-1", offset, 0], ...given })

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Batch = Schema.Struct({
  partition: int(0, 1),
  from: int(0, 60),
  ids: Schema.Array(int(-10, 40)).pipe(Schema.check(Schema.isMinLength(1), Schema.isMaxLength(12)))
})

for (const { name, layer, isMissing } of layers) {
  describe.skipIf(isMissing)(`Claims on ${name}`, () => {
    it.effect("lets everything new pass", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        assert.deepStrictEqual(yield* claims.claim(raw(1), [numbered(1, 0), numbered(2, 1)]), [])
        assert.deepStrictEqual(yield* claims.claim(raw(9), []), [])
        assert.deepStrictEqual(yield* claims.claim(raw(11), [numbered(3, 10)]), [])
      }).pipe(Effect.provide(layer()))
    )

    it.effect("lets one's own pass when it asks again", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        const batch = [numbered(1, 0), numbered(2, 1), numbered(-99, 2, { sequencing: "none" })]
        yield* claims.claim(raw(2), batch)
        assert.deepStrictEqual(yield* claims.claim(raw(2), batch), [])
        // Also cut differently, as a retry with other batches is.
        assert.deepStrictEqual(yield* claims.claim(raw(1), batch.slice(0, 2)), [])
        assert.deepStrictEqual(yield* claims.claim(raw(2), batch.slice(2)), [])
      }).pipe(Effect.provide(layer()))
    )

    it.effect("names what another partition has claimed", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        yield* claims.claim(raw(100), [numbered(1, 99), numbered(2, 100)])
        const others = [numbered(7, 0), numbered(2, 1), numbered(1, 2)]
        assert.deepStrictEqual(yield* claims.claim(raw(2, 1), others), [1, 2])
        // Another life of the topic is another claimant, though its numbers look alike.
        assert.deepStrictEqual(yield* claims.claim(raw(2, 0, "raw-2"), others), [0, 1, 2])
      }).pipe(Effect.provide(layer()))
    )

    it.effect("raises what is claimed through before it looks, and never lowers it", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        // The answer to the first call was lost; its claims are set, and through stands at 5.
        yield* claims.claim(raw(5), [numbered(1, 5)])
        yield* claims.claim(raw(2), [])
        assert.deepStrictEqual(yield* claims.claim(raw(6), [numbered(1, 5)]), [])
        // Above it, the same number can only be another's.
        assert.deepStrictEqual(yield* claims.claim(raw(8), [numbered(1, 8)]), [0])
        assert.deepStrictEqual(yield* claims.claim(raw(8), [numbered(1, 8)]), [])
      }).pipe(Effect.provide(layer()))
    )

    it.effect("finds what it took for another's again, where that decides, and what was its own too", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        const decide = (through: number) => ({ ...raw(through, 0, "raw-2"), decides: true })
        const hashed = (offset: number) => numbered(-7, offset, { sequencing: "none" })
        yield* claims.claim(raw(100), [numbered(1, 99), hashed(100)])
        const batch = [numbered(1, 0), numbered(2, 1), hashed(2), numbered(3, 3)]
        assert.deepStrictEqual(yield* claims.claim(decide(3), batch), [0, 2])
        // Whoever claimed it was killed before it published: the next one asks again.
        assert.deepStrictEqual(yield* claims.claim(decide(3), batch), [0, 2])
        assert.deepStrictEqual(yield* claims.claim(decide(2), batch.slice(0, 3)), [0, 2])
        // Its own, come once more, is another record's.
        assert.deepStrictEqual(yield* claims.claim(decide(5), [numbered(3, 3), numbered(3, 4), numbered(4, 5)]), [1])
        assert.deepStrictEqual(yield* claims.claim(decide(5), [numbered(3, 3), numbered(3, 4), numbered(4, 5)]), [1])
        // What was claimed without deciding is its own as well.
        const before = [numbered(50, 10), numbered(51, 11)]
        yield* claims.claim(raw(11, 3, "raw-2"), before)
        assert.deepStrictEqual(yield* claims.claim({ ...raw(11, 3, "raw-2"), decides: true }, before), [])
        // And the other way about: bits are where both look for them.
        assert.deepStrictEqual(yield* claims.claim(raw(9, 4), [numbered(2, 8), numbered(60, 9)]), [0])
      }).pipe(Effect.provide(layer()))
    )

    it.effect("tells instruments, days, sessions and kinds of number apart", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        const ticks = [
          numbered(5, 0),
          numbered(5, 1, { instrument_token: 2 }),
          numbered(5, 2, { session: 1 }),
          numbered(5, 3, { exchange_ts: OPEN + A_DAY }),
          numbered(-5, 4, { sequencing: "none" })
        ]
        for (const [offset, tick] of ticks.entries()) {
          assert.deepStrictEqual(yield* claims.claim(raw(offset), [tick]), [])
        }
        const again = ticks.map((tick): Tick => ({ ...tick, source: ["raw-1", 9, 0] }))
        assert.deepStrictEqual(yield* claims.claim(raw(9), again), [0, 1, 2, 3, 4])
      }).pipe(Effect.provide(layer()))
    )

    it.effect("takes numbers of any size, and hashes down to minus 2^48", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        const ids = [0, 1, 4095, 4096, 2 ** 31, 2 ** 32, 2 ** 53 - 1, -1, -(2 ** 48)]
        const ticks = ids.map((id, i) => numbered(id, i, { sequencing: id < 0 ? "none" : "contiguous" }))
        assert.deepStrictEqual(yield* claims.claim(raw(8), ticks), [])
        assert.deepStrictEqual(
          yield* claims.claim(raw(8, 1), ticks),
          ids.map((_, i) => i)
        )
      }).pipe(Effect.provide(layer()))
    )

    it.effect("tells the claimed from the new inside long runs, across instruments and large batches", () =>
      Effect.gen(function* () {
        const claims = yield* Claims
        const range = (from: number, to: number, tokens = [1, 2]) =>
          Array.from({ length: to - from }, (_, i) =>
            tokens.map((instrument_token) => numbered(from + i, i, { instrument_token }))
          ).flat()
        assert.deepStrictEqual(yield* claims.claim(raw(200), range(4000, 4100, [1])), [])
        // Claimed are 4050 to 4099 of the first instrument, and the second's 4190 where it comes again.
        const others = [...range(4050, 4200), numbered(4190, 140, { instrument_token: 2 })]
        const foreign = others.flatMap((tick, i) => (tick.instrument_token === 1 && tick.sequence_id < 4100 ? [i] : []))
        assert.deepStrictEqual(yield* claims.claim(raw(200, 1), others), [...foreign, others.length - 1])
        const again = Array.from({ length: 12_345 }, (_, i) => numbered(i, 1000 + i, { instrument_token: 1 }))
        assert.deepStrictEqual(
          yield* claims.claim(raw(20_000, 2), again),
          Array.from({ length: 200 }, (_, i) => 4000 + i)
        )
        assert.deepStrictEqual(yield* claims.claim(raw(20_000, 2), again), [])
      }).pipe(Effect.provide(layer()))
    )

    it.effect.prop(
      "agrees with plain sets on any batches",
      [Arbitrary.array(Arbitrary.schema(Batch), { maxLength: 25 })],
      ([batches]) =>
        Effect.gen(function* () {
          const claims = yield* Claims
          const taken = new Set<string>()
          const through = [-1, -1]
          for (const { partition, from, ids } of batches) {
            const ticks = ids.map((id, i) =>
              numbered(id, from + i, { instrument_token: 1 + (id & 1), sequencing: id < 0 ? "none" : "contiguous" })
            )
            const last = from + ids.length - 1
            const foreign = ids.flatMap((id, i) => {
              const isTaken = taken.has(String(id))
              taken.add(String(id))
              return isTaken && from + i > through[partition]! ? [i] : []
            })
            assert.deepStrictEqual(yield* claims.claim(raw(last, partition), ticks), foreign)
            through[partition] = Math.max(through[partition]!, last)
          }
        }).pipe(Effect.provide(layer()))
    )
  })
}

describe("MemoryClaims", () => {
  it.effect("keeps the two newest days of an instrument, and claims nothing of an older one", () =>
    Effect.gen(function* () {
      const claims = yield* Claims
      const on = (day: number) => numbered(1, 0, { exchange_ts: OPEN + day * A_DAY })
      const ask = (day: number) => claims.claim(raw(0, 1 + asked++), [on(day)])
      let asked = 0
      for (const day of [0, 1, 2]) assert.deepStrictEqual(yield* ask(day), [])
      assert.deepStrictEqual(yield* ask(2), [0])
      assert.deepStrictEqual(yield* ask(1), [0])
      assert.deepStrictEqual(yield* ask(0), [])
      assert.deepStrictEqual(yield* ask(0), [])
      // A day between the two takes the older one's place.
      assert.deepStrictEqual(yield* ask(9), [])
      assert.deepStrictEqual(yield* ask(5), [])
      assert.deepStrictEqual(yield* ask(5), [0])
      assert.deepStrictEqual(yield* ask(2), [])
    }).pipe(Effect.provide(MemoryClaims.layer()))
  )

  it.effect("drops the instrument silent longest once there are too many", () =>
    Effect.gen(function* () {
      const claims = yield* Claims
      const of = (instrument_token: number, day = 0) =>
        numbered(1, 0, { instrument_token, exchange_ts: OPEN + day * A_DAY })
      yield* claims.claim(raw(0), [of(1), of(2)])
      yield* claims.claim(raw(0), [of(1)])
      yield* claims.claim(raw(0), [of(3)])
      assert.deepStrictEqual(yield* claims.claim(raw(0, 1), [of(1), of(3)]), [0, 1])
      assert.deepStrictEqual(yield* claims.claim(raw(0, 2), [of(2)]), [])
    }).pipe(Effect.provide(MemoryClaims.layer({ instruments: 2 })))
  )
})
