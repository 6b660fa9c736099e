/**
 * Decides what a key is made of and how it is told again. Its secret is 256 random bits, so a plain SHA-256 of it is kept:
 * a slow hash (scrypt, Argon2) makes up for passwords that can be guessed, and here would only let anyone who sends wrong
 * keys buy seconds of the server's time. Nobody searches 2^256 keys for one that has a given hash.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto"
import { KEY_ID_CHARS, KEY_PREFIX } from "../../schema/keyText.ts"

const SECRET_BYTES = 32

export interface NewKey {
  readonly id: string
  /** The key itself, to be shown once. */
  readonly text: string
  /** Of it, in hexadecimal digits. */
  readonly hash: string
}

export const hashOf = (text: string): Buffer => createHash("sha256").update(text, "utf8").digest()

/** A key whose id none of `taken` is. */
export const newKey = (taken: Pick<ReadonlySet<string>, "has">): NewKey => {
  let id: string
  do id = randomBytes(KEY_ID_CHARS / 2).toString("hex")
  while (taken.has(id))
  const text = `${KEY_PREFIX}${id}_${randomBytes(SECRET_BYTES).toString("base64url")}`
  return { id, text, hash: hashOf(text).toString("hex") }
}

const NOBODY = Buffer.alloc(32)

/**
 * Whether a key has the hash, in a time that does not tell how far it agrees; without a hash the same work is done for
 * nothing, so that the time does not tell whether there is a key of that id.
 */
export const isKeyOf = (text: string, hash: Buffer | undefined): boolean =>
  timingSafeEqual(hashOf(text), hash ?? NOBODY) && hash !== undefined
