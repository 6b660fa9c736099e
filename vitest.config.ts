// Decides which files are tests and how long one may take before it counts as hung.
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["./test/support/servicesSetup.ts"],
    reporters: ["default", "./test/support/summary.ts"],
    // A guard against a hang, not a bound on speed: ten times what any of them takes where nothing else runs. What takes
    // longer says so itself, by LONG_MS of test/support/guards.ts or by how much of its work it is told to do.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Where so much is wrong, or hangs, the rest would only keep the answer waiting.
    bail: 10,
    // Two cores: more files at once only makes the timing-sensitive real processes starve.
    maxWorkers: 2
  }
})
