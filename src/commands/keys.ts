/** Decides `mdp keys`: who is let in, by a file of keys that running servers watch. A key is shown once, where it is made. */
import { userInfo } from "node:os"
import { Effect, Option, Result } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { auditLine } from "../layers/keys/auditLine.ts"
import { changeKeys, readKeys } from "../layers/keys/KeysFile.ts"
import { newKey } from "../layers/keys/secret.ts"
import {
  endOf,
  isKeyInstrument,
  isKeyName,
  KEY_INSTRUMENT_WANTED,
  KEY_NAME_WANTED,
  MAX_KEY_INSTRUMENTS,
  MAX_KEYS,
  millisOf,
  SCOPES,
  type Scope,
  type StoredKey
} from "../schema/ApiKey.ts"
import { StartError } from "../schema/Errors.ts"
import { IST_OFFSET_MICROS } from "../schema/Tick.ts"
import { dayOfDate, isTime, parseIso } from "../schema/Time.ts"
import { wrongValue } from "./cli.ts"
import { parseDuration } from "./durations.ts"
import { say, tell } from "./lines.ts"
import { required, settings } from "./services.ts"

const MS_PER_DAY = 86_400_000

const file = Effect.flatMap(settings, (given) =>
  required(given, "API_KEYS_FILE", "by mdp keys: the file that it writes, and that servers are given")
)

const isoOf = (ms: number): string => new Date(ms).toISOString()

/** Who is at the terminal, as far as the system says. */
const user = (): string => {
  try {
    return userInfo().username
  } catch {
    return String(process.getuid?.() ?? "unknown")
  }
}

/** A line in the manner of what servers say of changes. */
const audit = (action: string, fields: Readonly<Record<string, string | number>>) =>
  auditLine({ user: user(), action, ...fields })

const nameArgument = Argument.String("NAME")

const checkName = (name: string) =>
  isKeyName(name) ? Effect.void : Effect.fail(wrongValue("argument", "NAME", name, KEY_NAME_WANTED))

/** The parts of a list, without blanks around them. */
const partsOf = (text: string): ReadonlyArray<string> => [...new Set(text.split(",").map((part) => part.trim()))]

const isScope = (text: string): text is Scope => (SCOPES as ReadonlyArray<string>).includes(text)

const scopesOf = (text: string): ReadonlyArray<Scope> => {
  const parts = partsOf(text)
  if (!parts.every(isScope)) throw new Error()
  return SCOPES.filter((scope) => parts.includes(scope))
}

const instrumentsOf = (text: string): ReadonlyArray<string> => {
  const parts = partsOf(text)
  if (parts.length > MAX_KEY_INSTRUMENTS) throw new Error(`at most ${MAX_KEY_INSTRUMENTS} of them`)
  const wrong = parts.find((part) => !isKeyInstrument(part))
  if (wrong !== undefined) throw new Error(`${KEY_INSTRUMENT_WANTED}, comma-separated, got ${JSON.stringify(wrong)}`)
  return parts
}

/** When a key ends, epoch milliseconds: after a duration, at a time, or after a day in India. */
const endsAt = (text: string, now: number): number | undefined => {
  const duration = parseDuration(text)
  const day = dayOfDate(text)
  const micros =
    duration !== undefined
      ? Math.round(now + duration) * 1000
      : day !== undefined
        ? (day + 1) * MS_PER_DAY * 1000 - IST_OFFSET_MICROS
        : parseIso(text)
  return micros !== undefined && isTime(micros) && micros > now * 1000 ? Math.floor(micros / 1000) : undefined
}

const EXPIRES_WANTED =
  "a duration such as 30d, the last day (IST) such as 2026-12-31, or a time with its offset, in the future"

interface Added {
  readonly stored: StoredKey
  readonly text: string
}

/** Room for one more: where there is none, the one that was over first goes. */
const withRoom = (keys: ReadonlyArray<StoredKey>, now: number): ReadonlyArray<StoredKey> | undefined => {
  if (keys.length < MAX_KEYS) return keys
  const overSince = ({ expires, revoked }: StoredKey) =>
    Math.min(
      revoked === undefined ? Number.POSITIVE_INFINITY : millisOf(revoked),
      expires === undefined ? Number.POSITIVE_INFINITY : millisOf(expires)
    )
  const over = keys.filter((key) => endOf(key, now) !== undefined)
  const [first] = over.sort((a, b) => overSince(a) - overSince(b))
  return first === undefined ? undefined : keys.filter((key) => key !== first)
}

