/**
 * Decides how the newest ticks of each instrument are kept in Redis: a list an instrument, full: drop-oldest, gone some
 * days after its last tick. A batch is one script, which takes only what is above the list's last epoch and position.
 */
import { Duration, Effect, Layer } from "effect"
import { isAfter, type Tick } from "../../schema/Tick.ts"
import { decodeTick, encodeTick } from "../../schema/TickJson.ts"
import { RecentTicks } from "../../streams/ports/RecentTicks.ts"
import { type Commands, RedisConnection, script } from "./connection.ts"
import { FlatArray } from "./messagePack.ts"

export interface RedisRingOptions {
  /** Ticks kept of one instrument. */
  readonly perInstrument: number
  /** How long a list is kept after its last tick. */
  readonly keep: Duration.Input
}

/** Ticks in one script, which holds up all others while it runs. */
const SCRIPT_TICKS = 4096
/** About what a tick's JSON takes, with its share of the rest. */
const TICK_BYTES = 384

/**
 * Lists grow by a tenth beyond what is kept before they are cut, since cutting costs as much as adding; what is beyond
 * is not read.
 */
const SLACK = 0.1

/** The place of a tick is read from its JSON, in which only fixed words stand before epoch and position. */
const PLACE = `
local function place(json)
  local at = string.find(json, '"epoch":', 1, true)
  local epoch, position = string.match(json, '^"epoch":(%d+),"position":(%d+)', at)
  return tonumber(epoch), tonumber(position)
end`

/**
 * ARGV: ticks kept, length at which a list is cut, seconds to live, and of each instrument: key, number of ticks, epoch
 * and position of the first, JSON of each; ascending.
 */
const APPEND = script(`
local call = redis.call
${PLACE}
local keep, cut, ttl = -tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local batch = cmsgpack.unpack(ARGV[4])
local i = 1
while i <= #batch do
  local key, count = batch[i], batch[i + 1]
  local from, past = i + 4, i + 4 + count
  local last = call('LINDEX', key, -1)
  if last then
    local epoch, position = place(last)
    local e, p = tonumber(batch[i + 2]), tonumber(batch[i + 3])
    while e < epoch or (e == epoch and p <= position) do
      from = from + 1
      if from == past then break end
      e, p = place(batch[from])
    end
  end
  local length = 0
  for first = from, past - 1, 1000 do
    length = call('RPUSH', key, unpack(batch, first, math.min(first + 999, past - 1)))
  end
  if length > cut then call('LTRIM', key, keep, -1) end
  if length > 0 then call('EXPIRE', key, ttl) end
  i = past
end
return 0
`)

/** KEYS[1], ARGV: epoch, position, ticks kept. The end of the list, from the last tick at or before the place. */
const AFTER = script(`
${PLACE}
local last = redis.call('LINDEX', KEYS[1], -1)
if not last then return {} end
local epoch, position = place(last)
local wanted, first = tonumber(ARGV[1]), -tonumber(ARGV[3])
if epoch < wanted then return { last } end
if epoch == wanted then first = math.max(first, -1 - math.max(0, position - tonumber(ARGV[2]))) end
return redis.call('LRANGE', KEYS[1], first, -1)
`)

const decode = (texts: ReadonlyArray<Buffer>): ReadonlyArray<Tick> =>
  texts.flatMap((text) => {
    const tick = decodeTick(text)
    return tick === undefined ? [] : [tick]
  })

/** The ticks above a place, and whether each follows the one before it, the first one following the place. */
const above = (
  list: ReadonlyArray<Tick>,
  epoch: number,
  position: number
): { readonly ticks: ReadonlyArray<Tick>; readonly complete: boolean } => {
  let first = list.length
  while (first > 0 && isAfter(list[first - 1]!.epoch, list[first - 1]!.position, { epoch, position })) first -= 1
  let complete = list.length > 0
  for (let i = first; i < list.length && complete; i++) {
    const tick = list[i]!
    const before = list[i - 1]
    const followsAsked = tick.epoch === epoch && tick.position === position + 1
    const followsBefore =
      before !== undefined && tick.position === (tick.epoch === before.epoch ? before.position + 1 : 1)
    complete = followsAsked || followsBefore
  }
  return { ticks: list.slice(first), complete }
}

const make = (options: RedisRingOptions): Effect.Effect<RecentTicks["Service"], never, RedisConnection> =>
  Effect.gen(function* () {
    const { ask, prefix } = yield* RedisConnection
    const { perInstrument } = options
    const seconds = String(Math.ceil(Duration.toSeconds(options.keep)))
    const kept = String(perInstrument)
    const cut = String(Math.floor(perInstrument * (1 + SLACK)))
    const keyOf = (token: number) => `${prefix}ring:${token}`

    /** The ticks of each instrument that may be new: ascending, and no more than the list keeps. */
    const select = (ticks: ReadonlyArray<Tick>, from: number, to: number): ReadonlyMap<number, Array<Tick>> => {
      const byToken = new Map<number, Array<Tick>>()
      for (let i = from; i < to; i++) {
        const tick = ticks[i]!
        if (tick.old) continue
        const list = byToken.get(tick.instrument_token)
        if (list === undefined) byToken.set(tick.instrument_token, [tick])
        else {
          const last = list[list.length - 1]!
          if (isAfter(tick.epoch, tick.position, last)) list.push(tick)
        }
      }
      return byToken
    }

    const pack = (ticks: ReadonlyArray<Tick>, from: number, to: number): Buffer => {
      const packed = new FlatArray((to - from) * TICK_BYTES)
      for (const [token, all] of select(ticks, from, to)) {
        const list = all.length > perInstrument ? all.slice(-perInstrument) : all
        packed.ascii(keyOf(token))
        packed.int(list.length)
        packed.ascii(String(list[0]!.epoch))
        packed.ascii(String(list[0]!.position))
        for (const tick of list) packed.text(encodeTick(tick))
      }
      return packed.finish()
    }

    const append = async ({ run }: Commands, ticks: ReadonlyArray<Tick>): Promise<void> => {
      // One after the other: a part that went in before the one it follows would leave that one out.
      for (let from = 0; from < ticks.length; from += SCRIPT_TICKS) {
        const batch = pack(ticks, from, Math.min(from + SCRIPT_TICKS, ticks.length))
        await run(APPEND, [], [kept, cut, seconds, batch])
      }
    }

    return {
      append: (ticks) => (ticks.length === 0 ? Effect.void : ask("append", (commands) => append(commands, ticks))),
      last: (token, limit) =>
        limit <= 0
          ? Effect.succeed([])
          : ask("last", async ({ client }) =>
              decode(await client.lrangeBuffer(keyOf(token), -Math.min(limit, perInstrument), -1))
            ),
      after: (token, epoch, position) =>
        ask("after", async ({ runBytes }) =>
          above(
            decode(
              (await runBytes(AFTER, [keyOf(token)], [String(epoch), String(position), kept])) as ReadonlyArray<Buffer>
            ),
            epoch,
            position
          )
        )
    }
  })

export const layer = (options: RedisRingOptions): Layer.Layer<RecentTicks, never, RedisConnection> =>
  Layer.effect(RecentTicks, make(options))
