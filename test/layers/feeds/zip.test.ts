import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { readZipFile, zipFiles } from "../../../src/layers/feeds/zip.ts"
import { zipOf } from "../../support/zip.ts"

/** What is in a zip, by name; a sentence where it cannot be read. */
const contentsOf = async (bytes: Uint8Array): Promise<Record<string, string> | string> => {
  const folder = mkdtempSync(join(tmpdir(), "mdp-zip-"))
  const path = join(folder, "a.zip")
  writeFileSync(path, bytes)
  const handle = await open(path, "r")
  try {
    const found: Record<string, string> = {}
    for (const file of await zipFiles(handle, bytes.byteLength)) {
      const chunks: Array<Uint8Array> = []
      for await (const chunk of readZipFile(handle, file, () => undefined)) chunks.push(chunk)
      found[file.name] = Buffer.concat(chunks).toString()
    }
    return found
  } catch (error) {
    return (error as Error).message
  } finally {
    await handle.close()
    rmSync(folder, { recursive: true })
  }
}

const whole = zipOf([
  { name: "day/", data: Buffer.from(""), stored: true },
  { name: "day/a.csv", data: Buffer.from("a".repeat(100_000)) },
  { name: "day/b.csv", data: Buffer.from("plain"), stored: true },
  { name: "__MACOSX/day/._a.csv", data: Buffer.from("x") }
])
const changed = (at: number, value: number, from = whole): Buffer => {
  const bytes = Buffer.from(from)
  bytes.writeUInt16LE(value, at)
  return bytes
}

describe("a zip", () => {
  it("gives its files in their order, and nothing that is no data", async () => {
    assert.deepStrictEqual(await contentsOf(whole), { "day/a.csv": "a".repeat(100_000), "day/b.csv": "plain" })
    assert.deepStrictEqual(await contentsOf(zipOf([])), {})
  })

  it("is refused where it is broken, with what is wrong", async () => {
    const plain = zipOf([{ name: "b.csv", data: Buffer.from("plain"), stored: true }])
    assert.strictEqual(await contentsOf(Buffer.from("PK")), "not a zip that can be read: it is too short")
    assert.match(String(await contentsOf(whole.subarray(0, -5))), /its directory is missing/)
    assert.match(String(await contentsOf(changed(36, 0x5858, plain))), /b\.csv is damaged/)
    const nested = zipOf([{ name: "NSE_FUT_TICK_20221003.zip", data: whole }])
    assert.match(String(await contentsOf(nested)), /20221003\.zip in it is a zip itself: unpack that first$/)
    const entry = plain.indexOf("PK\u0001\u0002")
    assert.match(String(await contentsOf(changed(entry + 8, 1, plain))), /b\.csv is encrypted/)
    assert.match(String(await contentsOf(changed(entry + 10, 12, plain))), /packed by method 12/)
    assert.match(String(await contentsOf(changed(entry, 0, plain))), /its directory is broken/)
  })

  it("of any bytes is read or refused, and never more than it says", async () => {
    for (let at = 0; at < whole.length; at += 7) {
      const found = await contentsOf(changed(Math.min(at, whole.length - 2), (at * 7919) & 0xffff))
      if (typeof found === "string") assert.notInclude(found, "undefined")
      else assert.isAtMost(Object.values(found).join("").length, 100_005)
    }
  })
})