const add = Command.make(
  "add",
  {
    name: nameArgument.pipe(Argument.withDescription("who will have the key; no other key that holds has the name")),
    scopes: Flag.String("scopes").pipe(
      Flag.withMetavar("read,write,replay"),
      Flag.withDescription("what it may do: read, write (ticks, instruments, dead letters), replay (default read)"),
      Flag.mapTryCatch(scopesOf, () => `Expected some of ${SCOPES.join(", ")}, comma-separated`),
      Flag.withDefault(["read"] as ReadonlyArray<Scope>)
    ),
    instruments: Flag.String("instruments").pipe(
      Flag.withMetavar("738561,NSE:INFY,NFO:*"),
      Flag.withDescription("the instruments it is for: tokens, EXCHANGE:SYMBOL, EXCHANGE:* (default: all)"),
      Flag.mapTryCatch(instrumentsOf, (error) => `Expected ${(error as Error).message}`),
      Flag.optional
    ),
    expires: Flag.String("expires").pipe(
      Flag.withMetavar("30d|2026-12-31"),
      Flag.withDescription(
        "until when it holds: a duration, a last day (IST) or a time (default: until it is revoked)"
      ),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ name, scopes, instruments, expires }) {
    yield* checkName(name)
    const end = Option.isSome(expires) ? endsAt(expires.value, Date.now()) : undefined
    if (Option.isSome(expires) && end === undefined) {
      return yield* wrongValue("flag", "expires", expires.value, EXPIRES_WANTED)
    }
    const path = yield* file
    const { stored, text } = yield* changeKeys<Added>(path, (keys, now) => {
      const namesake = keys.find((key) => key.name === name && endOf(key, now) === undefined)
      if (namesake !== undefined) {
        return Result.fail(`a key that holds is called ${name} already: another name, or mdp keys revoke ${name}`)
      }
      const room = withRoom(keys, now)
      if (room === undefined) return Result.fail(`${path} holds ${MAX_KEYS} keys already: revoke some`)
      const made = newKey(new Set(keys.map(({ id }) => id)))
      const stored: StoredKey = {
        name,
        id: made.id,
        hash: made.hash,
        scopes,
        ...(Option.isSome(instruments) ? { instruments: instruments.value } : {}),
        created: isoOf(now),
        ...(end === undefined ? {} : { expires: isoOf(end) })
      }
      return Result.succeed({ keys: [...room, stored], value: { stored, text: made.text } })
    })
    yield* audit("key_add", {
      key: name,
      id: stored.id,
      scopes: scopes.join(","),
      instruments: stored.instruments?.length ?? "all",
      expires: stored.expires ?? "never",
      file: path
    })
    process.stdout.write(`${text}\n`)
  })
).pipe(Command.withDescription("Make a key: it is printed once, alone on standard output, and kept nowhere"))

const revoke = Command.make(
  "revoke",
  { name: nameArgument.pipe(Argument.withDescription("whose key is to hold no more")) },
  Effect.fnUntraced(function* ({ name }) {
    yield* checkName(name)
    const path = yield* file
    const id = yield* changeKeys<string>(path, (keys, now) => {
      const key = keys.find((one) => one.name === name && endOf(one, now) === undefined)
      if (key !== undefined) {
        const revoked = { ...key, revoked: isoOf(now) }
        return Result.succeed({ keys: keys.map((one) => (one === key ? revoked : one)), value: key.id })
      }
      const over = keys.findLast((one) => one.name === name)
      if (over === undefined) return Result.fail(`no key is called ${name} (mdp keys list)`)
      const [what, when] = over.revoked === undefined ? ["expired", over.expires] : ["was revoked", over.revoked]
      return Result.fail(`key ${name} ${what} ${when} already`)
    })
    yield* audit("key_revoke", { key: name, id, file: path })
    tell(`${name} revoked: servers close what it has connected within two seconds`)
  })
).pipe(Command.withDescription("End a key at once, on every server that is given the file"))

/** What is shown of a key: all but its hash. */
const shownOf = (key: StoredKey, now: number) => {
  const { name, id, scopes, instruments, created, expires, revoked } = key
  return {
    name,
    id,
    state: endOf(key, now) ?? "live",
    scopes,
    instruments: instruments ?? null,
    created,
    expires: expires ?? null,
    revoked: revoked ?? null
  }
}

/** Instruments named in a row of the table. */
const MAX_SHOWN_INSTRUMENTS = 4

const instrumentsShown = (instruments: ReadonlyArray<string> | null): string => {
  if (instruments === null) return "all"
  const shown = instruments.slice(0, MAX_SHOWN_INSTRUMENTS).join(",")
  return instruments.length > MAX_SHOWN_INSTRUMENTS
    ? `${shown} and ${instruments.length - MAX_SHOWN_INSTRUMENTS} more`
    : shown
}

const minute = (iso: string | null): string => (iso === null ? "never" : `${isoOf(millisOf(iso)).slice(0, 16)}Z`)

/** Columns as wide as their widest cell. */
const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join("  ")
          .trimEnd()}\n`
    )
    .join("")
}

const list = Command.make(
  "list",
  {
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("as JSON, one list of objects"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ json }) {
    const path = yield* file
    const { keys, warning } = yield* Effect.mapError(readKeys(path), ({ message }) => new StartError({ message }))
    if (warning !== undefined) say("warn", warning)
    const now = Date.now()
    const shown = keys.map((key) => shownOf(key, now))
    if (json) {
      process.stdout.write(`${JSON.stringify(shown, undefined, 2)}\n`)
      return
    }
    const rows = shown.map(({ name, id, state, scopes, instruments, created, expires }) => [
      name,
      id,
      state,
      scopes.join(","),
      instrumentsShown(instruments),
      minute(created),
      minute(expires)
    ])
    process.stdout.write(table([["NAME", "ID", "STATE", "SCOPES", "INSTRUMENTS", "CREATED", "EXPIRES"], ...rows]))
  })
).pipe(Command.withDescription("Every key, those that are over too: never the key itself, nor its hash"))

/** `mdp keys`. */
export const keys = Command.make("keys").pipe(
  Command.withDescription("The API keys of API_KEYS_FILE"),
  Command.withSubcommands([add, list, revoke])
)
