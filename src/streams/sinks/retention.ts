/**
 * Decides when days go that the store is no longer to keep: they are looked for every minute, where STORE_DAYS says so,
 * and each goes only after the archive was read back and holds it.
 */
import { Effect } from "effect"
import type { Settings } from "../../schema/Settings.ts"
import { tradingDate, tradingDay } from "../../schema/Tick.ts"
import { Archive, noArchive } from "../ports/Archive.ts"
import { TickStore } from "../ports/TickStore.ts"
import { crashPoint } from "../run/crashPoint.ts"
import { Readiness } from "../run/Readiness.ts"
import { retrySink } from "../run/sinkRetry.ts"
import { secureDays } from "./secureDays.ts"

const LOOK = "1 minute"
/** To read a day back is work: where it was in vain, somebody has to do something first. */
const LOOK_AGAIN = "10 minutes"

/** Drops what may go; answers how many days went, and why the next one must not. */
export const dropOldDays = Effect.gen(function* () {
  const store = yield* TickStore
  const ask = retrySink("old days", { isLong: true })
  const old = yield* ask(store.oldDays)
  if (old === undefined) return { dropped: 0, reason: undefined }
  let dropped = 0
  for (const [from, to] of old.days) {
    const reason = yield* secureDays(from, to)
    // The days after it stay as well: what the store holds has no hole.
    if (reason !== undefined) return { dropped, reason: `${tradingDate(tradingDay(from))}: ${reason}` }
    dropped += yield* ask(store.dropDays(to))
    crashPoint("after-days-dropped")
  }
  // Where there was nothing to drop, what comes for those days is still the archive's.
  dropped += yield* ask(store.dropDays(old.before))
  return { dropped, reason: undefined }
})

export const retention = (
  settings: Pick<Settings, "STORE_DAYS">
): Effect.Effect<never, never, TickStore | Archive | Readiness> =>
  Effect.gen(function* () {
    if (settings.STORE_DAYS === 0) return yield* Effect.never
    if ((yield* Archive) === noArchive) {
      yield* Effect.logWarning("store: STORE_DAYS is set, but nothing is archived: all days stay")
      return yield* Effect.never
    }
    const readiness = yield* Readiness
    return yield* Effect.forever(
      Effect.gen(function* () {
        const { dropped, reason } = yield* dropOldDays
        if (dropped > 0) {
          yield* Effect.logInfo(`store: ${dropped} days of ticks older than ${settings.STORE_DAYS} days dropped`)
        }
        yield* readiness.degrade("old days", reason !== undefined, settings)
        if (reason !== undefined)
          yield* Effect.logWarning(`store: days from ${reason}; they stay until it is put right`)
        yield* Effect.sleep(reason === undefined ? LOOK : LOOK_AGAIN)
      })
    )
  })
