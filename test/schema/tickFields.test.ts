import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { writersOf } from "../../src/http/wire.ts"
import { columnDataOf, schemaOf, storedColumnsOf } from "../../src/layers/archive/parquetSchema.ts"
import { tickTextOf } from "../../src/layers/postgres/rows.ts"
import { rawFields, readRawTick } from "../../src/schema/RawTick.ts"
import type { Tick } from "../../src/schema/Tick.ts"
import { allocatorOf, Names, rowReaderOf, setterOf } from "../../src/schema/TickColumns.ts"
import { encoderOf, encodeTick, parserOf } from "../../src/schema/TickJson.ts"
import { readTickBytes } from "../../src/schema/TickJsonBytes.ts"
import { columnsOf, type FieldTable, storedOf, type TickField, tickFields } from "../../src/schema/tickFields.ts"
import type { StoredTick } from "../../src/streams/ports/TickStore.ts"
import { encodeReplayedTick } from "../../src/streams/replay/replay.ts"
import { makeTick } from "../contract/ticks.ts"

const bytes = (json: string) => new TextEncoder().encode(json)
const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Safe = between(-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
const Int = between(-2_147_483_648, 2_147_483_647)

/** What a field may hold, as far as the reader of bytes takes it: names of printable ASCII, prices of few digits. */
const valuesOf = (field: TickField): Schema.Codec<unknown> => {
  switch (field.kind) {
    case "token":
    case "index":
      return Int
    case "small":
      return between(0, 32_767)
    case "price":
      return Schema.Literals([0, -37.63, 0.0001, 2500.5, 999_999.95])
    case "micros":
      return field.within === undefined ? Safe : between(...field.within)
    case "whole":
    case "quantity":
      return field.absent === undefined
        ? Safe
        : Schema.Union([field.absent === null ? Schema.Null : Schema.Literal(field.absent), Safe])
    case "word":
      return Schema.Literals(field.words)
    case "name":
      return Schema.Literals(["dma", "snapshot", "x", "6f1cSxyzQmSm3kAbcdEfgh"])
    case "flag":
      return Schema.Boolean
    case "source":
      return Schema.Tuple(Object.values(field.parts).map(valuesOf))
  }
}

const ticksOf = (fields: FieldTable) =>
  Arbitrary.schema(
    Schema.Struct(Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, valuesOf(field)])))
  ) as unknown as Arbitrary.Arbitrary<Tick>

