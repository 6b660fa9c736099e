/**
 * Decides how text from outside is shown in a log or on a terminal: as one line, with nothing in it that a terminal obeys,
 * and no API key.
 */
import { hideKeys } from "./keyText.ts"

/**
 * Control characters (C0, DEL, C1), line and paragraph separators, and the marks that turn the direction of text
 * around: what comes after them would read as something else. Lone surrogates are no text at all.
 */
const UNSHOWN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g

const UNSHOWN_ONCE = new RegExp(UNSHOWN.source)

/** Whether a text is whole, and all of it is shown as it is. */
export const isPrintable = (text: string): boolean => !UNSHOWN_ONCE.test(text)

/** Text cut to `limit` characters, a space where one of them is not printable. */
export const cleaned = (text: string, limit: number): string => text.slice(0, limit).replace(UNSHOWN, " ").trim()

const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`

/** Text from outside, its control characters as `\u001b`; the escapes of JSON, so JSON stays what it was. Keys are hidden. */
export const printable = (text: string): string => hideKeys(text).replace(UNSHOWN, escaped)

/** The same, cut to `limit` characters before anything else is done with it. */
export const printableUpTo = (text: string, limit: number): string =>
  text.length > limit ? `${printable(text.slice(0, limit))}…` : printable(text)
