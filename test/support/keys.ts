/** Decides how tests come by keys: a file in a folder of its own, written as `mdp keys` does, and who is let in by it. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer, type Scope } from "effect"
import * as Access from "../../src/http/access.ts"
import * as ApiKeys from "../../src/layers/keys/ApiKeys.ts"
import { newKey } from "../../src/layers/keys/secret.ts"
import type { Scope as KeyScope, StoredKey } from "../../src/schema/ApiKey.ts"
import { SCOPES, writeKeysFile } from "../../src/schema/ApiKey.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"

export interface MadeKey {
  /** The key itself. */
  readonly text: string
  readonly stored: StoredKey
}

export interface Wanted {
  readonly scopes?: ReadonlyArray<KeyScope>
  readonly instruments?: ReadonlyArray<string>
  readonly expires?: string
  readonly revoked?: string
}

export const CREATED = "2026-01-15T03:45:00Z"

/** A key that may do everything unless told otherwise. */
export const makeKey = (name: string, { scopes = SCOPES, ...more }: Wanted = {}): MadeKey => {
  const { hash, id, text } = newKey(new Set())
  return { text, stored: { name, id, hash, scopes, created: CREATED, ...more } }
}

export interface KeysFolder {
  readonly path: string
  readonly write: (keys: ReadonlyArray<MadeKey>) => void
  /** Any text, broken too. */
  readonly writeText: (text: string, mode?: number) => void
}

/** A file of keys for as long as the scope. */
export const keysFile = (keys: ReadonlyArray<MadeKey> = []): Effect.Effect<KeysFolder, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const folder = mkdtempSync(join(tmpdir(), "mdp-keys-"))
      const path = join(folder, "keys.json")
      const writeText = (text: string, mode = 0o600) => {
        writeFileSync(path, text)
        chmodSync(path, mode)
      }
      const write = (made: ReadonlyArray<MadeKey>) => writeText(writeKeysFile(made.map(({ stored }) => stored)))
      write(keys)
      return { folder, path, write, writeText }
    }),
    ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

export const ACCESS_SETTINGS: Access.AccessSettings = { REQUESTS_PER_KEY: 100_000, CONNECTIONS_PER_KEY: 1000 }

/** Only the keys of a file are let in. */
export const accessBy = (path: string, settings: Partial<Access.AccessSettings> = {}) =>
  Access.layer({ ...ACCESS_SETTINGS, ...settings }).pipe(
    Layer.provide(ApiKeys.layer(path)),
    Layer.provide(Readiness.layer)
  )

/** The access itself, for `/ws` alone. */
export const keyAccess = (path: string, settings: Partial<Access.AccessSettings> = {}) =>
  Effect.map(Layer.build(accessBy(path, settings)), (context) => Context.get(context, Access.Access).keys!)

export const bearer = ({ text }: MadeKey) => ({ authorization: `Bearer ${text}` })
