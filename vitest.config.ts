// Decides which files are tests and how long one may take before it counts as hung.
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["./test/support/servicesSetup.ts"],
    reporters: ["default", "./test/support/summary.ts"],
    // A guard against a hang, not a bound on speed: the end-to-end tests start real processes.
    // Ten times what the longest of them takes on two busy cores.
    testTimeout: 900_000,
    hookTimeout: 300_000,
    // Two cores: more files at once only makes the timing-sensitive real processes starve.
    maxWorkers: 2
  }
})