describe("what is written by hand, held to the table of a tick's fields", () => {
  it("knows the fields of the table, and no other, in its order", () => {
    const reader = readFileSync(new URL("../../src/schema/TickJsonBytes.ts", import.meta.url), "utf8")
    const known = [...reader.matchAll(/literal\(`[{,]?"(\w+)":/g)].map(([, name]) => name)
    for (const name of Object.keys(tickFields)) assert.include(known, name, `TickJsonBytes.ts does not read ${name}`)
    assert.deepStrictEqual(known, Object.keys(tickFields), "TickJsonBytes.ts reads in another order than the table has")
  })

  it.prop("reads each field from the bytes that are written of it", [ticksOf(tickFields)], ([tick]) => {
    const json = encodeTick(tick)
    const read = readTickBytes(bytes(json))
    assert.isDefined(read, `TickJsonBytes.ts does not read what the table has encodeTick write: ${json}`)
    for (const name of Object.keys(tickFields) as ReadonlyArray<keyof Tick>) {
      assert.deepStrictEqual(read[name], tick[name], `TickJsonBytes.ts does not read ${name} as the table has it`)
    }
    assert.sameMembers(Object.keys(read), Object.keys(tickFields), "TickJsonBytes.ts reads a field of no table")
  })

  const { quote: _, ...ofTicks } = rawFields
  const sent: Readonly<Record<(typeof ofTicks)[keyof typeof ofTicks]["kind"], unknown>> = {
    token: 7,
    time: 1_768_448_700_000_001,
    price: 12.05,
    name: "other",
    quantity: 9,
    number: 8,
    sequencing: "none",
    flag: true
  }
  const RAW = { instrument_token: 1, exchange_ts: 1_768_448_700_000_000, price: 1, sequence_id: 3 }
  for (const [name, { kind }] of Object.entries(ofTicks)) {
    it(`takes ${name} from a raw tick as it was sent`, () => {
      // A number goes with any numbering but none; a session is a replay's.
      const value = name === "sequencing" ? "monotonic" : sent[kind]
      const read = readRawTick({ ...RAW, [name]: value }, name === "session")
      assert.isObject(read, `RawTick.ts does not take ${name}: ${read}`)
      assert.strictEqual((read as never)[name], value, `RawTick.ts does not read ${name} as its table has it`)
    })
  }

  it("replays each field of the store, but for those that a run decides anew", () => {
    const stored: StoredTick = makeTick({ session: 5, volume: 7, sequence_id: -4, sequencing: "none", feed: "f" })
    const raw = readRawTick(JSON.parse(encodeReplayedTick(stored)), true) as unknown as Record<string, unknown>
    for (const name of Object.keys(storedOf(tickFields)) as ReadonlyArray<keyof StoredTick>) {
      if (name === "status" || name === "epoch" || name === "position") continue
      assert.strictEqual(raw[name], stored[name], `a replayed tick has no ${name}`)
    }
  })
})

/** Some fields, and a whole number that a tick may not have. */
const { instrument_token, exchange_ts, price, sequencing, epoch, feed, source, old } = tickFields
const more: FieldTable = {
  instrument_token,
  extra: { kind: "whole", stored: true, absent: null },
  exchange_ts,
  price,
  sequencing,
  epoch,
  feed,
  source,
  old
}
const names = Object.keys(more).filter((name) => name !== "extra") as ReadonlyArray<keyof Tick>

describe("a field that a tick may not have", () => {
  it.prop("is read from the log as it was written there", [ticksOf(more)], ([tick]) => {
    const { extra } = tick as Tick & { readonly extra: number | null }
    const json = encoderOf(more)(tick)
    assert.strictEqual(json.includes(`"extra":`), extra !== null)
    assert.deepStrictEqual(parserOf(more)(bytes(json)), tick)
  })

  it("is null in columns, in the store's text, in history and in the archive", () => {
    const columns = columnsOf(more)
    const tick = Object.fromEntries(names.map((name) => [name, makeTick()[name]])) as unknown as Tick
    const ticks = [null, 0, 7, -(2 ** 53 - 1)].map((extra) => ({ ...tick, extra }))
    const filled = allocatorOf(columns)(ticks.length)
    const met = { feed: new Names(filled.feed.names), source_incarnation: new Names(filled.source_incarnation.names) }
    for (const [i, tick] of ticks.entries()) setterOf(columns)(filled, met, i, tick)
    const read = rowReaderOf<Tick>(more)
    assert.deepStrictEqual(
      ticks.map((_, i) => read(filled, i)),
      ticks
    )

    const { sql, read: readText } = tickTextOf(more)
    assert.include(sql, "coalesce(extra::text, '')")
    const text = (extra: string) => ["1", extra, "1768448700.000001", "5", "c", "", "a\tb"].join("\t")
    assert.deepInclude<object>(readText(text("")), { extra: null, sequencing: "contiguous", feed: "a\tb" })
    assert.deepInclude<object>(readText(text("12")), { extra: 12, exchange_ts: 1_768_448_700_000_001, epoch: null })

    const { json, csvHeader, csvLine } = writersOf(more)
    assert.strictEqual(csvHeader.split(",")[1], "extra")
    assert.deepStrictEqual(
      ticks.map((tick) => [JSON.parse(json(tick)).extra, csvLine(tick).split(",")[1]]),
      ticks.map(({ extra }) => [extra, extra === null ? "" : String(extra)])
    )

    assert.strictEqual(schemaOf(more)[2]!.repetition_type, "OPTIONAL")
    const written = columnDataOf(more)(filled, Uint32Array.of(0, 1, 2, 3))
    assert.deepStrictEqual(
      written[1]!.data,
      ticks.map(({ extra }) => (extra === null ? null : BigInt(extra)))
    )
  })

  it("is null in what is read of an object that has no column of it yet", async () => {
    const older: Readonly<Record<string, ReadonlyArray<unknown>>> = Object.fromEntries(
      Object.entries(makeTick()).map(([name, value]) => [name, [value]])
    )
    const read = await storedColumnsOf(more).read(
      async (name) => older[name]!,
      (name) => name in older,
      Uint32Array.of(0)
    )
    assert.deepInclude<object>(rowReaderOf<StoredTick>(storedOf(more))(read, 0), { extra: null, price: 2500.5 })
  })
})
