/**
 * Decides how the archive lives in a folder of this machine: an object is a file that appears whole under its name or not
 * at all, and outlives a power cut once it is said to be there.
 */
import { randomBytes } from "node:crypto"
import { promises as fs } from "node:fs"
import { dirname, join } from "node:path"
import { Effect, Layer } from "effect"
import { ArchiveError, StartError } from "../../schema/Errors.ts"
import { ARCHIVED_KINDS, Archive } from "../../streams/ports/Archive.ts"
import type { Listed, ObjectStore } from "./objectStore.ts"
import * as ParquetArchive from "./ParquetArchive.ts"

/** What appears later, so that its name outlives a power cut with what is in it. */
const SUBFOLDERS = [...ARCHIVED_KINDS, "manifests"]

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

const io = <A>(operation: string, run: () => Promise<A>): Effect.Effect<A, ArchiveError> =>
  Effect.tryPromise({ try: run, catch: (cause) => new ArchiveError({ operation, message: messageOf(cause) }) })

/** What `run` answers, or `otherwise` where there is no such file. */
const unlessMissing = async <A, B>(otherwise: B, run: () => Promise<A>): Promise<A | B> => {
  try {
    return await run()
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return otherwise
    throw cause
  }
}

/** Makes what happened to the names in a folder outlive a power cut. */
const syncFolder = async (folder: string): Promise<void> => {
  // Windows cannot open a folder, and keeps names by itself.
  if (process.platform === "win32") return
  const handle = await fs.open(folder, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const writeSynced = async (file: string, bytes: Uint8Array): Promise<void> => {
  const handle = await fs.open(file, "w")
  try {
    await handle.writeFile(bytes)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const readBytes = async (file: string, from: number, to: number): Promise<Uint8Array<ArrayBuffer>> => {
  const handle = await fs.open(file, "r")
  try {
    const bytes = new Uint8Array(to - from)
    for (let at = 0; at < bytes.length; ) {
      const { bytesRead } = await handle.read(bytes, at, bytes.length - at, from + at)
      if (bytesRead === 0) throw new Error(`${file}: ends before byte ${to}`)
      at += bytesRead
    }
    return bytes
  } finally {
    await handle.close()
  }
}

const open = (folder: string, readsOnly: boolean): Effect.Effect<ObjectStore, StartError> =>
  Effect.gen(function* () {
    const temporaryFolder = join(folder, "tmp")

    // What a crash left half done was never visible; here it goes, unless it may be another's who is at it.
    const prepared = Effect.tryPromise({
      try: async () => {
        await fs.rm(temporaryFolder, { recursive: true, force: true })
        for (const made of [folder, ...SUBFOLDERS.map((name) => join(folder, name)), temporaryFolder]) {
          await fs.mkdir(made, { recursive: true })
        }
        await syncFolder(folder)
      },
      catch: (cause) => new StartError({ message: `archive in ${folder}: ${messageOf(cause)}` })
    })
    if (!readsOnly) yield* prepared

    let named = 0
    // Processes of several machines that share a folder may have one number.
    const self = randomBytes(6).toString("hex")

    const putNew = async (key: string, bytes: Uint8Array): Promise<boolean> => {
      const file = join(folder, key)
      const parent = dirname(file)
      await fs.mkdir(parent, { recursive: true })
      await syncFolder(dirname(parent))
      named += 1
      const half = join(temporaryFolder, `${self}-${named}`)
      let isNew = true
      try {
        await writeSynced(half, bytes)
        // A link appears whole and fails where the name is taken, which a rename would not.
        await fs.link(half, file)
      } catch (cause) {
        if (codeOf(cause) !== "EEXIST") throw cause
        isNew = false
      } finally {
        await fs.rm(half, { force: true })
      }
      await syncFolder(parent)
      return isNew
    }

    return {
      putNew: (key, bytes) => io("write", () => putNew(key, bytes)),
      remove: (key) =>
        io("write", async () => {
          await fs.rm(join(folder, key), { force: true })
          await syncFolder(dirname(join(folder, key)))
        }),
      sizeOf: (key) =>
        io("read", () =>
          unlessMissing(undefined, async () => {
            const { size } = await fs.stat(join(folder, key))
            // Where it is said to be there, it stays.
            if (!readsOnly) await syncFolder(dirname(join(folder, key)))
            return size
          })
        ),
      get: (key) => io("read", () => unlessMissing(undefined, () => fs.readFile(join(folder, key)))),
      list: (prefix) =>
        io("read", async () => {
          const names = await unlessMissing([], () => fs.readdir(join(folder, prefix)))
          const listed = await Promise.all(
            names.map((name) =>
              unlessMissing(undefined, async (): Promise<Listed> => {
                const path = join(folder, prefix, name)
                return { name, source: { kind: "file", path, size: (await fs.stat(path)).size } }
              })
            )
          )
          return listed.filter((one) => one !== undefined)
        }),
      folders: (prefix) =>
        io("read", async () => {
          const entries = await unlessMissing([], () => fs.readdir(join(folder, prefix), { withFileTypes: true }))
          return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
        }),
      readRange: (key, from, to) => io("read", () => readBytes(join(folder, key), from, to))
    }
  })

export interface FilesOptions extends Partial<ParquetArchive.ParquetOptions> {
  /** The folder stays as it is found; there may be none yet. */
  readonly readsOnly?: boolean
}

/** The archive in a folder, made where it is not there yet. */
export const layer = (
  folder: string,
  { readsOnly = false, ...options }: FilesOptions = {}
): Layer.Layer<Archive, StartError> =>
  Layer.effect(
    Archive,
    Effect.flatMap(open(folder, readsOnly), (store) => ParquetArchive.make(store, options))
  )
