/**
 * Decides how the files in a zip are found and read, one after the other and never whole in memory. Node unpacks what a
 * file in it holds; where they are is in the archive's last part, which is read here, within bounds.
 */
import type { FileHandle } from "node:fs/promises"
import { crc32, createInflateRaw } from "node:zlib"
import { bytesOf, unpackedBy } from "./handleBytes.ts"

/** A vendor's day of options has some 25,000 files. */
export const MAX_ZIP_FILES = 200_000
const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024

const END = 0x06054b50
const END_64 = 0x06064b50
const LOCATOR_64 = 0x07064b50
const ENTRY = 0x02014b50
const LOCAL = 0x04034b50
const END_BYTES = 22
const LOCATOR_BYTES = 20
const END_64_BYTES = 56
const ENTRY_BYTES = 46
const LOCAL_BYTES = 30
const MAX_COMMENT_BYTES = 65_535
const FULL_16 = 0xffff
const FULL_32 = 0xffffffff
const IS_ENCRYPTED = 1
const STORED = 0
const DEFLATED = 8

export interface ZipFile {
  readonly name: string
  readonly method: number
  readonly crc: number
  readonly packedBytes: number
  readonly bytes: number
  /** Of its own header in the archive. */
  readonly offset: number
}

const bad = (what: string): Error => new Error(`not a zip that can be read: ${what}`)

const readAt = async (handle: FileHandle, offset: number, bytes: number): Promise<Buffer> => {
  const buffer = Buffer.alloc(bytes)
  let at = 0
  while (at < bytes) {
    const { bytesRead } = await handle.read(buffer, at, bytes - at, offset + at)
    if (bytesRead === 0) throw bad("it ends too early")
    at += bytesRead
  }
  return buffer
}

const bigAt = (buffer: Buffer, at: number): number => {
  const value = buffer.readBigUInt64LE(at)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw bad("a size in it is impossible")
  return Number(value)
}

interface Directory {
  readonly files: number
  readonly bytes: number
  readonly offset: number
}

const directoryOf = async (handle: FileHandle, size: number): Promise<Directory> => {
  const tailBytes = Math.min(size, END_BYTES + MAX_COMMENT_BYTES)
  if (tailBytes < END_BYTES) throw bad("it is too short")
  const tail = await readAt(handle, size - tailBytes, tailBytes)
  let at = tailBytes - END_BYTES
  while (at >= 0 && !(tail.readUInt32LE(at) === END && at + END_BYTES + tail.readUInt16LE(at + 20) === tailBytes)) at--
  if (at < 0) throw bad("its directory is missing")
  const directory = {
    files: tail.readUInt16LE(at + 10),
    bytes: tail.readUInt32LE(at + 12),
    offset: tail.readUInt32LE(at + 16)
  }
  if (directory.files !== FULL_16 && directory.bytes !== FULL_32 && directory.offset !== FULL_32) return directory
  const locatorAt = size - tailBytes + at - LOCATOR_BYTES
  if (locatorAt < 0) return directory
  const locator = await readAt(handle, locatorAt, LOCATOR_BYTES)
  // That many files may be just that many.
  if (locator.readUInt32LE(0) !== LOCATOR_64) return directory
  const end = await readAt(handle, bigAt(locator, 8), END_64_BYTES)
  if (end.readUInt32LE(0) !== END_64) throw bad("its directory is missing")
  return { files: bigAt(end, 32), bytes: bigAt(end, 40), offset: bigAt(end, 48) }
}

/** Sizes and place of a file in an archive beyond 4 GB, from the extra field of its entry. */
const bigSizes = (file: ZipFile, extra: Buffer): ZipFile => {
  if (file.bytes !== FULL_32 && file.packedBytes !== FULL_32 && file.offset !== FULL_32) return file
  for (let at = 0; at + 4 <= extra.length; at += 4 + extra.readUInt16LE(at + 2)) {
    if (extra.readUInt16LE(at) !== 1) continue
    let next = at + 4
    const of = (value: number): number => {
      if (value !== FULL_32) return value
      if (next + 8 > extra.length) throw bad("a size in it is missing")
      next += 8
      return bigAt(extra, next - 8)
    }
    const bytes = of(file.bytes)
    const packedBytes = of(file.packedBytes)
    return { ...file, bytes, packedBytes, offset: of(file.offset) }
  }
  throw bad("a size in it is missing")
}

/** Folders, and what a Mac adds of its own, are no data. */
const isData = (name: string): boolean => !/\/$|^__MACOSX\/|(^|\/)\.[^/]*$/.test(name)

/** The files of a zip, in its own order. */
export const zipFiles = async (handle: FileHandle, size: number): Promise<ReadonlyArray<ZipFile>> => {
  const directory = await directoryOf(handle, size)
  if (directory.files > MAX_ZIP_FILES || directory.bytes > MAX_DIRECTORY_BYTES) {
    throw bad(`it says that it has ${directory.files} files, at most ${MAX_ZIP_FILES} are read`)
  }
  const entries = await readAt(handle, directory.offset, directory.bytes)
  const files: Array<ZipFile> = []
  let at = 0
  for (let i = 0; i < directory.files; i++) {
    if (at + ENTRY_BYTES > entries.length || entries.readUInt32LE(at) !== ENTRY) throw bad("its directory is broken")
    const nameEnd = at + ENTRY_BYTES + entries.readUInt16LE(at + 28)
    const extraEnd = nameEnd + entries.readUInt16LE(at + 30)
    const name = entries.toString("utf8", at + ENTRY_BYTES, nameEnd)
    const file = {
      name,
      method: entries.readUInt16LE(at + 10),
      crc: entries.readUInt32LE(at + 16),
      packedBytes: entries.readUInt32LE(at + 20),
      bytes: entries.readUInt32LE(at + 24),
      offset: entries.readUInt32LE(at + 42)
    }
    if (isData(name)) {
      if ((entries.readUInt16LE(at + 8) & IS_ENCRYPTED) !== 0) throw bad(`${name} is encrypted`)
      if (/\.zip$/i.test(name)) throw bad(`${name} in it is a zip itself: unpack that first`)
      if (file.method !== STORED && file.method !== DEFLATED) {
        throw bad(`${name} is packed by method ${file.method}, only deflate is known`)
      }
      files.push(bigSizes(file, entries.subarray(nameEnd, extraEnd)))
    }
    at = extraEnd + entries.readUInt16LE(at + 32)
  }
  return files
}

/** What a file of a zip holds, checked against the sum that the archive has of it. */
export async function* readZipFile(
  handle: FileHandle,
  file: ZipFile,
  onRead: (bytes: number) => void
): AsyncGenerator<Uint8Array> {
  const local = await readAt(handle, file.offset, LOCAL_BYTES)
  if (local.readUInt32LE(0) !== LOCAL) throw bad(`${file.name} is not where its directory says`)
  const start = file.offset + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28)
  const packed = bytesOf(handle, start, file.packedBytes, onRead)
  let crc = 0
  let bytes = 0
  for await (const chunk of file.method === STORED ? packed : unpackedBy(createInflateRaw(), packed)) {
    bytes += chunk.byteLength
    if (bytes > file.bytes) throw bad(`${file.name} is longer than its directory says`)
    crc = crc32(chunk, crc)
    yield chunk
  }
  if (bytes !== file.bytes || crc !== file.crc) throw bad(`${file.name} is damaged`)
}
