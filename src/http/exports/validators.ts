/**
 * Decides what an answer about the past says of its own age. A range that is over gets an `ETag`, by which a client asks
 * whether anything has changed, and has to ask: a tick may come late, and a replay may add one. What still goes on is not
 * kept at all.
 */
import { createHash } from "node:crypto"
import type { Coding } from "./coding.ts"

const HASH_CHARS = 27

/** An entity tag of what the parts say; the same only where they are. */
export const tagOf = (...parts: ReadonlyArray<string | number | undefined>): string =>
  createHash("sha256").update(JSON.stringify(parts)).digest("base64url").slice(0, HASH_CHARS)

/** Compressed bytes may differ from one version of a compressor to the next: then the tag speaks of what is in them. */
const written = (tag: string, coding: Coding | undefined): string => (coding === undefined ? `"${tag}"` : `W/"${tag}"`)

/** Whether `If-None-Match` names the tag: weakly, as it compares. */
export const isMatched = (ifNoneMatch: string | undefined, tag: string): boolean =>
  (ifNoneMatch ?? "").split(",").some((one) => {
    const named = one.trim().replace(/^W\//, "")
    return named === "*" || named === `"${tag}"`
  })

/** The headers of an answer; `tag` where the range is over. */
export const validators = (tag: string | undefined, coding: Coding | undefined): Readonly<Record<string, string>> => ({
  vary: "accept, accept-encoding",
  ...(coding === undefined ? {} : { "content-encoding": coding }),
  ...(tag === undefined ? {} : { etag: written(tag, coding), "cache-control": "private, no-cache" })
})
