// Decides which files are tests and how long one may take before it counts as hung.
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["./test/support/servicesSetup.ts"],
    reporters: ["default", "./test/support/summary.ts"],
    // A guard against a hang, not a bound on speed: the end-to-end tests start real processes.
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // Two cores: more files at once only makes the timing-sensitive real processes starve.
    maxWorkers: 2
  }
})
