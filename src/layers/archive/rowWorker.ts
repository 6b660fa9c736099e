/**
 * Decides how rows become Arrow and Parquet for whoever asked for them, on a thread of its own: thirty thousand rows at
 * a time take so long that live ticks would wait for them.
 */
import { parentPort } from "node:worker_threads"
import { type RowColumns, type TableName, tables } from "../../schema/tables.ts"
import { arrowRows } from "./arrowRows.ts"
import { parquetRows } from "./parquetRows.ts"
import type { FileFormat, RowFile } from "./rowFile.ts"
import type { Answer, Given } from "./thread.ts"

/** `file` tells apart those that are written at the same time. */
export type Request =
  | { readonly kind: "begin"; readonly file: number; readonly table: TableName; readonly format: FileFormat }
  | { readonly kind: "rows"; readonly file: number; readonly part: RowColumns }
  | { readonly kind: "end"; readonly file: number }
  | { readonly kind: "forget"; readonly file: number }

export interface Answers {
  readonly begin: Uint8Array<ArrayBuffer>
  readonly rows: Uint8Array<ArrayBuffer>
  readonly end: Uint8Array<ArrayBuffer>
  readonly forget: null
}

const port = parentPort
if (port === null) throw new Error("rowWorker runs as a worker thread")

const files = new Map<number, RowFile>()

const begun = (file: number): RowFile => {
  const found = files.get(file)
  if (found === undefined) throw new Error(`file ${file} was not begun: the thread was started anew`)
  return found
}

const answer = (request: Request): Uint8Array<ArrayBuffer> | null => {
  const { kind, file } = request
  if (kind === "begin") {
    const fields = tables[request.table]
    const made = request.format === "arrow" ? arrowRows(fields) : parquetRows(fields, request.table.slice(0, -1))
    files.set(file, made)
    return made.begin()
  }
  if (kind === "rows") return begun(file).rows(request.part)
  const ended = kind === "end" ? begun(file).end() : null
  files.delete(file)
  return ended
}

port.on("message", ({ id, request }: Given<Request>) => {
  let said: Answer<Uint8Array<ArrayBuffer> | null>
  try {
    said = { id, answer: answer(request) }
  } catch (error) {
    said = { id, failure: error instanceof Error ? error.message : String(error) }
  }
  port.postMessage(said, "answer" in said && said.answer !== null ? [said.answer.buffer] : [])
})
