// Decides which files are tests and how long one may take before it counts as hung.
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["./test/support/servicesSetup.ts"],
    reporters: ["default", "./test/support/summary.ts"],
    // A guard against a hang, not a bound on speed: the end-to-end tests start real processes.
    // Three times what the longest of them took on two busy cores; what takes longer says so itself.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // Where so much is wrong, or hangs, the rest would only keep the answer waiting.
    bail: 10,
    // Two cores: more files at once only makes the timing-sensitive real processes starve.
    maxWorkers: 2
  }
})
