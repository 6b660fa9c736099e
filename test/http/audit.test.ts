import { assert, describe, it } from "@effect/vitest"
import { afterEach, beforeEach, vi } from "vitest"
import { Audit } from "../../src/http/audit.ts"
import type { AuditFields } from "../../src/layers/keys/auditLine.ts"

const DESK = { key: "desk", address: "10.0.0.7" }

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
})
afterEach(() => {
  vi.useRealTimers()
})

const make = () => {
  const lines: Array<AuditFields> = []
  return { lines, audit: new Audit((fields) => lines.push(fields)) }
}

describe("the audit", () => {
  it("says who did what from where, what is foreign in it escaped and cut, and no key", () => {
    const { audit, lines } = make()
    const key = "mdp_99fc62d0_BLWYj9y0UGfwR5rX9oC5X-hTv1jJqsf8ICZSotkc_Qx"
    audit.tell(DESK, "replay_stop", { replay: `\u001b[2J${key}${"x".repeat(1000)}`, n: 1 })
    const { replay, ...rest } = lines[0]!
    assert.deepStrictEqual(rest, { ...DESK, action: "replay_stop", n: 1 })
    assert.isTrue((replay as string).startsWith("\\u001b[2Jmdp_99fc62d0_…"), String(replay))
    assert.isBelow((replay as string).length, 250)
  })

  it("tells of ticks at once the first time, then their sum for a while, and the rest when it is closed", () => {
    const { audit, lines } = make()
    const sums = () => lines.map(({ key, requests, ticks, failed }) => [key, requests, ticks, failed])
    audit.ingested(DESK, 5)
    for (let i = 0; i < 1000; i++) audit.ingested(DESK, 2)
    audit.ingested(DESK, 0, 3)
    audit.ingested({ ...DESK, key: "bot" }, 1)
    assert.deepStrictEqual(sums(), [
      ["desk", 1, 5, undefined],
      ["bot", 1, 1, undefined]
    ])
    vi.advanceTimersByTime(10_000)
    assert.deepStrictEqual(sums().slice(2), [["desk", 1001, 2000, 3]])
    audit.ingested(DESK, 4)
    audit.close()
    assert.deepStrictEqual(sums().slice(3), [["desk", 1, 4, undefined]])
    // Silent for a while, and told at once again.
    vi.advanceTimersByTime(20_000)
    audit.ingested(DESK, 6)
    assert.deepStrictEqual(sums().slice(4), [["desk", 1, 6, undefined]])
    assert.isTrue(lines.every(({ action }) => action === "ingest"))
  })

  it("keeps a bounded number of sums: beyond it all are told", () => {
    const { audit, lines } = make()
    for (let i = 0; i < 1000; i++) {
      audit.ingested({ ...DESK, address: `10.0.${i >> 8}.${i & 255}` }, 1)
      audit.ingested({ ...DESK, address: `10.0.${i >> 8}.${i & 255}` }, 1)
    }
    assert.strictEqual(lines.length, 1000)
    audit.ingested({ ...DESK, address: "10.1.0.0" }, 1)
    assert.strictEqual(lines.length, 2001)
    assert.strictEqual(vi.getTimerCount(), 1)
  })
})
