/** Decides what a server does with what it reads: live ticks go to the hub, replayed ones back to their replays. */
import { Effect } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import { TickLog } from "../log/TickLog.ts"
import { Replays } from "../replay/Replays.ts"
import type { Readiness } from "../run/Readiness.ts"
import { broadcast } from "./broadcast.ts"
import { FanOut } from "./Hub.ts"

export const serveLive: Effect.Effect<void, LogError, TickLog | Readiness | FanOut | Replays> = Effect.gen(
  function* () {
    const hub = yield* FanOut
    const replays = yield* Replays
    hub.partitions = (yield* TickLog).partitions
    yield* broadcast({
      begin: (place, since) => hub.live.begin(place, since),
      take: ({ partition, ticks, quotes, replays: returned, publishedAt, bookmark }, isBehind) => {
        if (ticks.length > 0 || quotes.length > 0) hub.publish(ticks, publishedAt, { bookmark, isBehind }, quotes)
        if (returned.length > 0) replays.returned(partition, returned)
      }
    })
  }
)
