/** Decides how tests make clients: quick to come back, closed with the test, and every event of theirs kept. */
import { onTestFinished } from "vitest"
import { type Client, type ConnectOptions, connect, type Events, type Source } from "../../src/client/index.ts"
import type { TickFrame } from "../../src/client/messages.ts"
import { EPOCH } from "./hub.ts"

type Kept = { readonly [E in keyof Events]: Array<Events[E]> }

const EVENTS: ReadonlyArray<keyof Events> = [
  ...([
    "connected",
    "disconnected",
    "closed",
    "tick",
    "gap",
    "gap_filled",
    "candle",
    "quote",
    "state",
    "clock"
  ] as const),
  ...(["missed", "epoch", "run", "closing", "error", "message"] as const)
]

/** All events of a client or replay, from now on. */
export const eventsOf = (source: Source): Kept => {
  const kept = Object.fromEntries(EVENTS.map((event) => [event, [] as Array<unknown>])) as Kept
  for (const event of EVENTS) source.on(event, (value) => (kept[event] as Array<unknown>).push(value))
  return kept
}

export const client = (
  url: string,
  options: ConnectOptions = {}
): { readonly client: Client; readonly events: Kept } => {
  const made = connect({ url, reconnect: { minMs: 1, maxMs: 20 }, ...options })
  onTestFinished(() => made.close())
  return { client: made, events: eventsOf(made) }
}

export const frame = (token: number, position: number, epoch = EPOCH): TickFrame => ({
  type: "tick",
  instrument_token: token,
  price: 100 + position / 20,
  volume: position,
  status: "LIVE",
  exchange_ts: 1_768_449_600_000_000 + position,
  sequence_id: position,
  epoch,
  position
})

/** A backfill of the positions `from` to `to`; none where `from` is above. */
export const backfill = (token: number, from: number, to: number, recovered = true, epoch = EPOCH) =>
  ({
    type: "backfill",
    instrument_token: token,
    epoch,
    from,
    to,
    recovered,
    data: Array.from({ length: to - from + 1 }, (_, i) => frame(token, from + i, epoch))
  }) as const

export const evicted = (token: number, from: number, to: number, epoch = EPOCH) =>
  ({ type: "evicted", instrument_token: token, epoch, from, to, count: to - from + 1 }) as const

/** The next so many of a stream. */
export const take = async <A>(stream: AsyncIterableIterator<A, undefined>, count: number): Promise<Array<A>> => {
  const taken: Array<A> = []
  while (taken.length < count) {
    const { value, done } = await stream.next()
    if (done === true) throw new Error(`the stream ended after ${taken.length} of ${count}`)
    taken.push(value)
  }
  return taken
}

/** What a promise fails with. */
export const failureOf = async (promise: Promise<unknown>): Promise<unknown> => {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error("expected a failure, got none")
}
