/**
 * Decides that no server outlives whoever started it, not even a `kill -9`: reads `+pid` and `-pid` lines from its owner,
 * and when the owner is gone (its end of the pipe closes) kills the servers that are still noted.
 */
import { createInterface } from "node:readline"

const pids = new Set<number>()
// A terminal's ^C goes to everyone in it: the owner decides how its servers stop.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {})

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const pid = Number(line.slice(1))
    if (line.startsWith("+")) pids.add(pid)
    else pids.delete(pid)
  })
  .on("close", () => {
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL")
      } catch {
        // It has ended by itself.
      }
    }
    process.exit(0)
  })
