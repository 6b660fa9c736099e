/**
 * Decides how PGlite runs: in this worker thread, so that a query holds up nobody's event loop, behind a socket that
 * speaks PostgreSQL's protocol.
 */
import { parentPort, workerData } from "node:worker_threads"
import { PGlite } from "@electric-sql/pglite"
import { PGLiteSocketServer } from "@electric-sql/pglite-socket"
import type { PgliteMessage, PgliteWorkerData } from "./Pglite.ts"

const { dataDir, socket } = workerData as PgliteWorkerData
const port = parentPort!
const tell = (message: PgliteMessage): void => port.postMessage(message)
const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** One is used at a time; the others are for a client that comes back before its old connection is seen to be closed. */
const MAX_CONNECTIONS = 4

/** No replication and no archive, so little of the write-ahead log is kept; a folder is written through to the disk. */
const settings = [
  "wal_level=minimal",
  "max_wal_senders=0",
  "max_wal_size=64MB",
  "min_wal_size=32MB",
  ...(dataDir === undefined ? ["full_page_writes=off", "synchronous_commit=off"] : [])
]
/** `-F`: no fsync. In memory there is nothing to sync. */
const NO_FSYNC = "-F"

/** An ErrorResponse begins with its type, four bytes of length, and the severity. */
const ERROR_RESPONSE = 0x45
const PANIC = Buffer.from("SPANIC\0")
const HEADER_BYTES = 5

/** Whether one of the messages of an answer says so: of several statements in one text the last may have panicked. */
const isPanic = (data: Uint8Array): boolean => {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  for (let at = 0; at + HEADER_BYTES <= data.length; ) {
    const severity = data.subarray(at + HEADER_BYTES, at + HEADER_BYTES + PANIC.length)
    if (data[at] === ERROR_RESPONSE && PANIC.equals(severity)) return true
    at += 1 + Math.max(HEADER_BYTES - 1, view.getInt32(at + 1))
  }
  return false
}

const start = async (): Promise<void> => {
  const inherited = PGlite.defaultStartParams.filter((param) => dataDir === undefined || param !== NO_FSYNC)
  const db = await PGlite.create({
    ...(dataDir === undefined ? {} : { dataDir }),
    startParams: [...inherited, ...settings.flatMap((setting) => ["-c", setting])]
  })
  // What throws here is not a query but PGlite itself, and after a panic it never comes back from the call: nothing
  // can be served any more. The message leaves this thread even if it is stuck.
  const execute = db.execProtocolRawStream.bind(db)
  db.execProtocolRawStream = async (message, options) => {
    try {
      await execute(message, {
        ...options,
        onRawData: (data) => {
          if (isPanic(data)) tell({ type: "failed", message: "the embedded database panicked" })
          options.onRawData(data)
        }
      })
    } catch (cause) {
      tell({ type: "failed", message: reasonOf(cause) })
      throw cause
    }
  }
  const server = new PGLiteSocketServer({ db, path: socket, maxConnections: MAX_CONNECTIONS })
  await server.start()
  port.once("message", () => {
    server
      .stop()
      .then(() => db.close())
      .then(
        () => tell({ type: "stopped" }),
        (cause) => tell({ type: "failed", message: reasonOf(cause) })
      )
  })
  tell({ type: "ready" })
}

start().catch((cause) => tell({ type: "failed", message: reasonOf(cause) }))
