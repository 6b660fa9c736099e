/**
 * Decides how figures of processes are kept in Redis: one text a life, which is gone some time after its process fell
 * silent, and a list of the lives by the server's own clock, which alone says how long each has been silent.
 */
import { Clock, Effect, Layer, Schema } from "effect"
import {
  byName,
  finite,
  WORKER_SECONDS,
  WorkerCounters,
  type WorkerFigures
} from "../../streams/ports/WorkerCounters.ts"
import { RedisConnection, script } from "./connection.ts"

/** Lives listed; those that published last. */
const MAX_WORKERS = 1024

/** KEYS: the life's text, the list. ARGV: seconds to live, life, text. */
const PUBLISH = script(`
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ttl = tonumber(ARGV[1])
redis.call('SET', KEYS[1], ARGV[3], 'EX', ttl)
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ttl * 1000)
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ${MAX_WORKERS})
redis.call('EXPIRE', KEYS[2], ttl)
return 1
`)

/** KEYS: the life's text, the list. ARGV: life. */
const WITHDRAW = script(`
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
`)

const Report = Schema.Struct({
  life: Schema.String,
  worker: Schema.String,
  role: Schema.Literals(["worker", "server", "instance"]),
  started_at: Schema.Finite,
  stages: Schema.Array(Schema.String),
  waiting: Schema.Array(Schema.String),
  degraded: Schema.Array(Schema.String),
  at: Schema.Finite,
  figures: Schema.Array(
    Schema.Struct({ name: Schema.String, labels: Schema.Record(Schema.String, Schema.String), value: Schema.Finite })
  )
})
const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Report))

const make: Effect.Effect<WorkerCounters["Service"], never, RedisConnection> = Effect.gen(function* () {
  const { ask, prefix } = yield* RedisConnection
  const list = `${prefix}topology:lives`
  const keyOf = (life: string) => `${prefix}topology:life:${life}`
  return {
    shared: true,
    publish: (report) =>
      Effect.gen(function* () {
        const at = (yield* Clock.currentTimeMillis) * 1000
        const text = JSON.stringify({ ...report, at, figures: finite(report.figures) } satisfies typeof Report.Type)
        const { life } = report
        yield* ask("publish", ({ run }) => run(PUBLISH, [keyOf(life), list], [String(WORKER_SECONDS), life, text]))
      }),
    withdraw: (life) => Effect.asVoid(ask("withdraw", ({ run }) => run(WITHDRAW, [keyOf(life), list], [life]))),
    all: ask("all", async ({ client }) => {
      const [seconds, micros] = await client.time()
      const now = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
      const listed = await client.zrange(list, "0", "-1", "WITHSCORES")
      const lives = listed.filter((_, i) => i % 2 === 0)
      const texts = lives.length === 0 ? [] : await client.mget(lives.map(keyOf))
      return texts.flatMap((text, i): ReadonlyArray<WorkerFigures> => {
        const decoded = decode(text)
        if (decoded._tag === "None") return []
        return [{ ...decoded.value, silent_ms: Math.max(0, now - Number(listed[2 * i + 1])) }]
      })
    }).pipe(Effect.map((all) => [...all].sort(byName)))
  }
})

export const layer: Layer.Layer<WorkerCounters, never, RedisConnection> = Layer.effect(WorkerCounters, make)
