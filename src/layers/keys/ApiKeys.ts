/**
 * Decides which keys hold at any moment: those of the file, looked at every second and whenever the system says that it
 * changed. Those that it no longer has, or whose time is over, end at once, and whoever speaks by one is told. A file that
 * cannot be used leaves the keys as they were.
 */
import { watch } from "node:fs"
import { dirname, resolve } from "node:path"
import { Context, Effect, Fiber, Layer, Option, Queue, type Scope } from "effect"
import { endOf, InstrumentList, type Scope as KeyScope, millisOf, type StoredKey } from "../../schema/ApiKey.ts"
import { StartError } from "../../schema/Errors.ts"
import type { Instrument } from "../../schema/Instrument.ts"
import { keyIdOf } from "../../schema/keyText.ts"
import * as metrics from "../../streams/metrics.ts"
import { Readiness } from "../../streams/run/Readiness.ts"
import { auditLine } from "./auditLine.ts"
import { type KeysRead, keysSignature, readKeys } from "./KeysFile.ts"
import { isKeyOf } from "./secret.ts"

/** How often the file is looked at, whatever the system says of it. */
const LOOK_MS = 1_000
/** Not more often than this, however often the system says so: others may write in the same folder. */
const PAUSE_MS = 50
/** A file system that has not answered for so long is said not to. */
const SILENT_MS = 5_000
/** How often it is looked at whose time is over. A timer to the very moment could not reach further than 24 days. */
const EXPIRY_MS = 250
/** Keys named in one line of the log. */
const MAX_TOLD = 10

/** Why a key is over. `changed`: the file has it with other scopes, instruments or times. */
export type KeyEnd = "revoked" | "expired" | "changed"
/** Why what was shown is no key that holds. */
export type NoKey = "malformed" | "unknown" | "revoked" | "expired"

/** A key as the process has it, one object for as long as its entry in the file stays as it is. */
export class LiveKey {
  readonly name: string
  readonly id: string
  readonly scopes: ReadonlySet<KeyScope>
  /** Epoch microseconds. */
  readonly expires: number | undefined
  /** Why it is over, once it is. */
  over: KeyEnd | undefined
  readonly hash: Buffer
  readonly entry: string
  /** The instruments that it is for; `undefined`: all. */
  readonly list: InstrumentList | undefined

  constructor(stored: StoredKey, entry: string) {
    this.name = stored.name
    this.id = stored.id
    this.scopes = new Set(stored.scopes)
    this.expires = stored.expires === undefined ? undefined : millisOf(stored.expires) * 1000
    this.over = stored.revoked === undefined ? undefined : "revoked"
    this.hash = Buffer.from(stored.hash, "hex")
    this.entry = entry
    this.list = stored.instruments === undefined ? undefined : new InstrumentList(stored.instruments)
  }

  /** Whether it is for some instruments only. */
  get isRestricted(): boolean {
    return this.list !== undefined
  }

  /** Whether it is for an instrument; `instrument` is the one that has the token, where any has. */
  sees(token: number, instrument: Instrument | undefined): boolean {
    return this.list === undefined || this.list.has(token, instrument)
  }

  /** Whether it is for whatever a symbol may mean: then it may be told that it means nothing. */
  seesAllOf(symbol: string): boolean {
    return this.list === undefined || this.list.hasAllOf(symbol)
  }
}

/** The keys of the moment. */
export class KeyRing {
  private keys = new Map<string, LiveKey>()
  private readonly listeners = new Set<(ended: ReadonlySet<LiveKey>) => void>()

  /** Keys that hold. */
  get live(): ReadonlyArray<LiveKey> {
    return [...this.keys.values()].filter(({ over }) => over === undefined)
  }

  /** Takes what the file has as of `now`, epoch milliseconds; answers what is new and what ended. */
  take(
    stored: ReadonlyArray<StoredKey>,
    now: number
  ): { readonly added: ReadonlyArray<LiveKey>; readonly ended: ReadonlyArray<LiveKey> } {
    const before = this.keys
    const added: Array<LiveKey> = []
    const ended = new Set<LiveKey>()
    this.keys = new Map()
    for (const one of stored) {
      const entry = JSON.stringify(one)
      const known = before.get(one.id)
      const key = known?.entry === entry ? known : new LiveKey(one, entry)
      this.keys.set(one.id, key)
      const held = key.over === undefined
      key.over ??= endOf(one, now)
      if (key !== known && key.over === undefined) added.push(key)
      else if (key === known && held && key.over !== undefined) ended.add(key)
    }
    for (const key of before.values()) {
      const next = this.keys.get(key.id)
      if (next === key || key.over !== undefined) continue
      // An entry that is gone is one that was taken away.
      key.over = next === undefined ? "revoked" : (next.over ?? "changed")
      ended.add(key)
    }
    this.tell(ended)
    return { added, ended: [...ended] }
  }

  /** Ends those whose time is over, epoch milliseconds. */
  expire(now: number): ReadonlyArray<LiveKey> {
    const ended = new Set<LiveKey>()
    for (const key of this.keys.values()) {
      if (key.over !== undefined || key.expires === undefined || key.expires > now * 1000) continue
      key.over = "expired"
      ended.add(key)
    }
    this.tell(ended)
    return [...ended]
  }

