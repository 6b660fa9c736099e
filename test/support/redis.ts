/** Decides how a test gets keys of its own in a Redis that others may use as well: under a prefix, gone at the end. */
import { randomUUID } from "node:crypto"
import { Effect, Layer } from "effect"
import * as Redis from "../../src/layers/redis/connection.ts"
import type { StartError } from "../../src/schema/Errors.ts"

/** A guard against a hang: a server whose disk is busy with all that runs beside it may well answer after seconds. */
const PATIENCE_MS = 60_000

const clear = ({ ask, prefix }: Redis.RedisConnection["Service"]) =>
  ask("clear", async ({ client }) => {
    let cursor = "0"
    do {
      const [next, keys] = await client.scan(cursor, "MATCH", `${prefix}*`, "COUNT", 1000)
      if (keys.length > 0) await client.unlink(...keys)
      cursor = next
    } while (cursor !== "0")
  })

/** A connection whose keys are no one else's, and are deleted when it ends. */
export const redisLayer = (url: string): Layer.Layer<Redis.RedisConnection, StartError> =>
  Layer.effect(
    Redis.RedisConnection,
    Effect.gen(function* () {
      const connection = yield* Redis.RedisConnection
      yield* Effect.addFinalizer(() => Effect.ignore(clear(connection)))
      return connection
    })
  ).pipe(Layer.provide(Redis.layer({ url, prefix: `test:${randomUUID()}:`, timeoutMs: PATIENCE_MS })))
