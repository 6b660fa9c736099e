/** Decides the last line of a test run: how many passed, failed and were skipped. */
import type { Reporter, TestModule } from "vitest/node"

export default class Summary implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandled: ReadonlyArray<unknown>): void {
    const counts = { passed: 0, failed: 0, skipped: 0 }
    let broken = unhandled.length
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        counts[state === "passed" || state === "failed" ? state : "skipped"]++
      }
      // A file that could not be loaded has no tests to fail.
      if (module.state() === "failed" && [...module.children.allTests("failed")].length === 0) broken++
    }
    const line = `${counts.passed} passed, ${counts.failed + broken} failed, ${counts.skipped} skipped`
    // Last of all, after what the other reporters print.
    process.on("exit", () => process.stdout.write(`${line}\n`))
  }
}
