import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { LONG_MS } from "../support/guards.ts"
import { runToEnd } from "../support/processes.ts"

// Long: each is a process.
describe("the Kite gateway", { timeout: LONG_MS }, () => {
  it.live("is for this machine alone where no keys are asked for", () =>
    Effect.gen(function* () {
      const all = yield* runToEnd(["demo", "--insecure", "--kite-port", "0"], { HOST: "0.0.0.0" })
      assert.strictEqual(all.code, 1)
      assert.match(all.stderr, /HOST: the Kite gateway would be reached by others on 0\.0\.0\.0.*API_KEYS_FILE/)
      assert.strictEqual(all.stdout, "")
    })
  )

  it.live("is started with what it needs, and says in one line what is missing or wrong", () =>
    Effect.gen(function* () {
      const bare = yield* runToEnd(["gateway", "kite"])
      assert.strictEqual(bare.code, 1)
      assert.match(bare.stderr, /KAFKA_BROKERS: required by mdp gateway; mdp run --kite-port embeds/)
      const port = yield* runToEnd(["gateway", "kite", "--port", "70000"])
      assert.strictEqual(port.code, 2, port.stderr)
      assert.match(port.stderr, /Expected a port from 0 to 65535, got 70000/)
      const day = yield* runToEnd(["demo"], { KITE_REPLAY: "yesterday" })
      assert.strictEqual(day.code, 1)
      assert.match(day.stderr, /KITE_REPLAY: expected a trading day and a speed, such as 2026-01-15/i)
      const days = yield* runToEnd(["demo"], { KITE_HISTORICAL_DAYS: "minute=60" })
      assert.strictEqual(days.code, 1)
      assert.match(days.stderr, /KITE_HISTORICAL_DAYS: expected days of every interval/i)
    })
  )
})
