import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Schema } from "effect"
import * as MemoryRing from "../../src/layers/memory/MemoryRing.ts"
import * as RedisRing from "../../src/layers/redis/RedisRing.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import type { Tick } from "../../src/schema/Tick.ts"
import { RecentTicks } from "../../src/streams/ports/RecentTicks.ts"
import { redisLayer } from "../support/redis.ts"
import { redisUrl } from "../support/services.ts"
import { EPOCH, makeTick } from "./ticks.ts"

const url = await redisUrl()
const redis = redisLayer(url ?? "")

/** Every layer of the ring, made to keep `perInstrument` ticks of each instrument. */
const layers: ReadonlyArray<{
  readonly name: string
  readonly isMissing: boolean
  readonly layer: (perInstrument: number) => Layer.Layer<RecentTicks, StartError>
}> = [
  {
    name: "memory",
    isMissing: false,
    layer: (perInstrument) => MemoryRing.layer({ perInstrument, total: 1_000_000 })
  },
  {
    name: "Redis",
    isMissing: url === undefined,
    layer: (perInstrument) => RedisRing.layer({ perInstrument, keep: "1 hour" }).pipe(Layer.provide(redis))
  }
]

const at = (position: number, epoch = EPOCH, instrument_token = 1): Tick =>
  makeTick({ instrument_token, epoch, position, sequence_id: position })

const run = (from: number, to: number, epoch = EPOCH, token = 1): ReadonlyArray<Tick> =>
  Array.from({ length: to - from + 1 }, (_, i) => at(from + i, epoch, token))

const places = (ticks: ReadonlyArray<Tick>): ReadonlyArray<readonly [number, number]> =>
  ticks.map(({ epoch, position }) => [epoch, position])

const NEXT = EPOCH + 60

const CAPACITY = 5

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Append = Schema.Struct({ token: int(1, 2), epoch: int(0, 2), from: int(1, 12), count: int(0, 7) })
const appends = Arbitrary.array(Arbitrary.schema(Append), { maxLength: 40 })

/** The ring's meaning, said with whole lists. */
class NaiveRing {
  readonly #lists = new Map<number, ReadonlyArray<Tick>>()

  append(tick: Tick): void {
    const list = this.#lists.get(tick.instrument_token) ?? []
    const last = list.at(-1)
    const isNewer =
      last === undefined || tick.epoch > last.epoch || (tick.epoch === last.epoch && tick.position > last.position)
    if (isNewer) this.#lists.set(tick.instrument_token, [...list, tick].slice(-CAPACITY))
  }

  last(token: number, limit: number): ReadonlyArray<Tick> {
    const list = this.#lists.get(token) ?? []
    return list.slice(list.length - Math.min(limit, list.length))
  }

  after(token: number, epoch: number, position: number) {
    const list = this.#lists.get(token) ?? []
    const isAbove = (t: Tick): boolean => t.epoch > epoch || (t.epoch === epoch && t.position > position)
    const ticks = list.filter(isAbove)
    // All is there where each tick follows the one before it, the first one following what was asked.
    const oldest = list[0]
    let complete = oldest !== undefined
    for (const tick of ticks) {
      const before = list[list.indexOf(tick) - 1]
      const known =
        before === undefined
          ? tick.epoch === epoch && tick.position === position + 1
          : tick.epoch === before.epoch
            ? tick.position === before.position + 1 || (tick.epoch === epoch && tick.position === position + 1)
            : tick.position === 1 || (tick.epoch === epoch && tick.position === position + 1)
      if (!known) complete = false
    }
    return { ticks, complete }
  }
}

