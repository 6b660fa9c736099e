/**
 * Decides how an answer is compressed: with what the client prefers of zstd and gzip, off the loop that serves ticks,
 * and fast rather than small. A stream's bytes go through as they come; a page's at once.
 */
import { constants, createGzip, createZstdCompress, type Gzip, gzip, type ZstdCompress, zstdCompress } from "node:zlib"
import { Effect, Stream } from "effect"

export type Coding = "zstd" | "gzip"

/** Levels at which compressing keeps up with reading. */
const GZIP = { level: constants.Z_BEST_SPEED }
const ZSTD = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }
/** A shorter answer goes as it is. */
const MIN_BYTES = 1024
const MAX_HEADER_CHARS = 512

/** The coding that the client likes best of those written here; zstd where it likes both alike. */
export const codingOf = (acceptEncoding: string | undefined): Coding | undefined => {
  const weights = new Map<string, number>()
  for (const part of (acceptEncoding ?? "").slice(0, MAX_HEADER_CHARS).toLowerCase().split(",")) {
    const [name, ...parameters] = part.split(";").map((text) => text.trim())
    const weight = parameters.find((parameter) => parameter.startsWith("q="))?.slice(2) ?? "1"
    weights.set(name!, /^(0|1)(\.\d{0,3})?$/.test(weight) ? Number(weight) : 0)
  }
  const weightOf = (name: string): number => weights.get(name) ?? weights.get("*") ?? 0
  const [zstd, zipped] = [weightOf("zstd"), Math.max(weightOf("gzip"), weights.get("x-gzip") ?? 0)]
  if (zstd === 0 && zipped === 0) return undefined
  const best = Math.max(zstd, zipped)
  // As it is costs nobody anything: where that is liked better it is what goes.
  if ((weights.get("identity") ?? 0) > best) return undefined
  return zstd >= zipped ? "zstd" : "gzip"
}

const open = (coding: Coding): Gzip | ZstdCompress => (coding === "gzip" ? createGzip(GZIP) : createZstdCompress(ZSTD))

/** The same bytes, compressed. */
export const coded = <E>(
  bytes: Stream.Stream<Uint8Array<ArrayBuffer>, E>,
  coding: Coding | undefined
): Stream.Stream<Uint8Array<ArrayBuffer>, E> => {
  if (coding === undefined) return bytes
  return Stream.unwrap(
    Effect.gen(function* () {
      const packing = yield* Effect.acquireRelease(
        Effect.sync(() => open(coding)),
        (opened) => Effect.sync(() => opened.destroy())
      )
      let packed: Array<Uint8Array<ArrayBuffer>> = []
      packing.on("data", (part: Buffer<ArrayBuffer>) => packed.push(part))
      const taken = () => {
        const parts = packed
        packed = []
        return parts
      }
      const push = (parts: ReadonlyArray<Uint8Array<ArrayBuffer>>) =>
        Effect.callback<readonly [undefined, ReadonlyArray<Uint8Array<ArrayBuffer>>]>((resume) => {
          packing.write(Buffer.concat(parts), (error) =>
            resume(error == null ? Effect.succeed([undefined, taken()]) : Effect.die(error))
          )
        })
      const end = Effect.callback<ReadonlyArray<Uint8Array<ArrayBuffer>>>((resume) => {
        packing.once("end", () => resume(Effect.sync(taken)))
        packing.once("error", (error) => resume(Effect.die(error)))
        packing.end()
      })
      return Stream.concat(
        Stream.mapAccumArrayEffect(
          bytes,
          () => undefined,
          (_, parts) => push(parts)
        ),
        Stream.fromArrayEffect(end)
      )
    })
  )
}

/** A whole answer; as it is where it is short. */
export const codedWhole = (
  text: string,
  coding: Coding | undefined
): Effect.Effect<{ readonly bytes: Uint8Array; readonly coding: Coding | undefined }> => {
  const bytes = Buffer.from(text)
  if (coding === undefined || bytes.length < MIN_BYTES) return Effect.succeed({ bytes, coding: undefined })
  return Effect.callback((resume) => {
    const done = (error: Error | null, packed: Uint8Array) =>
      resume(error === null ? Effect.succeed({ bytes: packed, coding }) : Effect.die(error))
    if (coding === "gzip") gzip(bytes, GZIP, done)
    else zstdCompress(bytes, ZSTD, done)
  })
}
