/**
 * The short form of the crash suite: some faults of each class on real processes, on both Kafka engines. The long form
 * is `npm run test:crash`.
 */
import { assert, describe, it } from "vitest"
import { missing, serviceNames } from "../../scripts/servers/install.ts"
import { withinOneDay } from "../support/oneDay.ts"
import { isInstalled } from "../support/services.ts"
import type { Engine } from "./cluster.ts"
import { KINDS, plan } from "./nemesis.ts"
import { run } from "./scenario.ts"

const lacking = serviceNames.filter((service) => !isInstalled(service)).map(missing)
const skipped =
  lacking.length === 0 ? "" : ` (skipped: ${lacking.join(", ")} not installed; npm run services installs them)`

/** Shared out between the engines: each class meets one of them here, and both in the long form. */
const SHORT: Readonly<Record<Engine, ReadonlyArray<string>>> = {
  platformatic: [
    "crash:after-publish",
    "crash:after-store-write",
    "crash:after-manifest",
    "zombie:after-claim",
    "redis-flushall-kill",
    "postgres-terminate",
    "lost:redis-claim",
    "lost:kafka-produce",
    "lost:s3-put",
    "poison"
  ],
  kafkajs: [
    "crash:after-claim",
    "worker-join-leave",
    "kafka-kill",
    "postgres-lock",
    "lost:postgres-commit",
    "redis-erased"
  ]
}

/** A run bounds itself, and then says what every process said: that comes first. */
const ENDS_WITHIN_MS = 3_600_000

describe("the plan of a seed", () => {
  it("is the same every time, and has every kind before any comes again", () => {
    assert.deepStrictEqual(plan(7, 100), plan(7, 100))
    assert.notDeepEqual(plan(7, KINDS.length), plan(8, KINDS.length))
    assert.deepStrictEqual([...plan(7, KINDS.length)].sort(), [...KINDS].sort())
    for (const kind of Object.values(SHORT).flat()) assert.include(KINDS, kind)
  })
})

describe.skipIf(lacking.length > 0)(`faults on real processes${skipped}`, () => {
  for (const [engine, kinds] of Object.entries(SHORT) as ReadonlyArray<[Engine, ReadonlyArray<string>]>) {
    it(`close the account on ${engine}`, { timeout: ENDS_WITHIN_MS }, async () => {
      await withinOneDay(600_000)
      const { problems, done, missed, figures } = await run({ seed: 1, faults: kinds.length, engine, kinds, lanes: 3 })
      const again = `npm run test:crash -- --seed 1 --faults ${kinds.length} --engine ${engine} --lanes 3 --kinds ${kinds}`
      assert.deepStrictEqual(problems, [], `again: ${again}`)
      assert.isAbove(figures.published ?? 0, 1000)
      // A fault that did not come about is no failure of the platform, but most must have.
      assert.isAbove(done.size, kinds.length / 2, missed.join("; "))
    })
  }
})
