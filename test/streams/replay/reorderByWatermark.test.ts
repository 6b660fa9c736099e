import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { partitionOf } from "../../../src/schema/Partition.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import type { Replayed } from "../../../src/streams/log/follow.ts"
import { compareGlobally, type Release, WatermarkReorder } from "../../../src/streams/replay/reorderByWatermark.ts"

const PARTITIONS = 4
const RUN = "r.1"
const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

const tick = (token: number, exchange_ts: number, position: number): Tick => ({
  instrument_token: token,
  exchange_ts,
  price: 1,
  volume: 1,
  sequence_id: position,
  status: "LIVE",
  gap_from: 0,
  session: 0,
  sequencing: "contiguous",
  epoch: 1,
  position,
  feed: "dma",
  received_ts: exchange_ts,
  source: ["raw", position, 0],
  old: false
})

/** Steps (token, gap) as a run in global order, cut into slices. */
const runOf = (
  steps: ReadonlyArray<readonly [number, number]>,
  sliceSize: number
): ReadonlyArray<ReadonlyArray<Tick>> => {
  const positions = new Map<number, number>()
  let now = 1_768_450_500_000_000
  const ticks = steps
    .map(([token, gap]) => {
      now += gap
      const position = (positions.get(token) ?? 0) + 1
      positions.set(token, position)
      return tick(token, now, position)
    })
    .sort(compareGlobally)
    .map((found, offset): Tick => ({ ...found, source: ["raw", offset, 0] }))
  const slices: Array<ReadonlyArray<Tick>> = []
  for (let i = 0; i < ticks.length; i += sliceSize) slices.push(ticks.slice(i, i + sliceSize))
  return slices
}

/** What each partition brings: its ticks of each slice, then the slice's watermark. */
const lanesOf = (run: string, slices: ReadonlyArray<ReadonlyArray<Tick>>): ReadonlyArray<ReadonlyArray<Replayed>> =>
  Array.from({ length: PARTITIONS }, (_, partition) =>
    slices.flatMap(
      (slice, i): ReadonlyArray<Replayed> => [
        ...slice
          .filter(({ instrument_token }) => partitionOf(instrument_token, PARTITIONS) === partition)
          .map((found) => ({ run, tick: found })),
        { run, watermark: i + 1, end: i === slices.length - 1 }
      ]
    )
  )

const steps = Arbitrary.array(Arbitrary.schema(Schema.Tuple([int(1, 12), int(0, 2)])), { minLength: 1, maxLength: 120 })
const choices = Arbitrary.array(Arbitrary.schema(Schema.Tuple([int(0, PARTITIONS - 1), int(1, 9)])), { maxLength: 200 })

/** Hands the lanes over in the order chosen, then what is left, a partition after the other. */
const deliver = (
  reorder: WatermarkReorder,
  lanes: ReadonlyArray<ReadonlyArray<Replayed>>,
  chosen: ReadonlyArray<readonly [number, number]>
): ReadonlyArray<Release> => {
  const taken = lanes.map(() => 0)
  const rest = lanes.map((_, partition) => [partition, Number.MAX_SAFE_INTEGER] as const)
  return [...chosen, ...rest].flatMap(([partition, count]) => {
    const from = taken[partition]!
    const items = lanes[partition]!.slice(from, from + count)
    taken[partition] = from + items.length
    return reorder.take(partition, items)
  })
}

