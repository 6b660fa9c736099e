import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import pg from "pg"
import { LONG_MS } from "../support/guards.ts"
import { isInstalled, ownKafka, ownPostgres, ownRedis, ownS3, type Server } from "../support/services.ts"

/** Killed, it is gone; started again, it answers on the same port. */
const killedAndBack = (server: Server) =>
  Effect.promise(async () => {
    const { port, pid } = server
    assert.isDefined(pid)
    await server.kill()
    assert.isFalse(server.isRunning)
    assert.throws(() => process.kill(pid!, 0))
    await server.start()
    assert.strictEqual(server.port, port)
    assert.notStrictEqual(server.pid, pid)
  })

// Long: each server is started, killed and started again.
describe("servers of one's own", { timeout: LONG_MS }, () => {
  it.live.skipIf(!isInstalled("postgres"))("PostgreSQL keeps what was committed through a kill -9", () =>
    Effect.gen(function* () {
      const server = yield* ownPostgres()
      const query = (sql: string) =>
        Effect.promise(async () => {
          const client = new pg.Client({ connectionString: server.url() })
          await client.connect()
          const { rows } = await client.query(sql)
          await client.end()
          return rows
        })
      yield* query("CREATE TABLE kept AS SELECT 42 AS n")
      yield* killedAndBack(server)
      assert.deepStrictEqual(yield* query("SELECT n FROM kept"), [{ n: 42 }])
    })
  )

  it.live.skipIf(!isInstalled("redis"))("Redis comes back after a kill -9, and as new once erased", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      yield* killedAndBack(server)
      yield* Effect.promise(() => server.stop())
      server.erase()
      yield* Effect.promise(() => server.restart())
      assert.isTrue(server.isRunning)
    })
  )

  it.live.skipIf(!isInstalled("kafka"))("Kafka comes back after a kill -9", () =>
    Effect.gen(function* () {
      yield* killedAndBack(yield* ownKafka)
    })
  )

  it.live.skipIf(!isInstalled("s3"))("S3 comes back after a kill -9", () =>
    Effect.gen(function* () {
      yield* killedAndBack(yield* ownS3)
    })
  )
})
