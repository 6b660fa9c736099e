/** Kafka behind TLS and SASL: both engines, every mechanism, and what is said where one is not let in. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Redacted, Scope, Stream } from "effect"
import { afterAll, beforeAll } from "vitest"
import * as Kafka from "../../../src/layers/kafka/KafkaLog.ts"
import type { StartError } from "../../../src/schema/Errors.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import { type Authority, hasOpenssl, makeAuthority, makeCertificate } from "../../support/certificates.ts"
import { ENGINES, kafkaOptions } from "../../support/kafka.ts"
import { runToEnd } from "../../support/processes.ts"
import { isInstalled, type KafkaServer, ownSecureKafka } from "../../support/services.ts"

const USERNAME = "market"
const PASSWORD = "s3cret"
const MECHANISMS = ["plain", "scram-sha-256", "scram-sha-512"] as const

const isMissing = !isInstalled("kafka") || !hasOpenssl
const title = `Kafka with TLS and SASL${isMissing ? " (skipped: needs Kafka and openssl)" : ""}`

describe.skipIf(isMissing)(title, () => {
  const scope = Scope.makeUnsafe()
  const folder = mkdtempSync(join(tmpdir(), "mdp-tls-"))
  let server: KafkaServer
  let authority: Authority

  beforeAll(async () => {
    authority = makeAuthority(folder)
    const { key, certificate } = makeCertificate(authority, "broker")
    const secure = {
      key: readFileSync(key, "utf8"),
      certificate: readFileSync(certificate, "utf8"),
      username: USERNAME,
      password: PASSWORD
    }
    server = await Effect.runPromise(Scope.provide(ownSecureKafka(secure), scope))
  })
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    rmSync(folder, { recursive: true, force: true })
  })

  const options = (given: Partial<Kafka.KafkaOptions>, password = PASSWORD): Kafka.KafkaOptions =>
    kafkaOptions({
      brokers: server.secureBrokers,
      tls: { caFile: authority.certificate },
      sasl: { mechanism: "scram-sha-512", username: USERNAME, password: Redacted.make(password) },
      partitions: 1,
      ...given
    })

  const refused = (given: Kafka.KafkaOptions): Effect.Effect<StartError> =>
    Effect.flip(Effect.scoped(Layer.build(Kafka.layer(given)))).pipe(Effect.orDie)

  for (const engine of ENGINES) {
    for (const mechanism of MECHANISMS) {
      const sasl = (password: string) => ({ mechanism, username: USERNAME, password: Redacted.make(password) })

      it.live(`${engine} by ${mechanism}: connects, appends, reads and commits`, () =>
        Effect.gen(function* () {
          const log = yield* TickLog
          yield* log.append("raw_ticks", 0, [{ key: "1", value: Buffer.from("a tick") }])
          const records = yield* Stream.runHead(log.read("raw_ticks", 0, 0)).pipe(Effect.flatMap(Effect.fromOption))
          assert.strictEqual(Buffer.from(records[0].value!).toString(), "a tick")
          const assigned = yield* Stream.runHead(
            log
              .assignments("g", "raw_ticks")
              .pipe(Stream.mapEffect((mine) => Effect.as(mine.commit({ offset: 1, metadata: "" }), mine)))
          ).pipe(Effect.flatMap(Effect.fromOption))
          assert.strictEqual(assigned.partition, 0)
        }).pipe(Effect.provide(Kafka.layer(options({ engine, sasl: sasl(PASSWORD) }))))
      )

      it.live(`${engine} by ${mechanism}: a wrong password is one line, at once, without it`, () =>
        Effect.gen(function* () {
          const { message } = yield* refused(options({ engine, sasl: sasl("wr0ng") }))
          assert.match(
            message,
            new RegExp(
              `^KAFKA_BROKERS, KAFKA_SASL_\\* or KAFKA_TLS: cannot use Kafka at ${server.secureBrokers}: [^\n]+$`
            )
          )
          assert.notInclude(message, "wr0ng")
        })
      )
    }

    it.live(`${engine} does not trust a broker whose certificate is of another authority`, () =>
      Effect.gen(function* () {
        const stranger = makeAuthority(folder)
        const { message } = yield* refused(
          options({ engine, startTimeoutMs: 8000, tls: { caFile: stranger.certificate } })
        )
        assert.match(message, /^KAFKA_[^\n]*certificate[^\n]*$/)
      })
    )
  }

  it.live("the command line says it in one line, and shows no password", () =>
    Effect.gen(function* () {
      const { code, stderr } = yield* runToEnd(["dlq", "list"], {
        KAFKA_BROKERS: server.secureBrokers,
        KAFKA_TLS: "true",
        KAFKA_TLS_CA_FILE: authority.certificate,
        KAFKA_SASL_MECHANISM: "plain",
        KAFKA_SASL_USERNAME: USERNAME,
        KAFKA_SASL_PASSWORD: "wr0ng"
      })
      assert.strictEqual(code, 1)
      assert.match(stderr, /^mdp: KAFKA_BROKERS, KAFKA_SASL_\* or KAFKA_TLS: cannot use Kafka at [^\n]+\n$/)
      assert.notInclude(stderr, "wr0ng")
    })
  )
})
