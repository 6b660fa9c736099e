/** A command line for the tests of `runCli`: the feeds, and commands that end in every way a command can. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { runCli, wrongUsage } from "../../src/commands/cli.ts"
import { feed } from "../../src/commands/feed.ts"
import { StartError } from "../../src/schema/Errors.ts"
import { withFields } from "../../src/streams/run/fields.ts"

const waiting = Effect.andThen(Console.log("waiting"), Effect.never)

const root = Command.make("mdp").pipe(
  Command.withSubcommands([
    feed,
    Command.make("succeed", { times: Flag.Int("times").pipe(Flag.withDefault(1)) }, ({ times }) =>
      Console.log("done ".repeat(times).trim())
    ),
    Command.make("fail", {}, () => Effect.fail(new StartError({ message: "port 80 is\nin use" }))),
    Command.make("die", {}, () => Effect.die(new Error("a broken promise"))),
    Command.make("misfit", {}, () => Effect.fail(wrongUsage("--a does not go with --b"))),
    Command.make("wait", {}, () => Effect.ensuring(waiting, Console.log("drained"))),
    Command.make("hang", {}, () => Effect.uninterruptible(waiting)),
    Command.make("log", {}, () => Effect.log("for the operator")),
    Command.make("log-foreign", {}, () => Effect.log("\u001b[2J\u009b2J")),
    Command.make("log-fields", {}, () =>
      withFields(Effect.logWarning('with "quotes"\nand lines'), { partitions: [1, 2], from: "\u009b2J\u202e" }).pipe(
        Effect.andThen(Effect.logError("it failed", new Error("a broken promise"))),
        Effect.andThen(Effect.sync(() => process.emitWarning("of Node's own"))),
        Effect.andThen(Effect.sleep("10 millis"))
      )
    ),
    Command.make("throw", {}, () =>
      Effect.andThen(
        Effect.sync(() =>
          setImmediate(() => {
            throw new Error("nobody catches it")
          })
        ),
        Effect.never
      )
    )
  ])
)

process.exit(await runCli(root, process.argv.slice(2)))
