import { assert, describe, it, vi } from "@effect/vitest"

vi.stubGlobal("matchMedia", () => ({ matches: false }))
const module = new URL("../../src/http/dashboard/watchlist.js", import.meta.url).href
const { Watched } = (await import(module)) as {
  readonly Watched: new (
    token: number,
    instrument: { readonly asset_class: string } | undefined
  ) => {
    readonly openInterest: number | undefined
    readonly known: (quote: { readonly exchange_ts: number; readonly oi?: number }) => void
  }
}

describe("the open interest that the page shows", () => {
  it("is a contract's, 0 too, and nothing of what has none", () => {
    const cases: ReadonlyArray<readonly [string | undefined, number | undefined, number | undefined]> = [
      ["FUT", 1200, 1200],
      ["OPT", 0, 0],
      ["EQ", 0, undefined],
      ["INDEX", 0, undefined],
      [undefined, 0, undefined],
      [undefined, 5, 5],
      ["FUT", undefined, undefined]
    ]
    for (const [asset_class, oi, shown] of cases) {
      const item = new Watched(1, asset_class === undefined ? undefined : { asset_class })
      assert.isUndefined(item.openInterest)
      item.known({ exchange_ts: 1, ...(oi === undefined ? {} : { oi }) })
      assert.strictEqual(item.openInterest, shown, `${asset_class} ${oi}`)
    }
  })
})
