/** Decides how a part of an open file is read and unpacked, in chunks; the file itself stays open for who reads it again. */
import type { FileHandle } from "node:fs/promises"
import { type Duplex, pipeline, Readable } from "node:stream"

const READ_BYTES = 256 * 1024

/** The bytes from `start` on, at most `bytes`; where `start` is undefined, as they come: a pipe has no places. */
export async function* bytesOf(
  handle: FileHandle,
  start: number | undefined,
  bytes: number,
  onRead: (bytes: number) => void
): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes; ) {
    const wanted = Math.min(READ_BYTES, bytes - at)
    const place = start === undefined ? null : start + at
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(wanted), 0, wanted, place)
    if (bytesRead === 0) return
    at += bytesRead
    onRead(bytesRead)
    yield buffer.subarray(0, bytesRead)
  }
}

/** What packed bytes hold. */
export async function* unpackedBy(unpack: Duplex, packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  // What goes wrong on either side is met where the result is read.
  pipeline(Readable.from(packed, { objectMode: false }), unpack, () => undefined)
  try {
    yield* unpack as AsyncIterable<Uint8Array>
  } finally {
    unpack.destroy()
  }
}