  /** The key that a text is, or why it is none that holds. What a key was is told only to who has it. */
  find(text: string, now: number): LiveKey | NoKey {
    const id = keyIdOf(text)
    if (id === undefined) return "malformed"
    const key = this.keys.get(id)
    if (!isKeyOf(text, key?.hash)) return "unknown"
    if (key!.over === undefined && key!.expires !== undefined && key!.expires <= now * 1000) return "expired"
    // One that is changed is not in the ring any more: in its place is what it changed to.
    return key!.over === undefined ? key! : (key!.over as "revoked" | "expired")
  }

  /** The name of the key that a text is, also of one that holds no more. */
  nameOf(text: string): string | undefined {
    const id = keyIdOf(text)
    const key = id === undefined ? undefined : this.keys.get(id)
    return isKeyOf(text, key?.hash) ? key!.name : undefined
  }

  /** Calls `listener` with keys whenever some end; what it answers stops that. */
  onEnded(listener: (ended: ReadonlySet<LiveKey>) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  private tell(ended: ReadonlySet<LiveKey>): void {
    if (ended.size > 0) for (const listener of this.listeners) listener(ended)
  }
}

/** The keys that this process lets in by. */
export class ApiKeys extends Context.Service<ApiKeys, KeyRing>()("market-data-platform/layers/ApiKeys") {}

/** The names of keys as a field of a line; nothing where there are none. */
const namesOf = (field: string, keys: ReadonlyArray<LiveKey>): Readonly<Record<string, string>> => {
  if (keys.length === 0) return {}
  const names = keys
    .slice(0, MAX_TOLD)
    .map(({ name }) => name)
    .join(",")
  return { [field]: keys.length > MAX_TOLD ? `${names},…` : names }
}

/** Says each time that the system has seen something change in the folder; that it does is not to be relied on. */
const watchFolder = (path: string, poke: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      try {
        const watcher = watch(dirname(resolve(path)), { persistent: false }, poke)
        watcher.on("error", () => watcher.close())
        return watcher
      } catch {
        // As many watches as the system allows: the looks of every second do.
        return undefined
      }
    }),
    (watcher) => Effect.sync(() => watcher?.close())
  ).pipe(Effect.asVoid)

/** The file's keys; a file that cannot be used at start fails with its line. */
export const layer = (path: string): Layer.Layer<ApiKeys, StartError, Readiness> =>
  Layer.effect(
    ApiKeys,
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const context = yield* Effect.context<never>()
      const run = Effect.runForkWith(context)
      const live = metrics.bind(metrics.apiKeys, {}, context)
      const degraded = metrics.bind(metrics.apiKeysDegraded, {}, context)
      const ring = new KeyRing()
      let signature = ""
      let warning: string | undefined
      let problem: string | undefined

      const take = (read: KeysRead) =>
        Effect.gen(function* () {
          signature = read.signature
          const taken = ring.take(read.keys, Date.now())
          live.add(ring.live.length)
          if (read.warning !== undefined && read.warning !== warning) yield* Effect.logWarning(read.warning)
          warning = read.warning
          return taken
        })
      const fail = (message: string) =>
        Effect.gen(function* () {
          degraded.add(1)
          yield* readiness.degrade("keys", true)
          if (message === problem) return
          problem = message
          yield* Effect.logError(`${message}; the keys that were read before it still hold`)
        })
      const mend = Effect.suspend(() => {
        if (problem === undefined) return Effect.void
        problem = undefined
        degraded.add(0)
        return Effect.andThen(readiness.degrade("keys", false), Effect.logInfo(`API_KEYS_FILE: ${path} is read again`))
      })

      const look = Effect.gen(function* () {
        if ((yield* Effect.promise(() => keysSignature(path))) === signature) return yield* mend
        const read = yield* Effect.result(readKeys(path))
        if (read._tag === "Failure") return yield* fail(read.failure.message)
        yield* mend
        const { added, ended } = yield* take(read.success)
        if (added.length + ended.length === 0) return
        yield* auditLine({ action: "keys_read", ...namesOf("added", added), ...namesOf("ended", ended) })
      })

      yield* readKeys(path).pipe(
        Effect.mapError(({ message }) => new StartError({ message })),
        Effect.flatMap(take)
      )
      degraded.add(0)

      const pokes = yield* Queue.sliding<void>(1)
      yield* watchFolder(path, () => Queue.offerUnsafe(pokes, undefined))
      yield* Effect.gen(function* () {
        yield* Effect.timeoutOption(Queue.take(pokes), LOOK_MS)
        const looking = yield* Effect.forkChild(look)
        const answered = yield* Effect.timeoutOption(Fiber.await(looking), SILENT_MS)
        if (Option.isNone(answered)) {
          yield* fail(`API_KEYS_FILE: ${path}: its file system has not answered for ${SILENT_MS / 1000} s`)
          // Not asked again before: each question would take another of the process's threads.
          yield* Fiber.await(looking)
        }
        yield* Effect.sleep(PAUSE_MS)
      }).pipe(Effect.forever, Effect.forkScoped)

      yield* Effect.acquireRelease(
        Effect.sync(() =>
          setInterval(() => {
            const ended = ring.expire(Date.now())
            if (ended.length === 0) return
            live.add(ring.live.length)
            run(auditLine({ action: "keys_expired", ...namesOf("ended", ended) }))
          }, EXPIRY_MS).unref()
        ),
        (timer) => Effect.sync(() => clearInterval(timer))
      )
      return ring
    })
  )
