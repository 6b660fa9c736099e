import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { quoteFields } from "../../src/schema/Quote.ts"
import { RawTickInput, readRawRecord } from "../../src/schema/RawTick.ts"
import { MAX_TOKEN } from "../../src/schema/RawValues.ts"

const read = (name: string) => readFileSync(new URL(`../../${name}`, import.meta.url), "utf8")
const page = read("docs/raw-tick.md")
const examples = [...page.matchAll(/```json\n(.*?)\n```/gs)].map((found) => found[1]!)
/** The first cells of the table under a heading. */
const namesUnder = (heading: string) =>
  [...page.slice(page.indexOf(heading)).matchAll(/^\| `(\w+)` \|/gm)].map((found) => found[1]!)

describe("the page on the raw tick", () => {
  it("names every field that a feed may send, and no other", () => {
    const fields = Object.keys(RawTickInput.fields).filter((name) => name !== "session")
    const shown = page.slice(0, page.indexOf("## One example"))
    assert.deepStrictEqual([...shown.matchAll(/^\| `(\w+)` \|/gm)].map((found) => found[1]).sort(), fields.sort())
    assert.include(shown, String(MAX_TOKEN))
  })

  it("names every part of a quote, and no other", () => {
    const shown = page.slice(page.indexOf("## The quote"), page.indexOf("## What becomes"))
    assert.deepStrictEqual(
      [...shown.matchAll(/^\| `(\w+)` \| .* \| (.*) \|$/gm)].map((found) => [found[1], found[2]]),
      Object.entries(quoteFields).map(([name, { description }]) => [name, description])
    )
  })

  it("has examples that are taken as they stand, among them each kind of feed", () => {
    const records = examples.map((example) => {
      const record = readRawRecord(JSON.parse(example))
      if (typeof record === "string") throw new Error(`${example}: ${record}`)
      return record
    })
    const ticks = records.flatMap(({ tick }) => tick ?? [])
    assert.isTrue(records.some(({ tick, quote }) => tick !== undefined && quote !== undefined))
    assert.isTrue(records.some(({ tick, quote }) => tick === undefined && quote !== undefined))
    assert.isTrue(ticks.some(({ feed, sequence_id }) => feed === "dma" && sequence_id !== undefined))
    assert.isTrue(ticks.some(({ feed, day_volume }) => feed === "snapshot" && day_volume >= 0))
    assert.isTrue(ticks.some(({ sequence_id, occurrence }) => sequence_id === undefined && occurrence > 0))
    assert.isTrue(ticks.some(({ reset }) => reset))
    assert.isTrue(ticks.some(({ sequencing }) => sequencing === "monotonic"))
  })

  it("names every reason of a dead letter, and no other", () => {
    const folder = new URL("../../src/streams/process/", import.meta.url)
    const code = readdirSync(folder).map((file) => readFileSync(new URL(file, folder), "utf8"))
    const kinds = code.flatMap((text) => [...text.matchAll(/\bkind: "(\w+)"/g)].map((found) => found[1]!))
    // Most of them `decode` makes with one function.
    const ofDecode = /^type Reason =(.*)$/m.exec(read("src/streams/process/decode.ts"))?.[1] ?? ""
    const reasons = new Set([...kinds, ...[...ofDecode.matchAll(/"(\w+)"/g)].map((found) => found[1]!)])
    assert.isAbove(reasons.size, 5)
    assert.deepStrictEqual(namesUnder("| reason |").sort(), [...reasons].sort())
  })
})
