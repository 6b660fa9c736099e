/** Decides, for the store on every database, what it has of a minute before a place of the stream: what its rows say. */
import { assert } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { minutesOf } from "../../support/candles.ts"
import { EPOCH, makeTick, OPEN } from "../ticks.ts"
import { MINUTE, newToken, Rows, range, write } from "./rows.ts"
import { onEachStore } from "./stores.ts"

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/** Few minutes, instants and numbers: ties and duplicates are the rule, and several numberings. */
const AnyTick = Schema.Struct({
  minute: int(-1, 5),
  instant: int(0, 3),
  sequence_id: int(-3, 4),
  price: int(-5, 20),
  volume: int(0, 9),
  epoch: int(0, 1),
  session: int(0, 1),
  isReplayed: Schema.Boolean
})
const AnyPlace = Schema.Union([Schema.Undefined, Schema.Struct({ epoch: int(0, 2), position: int(0, 40) })])
const ticks = Arbitrary.array(Arbitrary.schema(AnyTick), { minLength: 0, maxLength: 40 })
const places = Arbitrary.array(Arbitrary.schema(AnyPlace), { minLength: 1, maxLength: 5 })

onEachStore("minutes", (it) => {
  it.effect.prop(
    "are what their rows before a place say, whatever came twice, together or from a replay",
    [ticks, places],
    ([given, before]) =>
      Effect.gen(function* () {
        const token = newToken()
        const rows = new Rows()
        const all = given.map((t, i) =>
          makeTick({
            instrument_token: token,
            exchange_ts: OPEN + t.minute * MINUTE + t.instant * 19_999_999,
            sequence_id: t.sequence_id,
            price: t.price / 4,
            volume: t.volume,
            session: t.session,
            epoch: EPOCH + t.epoch,
            position: i + 1
          })
        )
        const live = all.filter((_, i) => !given[i]!.isReplayed)
        const replayed = all.filter((_, i) => given[i]!.isReplayed)
        rows.write(live, replayed)
        yield* write(live, replayed)
        const query = {
          instrument_token: token,
          minutes: before.map((place, i) => ({
            ts: OPEN + i * MINUTE,
            before: place === undefined ? undefined : { epoch: EPOCH + place.epoch, position: place.position }
          }))
        }
        const { minutes } = yield* TickStore
        const found = yield* minutes(query)
        assert.deepStrictEqual(found, minutesOf(rows.of(token), query))
      }),
    { arbitrary: { runs: 60 } }
  )

  it.effect("are of the instrument asked for, and none where it has none", () =>
    Effect.gen(function* () {
      const [token, other] = [newToken(), newToken()]
      yield* write(range(3).map((n) => makeTick({ instrument_token: other, sequence_id: n, position: n + 1 })))
      const { minutes } = yield* TickStore
      const asked = [{ ts: OPEN, before: undefined }]
      assert.deepStrictEqual(yield* minutes({ instrument_token: token, minutes: asked }), [])
      assert.deepStrictEqual(yield* minutes({ instrument_token: other, minutes: [] }), [])
      const [found] = (yield* minutes({ instrument_token: other, minutes: asked }))!
      assert.deepStrictEqual([found!.count, found!.volume, found!.numbering], [3, 300, { epoch: EPOCH, session: 0 }])
    })
  )

  it.effect("have sums of volumes that stop at the largest that is told", () =>
    Effect.gen(function* () {
      const token = newToken()
      const volume = Number.MAX_SAFE_INTEGER
      yield* write(range(3).map((n) => makeTick({ instrument_token: token, sequence_id: n, position: n + 1, volume })))
      const { minutes } = yield* TickStore
      const [found] = (yield* minutes({ instrument_token: token, minutes: [{ ts: OPEN, before: undefined }] }))!
      assert.strictEqual(found!.volume, volume)
    })
  )
})
