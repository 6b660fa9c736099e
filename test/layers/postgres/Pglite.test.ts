import { type ChildProcess, spawn } from "node:child_process"
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import pg from "pg"
import { lock } from "../../../src/layers/postgres/DataDir.ts"
import * as Pglite from "../../../src/layers/postgres/Pglite.ts"
import * as Timescale from "../../../src/layers/postgres/Timescale.ts"
import { makeTick, OPEN, storeBatch } from "../../contract/ticks.ts"
import { LONG_MS } from "../../support/guards.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

interface Child {
  readonly process: ChildProcess
  readonly lines: ReadonlyArray<string>
  /** The first line that starts so, as soon as it is there. */
  readonly line: (start: string) => Effect.Effect<string>
  readonly kill: Effect.Effect<void>
}

const child = (dataDir: string, batches: number): Effect.Effect<Child, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const script = fileURLToPath(new URL("./pgliteChild.ts", import.meta.url))
      const started = spawn(process.execPath, [script, dataDir, String(batches)], {
        stdio: ["ignore", "pipe", "inherit"]
      })
      const lines: Array<string> = []
      const waiting = new Set<() => void>()
      const look = () => {
        for (const each of waiting) each()
      }
      const reader = createInterface({ input: started.stdout! })
      reader.on("line", (line) => {
        lines.push(line)
        look()
      })
      const ended = new Promise<void>((resolve) => started.once("exit", () => resolve()))
      reader.once("close", look)
      const line = (start: string): Effect.Effect<string> =>
        Effect.callback((resume) => {
          const check = () => {
            const found = lines.find((each) => each.startsWith(start))
            if (found !== undefined) {
              waiting.delete(check)
              resume(Effect.succeed(found))
            } else if (started.exitCode !== null) resume(Effect.die(new Error(`ended: ${lines.join("; ")}`)))
          }
          waiting.add(check)
          check()
        })
      const kill = Effect.promise(() => {
        started.kill("SIGKILL")
        return ended
      })
      return { process: started, lines, line, kill }
    }),
    ({ kill }) => kill
  )

const countOf = (url: string) =>
  Effect.promise(async () => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    const found = await client.query<{ n: number }>("SELECT count(*)::integer AS n FROM ticks")
    await client.end()
    return found.rows[0]!.n
  })

/** Where a client of PostgreSQL looks for the socket that a URL names. */
const socketOf = (url: string): string => `${new URL(url).searchParams.get("host")}/.s.PGSQL.5432`

const refused = (url: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = connect(socketOf(url))
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(false))
    })
    socket.once("error", () => resume(Effect.succeed(true)))
  })

const locks = (path: string): ReadonlyArray<string> => readdirSync(path).filter((name) => name.startsWith("lock"))

