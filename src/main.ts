#!/usr/bin/env node
/** Decides what `mdp` is: its commands, and nothing else. */
import { Command } from "effect/cli"
import { runCli } from "./commands/cli.ts"
import { demo } from "./commands/demo.ts"
import { dlq } from "./commands/dlq.ts"
import { feed } from "./commands/feed.ts"
import { gateway } from "./commands/gateway.ts"
import { instruments } from "./commands/instruments.ts"
import { keys } from "./commands/keys.ts"
import { migrate } from "./commands/migrate.ts"
import { replay } from "./commands/replay.ts"
import { run } from "./commands/run.ts"
import { server } from "./commands/server.ts"
import { topology } from "./commands/topology.ts"
import { worker } from "./commands/worker.ts"

const mdp = Command.make("mdp").pipe(
  Command.withDescription("Market data platform"),
  Command.withSubcommands([demo, run, worker, server, gateway, feed, replay, instruments, dlq, keys, migrate, topology])
)

const code = await runCli(mdp, process.argv.slice(2))
// What was said to a slow reader goes out first.
await new Promise((resolve) => process.stdout.write("", resolve))
process.exit(code)
