/** Decides which characters a text from outside may have, and how one that has others is shown to a person. */

/** Controls, line ends of any kind, and what turns the direction of writing: they would rewrite a terminal or a table. */
const UNPRINTABLE = /[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]|\p{Cs}/gu
const UNPRINTABLE_ONCE = new RegExp(UNPRINTABLE.source, "u")

/** Whether a text is whole and has no character that no person could see. */
export const isPrintable = (text: string): boolean => !UNPRINTABLE_ONCE.test(text)

/** A text as it may be shown on a terminal: what is not printable as JSON would write it, `\u001b`. */
export const printable = (text: string): string =>
  text.replace(UNPRINTABLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

/** A text with a space where something is not printable, cut to so many characters, none of them halved. */
export const cleaned = (text: string, maxChars: number): string =>
  text.slice(0, maxChars).replace(UNPRINTABLE, " ").trim()
