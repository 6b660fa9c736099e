/** Decides how a replay reaches its listeners: as a channel of the hub. */
import type { ReplayAudience } from "../replay/ReplayAudience.ts"
import type { Hub } from "./Hub.ts"

/** The clients of a hub: each replay is a channel of it. */
export const replayAudience = (hub: Hub): ReplayAudience["Service"] => ({
  open: (id, day) => {
    hub.open(id, day)
  },
  publish: (id, ticks, quotes) => hub.channel(id)?.publish(ticks, 0, undefined, quotes),
  clock: (id, { run, ts, state, isWhole }) => {
    const channel = hub.channel(id)
    if (isWhole) channel?.end()
    channel?.clock(run, ts, state)
  },
  close: (id) => hub.close(id),
  clients: (id) => hub.clients(id)
})
