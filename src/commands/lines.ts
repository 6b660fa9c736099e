/**
 * Decides how the lines of a process look, by LOG_FORMAT: as text for a person, or each as one object of JSON, with its
 * time, level, message and fields, for whatever gathers them. Nothing else writes to standard error.
 */
import { Cause, Logger } from "effect"
import { printable } from "../schema/printable.ts"
import { type Fields, LineFields } from "../streams/run/fields.ts"

type Level = "debug" | "info" | "warn" | "error"

/** A setting is read with the others; this must be known before, as a wrong one is told of in a line. */
export const isJson = (): boolean => process.env.LOG_FORMAT?.trim() === "json"

/** One object of JSON in one line. What came from outside can end it no sooner, nor do anything to a terminal. */
export const jsonLine = (time: Date, level: Level, message: string, fields: Fields = {}): string =>
  // The escapes are those of JSON.
  printable(JSON.stringify({ time: time.toISOString(), level, message, ...fields }))

const lineOf = (level: Level, message: string, fields?: Fields): string =>
  `${isJson() ? jsonLine(new Date(), level, message, fields) : message}\n`

/** A line on standard error that is no entry of the log: in text it is `message` and nothing else. */
export const say = (level: Level, message: string, fields?: Fields): void => {
  process.stderr.write(lineOf(level, message, fields))
}

/** Whether somebody looks on, to whom a line may change. */
export const isWatched = (): boolean => process.stderr.isTTY === true && !isJson()

/** A line that the next one overwrites, where somebody looks on. */
export const overwrite = (text: string): void => {
  if (isWatched()) process.stderr.write(`\r\u001b[K${text}`)
}

/** What a process that goes on says of itself on standard output, such as where it listens. */
export const tell = (message: string, fields?: Fields): void => {
  process.stdout.write(lineOf("info", message, fields))
}

/** Node's own words: where lines are JSON, they are too. */
export const sayNodes = (): void => {
  if (!isJson()) return
  process.removeAllListeners("warning").on("warning", ({ name, message }) => say("warn", `${name}: ${message}`))
  process.on("uncaughtException", (error) => {
    say("error", String(error), { cause: error instanceof Error ? (error.stack ?? "") : "" })
    process.exit(1)
  })
}

const LEVELS: Readonly<Record<string, Level>> = {
  Fatal: "error",
  Error: "error",
  Warn: "warn",
  Info: "info"
}

/** The text of messages that are mostly one. */
const textOf = (message: unknown): string =>
  (Array.isArray(message) ? message : [message])
    .map((part) => (typeof part === "string" ? part : part instanceof Error ? part.message : JSON.stringify(part)))
    .join(" ")

const causeOf = (message: unknown, cause: Cause.Cause<unknown>): Fields => {
  const thrown = (Array.isArray(message) ? message : [message]).find((part) => part instanceof Error)
  if (cause.reasons.length > 0) return { cause: Cause.pretty(cause) }
  return thrown instanceof Error ? { cause: thrown.stack ?? thrown.message } : {}
}

const json = Logger.make<unknown, string>(({ message, logLevel, date, cause, fiber }) =>
  jsonLine(date, LEVELS[logLevel] ?? "debug", textOf(message), {
    ...fiber.getRef(LineFields),
    ...causeOf(message, cause)
  })
)

/** Standard output is for answers. What is logged may hold what came from outside: logfmt quotes only some of it. */
export const loggers = () =>
  Logger.layer([Logger.withConsoleError(isJson() ? json : Logger.map(Logger.formatLogFmt, printable))])