for (const { name, layer, isMissing } of layers) {
  describe.skipIf(isMissing)(`RecentTicks on ${name}`, () => {
    it.effect("answers the newest ticks ascending, whole as they were put", () =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        const ticks = [
          at(1),
          makeTick({
            instrument_token: 1,
            position: 2,
            sequence_id: -281_474_976_710_655,
            sequencing: "none",
            status: "STALE",
            gap_from: 7,
            session: 3,
            price: 83.1234567,
            volume: 5_000_000_000,
            feed: "snapshot ☂",
            source: ["raw-2", 9_007_199_254_740_991, 3]
          })
        ]
        yield* ring.append(ticks)
        assert.deepStrictEqual(yield* ring.last(1, 10), ticks)
        assert.deepStrictEqual(places(yield* ring.last(1, 1)), [[EPOCH, 2]])
        assert.deepStrictEqual(yield* ring.last(1, 0), [])
        assert.deepStrictEqual(yield* ring.last(2, 10), [])
      }).pipe(Effect.provide(layer(10)))
    )

    it.effect("drops the oldest once full, each instrument on its own", () =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        yield* ring.append([...run(1, 7), ...run(1, 2, EPOCH, 2)])
        yield* ring.append(run(8, 9))
        assert.deepStrictEqual(places(yield* ring.last(1, 100)), places(run(6, 9)))
        assert.deepStrictEqual(places(yield* ring.last(2, 100)), places(run(1, 2)))
      }).pipe(Effect.provide(layer(4)))
    )

    it.effect("passes over what is not above the last epoch and position, and ticks of old days", () =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        yield* ring.append([...run(1, 3), ...run(1, 1, NEXT)])
        yield* ring.append([at(1, NEXT), at(4), ...run(2, 3), { ...at(2, NEXT), old: true }])
        assert.deepStrictEqual(yield* ring.last(1, 100), [...run(1, 3), at(1, NEXT)])
      }).pipe(Effect.provide(layer(10)))
    )

    it.effect("answers what comes after a place, and that it is all", () =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        yield* ring.append(run(1, 5))
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 3), { ticks: run(4, 5), complete: true })
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 0), { ticks: run(1, 5), complete: true })
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 5), { ticks: [], complete: true })
        // A reader may be ahead of the ring.
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 9), { ticks: [], complete: true })
      }).pipe(Effect.provide(layer(10)))
    )

    it.effect("says that something may be missing where it does not reach back", () =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 0), { ticks: [], complete: false })
        yield* ring.append(run(1, 6))
        // Holds 3 to 6: whoever has 2 misses nothing, whoever has 1 does.
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 2), { ticks: run(3, 6), complete: true })
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 1), { ticks: run(3, 6), complete: false })
        assert.deepStrictEqual(yield* ring.after(1, EPOCH - 60, 99), { ticks: run(3, 6), complete: false })
      }).pipe(Effect.provide(layer(4)))
    )

    it.effect("reaches across epochs while it holds the older one's tick", () =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        yield* ring.append([...run(4, 5), ...run(1, 2, NEXT)])
        const rest = run(1, 2, NEXT)
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 5), { ticks: rest, complete: true })
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 3), { ticks: [...run(4, 5), ...rest], complete: true })
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 2), { ticks: [...run(4, 5), ...rest], complete: false })
        assert.deepStrictEqual(yield* ring.after(1, NEXT, 0), { ticks: rest, complete: true })
        yield* ring.append(run(3, 4, NEXT))
        assert.deepStrictEqual(yield* ring.after(1, EPOCH, 5), { ticks: run(1, 4, NEXT), complete: false })
      }).pipe(Effect.provide(layer(4)))
    )

    it.effect("says so where it was itself passed over: a hole between two positions, or an epoch begun late", () =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        yield* ring.append([...run(1, 2), ...run(5, 6)])
        assert.isFalse((yield* ring.after(1, EPOCH, 2)).complete)
        assert.isTrue((yield* ring.after(1, EPOCH, 4)).complete)
        yield* ring.append(run(3, 4, NEXT))
        assert.isFalse((yield* ring.after(1, EPOCH, 6)).complete)
        assert.isFalse((yield* ring.after(1, NEXT, 1)).complete)
        assert.deepStrictEqual(yield* ring.after(1, NEXT, 2), { ticks: run(3, 4, NEXT), complete: true })
      }).pipe(Effect.provide(layer(10)))
    )

    it.effect.prop("agrees with a plain list on any appends, asked from everywhere", [appends], ([given]) =>
      Effect.gen(function* () {
        const ring = yield* RecentTicks
        const naive = new NaiveRing()
        for (const { token, epoch, from, count } of given) {
          const ticks = run(from, from + count, EPOCH + epoch, token)
          yield* ring.append(ticks)
          for (const tick of ticks) naive.append(tick)
        }
        for (const token of [1, 2]) {
          for (const limit of [0, 1, CAPACITY, 100]) {
            assert.deepStrictEqual(yield* ring.last(token, limit), naive.last(token, limit))
          }
          for (const epoch of [EPOCH - 1, EPOCH, EPOCH + 1, EPOCH + 2]) {
            for (let position = 0; position <= 20; position++) {
              const expected = naive.after(token, epoch, position)
              assert.deepStrictEqual(yield* ring.after(token, epoch, position), expected)
            }
          }
        }
      }).pipe(Effect.provide(layer(CAPACITY)))
    )
  })
}

describe("MemoryRing", () => {
  it.effect("drops the instruments silent longest once all together are full", () =>
    Effect.gen(function* () {
      const ring = yield* RecentTicks
      for (let token = 1; token <= 10; token++) yield* ring.append(run(1, 10, EPOCH, token))
      yield* ring.append(run(11, 11, EPOCH, 1))
      // 1 spoke last and stays; 2 was silent longest.
      assert.strictEqual((yield* ring.last(1, 100)).length, 10)
      assert.deepStrictEqual(yield* ring.last(2, 100), run(1, 10, EPOCH, 2))
      yield* ring.append(run(1, 1, EPOCH, 11))
      assert.deepStrictEqual(yield* ring.last(2, 100), [])
      assert.deepStrictEqual(yield* ring.after(2, EPOCH, 10), { ticks: [], complete: false })
      assert.strictEqual((yield* ring.last(1, 100)).length, 10)
      assert.strictEqual((yield* ring.last(11, 100)).length, 1)
    }).pipe(Effect.provide(MemoryRing.layer({ perInstrument: 10, total: 100 })))
  )

  it.effect("keeps no more instruments than it may, whoever names how many", () =>
    Effect.gen(function* () {
      const ring = yield* RecentTicks
      yield* ring.append(run(1, 10, EPOCH, 1))
      for (let token = 2; token <= 1000; token++) {
        yield* ring.append(run(1, 1, EPOCH, token))
        if (token % 20 === 0) yield* ring.append(run(token + 10, token + 10, EPOCH, 1))
      }
      const held: Array<number> = []
      for (let token = 1; token <= 1000; token++) if ((yield* ring.last(token, 1)).length > 0) held.push(token)
      // The one that goes on is there, and else those heard of last.
      assert.isAtMost(held.length, 50)
      assert.isAtLeast(held.length, 45)
      assert.strictEqual(held[0], 1)
      assert.deepStrictEqual(
        held.slice(1),
        Array.from({ length: held.length - 1 }, (_, i) => 1000 - (held.length - 2) + i)
      )
    }).pipe(Effect.provide(MemoryRing.layer({ perInstrument: 10, total: 100_000, instruments: 50 })))
  )
})
