/** Decides how texts are cut into words to be searched by: an instrument's symbol and name, and what somebody types. */
import { type Instrument, MAX_NAME_CHARS } from "../../schema/Instrument.ts"

/** Words of one text that are kept; the rest is not searched. */
const MAX_WORDS = 24

/** What contracts on an index are called, by the index. */
const INDEX_CONTRACTS: Readonly<Record<string, string>> = {
  "NIFTY 50": "NIFTY",
  "NIFTY BANK": "BANKNIFTY",
  "NIFTY FIN SERVICE": "FINNIFTY",
  "NIFTY MID SELECT": "MIDCPNIFTY",
  "NIFTY NEXT 50": "NIFTYNXT50",
  SNSX50: "SENSEX50"
}

const MONTHS = [
  "january",
  "february",
  "march",
  "april",
  "may",
  "june",
  "july",
  "august",
  "september",
  "october",
  "november",
  "december"
]

const BETWEEN_PIECES = /[\s,:;/|]+/u
/** What most words are; the others take several times as long. */
const PLAIN = /^[a-z0-9]*$/
const LETTERS = /^[a-z]+$/
const NO_WORD = /[^\p{L}\p{M}\p{N}]+/gu
const BETWEEN_DIGITS = /(?<=\p{N}),(?=\p{N})/gu
const LETTERS_OR_DIGITS = /[\p{L}\p{M}]+|\p{N}+/gu
const LETTERS_OR_NUMBER = /[\p{L}\p{M}]+|\p{N}+(?:\.\p{N}+)?/gu
/** As symbols have them: `AUGFUT`. */
const MONTH_AND_KIND = /^(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(fut|ce|pe)$/

/** Letters and digits alone, in lower case: `M&M` and `mm` are the same. */
export const compact = (text: string): string => {
  const lower = text.slice(0, MAX_NAME_CHARS).toLowerCase()
  return PLAIN.test(lower) ? lower : lower.replace(NO_WORD, "")
}

/** The letters and the digits of a word, each for itself: `nifty50` is `nifty` and `50`. */
const partsOf = (word: string): ReadonlyArray<string> =>
  (word.match(LETTERS_OR_DIGITS) ?? []).flatMap((part) => MONTH_AND_KIND.exec(part)?.slice(1) ?? [part])

/** The words of a symbol or name: of `BAJAJ-AUTO` it is `bajajauto`, `bajaj` and `auto`. */
export const wordsOf = (text: string): ReadonlySet<string> => {
  const words = new Set<string>()
  for (const piece of text.slice(0, MAX_NAME_CHARS).toLowerCase().split(BETWEEN_PIECES)) {
    for (const word of PLAIN.test(piece) ? [piece] : [compact(piece), ...piece.split(NO_WORD)]) {
      if (word === "" || words.has(word)) continue
      words.add(word)
      if (!LETTERS.test(word)) for (const part of partsOf(word)) words.add(part)
      if (words.size >= MAX_WORDS) return words
    }
  }
  return words
}

/** What contracts on an index are called, where that is not its symbol. */
export const contractsOf = ({ asset_class, tradingsymbol }: Instrument): string | undefined =>
  asset_class === "INDEX" ? INDEX_CONTRACTS[tradingsymbol.toUpperCase()] : undefined

/** The symbol without what expiry, strike and kind say besides: of `NIFTY26AUGFUT` it is `NIFTY`. */
export const rootOf = ({ expiry, name, tradingsymbol }: Instrument): string => {
  if (expiry === null) return tradingsymbol
  if (name !== null && name !== "" && tradingsymbol.startsWith(name)) return name
  return /^\d*[^\d\s]+/u.exec(tradingsymbol)?.[0] ?? tradingsymbol
}

/** The words of an expiry, `YYYY-MM-DD`: year, month and day as they are typed. */
export const wordsOfExpiry = (expiry: string): ReadonlyArray<string> => {
  const [year, month, day] = expiry.split("-") as [string, string, string]
  const name = MONTHS[Number(month) - 1]!
  return [year, year.slice(2), name, name.slice(0, 3), String(Number(day)), day, `${year}${month}${day}`]
}

/** The words of what an instrument is. */
export const wordsOfKind = ({ asset_class, option_type }: Pick<Instrument, "asset_class" | "option_type">) => {
  switch (asset_class) {
    case "INDEX":
      return ["index", "indices"]
    case "EQ":
      return ["eq", "equity"]
    case "FUT":
      return ["fut", "future", "futures"]
    default: {
      const right = option_type === "CE" ? ["ce", "call"] : option_type === "PE" ? ["pe", "put"] : []
      return ["opt", "option", "options", ...right]
    }
  }
}

/** A word as it was typed, and which of the words it is made of. */
export interface Typed {
  readonly word: string
  readonly parts: ReadonlyArray<string>
}

/** What somebody types, in words. */
export const typedWords = (query: string): ReadonlyArray<Typed> =>
  query
    .toLowerCase()
    .replace(BETWEEN_DIGITS, "")
    .split(BETWEEN_PIECES)
    .map((piece) => {
      const numbers = piece.replace(/[^\p{L}\p{M}\p{N}.]+/gu, "")
      const parts = (numbers.match(LETTERS_OR_NUMBER) ?? []).flatMap(
        (part) => MONTH_AND_KIND.exec(part)?.slice(1) ?? [part.includes(".") ? String(Number(part)) : part]
      )
      return { word: compact(piece), parts }
    })
    .filter(({ parts }) => parts.length > 0)

/** The words of a text in one order: equal for texts that differ in the order of their words. */
export const sameWords = (text: string): string =>
  typedWords(text)
    .flatMap(({ parts }) => parts)
    .sort()
    .join(" ")
