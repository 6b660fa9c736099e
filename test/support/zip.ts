/** Decides how tests make a zip, by its published layout: local parts, then the directory, then its end. */
import { crc32, deflateRawSync } from "node:zlib"

export interface Zipped {
  readonly name: string
  readonly data: Uint8Array
  /** As it is, instead of deflated. */
  readonly stored?: boolean
}

export const zipOf = (files: ReadonlyArray<Zipped>): Buffer => {
  const parts: Array<Buffer> = []
  const entries: Array<Buffer> = []
  let offset = 0
  for (const { data, name, stored } of files) {
    const packed = stored === true ? Buffer.from(data) : deflateRawSync(data)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt16LE(stored === true ? 0 : 8, 4)
    common.writeUInt32LE(crc32(data), 10)
    common.writeUInt32LE(packed.length, 14)
    common.writeUInt32LE(data.byteLength, 18)
    common.writeUInt16LE(Buffer.byteLength(name), 22)
    const local = Buffer.concat([Buffer.from("PK\u0003\u0004"), common, Buffer.from(name), packed])
    const rest = Buffer.alloc(14)
    rest.writeUInt32LE(offset, 10)
    entries.push(Buffer.concat([Buffer.from("PK\u0001\u0002"), Buffer.from([20, 0]), common, rest, Buffer.from(name)]))
    parts.push(local)
    offset += local.length
  }
  const directory = Buffer.concat(entries)
  const end = Buffer.alloc(18)
  end.writeUInt16LE(files.length, 4)
  end.writeUInt16LE(files.length, 6)
  end.writeUInt32LE(directory.length, 8)
  end.writeUInt32LE(offset, 12)
  return Buffer.concat([...parts, directory, Buffer.from("PK\u0005\u0006"), end])
}
