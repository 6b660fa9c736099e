/**
 * Decides what a client may send that no client would: frames made at random from a seed, without bound in depth and
 * size, near to what is right and far from it.
 */
import { randomBytes } from "node:crypto"
import { MAX_MESSAGE_BYTES } from "../../src/schema/Protocol.ts"
import { EPOCH, type randomFrom } from "./hub.ts"

/** One thing sent. `isBreach`: the library itself ends the connection for it, without a close code. */
export interface WireFrame {
  readonly kind: "text" | "binary" | "ping" | "pong" | "raw"
  readonly data: Buffer
  readonly isBreach: boolean
}

export type Random = ReturnType<typeof randomFrom>

const MAX_DEPTH = 20_000
const LARGE_BYTES = 900_000

const WORDS = [
  ...["action", "subscribe", "unsubscribe", "auth", "ping", "tokens", "symbols", "since", "backfill", "channels"],
  ...["policy", "capacity", "batch", "replay", "id", "key", "__proto__", "constructor", "toString", "length", ""],
  ...["tick", "gap", "candle_1m", "evict-oldest", "conflate", "NSE:TCS", "1", "0", "2147483648", "-1", "1e3"]
]
const NUMBERS = [
  ...["0", "-0", "1", "2", "-1", "1.5", "1e400", "-1e400", "1e-400", "2147483647", "2147483648", "9007199254740993"],
  ...[
    "1768449600",
    "1768449600000",
    "1768449600000000",
    "1768449600000000000",
    String(EPOCH),
    "1e21",
    "0.1",
    "00",
    "1e"
  ]
]
const STRANGE = [
  "\u0000",
  "\u001b[2J",
  "\u2028",
  "\u202e",
  "\ud800",
  "\udfff\ud800",
  "😀",
  "\\",
  '"',
  "\n",
  "ﷺ",
  "\ufeff"
]

const pick = <A>(random: Random, list: ReadonlyArray<A>): A => list[random.below(list.length)]!

const text = (random: Random): string => {
  if (random.chance(0.4)) return pick(random, WORDS)
  if (random.chance(0.5)) return pick(random, STRANGE).repeat(1 + random.below(4)) + pick(random, WORDS)
  return pick(random, [...STRANGE, "x"]).repeat(random.chance(0.02) ? random.below(60_000) : random.below(200))
}

/** The JSON of some value, nested as deep as it comes. */
const json = (random: Random, depth = 0): string => {
  if (random.chance(0.02)) {
    const deep = 1 + random.below(random.chance(0.2) ? MAX_DEPTH : 60)
    const [open, close] = random.chance(0.5) ? ["[", "]"] : [`{${JSON.stringify(pick(random, WORDS))}:`, "}"]
    return `${open.repeat(deep)}${random.chance(0.5) ? "1" : '"x"'}${close.repeat(random.chance(0.9) ? deep : deep - 1)}`
  }
  const kind = depth > 6 ? random.below(4) : random.below(7)
  if (kind === 0) return pick(random, NUMBERS)
  if (kind === 1) return JSON.stringify(text(random))
  if (kind === 2) return pick(random, ["true", "false", "null"])
  if (kind === 3) return String(random.below(1000))
  const count = random.chance(0.01) ? random.below(5000) : random.below(5)
  // Of many one is made: they cost the server as much as the sender.
  const many = count > 20
  const item = many ? json(random, 10).slice(0, 200) : ""
  const items = Array.from({ length: count }, (_, i) => {
    const value = many ? item : json(random, depth + 1)
    return kind === 4 ? `${JSON.stringify(many ? String(i) : text(random))}:${value}` : value
  })
  return kind === 4 ? `{${items.join(",")}}` : `[${items.join(",")}]`
}

