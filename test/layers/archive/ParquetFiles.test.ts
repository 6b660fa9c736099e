import { spawn } from "node:child_process"
import { once } from "node:events"
import {
  existsSync,
  promises as fs,
  mkdirSync,
  mkdtempSync,
  type PathLike,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { parquetMetadataAsync, parquetReadObjects } from "hyparquet"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import * as SymbolsLayer from "../../../src/layers/instruments/Symbols.ts"
import { toQuoteColumns } from "../../../src/schema/QuoteColumns.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { DAY, makeTick, NO_QUOTES, OPEN } from "../../contract/ticks.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"
import { instrumentOf } from "../../support/instruments.ts"
import { DATES, MANIFEST, OBJECTS, QUOTES, RANGE, TICK_OBJECTS, TICKS } from "./twoDays.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "archive-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

const archiveIn = (made: string) => Layer.orDie(ParquetFiles.layer(made))

/** Each tick once, though the last of them came twice. */
const write = Effect.flatMap(Archive, (archive) =>
  archive.write(RANGE, toColumns([...TICKS, ...TICKS.slice(-1)]), toQuoteColumns(QUOTES))
)

/** The files under a folder, as paths from it. */
const filesIn = (made: string): ReadonlyArray<string> =>
  readdirSync(made, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(made.length + 1))
    .sort()

const FILES = [MANIFEST, ...OBJECTS].map((key) => join(...key.split("/"))).sort()

/** Completes the range as a writer does that comes after a crash, and looks at what is there then. */
const recover = (made: string) =>
  Effect.gen(function* () {
    const archive = yield* Archive
    const begun = yield* archive.begun(RANGE.incarnation, RANGE.partition, RANGE.first)
    // Nothing is visible that is not whole.
    for (const date of DATES) {
      yield* Stream.runDrain(archive.read(date, undefined))
      yield* Stream.runDrain(archive.quotes(date, undefined))
    }
    if (begun !== undefined) assert.deepStrictEqual(begun, RANGE)
    yield* archive.write(RANGE, toColumns(TICKS), toQuoteColumns(QUOTES))
    for (const [i, date] of DATES.entries()) {
      const read = (yield* Stream.runCollect(archive.read(date, undefined))).flat()
      assert.deepStrictEqual(
        read.map((tick) => tick.sequence_id),
        TICKS.slice(i * 4, i * 4 + 4).map((tick) => tick.sequence_id)
      )
      const quotes = (yield* Stream.runCollect(archive.quotes(date, undefined))).flat()
      assert.deepStrictEqual(quotes, QUOTES.slice(i * 3, i * 3 + 3))
    }
    assert.deepStrictEqual(filesIn(made), FILES)
    return begun !== undefined
  }).pipe(Effect.provide(archiveIn(made)))

/** The primary keys in all files of a day, as a tool reads them that knows no more than Parquet. */
const keysAsTheyLie = (made: string) =>
  Effect.promise(async () => {
    const keys: Array<string> = []
    for (const file of filesIn(made).filter((path) => path.endsWith(".parquet"))) {
      const bytes = new Uint8Array(readFileSync(join(made, file)))
      const rows = await parquetReadObjects({
        file: { byteLength: bytes.length, slice: (from, to) => bytes.slice(from, to).buffer },
        columns: ["instrument_token", "exchange_ts", "sequence_id"],
        parsers: { timestampFromMicroseconds: String }
      })
      for (const { instrument_token, exchange_ts, sequence_id } of rows) {
        keys.push(`${instrument_token} ${exchange_ts} ${sequence_id}`)
      }
    }
    return keys
  })

/** The calls by which the archive changes its folder. */
const CALLS = ["open", "link", "rm", "mkdir"] as const

/** Lets `count` calls under `made` happen and fails every one after, as if the process were gone. */
const dieAfter = (made: string, count: number): { readonly calls: () => number; readonly restore: () => void } => {
  const original = Object.fromEntries(CALLS.map((name) => [name, fs[name]])) as Record<string, (typeof fs)["rm"]>
  let calls = 0
  for (const name of CALLS) {
    const call = original[name]!
    const counted = (path: PathLike, ...rest: ReadonlyArray<unknown>) => {
      if (!String(path).startsWith(made)) return Reflect.apply(call, fs, [path, ...rest]) as unknown
      calls += 1
      if (calls > count) return Promise.reject(new Error("the process is gone"))
      return Reflect.apply(call, fs, [path, ...rest]) as unknown
    }
    Reflect.set(fs, name, counted)
  }
  return {
    calls: () => calls,
    restore: () => {
      for (const name of CALLS) Reflect.set(fs, name, original[name])
    }
  }
}

describe("ParquetFiles", () => {
  it.effect("puts manifest and objects where other tools find them, and nothing else", () =>
    Effect.gen(function* () {
      const made = yield* folder
      yield* write.pipe(Effect.provide(archiveIn(made)))
      assert.deepStrictEqual(filesIn(made), FILES)
      assert.deepStrictEqual(JSON.parse(readFileSync(join(made, MANIFEST), "utf8")), {
        ...RANGE,
        dates: DATES,
        quote_dates: DATES,
        schema_version: 1
      })
      const bytes = readFileSync(join(made, OBJECTS[1]!))
      const metadata = yield* Effect.promise(() =>
        parquetMetadataAsync({
          byteLength: bytes.length,
          slice: (from, to) => new Uint8Array(bytes).slice(from, to).buffer
        })
      )
      assert.strictEqual(metadata.num_rows, 4n)
      assert.deepStrictEqual(Object.fromEntries(metadata.key_value_metadata!.map(({ key, value }) => [key, value])), {
        topic: "normalized_ticks",
        incarnation: "normalized-1",
        partition: "2",
        first: "40",
        last: "59",
        date: DATES[1],
        schema_version: "1"
      })
    })
  )

  it.effect("has the symbol that each tick's instrument had on its day, and none where nobody knows it", () =>
    Effect.gen(function* () {
      const made = yield* folder
      const rows = new Rows()
      const { instrument_token } = TICKS[0]!
      rows.sightings.set(instrument_token, [
        { instrument: instrumentOf(instrument_token, "OLD"), first: DAY, last: DAY },
        { instrument: instrumentOf(instrument_token, "NEW"), first: DAY + 1, last: DAY + 1 }
      ])
      const nobodys = makeTick({ instrument_token: 99, exchange_ts: OPEN + 9, sequence_id: 9 })
      const named = Layer.provide(archiveIn(made), Layer.provide(SymbolsLayer.layer, memoryStore(rows)))
      yield* Effect.flatMap(Archive, (archive) => archive.write(RANGE, toColumns([...TICKS, nobodys]), NO_QUOTES)).pipe(
        Effect.provide(named)
      )
      const found = yield* Effect.promise(() =>
        Promise.all(
          TICK_OBJECTS.map(async (object) => {
            const bytes = new Uint8Array(readFileSync(join(made, object)))
            const file = {
              byteLength: bytes.length,
              slice: (from: number, to?: number) => bytes.slice(from, to).buffer
            }
            const all = await parquetReadObjects({ file })
            return all.map(({ instrument_token: token, symbol }) => [token, symbol])
          })
        )
      )
      assert.deepStrictEqual(found, [
        [[99, null], ...TICKS.slice(0, 4).map(() => [instrument_token, "NSE:OLD"])],
        TICKS.slice(4).map(() => [instrument_token, "NSE:NEW"])
      ])
    })
  )

  it.effect("has each tick once in its files as they lie, whatever log they came from", () =>
    Effect.gen(function* () {
      const made = yield* folder
      const ticks = Array.from({ length: 40_000 }, (_, i) =>
        makeTick({ instrument_token: 1 + (i % 7), exchange_ts: OPEN + i, sequence_id: i - 3, position: i + 1 })
      )
      /** A log that was fed the ticks in this order, and archived them in ranges of so many. */
      const archived = (incarnation: string, fed: typeof ticks, size: number) =>
        Effect.gen(function* () {
          const archive = yield* Archive
          let leftOut = 0
          for (let first = 0; first < fed.length; first += size) {
            const range = { incarnation, partition: 0, first, last: Math.min(fed.length, first + size) - 1 }
            leftOut += yield* archive.write(range, toColumns(fed.slice(first, first + size)), NO_QUOTES)
          }
          return leftOut
        }).pipe(Effect.provide(archiveIn(made)))
      assert.strictEqual(yield* archived("log-1", ticks.slice(0, 35_000), 33_333), 0)
      assert.strictEqual(yield* archived("log-2", ticks, 20_000), 35_000)
      assert.strictEqual(yield* archived("log-3", ticks.toReversed(), 9999), 40_000)
      const keys = yield* keysAsTheyLie(made)
      assert.strictEqual(keys.length, 40_000)
      assert.strictEqual(new Set(keys).size, 40_000)
    })
  )

  it.effect("goes on where an object of another log cannot be read, as one that was cut", () =>
    Effect.gen(function* () {
      const made = yield* folder
      yield* write.pipe(Effect.provide(archiveIn(made)))
      truncateSync(join(made, OBJECTS[0]!), 40)
      const again = Effect.flatMap(Archive, (archive) =>
        archive.write({ ...RANGE, incarnation: "normalized-2" }, toColumns(TICKS), NO_QUOTES)
      )
      assert.strictEqual(yield* again.pipe(Effect.provide(archiveIn(made))), 4)
      const [, ...others] = TICK_OBJECTS
      const added = OBJECTS[0]!.replace("normalized-1", "normalized-2")
      assert.deepStrictEqual(
        filesIn(made).filter((file) => file.startsWith("ticks")),
        [OBJECTS[0]!, added, ...others]
      )
    })
  )

  it.effect("completes the very range whichever call was the last before a crash", () =>
    Effect.gen(function* () {
      let wasBegun = false
      let wasDone = false
      for (let count = 0; !wasDone; count++) {
        const made = yield* folder
        const { calls, restore } = dieAfter(made, count)
        const outcome = yield* write.pipe(Effect.provide(archiveIn(made)), Effect.exit)
        restore()
        wasDone = calls() <= count
        assert.strictEqual(outcome._tag, wasDone ? "Success" : "Failure", `after ${count} calls`)
        // An object is never there before the manifest that names it.
        for (const kind of wasBegun ? [] : ["ticks", "quotes"]) {
          assert.deepStrictEqual(existsSync(join(made, kind)) ? filesIn(join(made, kind)) : [], [])
        }
        const begun = yield* recover(made)
        if (wasBegun) assert.isTrue(begun, `the range begun before ${count} calls is still there after more`)
        wasBegun ||= begun
      }
      assert.isTrue(wasBegun)
    })
  )

  // The first link is the manifest's, the others are the objects'.
  for (const [at, objectsThere] of [
    ["link 1", 0],
    ["link 1 done", 0],
    ["link 2", 0],
    ["link 2 done", 1],
    ["link 3", 1],
    ["link 3 done", 2],
    ["link 4", 2],
    ["link 4 done", 3],
    ["link 5", 3],
    ["link 5 done", 4]
  ] as const) {
    it.effect(`completes the very range after the process was killed at its ${at}`, () =>
      Effect.gen(function* () {
        const made = yield* folder
        const killed = fileURLToPath(new URL("./writeAndDie.ts", import.meta.url))
        const signal = yield* Effect.promise(async () => {
          const child = spawn(process.execPath, [killed, made, at], { stdio: ["ignore", "ignore", "inherit"] })
          const [, by] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null]
          return by
        })
        assert.strictEqual(signal, "SIGKILL")
        const objects = OBJECTS.filter((object) => existsSync(join(made, object))).length
        assert.strictEqual(objects, objectsThere)
        assert.strictEqual(existsSync(join(made, MANIFEST)), at !== "link 1")
        assert.strictEqual(yield* recover(made), at !== "link 1")
      })
    )
  }

  it.effect("clears what a crash left half done when it opens", () =>
    Effect.gen(function* () {
      const made = yield* folder
      mkdirSync(join(made, "tmp"))
      writeFileSync(join(made, "tmp", "4711-1"), "half an object")
      yield* write.pipe(Effect.provide(archiveIn(made)))
      assert.deepStrictEqual(filesIn(made), FILES)
    })
  )

  it.effect("says in one line that a folder cannot be had", () =>
    Effect.gen(function* () {
      const made = yield* folder
      writeFileSync(join(made, "file"), "")
      const error = yield* Effect.flip(Layer.build(ParquetFiles.layer(join(made, "file"))))
      assert.strictEqual(error._tag, "StartError")
      assert.match(error.message, /^archive in .*file: .+$/)
    })
  )
})
