/**
 * Decides how claims are kept in Redis: one bit a contiguous number, in strings of 4,096; the others in small sets; all
 * gone some days after they were last touched. A batch is one script: it raises the offset claimed through, then sets,
 * a run of following numbers in one step, so that most instruments cost one step a batch.
 */
import { Duration, Effect, Layer } from "effect"
import { type Tick, tradingDay } from "../../schema/Tick.ts"
import { sourceKey } from "../../streams/log/source.ts"
import { type Claimant, Claims } from "../../streams/ports/Claims.ts"
import { type Commands, RedisConnection, script } from "./connection.ts"
import { FlatArray } from "./messagePack.ts"

export interface RedisClaimsOptions {
  /** How long a claim is kept after its neighbours were last touched. */
  readonly keep: Duration.Input
}

/** Ids in one string of bits: at most 512 bytes, however few of them are set. */
const BUCKET_IDS = 4096
/** Longest run set in one step; the answer must stay an exact integer in Lua and in bit operations. */
const MAX_RUN = 32
/** Sets the hashed ids of one instrument's session are spread over, so that each stays a compact one. */
const HASH_SETS = 64
/** Ticks in one script, which holds up all others while it runs. */
const SCRIPT_TICKS = 10_000

/**
 * KEYS[1]: what was claimed through. ARGV: through, seconds to live, runs (key, type, offset, all ones), hashed (key,
 * id). Answers what was claimed through before (empty: nothing), then number and old value of each run of which
 * something was set, and number and 1 of each hash that was, counted on from the runs.
 */
const CLAIM = script(`
local call = redis.call
local before = call('GET', KEYS[1])
local through, ttl = ARGV[1], ARGV[2]
if before and tonumber(before) > tonumber(through) then through = before end
call('SET', KEYS[1], through, 'EX', ttl)
local found, n = { before or '' }, 1
local runs = cmsgpack.unpack(ARGV[3])
local touched
for i = 1, #runs, 4 do
  local key = runs[i]
  local old = call('BITFIELD', key, 'SET', runs[i + 1], runs[i + 2], runs[i + 3])[1]
  if old ~= 0 then
    found[n + 1], found[n + 2] = (i - 1) / 4, old
    n = n + 2
  end
  if key ~= touched then call('EXPIRE', key, ttl) touched = key end
end
local hashed = cmsgpack.unpack(ARGV[4])
local first = #runs / 4
for i = 1, #hashed, 2 do
  local key = hashed[i]
  if call('SADD', key, hashed[i + 1]) == 0 then
    found[n + 1], found[n + 2] = first + (i - 1) / 2, 1
    n = n + 2
  end
  if key ~= touched then call('EXPIRE', key, ttl) touched = key end
end
return found
`)

/**
 * For a claimant that decides; a batch in one step, however large, tick by tick. KEYS[1]: what was claimed through.
 * KEYS[2]: the sources that were found another's. ARGV: through, seconds to live, ticks (key, bit or -1, hashed id,
 * source). Answers the places of those that are another's.
 */
const DECIDE = script(`
local call = redis.call
local before = tonumber(call('GET', KEYS[1]) or '-1')
local through, ttl = tonumber(ARGV[1]), ARGV[2]
call('SET', KEYS[1], string.format('%.0f', math.max(before, through)), 'EX', ttl)
local ticks = cmsgpack.unpack(ARGV[3])
local found, touched = {}, nil
for i = 1, #ticks, 4 do
  local key, bit, id, source = ticks[i], ticks[i + 1], ticks[i + 2], ticks[i + 3]
  local isSet
  if bit == '-1' then isSet = call('SADD', key, id) == 0 else isSet = call('SETBIT', key, bit, 1) == 1 end
  if key ~= touched then call('EXPIRE', key, ttl) touched = key end
  if tonumber(string.match(source, '^%d+')) > before then
    if isSet then
      call('SADD', KEYS[2], source)
      found[#found + 1] = (i - 1) / 4
    end
  elseif call('SISMEMBER', KEYS[2], source) == 1 then
    found[#found + 1] = (i - 1) / 4
  end
end
call('EXPIRE', KEYS[2], ttl)
return found
`)

const TYPES = Array.from({ length: MAX_RUN + 1 }, (_, length) => `u${length}`)
const ONES = Array.from({ length: MAX_RUN + 1 }, (_, length) => String(2 ** length - 1))
const OFFSETS = Array.from({ length: BUCKET_IDS }, (_, offset) => String(offset))

/** Following numbers of one instrument, in one string of bits. */
interface Run {
  readonly day: number
  readonly session: number
  readonly first: number
  length: number
  readonly index: number
}

/** A batch as the script takes it, and where each tick is in it. */
class Plan {
  readonly #prefix: string
  readonly #ticks: ReadonlyArray<Tick>
  readonly #runs: Array<Run> = []
  readonly #tokens: Array<number> = []
  readonly #hashed = new FlatArray(64)
  /** Of each tick: its run, or minus its place among the hashed, minus 1. */
  readonly #steps: Int32Array
  /** Of each tick: its place in its run. */
  readonly #places: Uint8Array

