/**
 * Decides how the file of keys is read and written: read whole and within bounds, refused where others may write to it,
 * written beside itself and renamed, one writer at a time, so that a reader never sees half and two writers lose nothing.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { open, stat } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { Effect, Result, Schedule, Schema } from "effect"
import { MAX_KEYS_FILE_BYTES, readKeysFile, type StoredKey, writeKeysFile } from "../../schema/ApiKey.ts"
import { StartError } from "../../schema/Errors.ts"

/** How long another writer is waited for: it needs milliseconds. */
const LOCK_WAIT_MS = 5_000
const LOCK_LOOK_MS = 25
/** Who made it, and nobody else. */
const OWN = 0o600
const WRITABLE = 0o022
const READABLE = 0o044
const hasModes = process.platform !== "win32"

/** The file cannot be used; the message is the line that an operator reads. */
export class KeysFileError extends Schema.TaggedError<KeysFileError>()("KeysFileError", { message: Schema.String }) {}

export interface KeysRead {
  readonly keys: ReadonlyArray<StoredKey>
  /** Changes whenever the file does. */
  readonly signature: string
  /** What is not right with the file, though it is used. */
  readonly warning: string | undefined
}

interface FileState {
  readonly dev: bigint
  readonly ino: bigint
  readonly size: bigint
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
}

const signatureOf = ({ dev, ino, size, mtimeNs, ctimeNs }: FileState): string =>
  [dev, ino, size, mtimeNs, ctimeNs].join(" ")

/** What the file's signature is now, without reading it. */
export const keysSignature = (path: string): Promise<string> =>
  stat(path, { bigint: true }).then(signatureOf, (error: NodeJS.ErrnoException) => `no ${error.code}`)

const told = (path: string, error: unknown): string => {
  if (error instanceof KeysFileError) return error.message
  const { code, message } = error as NodeJS.ErrnoException
  return code === "ENOENT"
    ? `API_KEYS_FILE: ${path} is not there; mdp keys add makes it`
    : `API_KEYS_FILE: ${path}: ${code ?? message}`
}

const octal = (mode: number): string => (mode & 0o777).toString(8).padStart(4, "0")

/** Why a file of that mode cannot be trusted. sshd treats the keys that it lets in by alike. */
const refusalOf = (path: string, mode: number): string | undefined =>
  hasModes && (mode & WRITABLE) !== 0
    ? `API_KEYS_FILE: ${path} may be written by others (mode ${octal(mode)}), who could let themselves in: chmod go-w`
    : undefined

/** Hashes of random keys open nothing; names, scopes and lists of instruments are nobody's business all the same. */
const warningOf = (path: string, mode: number): string | undefined =>
  hasModes && (mode & READABLE) !== 0
    ? `API_KEYS_FILE: ${path} may be read by others (mode ${octal(mode)}): it says who may do what; chmod 600 is enough`
    : undefined

const parsed = (path: string, bytes: Buffer, now: number): ReadonlyArray<StoredKey> => {
  if (bytes.length > MAX_KEYS_FILE_BYTES) {
    throw new KeysFileError({
      message: `API_KEYS_FILE: ${path}: expected at most ${MAX_KEYS_FILE_BYTES} bytes, got more`
    })
  }
  const read = readKeysFile(bytes.toString("utf8"), now)
  if (Result.isSuccess(read)) return read.success
  throw new KeysFileError({ message: `API_KEYS_FILE: ${path}: ${read.failure}` })
}

/** A file, and no pipe or device that would be waited for. */
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)

const readNow = async (path: string): Promise<KeysRead> => {
  const handle = await open(path, FLAGS)
  try {
    // Before it is read: what changes meanwhile changes the signature of the next look.
    const state = await handle.stat({ bigint: true })
    if (!state.isFile()) throw new KeysFileError({ message: `API_KEYS_FILE: ${path} is no file` })
    const mode = Number(state.mode)
    const refused = refusalOf(path, mode)
    if (refused !== undefined) throw new KeysFileError({ message: refused })
    // One byte more than is expected: a file that grows meanwhile is read again, as it has another signature then.
    const bytes = Buffer.alloc(Math.min(Number(state.size), MAX_KEYS_FILE_BYTES) + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await handle.read(bytes, length, bytes.length - length)
      if (bytesRead === 0) break
      length += bytesRead
    }
    const keys = parsed(path, bytes.subarray(0, length), Date.now())
    return { keys, signature: signatureOf(state), warning: warningOf(path, mode) }
  } finally {
    await handle.close()
  }
}

