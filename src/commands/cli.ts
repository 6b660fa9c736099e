/**
 * Decides how a command line ends: 0 done or stopped by a signal, 2 for a wrong command, flag or flag value, 1 for
 * everything else, with one line on standard error.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Fiber, Layer, Result } from "effect"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import { printableUpTo } from "../schema/printable.ts"
import { readSettings } from "../schema/Settings.ts"
import { loggers, say, sayNodes } from "./lines.ts"

const DEFAULT_DRAIN_DEADLINE_MS = 10_000
const MAX_LINE_CHARS = 2000

/** Text from outside as one line that is safe on a terminal. */
const oneLine = (text: string): string => printableUpTo(text.replace(/\s+/g, " ").trim(), MAX_LINE_CHARS)

/** A flag or argument whose value is wrong in a way that only the command can tell: exit 2. */
export const wrongValue = (kind: "flag" | "argument", option: string, value: string, expected: string) =>
  new CliError.InvalidValue({ kind, option, value, expected: `Expected ${expected}` })

/** A command line whose parts do not fit together: exit 2. */
export const wrongUsage = (message: string) => new CliError.ValidationError({ message })

/** What is wrong with the command line, in one line. */
const describeUsage = (error: CliError.CliError, name: string): string => {
  if (error._tag !== "ShowHelp") return `${name}: ${oneLine(error.message)}`
  const path = error.commandPath.join(" ")
  const first = error.errors[0]
  return first === undefined
    ? `${path}: needs a command; see ${path} --help`
    : `${path}: ${oneLine(first.message)}; see ${path} --help`
}

const messageOf = (error: unknown): string => {
  if (typeof error === "object" && error !== null) {
    const { message, _tag } = error as { readonly message?: unknown; readonly _tag?: unknown }
    if (typeof message === "string" && message !== "") return message
    if (typeof _tag === "string") return _tag
  }
  return String(error)
}

/** The exit code of a finished command, and the line that goes with it. */
export const outcomeOf = (
  exit: Exit.Exit<unknown, unknown>,
  name: string
): { readonly code: 0 | 1 | 2; readonly line: string | undefined } => {
  if (Exit.isSuccess(exit)) return { code: 0, line: undefined }
  const { cause } = exit
  if (Cause.hasInterruptsOnly(cause)) return { code: 0, line: undefined }
  const failure = Cause.findErrorOption(cause)
  if (failure._tag === "Some") {
    const error = failure.value
    // A failing handler may fail with a plain user error, which says nothing of the command line.
    if (CliError.isCliError(error) && error._tag !== "UserError") {
      return { code: 2, line: describeUsage(error, name) }
    }
    return { code: 1, line: `${name}: ${oneLine(messageOf(error))}` }
  }
  return { code: 1, line: `${name}: ${oneLine(messageOf(Cause.squash(cause)))}` }
}

/** `--help` and `--version` speak on standard output; what is wrong is said by `runCli`, and nowhere else. */
const output = () =>
  Layer.mergeAll(
    CliOutput.layerPresenter({
      present: (event) =>
        event._tag === "Version" || (event._tag === "Help" && event.reason === "Requested")
          ? CliOutput.defaultPresenter.present(event)
          : Effect.void
    }),
    CliConfig.layer({
      builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel]
    }),
    loggers()
  )

const drainDeadline = (): number => {
  const settings = readSettings(process.env)
  return Result.isSuccess(settings) ? settings.success.DRAIN_DEADLINE_MS : DEFAULT_DRAIN_DEADLINE_MS
}

/** A command line as an effect: what is asked for is said on standard output, what is wrong is only its failure. */
export const program = <Name extends string, Input, E, R extends Command.Environment, ContextInput>(
  root: Command.Command<Name, Input, ContextInput, E, R>,
  argv: ReadonlyArray<string>,
  version: string
): Effect.Effect<void, unknown> =>
  (
    Command.runWith(root, { version, renderErrors: false })(argv) as Effect.Effect<void, unknown, Command.Environment>
  ).pipe(Effect.provide(output()), Effect.provide(NodeServices.layer)) as Effect.Effect<void, unknown>

/**
 * Runs a command line (`argv` without node and script) and answers the process's exit code. SIGINT and SIGTERM
 * interrupt the command, which may then drain for DRAIN_DEADLINE_MS; after that the process ends with 1.
 */
export const runCli = async <Name extends string, Input, E, R extends Command.Environment, ContextInput>(
  root: Command.Command<Name, Input, ContextInput, E, R>,
  argv: ReadonlyArray<string>,
  version = "0.1.0"
): Promise<number> => {
  sayNodes()
  let isStopping = false
  const stop = () => {
    if (isStopping) return
    isStopping = true
    const deadlineMs = drainDeadline()
    setTimeout(() => {
      say("error", `${root.name}: not drained within ${deadlineMs} ms (DRAIN_DEADLINE_MS)`)
      process.exit(1)
    }, deadlineMs).unref()
    fiber.interruptUnsafe()
  }
  // Before the first step of the command: a signal that comes at once is not Node's to answer.
  process.on("SIGINT", stop).on("SIGTERM", stop).on("SIGHUP", stop)
  // A reader of our output that leaves is no reason to break off: what is under way is drained as at any stop.
  for (const output of [process.stdout, process.stderr]) output.on("error", () => undefined)
  const fiber = Effect.runFork(program(root, argv, version))
  // Fibers that wait hold nothing that keeps Node alive.
  const alive = setInterval(() => undefined, 2_147_483_647)
  const exit = await Effect.runPromise(Fiber.await(fiber))
  clearInterval(alive)
  process.off("SIGINT", stop).off("SIGTERM", stop).off("SIGHUP", stop)
  const { code, line } = outcomeOf(exit, root.name)
  if (line !== undefined) say("error", line)
  if (code === 1 && Exit.isFailure(exit) && process.env.MDP_DEBUG) say("error", Cause.pretty(exit.cause))
  return code
}
