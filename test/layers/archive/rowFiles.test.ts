import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema, Stream } from "effect"
import { parquetMetadataAsync, parquetSchema } from "hyparquet"
import { arrowRows } from "../../../src/layers/archive/arrowRows.ts"
import { parquetRows } from "../../../src/layers/archive/parquetRows.ts"
import { ROW_GROUP_ROWS, schemas } from "../../../src/layers/archive/parquetSchema.ts"
import * as RowFiles from "../../../src/layers/archive/rowFiles.ts"
import { MAX_MICROS, MIN_MICROS } from "../../../src/schema/Time.ts"
import { RowBuffer, tables } from "../../../src/schema/tables.ts"
import type { StoredTick } from "../../../src/streams/ports/TickStore.ts"
import { OPEN } from "../../contract/ticks.ts"
import { fileOf, rowsOfArrow, rowsOfParquet } from "../../support/columns.ts"

const whole = (minimum: number, maximum: number) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const anyWhole = whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
const Micros = whole(MIN_MICROS, MAX_MICROS)
const price = Schema.Finite

const AnyTick = Schema.Struct({
  instrument_token: whole(1, 2 ** 31 - 1),
  exchange_ts: Micros,
  price,
  volume: whole(0, Number.MAX_SAFE_INTEGER),
  sequence_id: anyWhole,
  status: Schema.Literals(["LIVE", "STALE"]),
  session: whole(0, 32_767),
  sequencing: Schema.Literals(["contiguous", "monotonic", "none"]),
  epoch: Schema.NullOr(anyWhole),
  position: Schema.NullOr(anyWhole),
  feed: Schema.String,
  received_ts: Micros
})
const AnyBar = Schema.Struct({
  instrument_token: whole(1, 2 ** 31 - 1),
  ts: Micros,
  open: price,
  high: price,
  low: price,
  close: price,
  volume: whole(0, Number.MAX_SAFE_INTEGER),
  oi: Schema.NullOr(whole(0, Number.MAX_SAFE_INTEGER)),
  phase: Schema.NullOr(Schema.Literals(["PRE_OPEN", "CONTINUOUS", "CAS", "POST_CLOSE", "CLOSED"])),
  final: Schema.Boolean,
  known: Schema.Boolean
})

const some = <A>(schema: Schema.Codec<A>) => Arbitrary.array(Arbitrary.schema(schema), { maxLength: 20 })
/** What UTF-8 and JSON make of it: half a character is none, -0 is 0. */
const same = (rows: ReadonlyArray<object>): unknown =>
  JSON.parse(JSON.stringify(rows), (_, value: unknown) => (typeof value === "string" ? value.toWellFormed() : value))

/** A file of all rows, in parts of at most `size`. */
const bytesOf = (table: "ticks" | "bars", format: "arrow" | "parquet", rows: ReadonlyArray<object>, size: number) => {
  const file = format === "arrow" ? arrowRows(tables[table]) : parquetRows(tables[table], table)
  const parts = [file.begin()]
  const buffer = new RowBuffer(table, size)
  const write = () => {
    const part = buffer.take()
    if (part !== undefined) parts.push(file.rows(part))
  }
  for (const row of rows) {
    buffer.add(row)
    if (buffer.isFull) write()
  }
  write()
  parts.push(file.end())
  return Buffer.concat(parts)
}

describe("files of columns", () => {
  it.effect.prop(
    "give back every tick, in parts of any size",
    [some(AnyTick), Arbitrary.schema(whole(1, 8))],
    ([ticks, size]) =>
      Effect.promise(async () => {
        assert.deepStrictEqual(same(rowsOfArrow(bytesOf("ticks", "arrow", ticks, size))), same(ticks))
        assert.deepStrictEqual(same(await rowsOfParquet(bytesOf("ticks", "parquet", ticks, size))), same(ticks))
      })
  )

  it.effect.prop(
    "give back every bar, in parts of any size",
    [some(AnyBar), Arbitrary.schema(whole(1, 8))],
    ([bars, size]) =>
      Effect.promise(async () => {
        assert.deepStrictEqual(same(rowsOfArrow(bytesOf("bars", "arrow", bars, size))), same(bars))
        assert.deepStrictEqual(same(await rowsOfParquet(bytesOf("bars", "parquet", bars, size))), same(bars))
      })
  )
})

const tick = (i: number): StoredTick => ({
  instrument_token: 7,
  exchange_ts: OPEN + i,
  price: 100 + (i % 100) / 20,
  volume: i % 50,
  sequence_id: i + 1,
  status: "LIVE",
  session: 0,
  sequencing: "contiguous",
  epoch: null,
  position: null,
  feed: "dma",
  received_ts: OPEN + i
})

describe("the thread that writes them", () => {
  it.live("writes a part as soon as it is whole, with the types of the archive's objects", () =>
    Effect.gen(function* () {
      const files = yield* RowFiles.make
      const count = 2 * ROW_GROUP_ROWS + 10
      let given = 0
      const rows = Stream.fromIterable(Array.from({ length: count }, (_, i) => i)).pipe(
        Stream.rechunk(1000),
        Stream.mapArray((some) => {
          given += some.length
          return [tick(some[0]), ...some.slice(1).map(tick)]
        })
      )
      const parts: Array<{ readonly bytes: Uint8Array; readonly given: number }> = []
      yield* Stream.runForEach(files.write(rows, "ticks", "parquet"), (bytes) =>
        Effect.sync(() => parts.push({ bytes, given }))
      )
      assert.deepStrictEqual(
        parts.map((part) => part.given),
        [0, 33_000, count, count, count]
      )
      const bytes = Buffer.concat(parts.map((part) => part.bytes))
      const metadata = yield* Effect.promise(() => parquetMetadataAsync(fileOf(bytes)))
      assert.deepStrictEqual(
        metadata.row_groups.map(({ num_rows }) => Number(num_rows)),
        [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 10]
      )
      const archived = new Map(schemas.ticks.map(({ name, type, logical_type }) => [name, [type, logical_type]]))
      for (const { element } of parquetSchema(metadata).children) {
        assert.deepStrictEqual([element.type, element.logical_type], archived.get(element.name), element.name)
      }
      const read = yield* Effect.promise(() => rowsOfParquet(bytes))
      assert.deepStrictEqual(read.at(-1), tick(count - 1))
    }).pipe(Effect.scoped)
  )

  it.live("writes several at a time, each its own; one that is given up is forgotten", () =>
    Effect.gen(function* () {
      const files = yield* RowFiles.make
      const rows = (from: number) =>
        Stream.fromIterable(Array.from({ length: 40_000 }, (_, i) => tick(from + i))).pipe(Stream.rechunk(1000))
      const written = (from: number, format: "arrow" | "parquet") =>
        Effect.map(Stream.runCollect(files.write(rows(from), "ticks", format)), (parts) => Buffer.concat(parts))
      yield* Stream.runDrain(Stream.take(files.write(rows(0), "ticks", "arrow"), 2))
      const [arrow, parquet] = yield* Effect.all([written(1, "arrow"), written(2, "parquet")], {
        concurrency: "unbounded"
      })
      const [first, second] = [rowsOfArrow(arrow), yield* Effect.promise(() => rowsOfParquet(parquet))]
      assert.deepStrictEqual([first.length, first[0]], [40_000, tick(1)])
      assert.deepStrictEqual([second.length, second[39_999]], [40_000, tick(40_001)])
    }).pipe(Effect.scoped)
  )
})