/** The keys in the file, whose links are followed. */
export const readKeys = (path: string): Effect.Effect<KeysRead, KeysFileError> =>
  Effect.tryPromise({
    try: () => readNow(path),
    catch: (error) => new KeysFileError({ message: told(path, error) })
  })

/** Another writer has the file. */
class Locked extends Schema.TaggedError<Locked>()("Locked", { lock: Schema.String }) {}

/** What a change made of the keys, and what is to be told of it; or why there is none. */
export type KeysChange<A> = (
  keys: ReadonlyArray<StoredKey>,
  now: number
) => Result.Result<{ readonly keys: ReadonlyArray<StoredKey>; readonly value: A }, string>

/** The file itself where `path` is a link: a link is not to be replaced by a file. */
const fileOf = (path: string): string => {
  if (existsSync(path)) return realpathSync(path)
  const folder = dirname(resolve(path))
  if (existsSync(folder)) return join(realpathSync(folder), basename(path))
  throw new KeysFileError({ message: `API_KEYS_FILE: the folder ${folder} is not there` })
}

const readFile = (path: string, file: string, now: number): ReadonlyArray<StoredKey> => {
  const state = statSync(file)
  if (!state.isFile()) throw new KeysFileError({ message: `API_KEYS_FILE: ${path} is no file` })
  // Before it is read: it may be anything.
  return parsed(
    path,
    state.size > MAX_KEYS_FILE_BYTES ? Buffer.alloc(MAX_KEYS_FILE_BYTES + 1) : readFileSync(file),
    now
  )
}

const changed = <A>(path: string, change: KeysChange<A>): A => {
  const file = fileOf(path)
  // The lock is the new file: once it is whole it is renamed, which gives up the lock.
  const lock = `${file}.lock`
  let handle: number
  try {
    handle = openSync(lock, "wx", OWN)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw new Locked({ lock })
    throw error
  }
  try {
    const now = Date.now()
    const isThere = existsSync(file)
    const before = isThere ? readFile(path, file, now) : []
    const result = change(before, now)
    if (Result.isFailure(result)) throw new KeysFileError({ message: result.failure })
    const text = writeKeysFile(result.success.keys)
    // What was written could not be read again.
    parsed(path, Buffer.from(text), now)
    if (isThere && hasModes) keepOwner(handle, file)
    writeFileSync(handle, text)
    fsyncSync(handle)
    closeSync(handle)
    handle = -1
    renameSync(lock, file)
    syncFolder(dirname(file))
    return result.success.value
  } catch (error) {
    if (handle !== -1) closeSync(handle)
    rmSync(lock, { force: true })
    throw error
  }
}

/** Whoever reads the file goes on being able to, also where root has written it; nobody else may write to it. */
const keepOwner = (handle: number, file: string): void => {
  const before = statSync(file)
  const own = fstatSync(handle)
  if (before.uid !== own.uid || before.gid !== own.gid) fchownSync(handle, before.uid, before.gid)
  fchmodSync(handle, before.mode & 0o777 & ~WRITABLE)
}

/** The name is on the disk only once its folder is. */
const syncFolder = (folder: string): void => {
  if (!hasModes) return
  const handle = openSync(folder, constants.O_RDONLY)
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

const ageOf = (lock: string): string => {
  try {
    return `for ${Math.max(0, Math.round((Date.now() - statSync(lock).mtimeMs) / 1000))} s`
  } catch {
    return "again and again"
  }
}

/**
 * Changes the file, which is made where there is none. Answers once the change is on the disk; another writer is waited
 * for, `waitMs` at most.
 */
export const changeKeys = <A>(
  path: string,
  change: KeysChange<A>,
  waitMs = LOCK_WAIT_MS
): Effect.Effect<A, StartError> =>
  // In one turn: a signal finds it done, or not begun.
  Effect.try({
    try: () => changed(path, change),
    catch: (error) => (error instanceof Locked ? error : new StartError({ message: told(path, error) }))
  }).pipe(
    Effect.retry({
      while: (error) => error._tag === "Locked",
      schedule: Schedule.spaced(LOCK_LOOK_MS).pipe(Schedule.upTo({ times: Math.ceil(waitMs / LOCK_LOOK_MS) }))
    }),
    Effect.catchTag("Locked", ({ lock }) =>
      Effect.fail(
        new StartError({
          message: `API_KEYS_FILE: ${lock} has been there ${ageOf(lock)}: another mdp keys is at work, or was ended in the midst of it; where none is, remove that file`
        })
      )
    )
  )