describe("Pglite", () => {
  it.live("keeps what was stored across a clean stop, and lets go of its folder and port", () =>
    Effect.gen(function* () {
      const dataDir = join(yield* folder, "made", "when", "missing")
      const url = yield* Effect.scoped(
        Effect.gen(function* () {
          const { url } = yield* Pglite.start({ dataDir })
          const store = yield* Timescale.make({ url, embedded: true })
          yield* store.write(storeBatch({ ticks: [makeTick()] }))
          assert.deepStrictEqual(locks(dataDir), [`lock.${process.pid}`])
          return url
        })
      )
      assert.isTrue(yield* refused(url))
      assert.deepStrictEqual(locks(dataDir), [])
      const again = yield* Pglite.start({ dataDir })
      assert.strictEqual(yield* countOf(again.url), 1)
    })
  )

  // Long: the database is opened once for each thing that may lie in its way.
  it.live(
    "is reached by its user only: by a socket in a folder that is closed to others, and by no port",
    () =>
      Effect.gen(function* () {
        const dataDir = yield* folder
        const inode = (path: string) => lstatSync(path)
        // What a process that was killed leaves is in nobody's way, and neither is a folder made with another mode.
        mkdirSync(join(dataDir, "pglite-socket"), { mode: 0o755 })
        writeFileSync(join(dataDir, "pglite-socket", ".s.PGSQL.5432"), "")
        const { url } = yield* Pglite.start({ dataDir })
        assert.strictEqual(new URL(url).hostname, "")
        const socket = socketOf(url)
        assert.strictEqual(socket, join(realpathSync(dataDir), "pglite-socket", ".s.PGSQL.5432"))
        assert.isTrue(inode(socket).isSocket())
        assert.strictEqual(inode(dirname(socket)).mode & 0o777, 0o700)
        const { url: inMemory } = yield* Pglite.start({ dataDir: undefined })
        assert.isTrue(inode(socketOf(inMemory)).isSocket())
        assert.strictEqual(inode(dirname(socketOf(inMemory))).mode & 0o777, 0o700)
      }),
    LONG_MS
  )

  it.live("in a DATA_DIR whose path is too long for a socket has it in a folder of its own, gone at the end", () =>
    Effect.gen(function* () {
      const dataDir = join(yield* folder, "a".repeat(60), "b".repeat(60))
      const socket = yield* Effect.scoped(
        Effect.gen(function* () {
          const { url } = yield* Pglite.start({ dataDir })
          yield* Timescale.make({ url, embedded: true })
          assert.strictEqual(lstatSync(dirname(socketOf(url))).mode & 0o777, 0o700)
          return socketOf(url)
        })
      )
      assert.isFalse(existsSync(dirname(socket)))
      assert.isFalse(existsSync(join(dataDir, "pglite-socket")))
    })
  )

  it.live("in memory starts empty each time, two side by side", () =>
    Effect.gen(function* () {
      const [one, two] = yield* Effect.all([Pglite.start({ dataDir: undefined }), Pglite.start({ dataDir: undefined })])
      const store = yield* Timescale.make({ url: one.url, embedded: true })
      yield* store.write(storeBatch({ ticks: [makeTick()] }))
      const other = yield* Timescale.make({ url: two.url, embedded: true })
      assert.strictEqual(yield* other.count([738561], OPEN, OPEN + 1), 0)
    })
  )

  it.live("refuses a folder that another process uses, in one line", () =>
    Effect.gen(function* () {
      const dataDir = yield* folder
      const other = yield* child(dataDir, 1)
      yield* other.line("stored")
      const error = yield* Effect.flip(Effect.scoped(Pglite.start({ dataDir })))
      assert.strictEqual(error._tag, "StartError")
      assert.strictEqual(
        error.message,
        `DATA_DIR: ${dataDir} is in use by process ${other.process.pid}; stop it or choose another folder`
      )
      // and leaves the other one alone
      assert.deepStrictEqual(locks(dataDir), [`lock.${other.process.pid}`])
    })
  )

  it.live("refuses a folder it cannot write to, in one line", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "file")
      writeFileSync(file, "")
      const dataDir = join(file, "data")
      const error = yield* Effect.flip(Effect.scoped(Pglite.start({ dataDir })))
      assert.match(error.message, /^DATA_DIR: cannot write to \S+file\/data: .*ENOTDIR.*$/)
    })
  )

  it.live("refuses a database it cannot read, in one line, and lets go of the folder", () =>
    Effect.gen(function* () {
      const dataDir = yield* folder
      yield* Effect.scoped(Pglite.start({ dataDir }))
      writeFileSync(join(dataDir, "pglite", "global", "pg_control"), "no control file")
      const error = yield* Effect.flip(Effect.scoped(Pglite.start({ dataDir })))
      assert.match(error.message, /^DATA_DIR: the database in \S+pglite does not open: .+$/)
      assert.deepStrictEqual(locks(dataDir), [])
    })
  )

  it.live("that dies under way says so, fails its queries at once, and opens again", () =>
    Effect.gen(function* () {
      const dataDir = yield* folder
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { url, crashed } = yield* Pglite.start({ dataDir })
          const store = yield* Timescale.make({ url, embedded: true })
          yield* store.write(storeBatch({ ticks: [makeTick()] }))
          // The write-ahead log cannot go on where there is no folder for it: the database panics.
          renameSync(join(dataDir, "pglite", "pg_wal"), join(dataDir, "pg_wal"))
          const more = (n: number) =>
            store.write(
              storeBatch({
                ticks: Array.from({ length: 5000 }, (_, i) =>
                  makeTick({ sequence_id: n * 5000 + i + 2, position: i + 2 })
                ),
                bookmarks: []
              })
            )
          const died = yield* Effect.flip(
            Effect.forEach(
              Array.from({ length: 100 }, (_, n) => n),
              more
            )
          )
          assert.isTrue(died.transient, died.message)
          assert.strictEqual(yield* crashed, "the embedded database panicked")
          assert.isTrue((yield* Effect.flip(store.instruments(1))).transient)
        })
      )
      rmSync(join(dataDir, "pglite", "pg_wal"), { recursive: true, force: true })
      renameSync(join(dataDir, "pg_wal"), join(dataDir, "pglite", "pg_wal"))
      const { url } = yield* Pglite.start({ dataDir })
      assert.isAtLeast(yield* countOf(url), 1)
    })
  )

  it.live("after kill -9 in the middle of writing serves all that was acknowledged, and takes new ticks", () =>
    Effect.gen(function* () {
      const dataDir = yield* folder
      for (const [kills, upTo] of [
        [1, 250],
        [2, 550]
      ] as const) {
        const writer = yield* child(dataDir, 10_000)
        yield* writer.line(`stored ${upTo}`)
        yield* writer.kill
        const acknowledged = Number(writer.lines.at(-1)!.split(" ")[1])
        // its lock is still there, and stands for nobody
        assert.deepStrictEqual(locks(dataDir), [`lock.${writer.process.pid}`])
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { url } = yield* Pglite.start({ dataDir })
            const store = yield* Timescale.make({ url, embedded: true })
            assert.deepStrictEqual(locks(dataDir), [`lock.${process.pid}`])
            const rows = yield* store.ticks({ instrument_token: 1, from: OPEN, to: OPEN + 1e12, limit: 1_000_000 })
            assert.isAtLeast(rows.length, acknowledged)
            // whole batches, and the bookmark that was written with the last of them
            assert.deepStrictEqual(
              rows.map((row) => row.sequence_id),
              rows.map((_, n) => n)
            )
            const [bookmark] = yield* store.bookmarks("child")
            assert.strictEqual(bookmark?.offset, rows.length)
            const bars = yield* store.candles({
              instrument_token: 1,
              interval: "1m",
              from: OPEN,
              to: OPEN + 1e12,
              limit: 10_000
            })
            assert.strictEqual(
              bars.reduce((volume, bar) => volume + bar.volume, 0),
              rows.length * 100
            )
            const more = makeTick({ instrument_token: 2, sequence_id: kills })
            assert.deepStrictEqual(yield* store.write(storeBatch({ ticks: [more] })), { added: 1 })
          })
        )
      }
    })
  )
})

describe("a DATA_DIR's lock", () => {
  it.live("of a process that ended, or whose number another process has now, is taken over", () =>
    Effect.gen(function* () {
      const dataDir = yield* folder
      const gone = yield* child(dataDir, 0)
      yield* gone.line("open")
      yield* gone.kill
      assert.deepStrictEqual(locks(dataDir), [`lock.${gone.process.pid}`])
      // Our parent runs, but it did not start when this one did.
      writeFileSync(join(dataDir, `lock.${process.ppid}`), "some-boot 12345\n")
      assert.strictEqual(yield* lock(dataDir), dataDir)
      assert.deepStrictEqual(locks(dataDir), [`lock.${process.pid}`])
      assert.notStrictEqual(readFileSync(join(dataDir, `lock.${process.pid}`), "utf8").trim(), "")
    })
  )

  it.live("is held until the last of this process's users lets go", () =>
    Effect.gen(function* () {
      const dataDir = yield* folder
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* lock(dataDir)
          yield* Effect.scoped(lock(dataDir))
          assert.deepStrictEqual(locks(dataDir), [`lock.${process.pid}`])
        })
      )
      assert.deepStrictEqual(locks(dataDir), [])
    })
  )
})