/** Fields of a message that would be taken, as JSON. */
const rightFields = (random: Random): Array<[string, string]> => {
  const tokens = () => JSON.stringify(Array.from({ length: 1 + random.below(5) }, () => 1 + random.below(300)))
  const action = pick(random, ["subscribe", "subscribe", "subscribe", "unsubscribe", "auth", "ping"])
  const fields: Array<[string, string]> = [["action", JSON.stringify(action)]]
  if (action === "subscribe" || action === "unsubscribe") fields.push(["tokens", tokens()])
  if (action === "auth") fields.push(["key", '"k"'])
  if (action === "subscribe") {
    if (random.chance(0.3)) fields.push(["backfill", String(random.below(2000))])
    if (random.chance(0.3)) {
      fields.push(["since", `{"${1 + random.below(300)}":[${EPOCH + random.below(3) - 1},${random.below(500)}]}`])
    }
    if (random.chance(0.2)) fields.push(["channels", '["tick"]'])
    if (random.chance(0.2)) fields.push(["batch", String(random.chance(0.5))])
    if (random.chance(0.2)) fields.push(["capacity", String(1 + random.below(1000))])
  }
  if (random.chance(0.3)) fields.push(["id", json(random)])
  return fields
}

const message = (random: Random): string => {
  const fields = rightFields(random)
  for (let i = random.below(3); i > 0; i--) {
    const at = random.below(fields.length)
    if (random.chance(0.3)) fields.splice(at, 1)
    else if (random.chance(0.5)) fields[at] = [fields[at]![0], json(random)]
    else fields.push([random.chance(0.5) ? pick(random, WORDS) : text(random), json(random)])
    if (fields.length === 0) break
  }
  const whole = `{${fields.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(",")}}`
  if (random.chance(0.05)) return whole.slice(0, random.below(whole.length + 1))
  if (random.chance(0.03)) return whole + pick(random, [" ", "\n", "]", "}", whole, "\u0000"])
  return whole
}

const large = (random: Random): string => {
  const size = random.below(LARGE_BYTES)
  const fill = pick(random, ["[", "1,", '{"a":', '"', " ", '["x"],', "9", "\\u0000", "é"])
  const many = fill.repeat(Math.ceil(size / Buffer.byteLength(fill)))
  return pick(random, [
    many,
    `{"action":"subscribe","tokens":[${many}`,
    `{"action":"ping","id":"${"x".repeat(size)}"}`,
    `{"action":"subscribe","tokens":[${"1,".repeat(Math.floor(size / 2))}1]}`
  ])
}

/** Bytes that are no frame of a client: reserved bits and opcodes, control frames too long, a stream that breaks off. */
const garbage = (random: Random): Buffer => {
  const mask = Buffer.from([1, 2, 3, 4])
  return pick(random, [
    () => Buffer.concat([Buffer.from([0xf1, 0x81]), mask, Buffer.from("x")]),
    () => Buffer.concat([Buffer.from([0x83, 0x80]), mask]),
    () => Buffer.concat([Buffer.from([0x89, 0xfe, 0x00, 0xff]), mask, Buffer.alloc(255)]),
    () => Buffer.concat([Buffer.from([0x80, 0x80]), mask]),
    () => Buffer.concat([Buffer.from([0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), mask]),
    () => Buffer.from([0x81, 0x05, ...Buffer.from("hello")]),
    () => randomBytes(1 + random.below(100))
  ])()
}

export const frameFrom = (random: Random): WireFrame => {
  const isLarge = random.chance(0.004)
  if (random.chance(0.03)) return { kind: "binary", data: randomBytes(random.below(300)), isBreach: false }
  if (random.chance(0.05)) {
    return { kind: random.chance(0.5) ? "ping" : "pong", data: randomBytes(random.below(126)), isBreach: false }
  }
  if (random.chance(0.01)) return { kind: "raw", data: garbage(random), isBreach: true }
  // Bytes that are no UTF-8 are the library's to refuse.
  if (random.chance(0.01)) return { kind: "text", data: Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), isBreach: true }
  const written = isLarge ? large(random) : random.chance(0.3) ? json(random) : message(random)
  const data = Buffer.from(written, "utf8")
  return { kind: "text", data, isBreach: data.length > 2 * MAX_MESSAGE_BYTES }
}
