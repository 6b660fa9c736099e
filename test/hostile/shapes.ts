/**
 * Decides what hostile records look like: bytes, fields and headers that no part of the platform writes, each under a
 * name, for every suite that attacks a reader. `raw` says what becomes of the shape in `raw_ticks`.
 */
import type { NewRecord } from "../../src/streams/log/TickLog.ts"

/** Where a raw record of the shape ends: as a tick, as a dead letter of that kind, or passed on as a watermark. */
export type RawFate =
  | "tick"
  | "watermark"
  | "duplicate"
  | "tombstone"
  | "too_large"
  | "undecodable"
  | "header"
  | "invalid"
  | "future"

export interface Shape {
  readonly name: string
  readonly record: NewRecord
  readonly raw: RawFate
}

/** What a valid raw tick has; `at`: epoch microseconds. */
export const validFields = (token: number, at: number, sequence_id: number) => ({
  instrument_token: token,
  exchange_ts: at,
  price: 100.05,
  volume: 1,
  sequence_id
})

const nest = (open: string, close: string, depth: number, core = ""): string =>
  `${open.repeat(depth)}${core}${close.repeat(depth)}`

/** Deeper than any stack. */
const DEEP = 5000
const ARRAY = nest("[", "]", DEEP)
const OBJECT = nest('{"a":', "}", DEEP, "1")

/** Headers that the platform reads, and what strangers put there. */
export const RESERVED = [
  "replay",
  "watermark",
  "end",
  "misrouted",
  "codec",
  "kind",
  "source",
  "reason",
  "topic",
  "partition",
  "offset",
  "index",
  "bytes",
  "batch"
] as const

const text = (value: string, headers?: Record<string, string>): NewRecord => ({
  key: null,
  value: Buffer.from(value),
  headers
})

