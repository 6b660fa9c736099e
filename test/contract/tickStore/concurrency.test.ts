/** Decides, for the store on every database, that writers, refreshers and readers at once do each other no harm. */
import { assert } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import pg from "pg"
import { advisory } from "../../../src/layers/postgres/connection.ts"
import * as Timescale from "../../../src/layers/postgres/Timescale.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { makeTick, OPEN, storeBatch } from "../ticks.ts"
import { candles, HOUR, newToken, pages, Rows, range, recompute, write } from "./rows.ts"
import { Database, holding, onEachStore } from "./stores.ts"

onEachStore("concurrency", (it, { name }) => {
  it.effect("writers, refreshers and readers at once lose nothing and see exact bars", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const token = newToken(3)
      const rows = new Rows()
      // What one session serves cannot be two stores; a server is given two, as two workers would be.
      const mine = yield* TickStore
      const other = database.embedded ? mine : yield* Timescale.make(database)
      const tick = (n: number): Tick =>
        makeTick({
          instrument_token: token + (n % 3),
          exchange_ts: OPEN + 30 * 24 * HOUR + ((n * 7919) % 997) * 1_000_000,
          sequence_id: n,
          position: n + 1,
          price: ((n * 31) % 97) + 1
        })
      // Six writers whose batches overlap by half, in opposite directions.
      const batches = range(24).map((b) => {
        const ticks = range(200).map((i) => tick(b * 100 + i))
        return b % 2 === 0 ? ticks : ticks.reverse()
      })
      for (const batch of batches) rows.write(batch, [])
      // The day is there before anyone reads it: a partition is attached without a lock on its readers, so the
      // reader's own recompute, planned just before, would not look into it.
      let { added } = yield* mine.write(storeBatch({ ticks: batches[0]!.slice(0, 1) }))
      let writing = 6
      // The last batch of each writer waits for it, however long the reader's connection takes to be made.
      const looked = yield* Deferred.make<void>()
      const writer = (w: number) =>
        Effect.gen(function* () {
          for (const [n, batch] of batches.filter((_, b) => b % 6 === w).entries()) {
            if (n === 3 && !database.embedded) yield* Deferred.await(looked)
            const one = yield* (w % 2 === 0 ? mine : other).write(storeBatch({ ticks: batch }))
            added += one.added
          }
        }).pipe(Effect.ensuring(Effect.sync(() => writing--)))
      const refresher = (s: TickStore["Service"]) =>
        Effect.gen(function* () {
          while (writing > 0) yield* s.refreshCandles
        })
      const differing = `
            WITH seen AS (
              SELECT instrument_token, bucket, open, high, low, close, volume FROM candles_1m
              WHERE instrument_token = ANY ($1)),
            truth AS (
              SELECT instrument_token, date_bin('1 minute', exchange_ts, TIMESTAMPTZ '2000-01-03 03:45+00'),
                     (array_agg(price ORDER BY exchange_ts, greatest(sequence_id, 0), epoch, position, sequence_id))[1],
                     max(price), min(price),
                     (array_agg(price ORDER BY exchange_ts DESC, greatest(sequence_id, 0) DESC, epoch DESC,
                                position DESC, sequence_id DESC))[1],
                     sum(volume)
              FROM ticks WHERE instrument_token = ANY ($1) GROUP BY 1, 2)
            SELECT count(*)::integer AS n
            FROM ((TABLE seen EXCEPT TABLE truth) UNION ALL (TABLE truth EXCEPT TABLE seen)) d`
      const reader = Effect.promise(async () => {
        let looks = 0
        if (database.embedded) return looks
        const client = new pg.Client({ connectionString: database.url })
        await client.connect()
        while (writing > 0) {
          const found = await client.query<{ n: number }>(differing, [[token, token + 1, token + 2]])
          assert.strictEqual(found.rows[0]?.n, 0)
          looks++
          Deferred.doneUnsafe(looked, Effect.void)
        }
        await client.end()
        return looks
      })
      const [looks] = yield* Effect.all([reader, ...range(6).map(writer), refresher(mine), refresher(other)], {
        concurrency: "unbounded"
      })
      assert.isTrue(database.embedded || looks > 0)
      const sorted = rows.sorted()
      assert.strictEqual(added, sorted.length)
      for (const each of [token, token + 1, token + 2]) {
        const own = sorted.filter((row) => row.instrument_token === each)
        assert.deepStrictEqual(yield* pages(each, 100), own)
        assert.deepStrictEqual(yield* candles(each, "1m"), recompute(own, "1m"))
      }
    })
  )

  it.effect.skipIf(name === "PGlite")(
    "a refresher leaves the marks to one that is at it: no older bar over a newer one",
    () =>
      Effect.gen(function* () {
        const { refreshCandles } = yield* TickStore
        yield* write([makeTick({ instrument_token: newToken() })])
        const other = yield* holding(`SELECT pg_advisory_xact_lock(${advisory("candles")})`)
        assert.strictEqual(yield* refreshCandles, 0)
        yield* Effect.promise(() => other.query("COMMIT"))
        assert.isAtLeast(yield* refreshCandles, 1)
      })
  )

  it.effect("writers that meet on new days make each day once", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const token = newToken()
      const mine = yield* TickStore
      const other = database.embedded ? mine : yield* Timescale.make(database)
      const writes = range(12).map((n) =>
        (n % 2 === 0 ? mine : other).write(
          storeBatch({
            ticks: range(3).map((d) =>
              makeTick({
                instrument_token: token,
                exchange_ts: OPEN + (100 + d) * 24 * HOUR,
                sequence_id: n,
                position: n + 1
              })
            )
          })
        )
      )
      const added = yield* Effect.all(writes, { concurrency: "unbounded" })
      assert.strictEqual(
        added.reduce((sum, one) => sum + one.added, 0),
        36
      )
    })
  )
})
