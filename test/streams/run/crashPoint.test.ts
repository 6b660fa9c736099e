import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { CRASH_POINTS, parseCrashAt } from "../../../src/streams/run/crashPoint.ts"

const module = fileURLToPath(new URL("../../../src/streams/run/crashPoint.ts", import.meta.url))

/** Passes a point three times in a process of its own, which says how often it came through. */
const pass = (crashAt: string) =>
  spawnSync(
    process.execPath,
    [
      "--input-type=module",
      "--eval",
      `import { crashPoint } from ${JSON.stringify(module)}
       import { writeSync } from "node:fs"
       for (let i = 1; i <= 3; i++) { crashPoint("after-publish"); writeSync(1, String(i)) }`
    ],
    { encoding: "utf8", env: { PATH: process.env.PATH ?? "", MDP_CRASH_AT: crashAt } }
  )

describe("crash points", () => {
  it("names a point and how often it is passed", () => {
    for (const point of CRASH_POINTS)
      assert.deepStrictEqual(parseCrashAt(point), { point, times: 1, signal: "SIGKILL" })
    const twelfth = { point: "after-ring-write", times: 12 } as const
    assert.deepStrictEqual(parseCrashAt("after-ring-write:12"), { ...twelfth, signal: "SIGKILL" })
    assert.deepStrictEqual(parseCrashAt("after-ring-write:12:SIGSTOP"), { ...twelfth, signal: "SIGSTOP" })
    assert.isUndefined(parseCrashAt(undefined))
    assert.isUndefined(parseCrashAt(""))
    for (const wrong of ["after-lunch", "after-ring-write:0", "after-ring-write:x", "after-ring-write:1:SIGHUP"]) {
      assert.throws(() => parseCrashAt(wrong), /MDP_CRASH_AT.*after-claim/)
    }
  })

  it("kills the process at the named time, and does nothing where it is not named", () => {
    const { signal, stdout } = pass("after-publish:2")
    assert.deepStrictEqual({ signal, stdout }, { signal: "SIGKILL", stdout: "1" })
    for (const other of ["", "after-claim"]) {
      const unhurt = pass(other)
      assert.deepStrictEqual({ status: unhurt.status, stdout: unhurt.stdout }, { status: 0, stdout: "123" })
    }
  })
})