/** All shapes for one instrument at a time. Ticks among them take the numbers from `first` on. */
export const shapes = (token: number, at: number, first: number): ReadonlyArray<Shape> => {
  let next = first
  const valid = () => validFields(token, at, next++)
  const json = (value: unknown, headers?: Record<string, string>) => text(JSON.stringify(value), headers)
  const without = (name: string) => {
    const fields: Record<string, unknown> = { ...validFields(token, at, 1) }
    delete fields[name]
    return fields
  }
  /** A valid tick's JSON with one field's text put in as it is. */
  const withText = (name: string, value: string, headers?: Record<string, string>) => {
    const rest = JSON.stringify(without(name)).slice(1)
    return text(`{"${name}":${value},${rest}`, headers)
  }
  const found: Array<Shape> = []
  const add = (name: string, raw: RawFate, record: NewRecord) => found.push({ name, raw, record })

  // Bytes that are no JSON.
  add("tombstone", "tombstone", { key: null, value: null })
  add("no bytes", "undecodable", { key: null, value: Buffer.alloc(0) })
  add("one brace", "undecodable", text("{"))
  add("not a word", "undecodable", text("hello"))
  add("NUL bytes", "undecodable", { key: null, value: Buffer.alloc(64) })
  add("bytes that are no UTF-8", "undecodable", { key: null, value: Buffer.from([0xff, 0xfe, 0xc0, 0x80]) })
  add("a byte order mark", "undecodable", text(`\ufeff${JSON.stringify(validFields(token, at, 1))}`))
  add("two values", "undecodable", text(`${JSON.stringify(validFields(token, at, 1))}{}`))
  add("NaN", "undecodable", withText("price", "NaN"))
  add("a terminal's commands", "undecodable", text("\u001b[2J\u001b]0;x\u0007"))
  add("more than a megabyte", "too_large", text(`{"x":"${"x".repeat(1_050_000)}"}`))
  add("half a bracket, deep", "undecodable", text("[".repeat(DEEP)))

  // JSON that is no object of ours.
  for (const [name, value] of [
    ["null", "null"],
    ["true", "true"],
    ["a number", "7"],
    ["a text", '"tick"'],
    ["an empty array", "[]"],
    ["an array of ticks", `[${JSON.stringify(validFields(token, at, 1))}]`],
    ["an empty object", "{}"],
    ["arrays without end", ARRAY],
    ["objects without end", OBJECT],
    ["a prototype", '{"__proto__":{"instrument_token":1,"exchange_ts":1768448700000000,"price":1}}']
  ] as const)
    add(name, "invalid", text(value))

  // Each field nested without end, of another type, and beyond its range.
  const beyond: Readonly<Record<string, ReadonlyArray<string>>> = {
    instrument_token: ["0", "-1", "2147483648", "1.5", "1e400", '"1"', "null", "{}"],
    exchange_ts: ["-1", "9e15", "1.5", '"yesterday"', '"2026-01-15T09:15:00"', "null"],
    price: ["1e300", "-1e300", "0.00000001", '"1"', "null", "{}"],
    volume: ["-1", "1.5", "1e300", '"1"', "null"],
    sequence_id: ["-5", "1.5", "9007199254740993", '"1"', "null"],
    sequencing: ['"sorted"', "1", "null"],
    feed: ['""', `"${"x".repeat(65)}"`, '"a\\u0000b"', "1", "null"],
    connection: ['""', `"${"x".repeat(100_000)}"`, "{}"],
    reset: ['"yes"', "1", "null"],
    occurrence: ["-1", "1.5", '"1"'],
    received_ts: ["-1", "1e300", '"now"'],
    session: ["0", "-1", "1e9"]
  }
  for (const [name, values] of Object.entries(beyond)) {
    add(`${name} nested in arrays`, "invalid", withText(name, ARRAY))
    add(`${name} nested in objects`, "invalid", withText(name, OBJECT))
    for (const value of values) {
      add(`${name} ${value.slice(0, 24)}${value.length > 24 ? "…" : ""}`, "invalid", withText(name, value))
    }
  }
  for (const name of ["instrument_token", "exchange_ts", "price"]) add(`no ${name}`, "invalid", json(without(name)))
  add("a stamp an hour ahead", "future", json({ ...validFields(token, at + 3_600_000_000, 1) }))
  add("both volumes", "invalid", json({ ...validFields(token, at, 1), day_volume: 5 }))

  // Replays that are none.
  const replays: ReadonlyArray<readonly [string, RawFate, Record<string, string>, (() => unknown) | undefined]> = [
    ["a run with a negative number", "invalid", { replay: "x" }, () => ({ ...validFields(token, at, -5) })],
    ["a run with a reset", "invalid", { replay: "x" }, () => ({ ...validFields(token, at, 1), reset: true })],
    ["a run's name without end", "header", { replay: "x".repeat(10_000) }, () => validFields(token, at, 1)],
    ["a run's name of controls", "header", { replay: "\u001b[2J" }, () => validFields(token, at, 1)],
    ["a watermark that is no number", "header", { replay: "x", watermark: "soon" }, undefined],
    ["a watermark below 1", "header", { replay: "x", watermark: "-1" }, undefined],
    ["a watermark without end", "header", { replay: "x", watermark: "9".repeat(400) }, undefined],
    ["a watermark with a value", "header", { replay: "x", watermark: "1" }, () => validFields(token, at, 1)],
    ["an end that is none", "header", { replay: "x", watermark: "1", end: "maybe" }, undefined],
    ["a watermark of a run nobody knows", "watermark", { replay: "nobody.1", watermark: "999999999999999" }, undefined],
    ["the end of a run nobody knows", "watermark", { replay: "nobody.2", watermark: "1", end: "1" }, undefined]
  ]
  for (const [name, raw, headers, value] of replays) {
    const record = value === undefined ? { key: null, value: Buffer.alloc(0), headers } : json(value(), headers)
    add(name, raw, record)
  }

  // Ticks all the same: what strangers add to them means nothing.
  for (const name of RESERVED) {
    if (name !== "replay") add(`a tick with the header ${name}`, "tick", json(valid(), { [name]: "x".repeat(300) }))
  }
  add("a tick with an empty header replay", "tick", json(valid(), { replay: "" }))
  add("a tick with a header named __proto__", "tick", json(valid(), { ["__proto__"]: "x", constructor: "x" }))
  add("a tick with 500 headers", "tick", json(valid(), Object.fromEntries(range(500).map((i) => [`h${i}`, "x"]))))
  add("a tick with a key of 100 KB", "tick", { ...json(valid()), key: "k".repeat(100_000) })
  add(
    "a tick with an unknown field nested without end",
    "tick",
    text(`{"x":${ARRAY},${JSON.stringify(valid()).slice(1)}`)
  )
  add("a tick with an unknown field of 900 KB", "tick", json({ ...valid(), x: "x".repeat(900_000) }))
  return found
}

const range = (length: number): ReadonlyArray<number> => Array.from({ length }, (_, i) => i)
