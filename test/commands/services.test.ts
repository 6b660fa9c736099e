import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { missing } from "../../src/commands/services.ts"
import { readSettings } from "../../src/schema/Settings.ts"

const settings = (env: Record<string, string>) => Result.getOrThrow(readSettings(env))

describe("a process on services that are not all named", () => {
  it("says what goes missing, a worker and a server each its own", () => {
    const worker = missing(settings({}), "worker")
    assert.lengthOf(worker, 2)
    for (const word of ["claims", "ring", "runs the day", "servers do not see"]) assert.include(worker[0], word)
    assert.match(worker[1]!, /nothing is archived/)
    const server = missing(settings({}), "server")
    assert.lengthOf(server, 1)
    for (const word of ["REDIS_URL", "ring", "workers are not seen"]) assert.include(server[0], word)
  })

  it("says nothing where nothing does", () => {
    assert.deepStrictEqual(missing(settings({ REDIS_URL: "redis://x:1", DATA_DIR: "./x" }), "worker"), [])
    assert.deepStrictEqual(missing(settings({ REDIS_URL: "redis://x:1" }), "server"), [])
  })
})
