/**
 * Decides how partition states are kept in Redis: a hash for each raw topic's incarnation and partition, a field an
 * instrument, the marks beside them, changed together by one script; gone some days after the last save.
 */
import { Duration, Effect, Layer } from "effect"
import { CacheError } from "../../schema/Errors.ts"
import { type ChangedState, type Checkpoint, Checkpoints } from "../../streams/ports/Checkpoints.ts"
import { type Commands, RedisConnection, script } from "./connection.ts"

export interface RedisCheckpointsOptions {
  /** How long a partition's state is kept after it was last saved. */
  readonly keep: Duration.Input
}

/** Fields asked for at a time; a server may give a few more. */
const FIELDS_PER_PIECE = 256
/** Readings begun again because somebody saved meanwhile: the one who lost the partition saves no more than a few times. */
const READINGS = 10

/**
 * KEYS[1], and KEYS[2] where the number of partitions is kept, put back where it went with Redis's data. ARGV: seconds to
 * live, raw offset, normalized offset, normalized incarnation, raw offset of the checkpoint that is changed (empty: none),
 * number of partitions (empty: not known), how many instruments are gone (`others`: all not named), those, then token and
 * state of each other. One who stands behind what is kept has lost the
 * partition, and changes nothing: 0. Where the checkpoint to change is gone, with Redis's data, a part of the state must
 * not stand for the whole: 2, and nothing changes. Else 1.
 */
const SAVE = script(`
local call = redis.call
local kept = call('HGET', KEYS[1], 'rawOffset')
if kept and tonumber(ARGV[2]) < tonumber(kept) then return 0 end
if ARGV[5] ~= '' and (not kept or tonumber(kept) < tonumber(ARGV[5])) then return 2 end
local from = 8
if ARGV[7] == 'others' then
  local saves = call('HGET', KEYS[1], 'saves')
  call('UNLINK', KEYS[1])
  if saves then call('HSET', KEYS[1], 'saves', saves) end
else
  from = 8 + tonumber(ARGV[7])
  for gone = 8, from - 1, 1000 do
    call('HDEL', KEYS[1], unpack(ARGV, gone, math.min(gone + 999, from - 1)))
  end
end
call('HSET', KEYS[1], 'rawOffset', ARGV[2], 'normalizedOffset', ARGV[3], 'normalizedIncarnation', ARGV[4])
call('HINCRBY', KEYS[1], 'saves', 1)
if ARGV[6] ~= '' then
  call('SET', KEYS[2], ARGV[6], 'NX')
  call('EXPIRE', KEYS[2], ARGV[1])
end
for at = from, #ARGV, 1000 do
  call('HSET', KEYS[1], unpack(ARGV, at, math.min(at + 999, #ARGV)))
end
call('EXPIRE', KEYS[1], ARGV[1])
return 1
`)

/** What SAVE answers where the checkpoint to change is gone. */
const GONE = 2

interface Marks {
  readonly saves: string
  readonly rawOffset: number
  readonly normalizedOffset: number
  readonly normalizedIncarnation: string
}

const readMarks = async ({ client }: Commands, key: string): Promise<Marks | undefined> => {
  const [saves, raw, normalized, incarnation] = await client.hmget(
    key,
    "saves",
    "rawOffset",
    "normalizedOffset",
    "normalizedIncarnation"
  )
  if (!saves || !raw || !normalized || typeof incarnation !== "string") return undefined
  return {
    saves,
    rawOffset: Number(raw),
    normalizedOffset: Number(normalized),
    normalizedIncarnation: incarnation
  }
}

const make = (options: RedisCheckpointsOptions): Effect.Effect<Checkpoints["Service"], never, RedisConnection> =>
  Effect.gen(function* () {
    const { ask, prefix } = yield* RedisConnection
    const seconds = String(Math.ceil(Duration.toSeconds(options.keep)))
    /** What this process was started with, once it has asked. */
    const counts = new Map<string, number>()
    const countKeyOf = (rawIncarnation: string) => `${prefix}partitions:${rawIncarnation}`
    const keyOf = (rawIncarnation: string, partition: number) => `${prefix}state:${partition}:${rawIncarnation}`

    const save = ({ run }: Commands, partition: number, changed: ChangedState, since: number | undefined) => {
      const { gone = [] } = changed
      const args: Array<string | Buffer> = [
        seconds,
        String(changed.rawOffset),
        String(changed.normalizedOffset),
        changed.normalizedIncarnation,
        since === undefined ? "" : String(since),
        String(counts.get(changed.rawIncarnation) ?? ""),
        gone === "others" ? gone : String(gone.length)
      ]
      if (gone !== "others") for (const token of gone) args.push(String(token))
      for (const [token, state] of changed.instruments) args.push(String(token), Buffer.from(state))
      return run(SAVE, [keyOf(changed.rawIncarnation, partition), countKeyOf(changed.rawIncarnation)], args)
    }

    const marksOf = (key: string) => ask("load", (commands) => readMarks(commands, key))

    /** Every instrument's state, piece by piece: complete only if nobody saved meanwhile. */
    const instrumentsOf = (key: string) =>
      Effect.gen(function* () {
        const instruments = new Map<number, Uint8Array>()
        let cursor = "0"
        do {
          const [next, fields] = yield* ask("load", ({ client }) =>
            client.hscanBuffer(key, cursor, "COUNT", FIELDS_PER_PIECE)
          )
          for (let i = 0; i + 1 < fields.length; i += 2) {
            const token = Number(fields[i]!.toString("latin1"))
            // The marks have names, instruments have numbers. Copied, or one state would hold a whole answer in memory.
            if (Number.isInteger(token)) instruments.set(token, Uint8Array.from(fields[i + 1]!))
          }
          cursor = next.toString("latin1")
        } while (cursor !== "0")
        return instruments
      })

    const load = (rawIncarnation: string, partition: number): Effect.Effect<Checkpoint | undefined, CacheError> =>
      Effect.gen(function* () {
        const key = keyOf(rawIncarnation, partition)
        let before = yield* marksOf(key)
        for (let reading = 0; reading < READINGS; reading++) {
          if (before === undefined) return undefined
          const instruments = yield* instrumentsOf(key)
          const after = yield* marksOf(key)
          if (after !== undefined && after.saves === before.saves && after.rawOffset === before.rawOffset) {
            const { rawOffset, normalizedOffset, normalizedIncarnation } = before
            return { rawIncarnation, rawOffset, normalizedIncarnation, normalizedOffset, instruments }
          }
          before = after
        }
        return yield* new CacheError({
          operation: "load",
          message: `the state of partition ${partition} was saved anew during each of ${READINGS} readings`
        })
      })

    return {
      partitions: (rawIncarnation, partitions) => {
        const key = countKeyOf(rawIncarnation)
        counts.clear()
        counts.set(rawIncarnation, partitions)
        return ask("load", async ({ client }) => {
          await client.set(key, String(partitions), "EX", seconds, "NX")
          await client.expire(key, seconds)
          return Number((await client.get(key)) ?? partitions)
        })
      },
      load,
      save: (partition, changed, since) =>
        Effect.map(
          ask("save", (commands) => save(commands, partition, changed, since)),
          (answer) => answer !== GONE
        )
    }
  })

export const layer = (options: RedisCheckpointsOptions): Layer.Layer<Checkpoints, never, RedisConnection> =>
  Layer.effect(Checkpoints, make(options))
