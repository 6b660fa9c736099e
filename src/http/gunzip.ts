/** Decides how a compressed body is unpacked: no further than its route takes, and no bomb. */
import { createGunzip } from "node:zlib"

/** What a body may grow to, as a multiple of what came: text hardly reaches a tenth of it, a bomb five times. */
const MAX_RATIO = 200
/** Below this, a body may grow as it likes. */
const FREE_BYTES = 1_048_576

/** Why it is not unpacked: above `limit`, too dense, not gzip, or `take` refused more. */
export type GunzipRefusal = "too_large" | "bomb" | "not_gzip" | "refused"

/** Unpacks a whole body; `take` is told how many bytes more are held, and answers whether they may be. */
export const gunzip = (
  body: Uint8Array,
  limit: number,
  take: (bytes: number) => boolean
): Promise<Buffer<ArrayBuffer> | GunzipRefusal> =>
  new Promise((resolve) => {
    const unpacking = createGunzip()
    const parts: Array<Buffer> = []
    let size = 0
    const stop = (refusal: GunzipRefusal) => {
      resolve(refusal)
      unpacking.destroy()
    }
    unpacking.on("data", (part: Buffer) => {
      size += part.length
      if (size > limit) stop("too_large")
      else if (size > FREE_BYTES && size > body.byteLength * MAX_RATIO) stop("bomb")
      else if (!take(part.length)) stop("refused")
      else parts.push(part)
    })
    unpacking.on("error", () => stop("not_gzip"))
    unpacking.on("end", () => resolve(Buffer.concat(parts)))
    unpacking.end(body)
  })
