/**
 * The stages of a partition under whatever a producer may write: each record ends as a tick, a duplicate, a suppressed
 * or priceless snapshot, a forward, a watermark or a dead letter; no stage fails; and however the partition is cut into
 * arrays, the same bytes come out.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { decodeTick } from "../../src/schema/TickJson.ts"
import type { LogRecord, NewRecord } from "../../src/streams/log/TickLog.ts"
import { unclaimed } from "../../src/streams/process/claim.ts"
import { makeStates, stages } from "../../src/streams/process/process.ts"
import { toDeadRecords, toRecords } from "../../src/streams/process/publish.ts"
import { between, type Random, random } from "../crash/random.ts"
import { settings, TEN } from "../streams/process/stageTests.ts"
import { RESERVED, shapes, validFields } from "./shapes.ts"

const inLog = (records: ReadonlyArray<NewRecord>): ReadonlyArray<LogRecord> =>
  records.map((record, offset) => ({ ...record, offset, recordTime: TEN + offset * 1000 }))

/** What a partition makes of its records, cut into arrays of the sizes that `sizes` gives. */
const outcome = (records: ReadonlyArray<LogRecord>, sizes: () => number, partitions = 1) => {
  const stage = stages(makeStates(), "raw", { partition: 0, partitions }, settings, () => {})
  const published: Array<string> = []
  const letters: Array<string> = []
  const forwarded: Array<string> = []
  const fates = new Map<number, string>()
  for (let at = 0; at < records.length; ) {
    const some = records.slice(at, at + sizes())
    at += some.length
    const batch = stage.quote(stage.sequence(unclaimed(stage.deduplicate(stage.normalize(stage.decode(some))))))
    const { passed, dead, watermarks, forwards } = batch
    const open = new Set(some.map(({ offset }) => offset))
    const settle = (offset: number, fate: string) => {
      assert.isTrue(open.delete(offset), `${offset} has two ends, one of them ${fate}`)
      fates.set(offset, fate)
    }
    for (const { record } of batch.ticks) settle(record.offset, "tick")
    for (const { offset } of watermarks) settle(offset, "watermark")
    for (const { record, kind } of dead) settle(record.offset, kind)
    // What is left is counted, and goes nowhere.
    const taken = passed.flatMap(({ discarded }) => Object.values(discarded)).reduce((sum, n) => sum + n, 0)
    assert.strictEqual(open.size, taken)
    // Received = sent + discarded, for each stage, and what one sends the next receives.
    let before = some.length - watermarks.length
    for (const { stage, received, sent, discarded } of passed) {
      // Quotes are counted apart.
      if (stage === "quote") continue
      const letters = dead.filter((letter) => letter.stage === stage).length
      assert.strictEqual(received, before, stage)
      assert.strictEqual(sent + letters + Object.values(discarded).reduce((sum, n) => sum + n, 0), received, stage)
      before = sent
    }
    assert.strictEqual(before, batch.ticks.length)
    for (const { key, value, headers } of toRecords(batch)) {
      if (value!.length > 0) assert.isDefined(decodeTick(value!))
      published.push(`${key} ${JSON.stringify(headers)} ${Buffer.from(value!).toString()}`)
    }
    for (const { headers, value } of toDeadRecords(dead, 0)) {
      letters.push(`${JSON.stringify(headers)} ${value?.length}`)
      assert.isBelow(JSON.stringify(headers).length, 1500)
    }
    for (const { to, record } of forwards) forwarded.push(`${to} ${Buffer.from(record.value!).toString()}`)
  }
  return { published, letters, forwarded, fates }
}

const whole = (records: ReadonlyArray<LogRecord>) => () => records.length

describe("shapes that no part of the platform writes", () => {
  const all = shapes(700_100, TEN, 1)
  const records = inLog(all.map(({ record }) => record))

  it("are so many, and each has a name of its own", () => {
    assert.isAbove(all.length, 60)
    assert.strictEqual(new Set(all.map(({ name }) => name)).size, all.length)
  })

  it("end as they should, each of them", () => {
    const { fates } = outcome(records, whole(records))
    assert.deepStrictEqual(
      all.map(({ name }, i) => [name, fates.get(i)]),
      all.map(({ name, raw }) => [name, raw])
    )
  })

  it("come out the same, byte for byte, however they are cut", () => {
    const expected = outcome(records, whole(records))
    const next = random(7)
    assert.deepStrictEqual(
      outcome(records, () => 1),
      expected
    )
    assert.deepStrictEqual(
      outcome(records, () => between(next, 1, 9)),
      expected
    )
  })
})