describe("WatermarkReorder", () => {
  it.prop(
    "gives the exact global order, whatever the partitions' turns were",
    [steps, Arbitrary.schema(int(1, 20)), choices],
    ([given, sliceSize, chosen]) => {
      const slices = runOf(given, sliceSize)
      const reorder = new WatermarkReorder(PARTITIONS)
      reorder.open(RUN)
      reorder.sent(RUN, slices.length, true)
      const releases = deliver(reorder, lanesOf(RUN, slices), chosen)
      assert.deepStrictEqual(
        releases.map(({ ticks }) => ticks),
        slices
      )
      assert.deepStrictEqual(
        releases.map(({ watermark, end }) => [watermark, end]),
        slices.map((_, i) => [i + 1, i === slices.length - 1])
      )
      assert.strictEqual(reorder.held, 0)
    }
  )

  it.prop(
    "releases a slice only when its watermark is out of every partition",
    [steps, Arbitrary.schema(int(1, 20)), choices],
    ([given, sliceSize, chosen]) => {
      const slices = runOf(given, sliceSize)
      const lanes = lanesOf(RUN, slices)
      const reorder = new WatermarkReorder(PARTITIONS)
      reorder.open(RUN)
      reorder.sent(RUN, slices.length, true)
      const watermarks = lanes.map(() => 0)
      const taken = lanes.map(() => 0)
      let released = 0
      for (const [partition, count] of chosen) {
        const items = lanes[partition]!.slice(taken[partition]!, taken[partition]! + count)
        taken[partition]! += items.length
        for (const item of items) if ("watermark" in item) watermarks[partition] = item.watermark
        for (const release of reorder.take(partition, items)) released = release.watermark
        assert.strictEqual(released, Math.min(...watermarks))
      }
    }
  )

  it("keeps runs apart, and passes over one it does not know", () => {
    const reorder = new WatermarkReorder(PARTITIONS)
    reorder.open("a.1")
    reorder.open("b.1")
    const slicesA = runOf(
      [
        [1, 1],
        [2, 1],
        [3, 1]
      ],
      2
    )
    const slicesB = runOf(
      [
        [3, 5],
        [2, 5],
        [1, 5]
      ],
      3
    )
    reorder.sent("a.1", slicesA.length, true)
    reorder.sent("b.1", slicesB.length, true)
    const lanes = [lanesOf("a.1", slicesA), lanesOf("b.1", slicesB), lanesOf("elsewhere.7", slicesB)]
    const releases = Array.from({ length: PARTITIONS }, (_, partition) =>
      reorder.take(
        partition,
        lanes.flatMap((lane) => lane[partition]!)
      )
    ).flat()
    assert.deepStrictEqual(
      releases.filter(({ run }) => run === "a.1").map(({ ticks }) => ticks),
      slicesA
    )
    assert.deepStrictEqual(
      releases.filter(({ run }) => run === "b.1").map(({ ticks }) => ticks),
      slicesB
    )
    assert.strictEqual(releases.length, 3)
  })

  it("a watermark that comes twice changes nothing, one that skips numbers covers them", () => {
    const reorder = new WatermarkReorder(2)
    reorder.open(RUN)
    reorder.sent(RUN, 3, true)
    const one = tick(1, 10, 1)
    assert.deepStrictEqual(
      reorder.take(0, [
        { run: RUN, tick: one },
        { run: RUN, watermark: 1, end: false }
      ]),
      []
    )
    assert.deepStrictEqual(reorder.take(0, [{ run: RUN, watermark: 1, end: false }]), [])
    const [first, second, ...more] = reorder.take(1, [{ run: RUN, watermark: 3, end: true }])
    assert.deepStrictEqual(first, { run: RUN, watermark: 1, end: false, ticks: [one], quotes: [] })
    assert.isUndefined(second)
    assert.deepStrictEqual(more, [])
    assert.deepStrictEqual(
      reorder.take(0, [{ run: RUN, watermark: 3, end: true }]).map(({ watermark, end }) => [watermark, end]),
      [
        [2, false],
        [3, true]
      ]
    )
  })

  it.prop(
    "a reader that begins again further back changes nothing",
    [steps, Arbitrary.schema(int(1, 20)), choices],
    ([given, sliceSize, chosen]) => {
      const slices = runOf(given, sliceSize)
      const lanes = lanesOf(RUN, slices)
      const reorder = new WatermarkReorder(PARTITIONS)
      reorder.open(RUN)
      reorder.sent(RUN, slices.length, true)
      const releases: Array<Release> = []
      const taken = lanes.map(() => 0)
      for (const [partition, count] of chosen) {
        const end = Math.min(lanes[partition]!.length, taken[partition]! + count)
        // From a place before what it had taken already.
        const from = Math.max(0, taken[partition]! - 2 * count)
        releases.push(...reorder.take(partition, lanes[partition]!.slice(from, end)))
        taken[partition] = end
      }
      releases.push(...deliver(reorder, lanes, []))
      assert.deepStrictEqual(
        releases.map(({ ticks }) => ticks),
        slices
      )
    }
  )

  it("forgets a run that is closed", () => {
    const reorder = new WatermarkReorder(1)
    reorder.open(RUN)
    reorder.take(0, [{ run: RUN, tick: tick(1, 10, 1) }])
    assert.strictEqual(reorder.held, 1)
    reorder.close(RUN)
    assert.strictEqual(reorder.held, 0)
    assert.deepStrictEqual(reorder.take(0, [{ run: RUN, watermark: 1, end: true }]), [])
  })

  it("passes over watermarks that nobody put in, an end among them, and more ticks than a window holds", () => {
    const reorder = new WatermarkReorder(1, 2)
    reorder.open(RUN)
    reorder.sent(RUN, 1, false)
    const forged: ReadonlyArray<Replayed> = [
      { run: RUN, watermark: 2, end: true },
      { run: RUN, watermark: Number.MAX_SAFE_INTEGER, end: false },
      ...Array.from({ length: 100 }, (_, i) => ({ run: RUN, tick: tick(1, 10 + i, 1 + i) }))
    ]
    assert.deepStrictEqual(reorder.take(0, forged), [])
    assert.strictEqual(reorder.held, 2)
    const [release] = reorder.take(0, [{ run: RUN, watermark: 1, end: true }])
    assert.deepStrictEqual([release?.end, release?.ticks.length, reorder.held], [false, 2, 0])
    reorder.sent(RUN, 2, true)
    assert.isTrue(reorder.take(0, [{ run: RUN, watermark: 2, end: true }])[0]?.end)
  })
})
