/** Decides how much memory a long-running process takes beyond what it holds, and shows both in its figures. */
import { setFlagsFromString } from "node:v8"
import { Effect, Schedule } from "effect"
import * as metrics from "../streams/metrics.ts"

/**
 * How far the heap grows past what was alive in it before it is collected as a whole, in percent. V8 by itself takes
 * anything up to 300, changes its mind with its pace, and never gives the pages back: minutes into a steady load the
 * process jumps to twice its size (docs/decisions/0010).
 */
const HEAP_GROWTH_PERCENT = 200

const LOOK = "5 seconds"

/** Bounds the heap of this process and keeps its gauges until it is interrupted. */
export const boundMemory: Effect.Effect<never> = Effect.gen(function* () {
  setFlagsFromString(`--heap-growing-percent=${HEAP_GROWTH_PERCENT}`)
  const context = yield* Effect.context<never>()
  const resident = metrics.bind(metrics.residentMemory, {}, context)
  const heap = metrics.bind(metrics.heapUsed, {}, context)
  const external = metrics.bind(metrics.externalMemory, {}, context)
  const look = Effect.sync(() => {
    const used = process.memoryUsage()
    resident.add(used.rss)
    heap.add(used.heapUsed)
    external.add(used.external)
  })
  return yield* Effect.andThen(Effect.repeat(look, Schedule.spaced(LOOK)), Effect.never)
})
