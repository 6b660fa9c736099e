/** Decides how a file is read: plain, gzipped, a zip of several, or standard input; in chunks, and cut into lines. */
import { createHash } from "node:crypto"
import { type FileHandle, open } from "node:fs/promises"
import { basename } from "node:path"
import { createGunzip } from "node:zlib"
import { bytesOf, unpackedBy } from "./handleBytes.ts"
import { readZipFile, zipFiles } from "./zip.ts"

/** The longest line taken. */
export const MAX_LINE_CHARS = 1024 * 1024
/** What of a file names its connection. */
const NAMED_BY_BYTES = 64 * 1024

/** One table of rows: the file itself, or one of those in a zip. */
export interface FilePart {
  /** How it is called in messages. */
  readonly name: string
  readonly chunks: AsyncIterable<Uint8Array>
}

export interface FileSource {
  /** From the beginning, each time that it is called. */
  readonly parts: () => AsyncIterable<FilePart>
  /** Whether it can be read more than once: standard input and pipes cannot. */
  readonly isRepeatable: boolean
  /** Of the file, before it is unpacked; undefined where the chunks are counted instead. */
  readonly bytesRead: (() => number) | undefined
  readonly totalBytes: number | undefined
  /** How it is called in messages. */
  readonly name: string
  /** The same for the same content, so that a reset met again is known to be the same one. */
  readonly connection: string
  readonly close: () => void
}

const standardInput: FileSource = {
  parts: async function* () {
    yield { name: "standard input", chunks: process.stdin }
  },
  isRepeatable: false,
  bytesRead: undefined,
  totalBytes: undefined,
  name: "standard input",
  connection: "stdin",
  close: () => process.stdin.destroy()
}

/** Opens a path, or `-` for standard input. */
export const openSource = async (file: string): Promise<FileSource> => {
  if (file === "-") return standardInput
  const handle = await open(file, "r")
  try {
    return await sourceOf(handle, file)
  } catch (error) {
    await handle.close()
    throw error
  }
}

type Packing = "none" | "gzip" | "zip"

const packingOf = (head: Buffer): Packing =>
  head[0] === 0x1f && head[1] === 0x8b ? "gzip" : head.toString("latin1", 0, 4) === "PK\u0003\u0004" ? "zip" : "none"

const sourceOf = async (handle: FileHandle, file: string): Promise<FileSource> => {
  const status = await handle.stat()
  if (status.isDirectory()) throw new Error("it is a folder")
  const name = basename(file)
  let connection = "pipe"
  let packing: Packing = file.endsWith(".gz") ? "gzip" : "none"
  if (status.isFile()) {
    const head = Buffer.alloc(Math.min(NAMED_BY_BYTES, status.size))
    await handle.read(head, 0, head.byteLength, 0)
    connection = `file-${createHash("sha256").update(head).digest("hex").slice(0, 16)}`
    packing = packingOf(head)
  }
  let bytes = 0
  const onRead = (read: number) => {
    bytes += read
  }

  const whole = (): AsyncIterable<Uint8Array> => {
    const raw = bytesOf(handle, status.isFile() ? 0 : undefined, Number.POSITIVE_INFINITY, onRead)
    return packing === "gzip" ? unpackedBy(createGunzip(), raw) : raw
  }

  async function* parts(): AsyncGenerator<FilePart> {
    bytes = 0
    if (packing !== "zip") {
      yield { name, chunks: whole() }
      return
    }
    const files = await zipFiles(handle, status.size)
    if (files.length === 0) throw new Error("there is no file in it")
    for (const one of files) yield { name: `${name}/${one.name}`, chunks: readZipFile(handle, one, onRead) }
  }

  return {
    parts,
    isRepeatable: status.isFile(),
    totalBytes: status.isFile() ? status.size : undefined,
    bytesRead: () => bytes,
    name,
    connection,
    // Not waited for: a pipe may have a read under way that nobody ever answers.
    close: () => void handle.close().catch(() => undefined)
  }
}

/** Lines of a part; `undefined` for a line that is too long. */
export async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
  onBytes: (bytes: number) => void
): AsyncGenerator<ReadonlyArray<string | undefined>> {
  let decoder: InstanceType<typeof TextDecoder> | undefined
  let rest = ""
  let isSkippingLong = false
  let isReturn = false
  for await (const chunk of chunks) {
    onBytes(chunk.byteLength)
    // What a spreadsheet calls Unicode text begins with these two bytes.
    decoder ??= new TextDecoder(chunk[0] === 0xff && chunk[1] === 0xfe ? "utf-16le" : "utf-8")
    rest += decoder.decode(chunk, { stream: true })
    // Macs of old ended lines by a carriage return alone.
    if (!isReturn && !rest.includes("\n") && /\r[^\n]/.test(rest)) isReturn = true
    const newline = isReturn ? "\r" : "\n"
    const end = rest.lastIndexOf(newline)
    if (end < 0) {
      if (rest.length > MAX_LINE_CHARS) {
        isSkippingLong = true
        rest = ""
      }
      continue
    }
    const lines: Array<string | undefined> = rest.slice(0, end).split(newline)
    rest = rest.slice(end + 1)
    if (isSkippingLong) lines[0] = undefined
    isSkippingLong = false
    yield lines
  }
  rest += decoder?.decode() ?? ""
  if (rest !== "" || isSkippingLong) yield [isSkippingLong ? undefined : rest]
}
