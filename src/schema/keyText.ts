/**
 * Decides how an API key is written, `mdp_<id>_<secret>`, and that none is ever shown: wherever foreign text is put into
 * a log, an error or a figure, what reads as a key is cut down to its id.
 */

/** What every key begins with: tools that look for leaked secrets, and people, know it by that. */
export const KEY_PREFIX = "mdp_"
export const KEY_ID_CHARS = 8
/** 256 bits in base64url. */
export const KEY_SECRET_CHARS = 43
export const KEY_CHARS = KEY_PREFIX.length + KEY_ID_CHARS + 1 + KEY_SECRET_CHARS

const ID = `[0-9a-f]{${KEY_ID_CHARS}}`
const KEY = new RegExp(`^${KEY_PREFIX}(${ID})_[A-Za-z0-9_-]{${KEY_SECRET_CHARS}}$`)
/** Also the beginning of one: text is cut before it is shown. */
const SHOWN = new RegExp(`(${KEY_PREFIX}${ID}_)[A-Za-z0-9_-]+`, "g")

/** The id in a key; `undefined` where the text is none. */
export const keyIdOf = (text: string): string | undefined =>
  text.length === KEY_CHARS ? KEY.exec(text)?.[1] : undefined

/** The text with every key in it as `mdp_<id>_…`. */
export const hideKeys = (text: string): string =>
  text.includes(KEY_PREFIX) ? text.replace(SHOWN, (_, shown: string) => `${shown}…`) : text
