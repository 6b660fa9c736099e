import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { pages, renew } from "../../scripts/pages.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { quotesOf } from "../../src/streams/log/follow.ts"
import { describe as describeTopology } from "../../src/streams/topology.ts"
import { toMermaid, toText } from "../../src/streams/topologyText.ts"

const settings = Result.getOrThrow(readSettings({}))
const topology = describeTopology(settings)

describe("the topology as data", () => {
  for (const [name, section] of Object.entries(pages)) {
    it(`is what ${name} shows`, () => {
      const page = readFileSync(new URL(`../../${name}`, import.meta.url), "utf8")
      assert.strictEqual(renew(page, section), page, "run: npm run pages")
    })
  }

  it("joins only nodes it names, and leaves none out", () => {
    const ids = topology.nodes.map((node) => node.id)
    const joined = new Set(topology.edges.flatMap(({ from, to }) => [from, to]))
    assert.deepStrictEqual([...joined].sort(), [...ids].sort())
    assert.strictEqual(new Set(ids).size, ids.length)
  })

  it("names a capacity and a policy for every buffer, from the settings in force", () => {
    const other = describeTopology({ ...settings, CLIENT_CAPACITY: 7 })
    const client = other.edges.find((edge) => edge.buffer?.name === "client")
    assert.deepStrictEqual(client?.buffer, { name: "client", capacity: 7, unit: "ticks a client", whenFull: "evict" })
    for (const { buffer } of topology.edges) if (buffer !== undefined) assert.isAbove(buffer.capacity, 0)
  })

  it("calls no capacity a log's own that Kafka keeps by its retention", () => {
    const onKafka = describeTopology({ ...settings, KAFKA_BROKERS: "kafka:9092" })
    const names = onKafka.edges.flatMap(({ buffer }) => (buffer === undefined ? [] : [buffer.name]))
    assert.deepStrictEqual([...new Set(names)].sort(), [
      "archive",
      "client",
      "fetched",
      "replay_window",
      "ring",
      "store",
      "stored_bars"
    ])
    assert.strictEqual(onKafka.edges.length, topology.edges.length)
  })

  it("has a node for every stage and sink that counts, and no other", () => {
    const folder = new URL("../../src/streams/", import.meta.url)
    const text = readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts") && !file.startsWith("topology"))
      .map((file) => readFileSync(new URL(file, folder), "utf8"))
      .join("\n")
    const names = (pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1]!)
    const sinks = names(/\bsink: "([\w-]+)"/g)
    const readers = [...names(/\breader: "([\w-]+)"/g), ...sinks.map((sink) => `follow-${sink}`)]
    const counting = [...readers, ...sinks]
    const counted = new Set([...names(/\bstage(?:\(|: )"([\w-]+)"/g), ...counting, ...counting.map(quotesOf)])
    const nodes = topology.nodes.filter(
      ({ kind, id }) => (kind === "stage" || kind === "sink") && id !== "reorder-by-watermark"
    )
    assert.deepStrictEqual([...counted].sort(), nodes.map(({ id }) => id).sort())
  })

  it("is drawn with every node and edge", () => {
    for (const text of [toMermaid(topology), toText(topology)]) {
      for (const { id } of topology.nodes) assert.match(text, new RegExp(id.replaceAll("-", "[-_]")))
    }
    assert.strictEqual(toText(topology).split("►").length - 1, topology.edges.length)
    assert.strictEqual(toMermaid(topology).split("-->").length - 1, topology.edges.length)
  })
})
