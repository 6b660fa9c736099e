/** Decides how tests play Redis and the store for a hub: everything ever published, of which each knows a part. */
import type { Tick } from "../../src/schema/Tick.ts"
import type { History } from "../../src/streams/fanOut/history.ts"

/** Lets promises that are settled be heard. */
export const settle = () => new Promise<void>((resolve) => setImmediate(resolve))

/** `ring`: newest ticks that Redis has; `store`: how many of the newest the store has not yet; `up`: whether they answer. */
export const historyFrom = (
  all: Map<number, Array<Tick>>,
  part: { readonly ring: number; readonly store: () => number; readonly up: () => boolean }
) => {
  const asked: Array<string> = []
  const history: History = {
    last: async (token, limit) => {
      asked.push("last")
      await settle()
      if (!part.up()) return { ticks: [], failed: true }
      return { ticks: (all.get(token) ?? []).slice(-Math.min(limit, part.ring)), failed: false }
    },
    after: async (token, place, limit) => {
      asked.push("after")
      await settle()
      const ticks = all.get(token) ?? []
      const isAbove = (t: Tick) => t.epoch > place.epoch || (t.epoch === place.epoch && t.position > place.position)
      if (!part.up()) return { ticks: [], more: false, current: false, failed: true }
      const newest = ticks.at(-1)
      const ring = ticks.slice(-part.ring)
      const first = ring[0]
      if (
        first !== undefined &&
        (first.epoch < place.epoch || (first.epoch === place.epoch && first.position <= place.position + 1))
      ) {
        const above = ring.filter(isAbove)
        const current = newest!.epoch === place.epoch && newest!.position === place.position
        return { ticks: above, more: false, current, failed: false }
      }
      const stored = ticks.slice(0, Math.max(0, ticks.length - part.store())).filter(isAbove)
      if (stored.length > 0) return { ticks: stored.slice(0, limit), more: true, current: false, failed: false }
      return { ticks: ring.filter(isAbove), more: false, current: false, failed: false }
    }
  }
  return { history, asked }
}
