/** Decides that a market which is played in real time, and accounted for by the day, does not play over midnight (IST). */
import { setTimeout as sleep } from "node:timers/promises"
import { tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"

/**
 * Where the trading day ends within so long, waits until the next one has begun: of what comes late over midnight live
 * clients are told nothing, and every instrument begins another epoch.
 */
export const withinOneDay = async (ms: number): Promise<void> => {
  const now = Date.now()
  const next = tradingDayStart(tradingDay(now * 1000) + 1) / 1000
  if (next - now < ms) await sleep(next - now + 1000)
}