const pick = <A>(next: Random, of: ReadonlyArray<A>): A => of[between(next, 0, of.length - 1)]!

/** JSON text of any kind, nested as deep as the dice say, sometimes deeper than a stack. */
const anyJson = (next: Random): string => {
  const dice = next()
  if (dice < 0.1) {
    const depth = between(next, 1, 6000)
    return `${"[".repeat(depth)}1${"]".repeat(depth)}`
  }
  if (dice < 0.2) {
    const depth = between(next, 1, 6000)
    return `${'{"a":'.repeat(depth)}null${"}".repeat(depth)}`
  }
  if (dice < 0.3) return `[${Array.from({ length: between(next, 0, 4) }, () => anyJson(next)).join(",")}]`
  return pick(next, [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1.5",
    "1e308",
    "-1e400",
    "9007199254740993",
    "2147483648",
    '""',
    '"\\u0000"',
    '"\\ud800"',
    '"__proto__"',
    `"${"x".repeat(between(next, 0, 3000))}"`,
    "{}",
    '"2026-01-15T10:00:00+05:30"',
    String(TEN),
    String(between(next, 0, 50)),
    '"contiguous"',
    '"monotonic"',
    '"none"',
    '"snapshot"',
    '"dma"'
  ])
}

const FIELDS = [
  "instrument_token",
  "exchange_ts",
  "price",
  "volume",
  "day_volume",
  "sequence_id",
  "sequencing",
  "feed",
  "connection",
  "reset",
  "occurrence",
  "received_ts",
  "session",
  "x",
  "__proto__"
]

const KNOWN = [1, 2, 3].map((token) => shapes(token, TEN, 10))

/** One record by a seed: a shape, bytes at random, or a valid tick with fields, headers or bytes changed. */
const recordOf = (seed: number): NewRecord => {
  const next = random(seed)
  const token = between(next, 1, 3)
  const dice = next()
  if (dice < 0.1) return pick(next, KNOWN[token - 1]!).record
  if (dice < 0.15) {
    return { key: null, value: Buffer.from(Array.from({ length: between(next, 0, 200) }, () => between(next, 0, 255))) }
  }
  const fields = new Map(
    Object.entries(validFields(token, TEN + between(next, -90_000, 5) * 1_000_000, between(next, 0, 60))).map(
      ([name, value]) => [name, String(value)]
    )
  )
  for (let changes = pick(next, [0, 0, 0, 1, 1, 2, 5]); changes > 0; changes--) {
    const name = pick(next, FIELDS)
    if (next() < 0.2) fields.delete(name)
    else fields.set(name, anyJson(next))
  }
  const headers: Record<string, string> = {}
  for (let count = pick(next, [0, 0, 0, 1, 2, 4]); count > 0; count--) {
    headers[pick(next, RESERVED)] = pick(next, ["x", "r.1", "r.1", "1", "2", "", "-1", "\u001b", "y".repeat(100)])
  }
  const value = Buffer.from(`{${[...fields].map(([name, json]) => `"${name}":${json}`).join(",")}}`)
  if (next() < 0.1)
    for (let n = between(next, 1, 3); n > 0; n--) value[between(next, 0, value.length - 1)] = between(next, 0, 255)
  const isMark = headers.watermark !== undefined && next() < 0.7
  return { key: pick(next, [null, "1", "x"]), value: isMark ? Buffer.alloc(0) : value, headers }
}

describe("records made up by chance", () => {
  const seeds = Arbitrary.array(
    Arbitrary.schema(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 31 })))),
    {
      minLength: 1,
      maxLength: 60
    }
  )
  it.prop(
    "end somewhere, fail no stage, and come out the same however they are cut",
    [seeds],
    ([given]) => {
      const records = inLog(given.map(recordOf))
      const expected = outcome(records, whole(records))
      assert.isFalse([...expected.fates.values()].includes("defect"))
      const next = random(given[0]!)
      assert.deepStrictEqual(
        outcome(records, () => between(next, 1, 5)),
        expected
      )
      outcome(records, whole(records), 12)
    },
    { arbitrary: { runs: 200 } }
  )
})
