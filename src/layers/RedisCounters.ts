/**
 * Decides how workers' figures are kept in Redis: one text a worker, which lives a few seconds, and a list of the workers
 * by the server's own clock, so that a server finds all of them in one step.
 */
import { Clock, Effect, Layer, Schema } from "effect"
import { WORKER_SECONDS, WorkerCounters, type WorkerFigures } from "../streams/WorkerCounters.ts"
import { RedisConnection, script } from "./Redis.ts"

/** Workers listed; those that published last. */
const MAX_WORKERS = 1024

/** KEYS: the worker's text, the list. ARGV: seconds to live, worker, text. */
const PUBLISH = script(`
local now = tonumber(redis.call('TIME')[1])
local ttl = tonumber(ARGV[1])
redis.call('SET', KEYS[1], ARGV[3], 'EX', ttl)
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ttl)
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ${MAX_WORKERS})
redis.call('EXPIRE', KEYS[2], ttl)
return 1
`)

const Figures = Schema.Struct({
  worker: Schema.String,
  at: Schema.Finite,
  figures: Schema.Array(
    Schema.Struct({ name: Schema.String, labels: Schema.Record(Schema.String, Schema.String), value: Schema.Finite })
  )
})
const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Figures))

const make: Effect.Effect<WorkerCounters["Service"], never, RedisConnection> = Effect.gen(function* () {
  const { ask, prefix } = yield* RedisConnection
  const list = `${prefix}topology:workers`
  const keyOf = (worker: string) => `${prefix}topology:worker:${worker}`
  return {
    publish: (worker, figures) =>
      Effect.gen(function* () {
        const at = (yield* Clock.currentTimeMillis) * 1000
        // JSON has no word for the others.
        const finite = figures.filter(({ value }) => Number.isFinite(value))
        const text = JSON.stringify({ worker, at, figures: finite } satisfies WorkerFigures)
        yield* ask("publish", ({ run }) => run(PUBLISH, [keyOf(worker), list], [String(WORKER_SECONDS), worker, text]))
      }),
    all: ask("all", async ({ client }) => {
      const workers = await client.zrange(list, "0", "-1")
      const texts = workers.length === 0 ? [] : await client.mget(workers.map(keyOf))
      return texts.flatMap((text): ReadonlyArray<WorkerFigures> => {
        const decoded = decode(text)
        return decoded._tag === "Some" ? [decoded.value] : []
      })
    }).pipe(Effect.map((all) => [...all].sort((a, b) => (a.worker < b.worker ? -1 : 1))))
  }
})

export const layer: Layer.Layer<WorkerCounters, never, RedisConnection> = Layer.effect(WorkerCounters, make)
