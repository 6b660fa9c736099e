/** Decides the values that raw records are made of: tokens, prices, quantities and names, and how far each may go. */
import { Schema } from "effect"
import { isPrintable } from "./printable.ts"

export const MAX_TOKEN = 2_147_483_647
/**
 * Prices have at most 7 decimals (currency derivatives) and stay within this many rupees of 0, on either side: spreads,
 * rates and now and then a commodity trade below it.
 */
export const MAX_PRICE = 1_000_000_000
const PRICE_SCALE = 10_000_000
export const MAX_RAW_NAME_CHARS = 64

/** Whether a name is shown as it is. Nearly all are ASCII: that is seen without the expression for the rest. */
export const isPlainName = (name: string): boolean => {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i)
    if (code < 0x20 || code > 0x7e) return isPrintable(name)
  }
  return true
}

/** Whether a price's shortest decimal has at most 7 decimals. */
export const isExactPrice = (price: number): boolean => Math.round(price * PRICE_SCALE) / PRICE_SCALE === price

export const InstrumentToken = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: MAX_TOKEN })))
export const Price = Schema.Finite.pipe(
  Schema.check(
    Schema.isBetween({ minimum: -MAX_PRICE, maximum: MAX_PRICE }),
    Schema.makeFilter((price: number) => isExactPrice(price) || "Expected at most 7 decimals")
  )
)
export const Quantity = Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0)))
export const Name = Schema.String.pipe(
  Schema.check(
    Schema.isBetweenLength(1, MAX_RAW_NAME_CHARS),
    // PostgreSQL holds no NUL, and a name is shown on terminals, in logs and on pages.
    Schema.makeFilter((name: string) => isPlainName(name) || "Expected a name without control characters")
  )
)

/** Whether a value is a quantity. */
export const isQuantity = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
