import { assert, describe, it } from "@effect/vitest"

interface Worker {
  readonly life: string
  readonly living: boolean
  readonly at: number
  readonly figures: ReadonlyArray<{ name: string; labels: Record<string, string>; value: number }>
}
interface Figures {
  take(workers: ReadonlyArray<Worker>): void
  forget(): void
  sum(name: string, wanted?: Record<string, string>): number | undefined
  rate(name: string, wanted?: Record<string, string>): number | undefined
  by(name: string, label: string): ReadonlyArray<readonly [string, number]>
  fills(sizes: string, capacities: string): ReadonlyArray<readonly [string, number, number]>
}

const module = new URL("../../src/http/dashboard/figures.js", import.meta.url).href
const { Figures } = (await import(module)) as { readonly Figures: new () => Figures }

const SENT = "sent"
const worker = (life: string, seconds: number, value: number, living = true): Worker => ({
  life,
  living,
  at: seconds * 1_000_000,
  figures: [
    { name: SENT, labels: { stage: "publish" }, value },
    { name: SENT, labels: { stage: "decode" }, value: 2 * value }
  ]
})

describe("the page's figures of several processes", () => {
  it("adds up rates of each process by its own clock, and sums of those that live", () => {
    const figures = new Figures()
    figures.take([worker("a", 100, 1000), worker("b", 5, 10)])
    assert.isUndefined(figures.rate(SENT, { stage: "publish" }))
    figures.take([worker("a", 102, 1200), worker("b", 6, 40)])
    assert.strictEqual(figures.rate(SENT, { stage: "publish" }), 130)
    assert.strictEqual(figures.sum(SENT, { stage: "publish" }), 1240)
    assert.strictEqual(figures.sum(SENT), 1240 * 3)
  })

  it("keeps the rate of who published nothing new, and counts nobody twice", () => {
    const figures = new Figures()
    figures.take([worker("a", 100, 1000)])
    figures.take([worker("a", 101, 1100)])
    figures.take([worker("a", 101, 1100)])
    assert.strictEqual(figures.rate(SENT, { stage: "publish" }), 100)
  })

  it("never takes a figure of one life from another's, whatever the process is called", () => {
    const figures = new Figures()
    figures.take([worker("a", 100, 1000)])
    figures.take([worker("a", 101, 1100)])
    // Killed and started again: the new one has counted from 0.
    figures.take([worker("a", 101, 1100, false), worker("a-again", 103, 7)])
    assert.isUndefined(figures.rate(SENT, { stage: "publish" }))
    assert.strictEqual(figures.sum(SENT, { stage: "publish" }), 7)
    figures.take([worker("a-again", 104, 9)])
    assert.strictEqual(figures.rate(SENT, { stage: "publish" }), 2)
    assert.strictEqual(figures.sum(SENT, { stage: "publish" }), 9)
  })

  it("says nothing rather than 0 where nobody lives", () => {
    const figures = new Figures()
    figures.take([worker("a", 100, 1000, false)])
    assert.isUndefined(figures.sum(SENT))
    figures.take([worker("a", 100, 1000)])
    figures.forget()
    assert.isUndefined(figures.sum(SENT))
  })

  it("divides by no capacity that is not there", () => {
    const figures = new Figures()
    const gauge = (name: string, buffer: string, value: number) => ({ name, labels: { buffer }, value })
    figures.take([
      {
        life: "a",
        living: true,
        at: 1,
        figures: [
          gauge("size", "raw_ticks", 50),
          gauge("size", "client", 5),
          gauge("most", "client", 0),
          gauge("size", "replay", 10),
          gauge("most", "replay", 100),
          gauge("most", "dlq", 10)
        ]
      },
      { life: "b", living: true, at: 1, figures: [gauge("size", "replay", 30), gauge("most", "replay", 100)] }
    ])
    assert.deepStrictEqual(figures.fills("size", "most"), [["replay", 30, 0.3]])
  })

  it("adds up by a label", () => {
    const figures = new Figures()
    const wins = (life: string, feed: string, value: number): Worker => ({
      life,
      living: true,
      at: 1,
      figures: [{ name: "wins", labels: { feed }, value }]
    })
    figures.take([wins("a", "snapshot", 1), wins("b", "dma", 5), wins("c", "dma", 6)])
    assert.deepStrictEqual(figures.by("wins", "feed"), [
      ["dma", 11],
      ["snapshot", 1]
    ])
  })
})