  constructor(prefix: string, ticks: ReadonlyArray<Tick>) {
    this.#prefix = prefix
    this.#ticks = ticks
    this.#steps = new Int32Array(ticks.length)
    this.#places = new Uint8Array(ticks.length)
    const latest = new Map<number, Run>()
    for (let i = 0; i < ticks.length; i++) {
      const tick = ticks[i]!
      const { instrument_token: token, sequence_id: id, session } = tick
      const day = tradingDay(tick.exchange_ts)
      if (isHashed(tick)) {
        this.#steps[i] = -1 - this.#hashed.length / 2
        this.#hashed.ascii(hashedKey(prefix, tick))
        this.#hashed.ascii(String(id))
        continue
      }
      let run = latest.get(token)
      if (
        run === undefined ||
        run.first + run.length !== id ||
        id % BUCKET_IDS === 0 ||
        run.length === MAX_RUN ||
        run.day !== day ||
        run.session !== session
      ) {
        run = { day, session, first: id, length: 0, index: this.#runs.length }
        latest.set(token, run)
        this.#runs.push(run)
        this.#tokens.push(token)
      }
      this.#steps[i] = run.index
      this.#places[i] = run.length
      run.length += 1
    }
  }

  get arguments(): readonly [runs: Buffer, hashed: Buffer] {
    const packed = new FlatArray(16 + this.#runs.length * 64)
    for (let i = 0; i < this.#runs.length; i++) {
      const { day, session, first, length } = this.#runs[i]!
      packed.ascii(bucketKey(this.#prefix, day, this.#tokens[i]!, session, first))
      packed.ascii(TYPES[length]!)
      packed.ascii(OFFSETS[first % BUCKET_IDS]!)
      packed.ascii(ONES[length]!)
    }
    return [packed.finish(), this.#hashed.finish()]
  }

  /** Adds the places of ticks found set whose source is above `before`. */
  foreign(found: ReadonlyMap<number, number>, before: number, firstIndex: number, foreign: Array<number>): void {
    const ticks = this.#ticks
    for (let i = 0; i < ticks.length; i++) {
      if (ticks[i]!.source[1] <= before) continue
      const step = this.#steps[i]!
      const old = found.get(step < 0 ? this.#runs.length - 1 - step : step)
      if (old === undefined) continue
      // The first number of a run is the highest bit.
      if (step >= 0 && ((old >>> (this.#runs[step]!.length - 1 - this.#places[i]!)) & 1) === 0) continue
      foreign.push(firstIndex + i)
    }
  }
}

const hashedKey = (prefix: string, { instrument_token: token, exchange_ts, session, sequence_id: id }: Tick): string =>
  `${prefix}claim:${tradingDay(exchange_ts)}:${token}:${session}:h${Math.abs(id) % HASH_SETS}`

const bucketKey = (prefix: string, day: number, token: number, session: number, first: number): string =>
  `${prefix}claim:${day}:${token}:${session}:${(first - (first % BUCKET_IDS)) / BUCKET_IDS}`

/** Contiguous numbers have a bit, the others are kept as they are. */
const isHashed = ({ sequencing, sequence_id }: Tick): boolean => sequencing !== "contiguous" || sequence_id < 0

/** A batch as DECIDE takes it. */
const decisions = (prefix: string, ticks: ReadonlyArray<Tick>): Buffer => {
  const packed = new FlatArray(16 + ticks.length * 96)
  for (const tick of ticks) {
    const { instrument_token: token, exchange_ts, session, sequence_id: id, source } = tick
    if (isHashed(tick)) {
      packed.ascii(hashedKey(prefix, tick))
      packed.ascii("-1")
      packed.ascii(String(id))
    } else {
      packed.ascii(bucketKey(prefix, tradingDay(exchange_ts), token, session, id))
      packed.ascii(OFFSETS[id % BUCKET_IDS]!)
      packed.ascii("")
    }
    packed.ascii(sourceKey(source))
  }
  return packed.finish()
}

type Answer = readonly [before: string, ...found: ReadonlyArray<number>]

const make = (options: RedisClaimsOptions): Effect.Effect<Claims["Service"], never, RedisConnection> =>
  Effect.gen(function* () {
    const { ask, prefix } = yield* RedisConnection
    const seconds = String(Math.ceil(Duration.toSeconds(options.keep)))

    const claim = async (
      { run }: Commands,
      raw: Claimant,
      ticks: ReadonlyArray<Tick>
    ): Promise<ReadonlyArray<number>> => {
      const keys = [`${prefix}claim:through:${raw.incarnation}:${raw.partition}`]
      const through = String(raw.through)
      if (raw.decides === true) {
        keys.push(`${prefix}claim:foreign:${raw.incarnation}:${raw.partition}`)
        return (await run(DECIDE, keys, [through, seconds, decisions(prefix, ticks)])) as ReadonlyArray<number>
      }
      const plans: Array<Plan> = []
      const answers: Array<Promise<unknown>> = []
      for (let from = 0; from === 0 || from < ticks.length; from += SCRIPT_TICKS) {
        const plan = new Plan(prefix, ticks.length <= SCRIPT_TICKS ? ticks : ticks.slice(from, from + SCRIPT_TICKS))
        plans.push(plan)
        answers.push(run(CLAIM, keys, [through, seconds, ...plan.arguments]))
      }
      const all = (await Promise.all(answers)) as ReadonlyArray<Answer>
      // Further scripts of the batch find what the first one raised.
      const before = all[0]![0] === "" ? -1 : Number(all[0]![0])
      const foreign: Array<number> = []
      for (let p = 0; p < plans.length; p++) {
        const [, ...found] = all[p]!
        if (found.length === 0) continue
        const old = new Map<number, number>()
        for (let i = 0; i < found.length; i += 2) old.set(found[i]!, found[i + 1]!)
        plans[p]!.foreign(old, before, p * SCRIPT_TICKS, foreign)
      }
      return foreign
    }

    return { claim: (raw, ticks) => ask("claim", (commands) => claim(commands, raw, ticks)) }
  })

export const layer = (options: RedisClaimsOptions): Layer.Layer<Claims, never, RedisConnection> =>
  Layer.effect(Claims, make(options))
