import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join as pathOf } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Admin, Producer } from "@platformatic/kafka"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, Queue, Redacted, Result, Scope, Stream } from "effect"
import { vi } from "vitest"
import { KAFKA_JARS } from "../../../scripts/servers/install.ts"
import { share } from "../../../src/layers/kafka/groupMember.ts"
import * as Kafka from "../../../src/layers/kafka/KafkaLog.ts"
import { MAX_PLAIN_BYTES } from "../../../src/layers/kafka/recordBatch.ts"
import type { LogError, StartError } from "../../../src/schema/Errors.ts"
import { partitionOf } from "../../../src/schema/Partition.ts"
import { readSettings } from "../../../src/schema/Settings.ts"
import { type AssignedPartition, type LogRecord, type NewRecord, TickLog } from "../../../src/streams/log/TickLog.ts"
import { inTurns, TURN_RECORDS } from "../../../src/streams/run/turns.ts"
import { LONG_MS } from "../../support/guards.ts"
import { brokers, ENGINES, kafkaMissing, kafkaOptions } from "../../support/kafka.ts"
import { isInstalled, ownKafka } from "../../support/services.ts"

type Log = TickLog["Service"]

/** A log in the test's scope, or why it does not start. */
const open = (options: Kafka.KafkaOptions): Effect.Effect<Log, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const context = yield* Layer.buildWithScope(Layer.fresh(Kafka.layer(options)), scope)
    return yield* Effect.provide(TickLog, context)
  })

const text = (value: string): NewRecord => ({ key: "1", value: Buffer.from(value) })
const numbered = (from: number, count: number) => Array.from({ length: count }, (_, i) => text(String(from + i)))
const show = (value: Uint8Array | null) => (value === null ? null : Buffer.from(value).toString())

const take = (stream: Stream.Stream<ReadonlyArray<LogRecord>, LogError>, count: number) =>
  stream.pipe(
    Stream.mapAccum(
      () => 0,
      (seen, records) => [seen + records.length, [{ records, seen: seen + records.length }]] as const
    ),
    Stream.takeUntil(({ seen }) => seen >= count),
    Stream.runCollect,
    Effect.map((arrays) => arrays.flatMap(({ records }) => records))
  )

const admin = (at: string) =>
  Effect.acquireRelease(
    Effect.sync(() => new Admin({ clientId: "test", bootstrapBrokers: [at], retries: 10, retryDelay: 100 })),
    (client) => Effect.promise(() => client.close())
  )

const until = (condition: () => boolean) =>
  Effect.gen(function* () {
    while (!condition()) yield* Effect.sleep("10 millis")
  })

const join = (log: Log, group: string) =>
  Effect.gen(function* () {
    const assigned = yield* Queue.bounded<AssignedPartition>(64)
    const leave = yield* Deferred.make<void>()
    const fiber = yield* log.assignments(group, "raw_ticks").pipe(
      Stream.interruptWhen(Deferred.await(leave)),
      Stream.runForEach((partition) => Queue.offer(assigned, partition)),
      Effect.forkScoped({ startImmediately: true })
    )
    return { assigned, fiber, leave: Effect.andThen(Deferred.succeed(leave, undefined), Fiber.join(fiber)) }
  })

describe("a share of partitions", () => {
  const claim = (memberId: string, partitions: ReadonlyArray<number>, generation = 1) => ({
    memberId,
    generation,
    partitions
  })

  it("is even, whole, and moves as little as that allows", () => {
    const owners = new Map<number, string>()
    let members = ["a"]
    for (const change of ["b", "c", "-a", "d", "e", "-c", "-d"]) {
      members = change.startsWith("-") ? members.filter((m) => m !== change.slice(1)) : [...members, change]
      const before = new Map(owners)
      const claims = members.map((m) =>
        claim(
          m,
          [...owners].filter(([, owner]) => owner === m).map(([p]) => p)
        )
      )
      const shares = share(claims, 12)
      owners.clear()
      for (const [member, partitions] of shares) for (const p of partitions) owners.set(p, member)
      assert.strictEqual(owners.size, 12)
      const sizes = members.map((m) => shares.get(m)!.length)
      assert.isAtMost(Math.max(...sizes) - Math.min(...sizes), 1)
      const moved = [...owners].filter(([p, owner]) => before.has(p) && before.get(p) !== owner).length
      const gone = [...before.values()].filter((owner) => !members.includes(owner)).length
      const joined = members.filter((m) => ![...before.values()].includes(m)).map((m) => shares.get(m)!.length)
      assert.isAtMost(moved, gone + (before.size === 0 ? 0 : joined.reduce((sum, n) => sum + n, 0)))
    }
  })

  it("believes the newer of two that claim the same partition", () => {
    const shares = share([claim("asleep", [0, 1], 3), claim("awake", [0, 1], 4)], 2)
    assert.deepStrictEqual([...shares.values()].flat().sort(), [0, 1])
    assert.lengthOf(shares.get("awake")!, 1)
  })
})

describe("the settings of Kafka", () => {
  const refusal = (environment: Record<string, string>) => {
    const settings = Result.getOrThrow(readSettings(environment))
    return Effect.runSync(Effect.flip(Kafka.optionsOf(settings, new Map()))).message
  }

  it("names what is missing, and never the password", () => {
    const at = { KAFKA_BROKERS: "127.0.0.1:9092" }
    assert.match(refusal({}), /^KAFKA_BROKERS: required/)
    assert.match(refusal({ ...at, KAFKA_SASL_PASSWORD: "hunter2" }), /^KAFKA_SASL_MECHANISM: required/)
    assert.match(refusal({ ...at, KAFKA_SASL_MECHANISM: "plain" }), /^KAFKA_SASL_USERNAME: required/)
    assert.match(
      refusal({ ...at, KAFKA_SASL_MECHANISM: "plain", KAFKA_SASL_USERNAME: "u" }),
      /^KAFKA_SASL_PASSWORD: required/
    )
    assert.match(refusal({ ...at, KAFKA_TLS_CA_FILE: "x.pem" }), /^KAFKA_TLS: KAFKA_TLS_CA_FILE is set/)
    const secret = { KAFKA_SASL_MECHANISM: "scram-sha-512", KAFKA_SASL_USERNAME: "u", KAFKA_SASL_PASSWORD: "hunter2" }
    const options = Effect.runSync(Kafka.optionsOf(Result.getOrThrow(readSettings({ ...at, ...secret })), new Map()))
    assert.notInclude(JSON.stringify(options) + String(options.sasl?.password), "hunter2")
    const failed = readSettings({ KAFKA_SASL_MECHANISM: "oauth" })
    assert.isTrue(Result.isFailure(failed))
  })

  for (const engine of ENGINES) {
    it.live(`gives up on brokers that are not there, naming setting and address (${engine})`, () =>
      Effect.gen(function* () {
        // A port that is taken and never answers, and one that nobody listens on.
        const server = yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createServer>>((resume) => {
            const silent = createServer(() => undefined)
            silent.listen(0, "127.0.0.1", () => resume(Effect.succeed(silent)))
          }),
          (silent) =>
            Effect.sync(() => {
              silent.close()
            })
        )
        const { port } = server.address() as { readonly port: number }
        const patience = { engine, startTimeoutMs: 600, connectTimeoutMs: 200, requestTimeoutMs: 300 }
        for (const at of [`127.0.0.1:${port}`, "127.0.0.1:1"]) {
          const options = kafkaOptions({
            ...patience,
            brokers: at,
            sasl: { mechanism: "plain", username: "u", password: Redacted.make("hunter2") }
          })
          const { message } = yield* Effect.flip(open(options))
          assert.include(message, "KAFKA_BROKERS")
          assert.include(message, at)
          assert.notInclude(message, "hunter2")
          assert.notInclude(message, "\n")
        }
        const wrong = yield* Effect.flip(open(kafkaOptions({ brokers: "user:hunter2@127.0.0.1:9092" })))
        assert.match(wrong.message, /^KAFKA_BROKERS: expected host:port/)
        assert.notInclude(wrong.message, "hunter2")
      })
    )
  }
})

for (const engine of ENGINES) {
  describe.skipIf(kafkaMissing !== undefined)(`the log in Kafka through ${engine} (${kafkaMissing ?? brokers})`, () => {
    const test = (title: string, body: Effect.Effect<void, unknown, Scope.Scope>) =>
      it.live(title, () => Effect.scoped(body))
    const at = brokers ?? ""

    test(
      "is refused where raw_ticks does not carry the broker's stamp",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine })
        const client = yield* admin(at)
        const configs = [{ name: "message.timestamp.type", value: "CreateTime" }]
        yield* Effect.promise(() =>
          client.createTopics({ topics: [`${options.prefix}raw_ticks`], partitions: 2, replicas: 1, configs })
        )
        const { message } = yield* Effect.flip(open(options))
        assert.match(message, /raw_ticks must have message\.timestamp\.type=LogAppendTime, it has CreateTime/)
      })
    )

    test(
      "is refused where the topics' numbers of partitions differ, with the numbers; takes those that agree as they are",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, partitions: 2 })
        const client = yield* admin(at)
        yield* Effect.promise(() =>
          client.createTopics({ topics: [`${options.prefix}normalized_ticks`], partitions: 3, replicas: 1 })
        )
        const { message } = yield* Effect.flip(open(options))
        assert.match(message, /raw_ticks has 2, \S*normalized_ticks has 3/)
        const five = kafkaOptions({ engine, partitions: 5 })
        assert.strictEqual((yield* open(five)).partitions, 5)
        assert.strictEqual((yield* open({ ...five, partitions: 2 })).partitions, 5)
      })
    )

    test(
      "fails readers, members and appends meant for a topic that is deleted and recreated, and then begins again",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, metadataMs: 200 })
        const log = yield* open(options)
        const before = log.incarnation("raw_ticks")
        yield* log.append("raw_ticks", 0, numbered(0, 5))
        const reader = yield* Effect.forkChild(Effect.flip(Stream.runDrain(log.read("raw_ticks", 0, 0))), {
          startImmediately: true
        })
        const member = yield* Effect.forkChild(
          Effect.flip(Stream.runDrain(log.assignments("g", "raw_ticks"))) as Effect.Effect<LogError>,
          { startImmediately: true }
        )
        const client = yield* admin(at)
        yield* Effect.promise(() => client.deleteTopics({ topics: [`${options.prefix}raw_ticks`] }))
        assert.strictEqual((yield* Fiber.join(reader)).reason, "incarnation")
        assert.strictEqual((yield* Fiber.join(member)).reason, "incarnation")
        assert.notStrictEqual(log.incarnation("raw_ticks"), before)
        const meant = yield* Effect.flip(log.append("raw_ticks", 0, numbered(0, 5), before))
        assert.strictEqual(meant.reason, "incarnation")
        assert.strictEqual(yield* log.append("raw_ticks", 0, numbered(5, 5), log.incarnation("raw_ticks")), 0)
        assert.deepStrictEqual(
          (yield* take(log.read("raw_ticks", 0, 0), 5)).map(({ value }) => show(value)),
          ["5", "6", "7", "8", "9"]
        )
      })
    )

    test(
      "says so, with both numbers, where a topic is given more partitions under it",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, partitions: 2, metadataMs: 100 })
        const said: Array<unknown> = []
        const logger = Logger.make(({ logLevel, message }) => {
          if (logLevel === "Error") said.push(...(Array.isArray(message) ? message : [message]))
        })
        yield* open(options).pipe(Effect.provide(Logger.layer([logger])))
        const client = yield* admin(at)
        const name = `${options.prefix}raw_ticks`
        yield* Effect.promise(() => client.createPartitions({ topics: [{ name, count: 5 }] }))
        yield* until(() => said.length > 0)
        assert.deepStrictEqual(said, [
          `topic ${name} has 5 partitions, this process was started with 2: ticks in the others are read by nobody`
        ])
      })
    )

    test(
      "lets nothing that was meant for a topic land in the one that somebody recreated under its name",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, partitions: 1 })
        // It never looks by itself, and so does not know.
        const log = yield* open({ ...options, metadataMs: 3_600_000 })
        const before = log.incarnation("raw_ticks")
        yield* log.append("raw_ticks", 0, numbered(0, 5), before)
        const client = yield* admin(at)
        const name = `${options.prefix}raw_ticks`
        yield* Effect.promise(async () => {
          await client.deleteTopics({ topics: [name] })
          const configs = [{ name: "message.timestamp.type", value: "LogAppendTime" }]
          await client.createTopics({ topics: [name], partitions: 1, replicas: 1, configs })
          // Answered before the broker acts on it: for a moment more it may take appends for the old one.
          const ofNow = () => client.metadata({ topics: [name], forceUpdate: true })
          while ((await ofNow()).topics.get(name)?.id === before) {}
        })
        const meant = yield* Effect.flip(log.append("raw_ticks", 0, numbered(5, 5), before))
        assert.strictEqual(meant.reason, "incarnation")
        assert.strictEqual(meant.outcome, "failed")
        assert.notStrictEqual(log.incarnation("raw_ticks"), before)
        assert.deepStrictEqual(yield* log.bounds("raw_ticks", 0), { start: 0, end: 0 })
        assert.strictEqual(yield* log.append("raw_ticks", 0, numbered(0, 5)), 0)
      })
    )

    test(
      "hands sinks what they are behind with whole, and in small arrays while somebody reads live ticks",
      Effect.gen(function* () {
        const log = yield* open(kafkaOptions({ engine, partitions: 2, batch: 2000, fetchBytes: 1_048_576 }))
        yield* log.append("raw_ticks", 0, numbered(0, 1500))
        const arraysOf = Effect.fnUntraced(function* (group: string) {
          const { assigned } = yield* join(log, group)
          let mine = yield* Queue.take(assigned)
          while (mine.partition !== 0) mine = yield* Queue.take(assigned)
          let left = 1500
          const found = yield* mine.read(0).pipe(
            Stream.takeUntil((records) => {
              left -= records.length
              return left <= 0
            }),
            Stream.runCollect
          )
          assert.deepStrictEqual(
            found.flat().map(({ value }) => Number(show(value))),
            Array.from({ length: 1500 }, (_, i) => i)
          )
          return found.map(({ length }) => length)
        })
        yield* until(() => !inTurns())
        assert.deepStrictEqual(yield* arraysOf("alone"), [1500])
        yield* Effect.forkScoped(Stream.runDrain(log.read("raw_ticks", 1, 0)))
        yield* Effect.forkScoped(
          Effect.forever(Effect.andThen(log.append("raw_ticks", 1, [text("live")]), Effect.sleep("20 millis")))
        )
        // From here on nothing moves the clock of turns: a machine that stands still for a second would end them.
        yield* Effect.addFinalizer(() => Effect.sync(() => vi.restoreAllMocks()))
        yield* until(() => {
          vi.restoreAllMocks()
          const now = performance.now()
          vi.spyOn(performance, "now").mockReturnValue(now)
          return inTurns()
        })
        assert.isAtMost(Math.max(...(yield* arraysOf("beside"))), TURN_RECORDS)
      })
    )

    test(
      "takes no offset for its own that was committed in another life of the topic, however late",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, partitions: 1, metadataMs: 200 })
        const late = yield* open({ ...options, metadataMs: 3_600_000 })
        const log = yield* open(options)
        const before = log.incarnation("raw_ticks")
        yield* log.append("raw_ticks", 0, numbered(0, 10))
        const a = yield* join(late, "g")
        const mine = yield* Queue.take(a.assigned)
        const client = yield* admin(at)
        yield* Effect.promise(() => client.deleteTopics({ topics: [`${options.prefix}raw_ticks`] }))
        yield* until(() => log.incarnation("raw_ticks") !== before)
        // Kafka takes it: the topic's name is the same.
        yield* mine.commit({ offset: 10, metadata: "ten" })
        yield* a.leave
        const b = yield* join(log, "g")
        const again = yield* Queue.take(b.assigned)
        assert.isUndefined(again.committed)
        yield* log.append("raw_ticks", 0, numbered(0, 3))
        const behind = (yield* log.lag).find(({ group, partition }) => group === "g" && partition === 0)
        assert.isAtLeast(behind!.records, 3)
        yield* again.commit({ offset: 2, metadata: "two" })
        yield* b.leave
        const c = yield* join(log, "g")
        assert.deepStrictEqual((yield* Queue.take(c.assigned)).committed, { offset: 2, metadata: "two" })
      })
    )

    test(
      "says so, with both numbers, where an offset is not held, and hands a commit below the start out as it is",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, partitions: 1 })
        const log = yield* open(options)
        yield* log.append("raw_ticks", 0, numbered(0, 10))
        const a = yield* join(log, "g")
        yield* (yield* Queue.take(a.assigned)).commit({ offset: 2, metadata: "two" })
        yield* a.leave
        const client = yield* admin(at)
        yield* Effect.promise(() =>
          client.deleteRecords({
            topics: [{ name: `${options.prefix}raw_ticks`, partitions: [{ partition: 0, offset: 7n }] }]
          })
        )
        const below = yield* Effect.flip(Stream.runDrain(log.read("raw_ticks", 0, 0)))
        assert.strictEqual(below.message, "offset 0 is no longer held: the log starts at 7")
        assert.strictEqual(below.reason, "not_held")
        const above = yield* Effect.flip(Stream.runDrain(log.read("raw_ticks", 0, 11)))
        assert.strictEqual(above.message, "offset 11 is not held: the log ends at 10")
        assert.deepStrictEqual(yield* log.bounds("raw_ticks", 0), { start: 7, end: 10 })
        const b = yield* join(log, "g")
        const again = yield* Queue.take(b.assigned)
        assert.deepStrictEqual(again.committed, { offset: 2, metadata: "two" })
        const failed = yield* Effect.flip(Stream.runDrain(again.read(2)))
        assert.match(failed.message, /offset 2 is no longer held: the log starts at 7/)
      })
    )

    test(
      "takes a record above 1 MiB and refuses one too large as such, and only that",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, maxRecordBytes: 3_000_000 })
        const log = yield* open(options)
        const large = { key: "1", value: Buffer.alloc(2_000_000, "x") }
        const tooLarge = { key: "1", value: Buffer.alloc(3_000_001, "x") }
        assert.strictEqual(yield* log.append("raw_ticks", 0, [text("a"), large]), 0)
        const refused = yield* Effect.flip(log.append("raw_ticks", 0, [text("no"), tooLarge]))
        assert.deepStrictEqual([refused.outcome, refused.reason], ["failed", "too_large"])
        // Together above the largest batch: in several, in order.
        assert.strictEqual(yield* log.append("raw_ticks", 0, [large, large, text("b")]), 2)
        const lengths = (yield* take(log.read("raw_ticks", 0, 0), 5)).map(({ value }) => value!.length)
        assert.deepStrictEqual(lengths, [1, 2_000_000, 2_000_000, 2_000_000, 1])
        // The broker's own limit may be lower.
        const lenient = yield* open({ ...options, maxRecordBytes: 8_000_000 })
        const byBroker = yield* Effect.flip(lenient.append("raw_ticks", 0, [{ key: "1", value: Buffer.alloc(4e6) }]))
        assert.deepStrictEqual([byBroker.outcome, byBroker.reason], ["failed", "too_large"])
        assert.strictEqual(yield* lenient.append("raw_ticks", 0, [text("c")]), 5)
      })
    )

    test(
      "takes everything from a member that the group has put out, refuses its commits, and joins again by itself",
      Effect.gen(function* () {
        // So slow a heartbeat that the commit, not the heartbeat, finds out.
        const options = kafkaOptions({ engine, heartbeatMs: 2000 })
        const log = yield* open(options)
        yield* log.append("raw_ticks", 0, numbered(0, 3))
        const a = yield* join(log, "g")
        const mine = yield* Queue.takeN(a.assigned, 2)
        const reading = yield* Effect.forkChild(Stream.runDrain(mine[0]!.read(0)), { startImmediately: true })
        const client = yield* admin(at)
        yield* Effect.promise(() => client.removeMembersFromConsumerGroup({ groupId: `${options.prefix}g` }))
        const refused = yield* Effect.flip(mine[0]!.commit({ offset: 3, metadata: "" }))
        assert.strictEqual(refused.operation, "commit")
        yield* mine[0]!.revoked
        yield* mine[1]!.revoked
        yield* Fiber.join(reading)
        const again = yield* Queue.takeN(a.assigned, 2)
        assert.deepStrictEqual(
          again.map(({ committed }) => committed),
          [undefined, undefined]
        )
        yield* again[0]!.commit({ offset: 1, metadata: "mine again" })
      })
    )

    test(
      "lets a member that slept past its session do no harm: others have its partitions, its commits are refused",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine })
        const log = yield* open(options)
        const lines: Array<string> = []
        const child = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const file = fileURLToPath(new URL("member.ts", import.meta.url))
            const member = spawn(process.execPath, [file, JSON.stringify(options)], {
              stdio: ["ignore", "pipe", "inherit"]
            })
            let rest = ""
            member.stdout.on("data", (chunk: Buffer) => {
              const parts = (rest + chunk.toString()).split("\n")
              rest = parts.pop()!
              lines.push(...parts)
            })
            return member
          }),
          (member) =>
            Effect.sync(() => {
              member.kill("SIGKILL")
            })
        )
        yield* until(() => lines.includes("committed 0") && lines.includes("committed 1"))
        child.kill("SIGSTOP")
        const a = yield* join(log, "g")
        const mine = yield* Queue.takeN(a.assigned, 2)
        for (const partition of mine) {
          assert.strictEqual(partition.committed?.metadata, "child")
          yield* partition.commit({ offset: 1_000_000, metadata: "parent" })
        }
        const asleep = lines.length
        child.kill("SIGCONT")
        // A refusal may come before or after it has joined again.
        yield* until(() => {
          const after = lines.slice(asleep)
          const refused = ["refused 0 commit", "refused 1 commit"].every((line) => after.includes(line))
          return refused && after.some((line) => line.startsWith("own"))
        })
        const after = lines.slice(asleep)
        const own = after.findIndex((line) => line.startsWith("own"))
        // One answer each may have been on its way when it fell asleep.
        for (const partition of [0, 1]) {
          const refused = after.indexOf(`refused ${partition} commit`)
          assert.isAtMost(after.slice(0, refused).filter((line) => line === `committed ${partition}`).length, 1)
        }
        // One of them moves to the child, in order this time.
        const moved = mine.find((partition) => after[own] === `own ${partition.partition}`)!
        yield* moved.revoked
        const kept = mine.find((partition) => partition !== moved)!
        yield* kept.commit({ offset: 1_000_001, metadata: "parent" })
      })
    )

    test(
      "leaves nothing behind: when the scope closes, what was waiting ends and the group is free at once",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, sessionTimeoutMs: 60_000 })
        const scope = yield* Scope.make()
        const first = yield* Scope.provide(open(options), scope)
        const a = yield* Scope.provide(join(first, "g"), scope)
        const mine = yield* Queue.takeN(a.assigned, 2)
        yield* Scope.close(scope, Exit.void)
        for (const partition of mine) yield* partition.revoked
        const second = yield* open(options)
        const b = yield* join(second, "g")
        // Well before the first member's session would have ended.
        yield* Queue.takeN(b.assigned, 2)
        const late = yield* Effect.flip(first.append("raw_ticks", 0, [text("late")]))
        assert.strictEqual(late.outcome, "failed")
      })
    )

    test(
      "passes a batch over that cannot be decompressed: one record says why and has its bytes, and reading goes on",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, partitions: 1 })
        const log = yield* open(options)
        const topic = `${options.prefix}raw_ticks`
        const producer = yield* Effect.acquireRelease(
          // Idempotent: sent again because its answer was late, a batch takes no more offsets.
          Effect.sync(() => new Producer({ clientId: "other", bootstrapBrokers: [at], idempotent: true })),
          (made) => Effect.promise(() => made.close())
        )
        yield* log.append("raw_ticks", 0, numbered(0, 2))
        const value = Buffer.alloc(MAX_PLAIN_BYTES)
        const messages = [Buffer.from("small"), value].map((one) => ({ topic, partition: 0, value: one }))
        yield* Effect.promise(() => producer.send({ messages, compression: "zstd" }))
        yield* log.append("raw_ticks", 0, numbered(4, 2))
        const records = yield* take(log.read("raw_ticks", 0, 0), 5)
        assert.deepStrictEqual(
          records.map(({ offset }) => offset),
          [0, 1, 3, 4, 5]
        )
        assert.match(
          records[2]!.unreadable!.message,
          /^the batch at offset 2 cannot be decompressed.*2 records, up to offset 3/
        )
        assert.isBelow(records[2]!.value!.length, 100_000)
        // Nor does it matter whether it is the first to be asked for.
        const [first] = yield* take(log.read("raw_ticks", 0, 2), 3)
        assert.strictEqual(first!.offset, 3)
      })
    )

    test(
      "reads what other producers write: every compression, transactions without what was aborted, repeated headers",
      Effect.gen(function* () {
        const options = kafkaOptions({ engine, partitions: 1 })
        const log = yield* open(options)
        const topic = `${options.prefix}raw_ticks`
        const make = (given: { readonly transactionalId?: string }) =>
          Effect.acquireRelease(
            Effect.sync(
              // The first transaction of a broker waits until it has made its transaction log.
              () =>
                new Producer({
                  clientId: "other",
                  bootstrapBrokers: [at],
                  idempotent: true,
                  retries: 200,
                  retryDelay: 100,
                  ...given
                })
            ),
            (producer) => Effect.promise(() => producer.close())
          )
        const message = (value: string) => ({
          topic,
          partition: 0,
          key: Buffer.from("738561"),
          value: Buffer.from(value),
          headers: new Map([[Buffer.from("h"), Buffer.from("é")]])
        })
        const plain = yield* make({})
        for (const compression of ["none", "gzip", "snappy", "lz4", "zstd"] as const) {
          const messages = [message(`${compression} 1`), message(`${compression} 2`)]
          yield* Effect.promise(() => plain.send({ messages, compression }))
        }
        const transactional = yield* make({ transactionalId: `${options.prefix}t` })
        for (const [value, ends] of [
          ["aborted", "abort"],
          ["committed", "commit"],
          ["aborted again", "abort"]
        ] as const) {
          const transaction = yield* Effect.promise(() => transactional.beginTransaction())
          yield* Effect.promise(() => transaction.send({ messages: [message(value)] }))
          // Before the end, which the broker answers before its marker is in the partition: appended after that, this
          // may come before the marker or behind it.
          if (value === "aborted again") yield* log.append("raw_ticks", 0, [text("last")])
          yield* Effect.promise(() => (ends === "abort" ? transaction.abort() : transaction.commit()))
        }
        const records = yield* take(log.read("raw_ticks", 0, 0), 12)
        assert.deepStrictEqual(
          records.map(({ value }) => show(value)),
          [
            ...["none", "gzip", "snappy", "lz4", "zstd"].flatMap((codec) => [`${codec} 1`, `${codec} 2`]),
            "committed",
            "last"
          ]
        )
        assert.deepStrictEqual(
          records.map(({ offset }) => offset),
          [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15]
        )
        assert.strictEqual(records[0]!.key, "738561")
        assert.strictEqual(records[0]!.headers?.h, "é")
        // From the middle of a compressed batch, nothing before it.
        assert.strictEqual((yield* take(log.read("raw_ticks", 0, 3), 1))[0]!.offset, 3)
      })
    )

    test(
      "appends from many partitions at once, in order in each",
      Effect.gen(function* () {
        const log = yield* open(kafkaOptions({ engine, partitions: 8, batch: 500 }))
        yield* Effect.forEach(
          Array.from({ length: 8 }, (_, p) => p),
          (p) =>
            Effect.gen(function* () {
              for (let i = 0; i < 20; i++) {
                assert.strictEqual(yield* log.append("normalized_ticks", p, numbered(i * 50, 50)), i * 50)
              }
            }),
          { concurrency: "unbounded" }
        )
        for (let p = 0; p < 8; p++) {
          const records = yield* take(log.read("normalized_ticks", p, 0), 1000)
          assert.isTrue(records.every(({ value, offset }) => show(value) === String(offset)))
        }
      })
    )

    test(
      "gives readers of many partitions at once all of it, also batches larger than a fetch, and several of one partition",
      Effect.gen(function* () {
        const log = yield* open(kafkaOptions({ engine, partitions: 8, fetchBytes: 1024 }))
        const large = (offset: number, partition: number) =>
          Buffer.from(`${partition}/${offset}/`.padEnd(700 + 1200 * (offset % 3), "x"))
        const all = Array.from({ length: 8 }, (_, p) => p)
        const readers = yield* Effect.forkChild(
          Effect.forEach([...all, ...all], (p) => take(log.read("normalized_ticks", p, 0), 60), {
            concurrency: "unbounded"
          })
        )
        for (let offset = 0; offset < 60; offset++) {
          yield* Effect.forEach(
            all,
            (p) => log.append("normalized_ticks", p, [{ key: null, value: large(offset, p), headers: undefined }]),
            { concurrency: "unbounded" }
          )
        }
        const read = yield* Fiber.join(readers)
        for (const [i, records] of read.entries()) {
          const wanted = Array.from({ length: 60 }, (_, offset) => large(offset, i % 8).toString())
          assert.deepStrictEqual(
            records.map(({ value }) => show(value)),
            wanted
          )
        }
      })
    )
  })
}

const installed = isInstalled("kafka")

for (const engine of ENGINES) {
  describe.skipIf(!installed)(
    `a broker that is killed, through ${engine}${installed ? "" : " (no Kafka installed)"}`,
    // Long: each case has a broker of its own, which comes back, and waits that are the client's.
    { timeout: LONG_MS },
    () => {
      it.live("loses nothing that was acknowledged, doubles nothing, and readers and members go on by themselves", () =>
        Effect.scoped(
          Effect.gen(function* () {
            const server = yield* ownKafka
            const at = server.settings().KAFKA_BROKERS!
            const log = yield* open(
              kafkaOptions({ engine, brokers: at, deliveryTimeoutMs: 60_000, requestTimeoutMs: 3000 })
            )
            const acknowledged = [0, 0]
            let stop = false
            const writers = yield* Effect.forEach([0, 1], (p) =>
              Effect.gen(function* () {
                while (!stop) {
                  const from = acknowledged[p]!
                  assert.strictEqual(yield* log.append("raw_ticks", p, numbered(from, 20)), from)
                  acknowledged[p] = from + 20
                }
              }).pipe(Effect.forkChild({ startImmediately: true }))
            )
            const seen = [0, 0]
            const readers = yield* Effect.forEach([0, 1], (p) =>
              log.read("raw_ticks", p, 0).pipe(
                Stream.runForEach((records) =>
                  Effect.sync(() => {
                    for (const { value, offset } of records) {
                      assert.strictEqual(show(value), String(offset))
                      assert.strictEqual(offset, seen[p])
                      seen[p]!++
                    }
                  })
                ),
                Effect.forkChild({ startImmediately: true })
              )
            )
            const a = yield* join(log, "g")
            yield* Queue.takeN(a.assigned, 2)
            for (let kill = 0; kill < 2; kill++) {
              const before = acknowledged[0]!
              yield* until(() => acknowledged[0]! > before + 500)
              yield* Effect.promise(() => server.kill())
              yield* Effect.promise(() => server.start())
              const after = acknowledged[0]!
              yield* until(() => acknowledged[0]! > after + 500)
            }
            stop = true
            for (const writer of writers) yield* Fiber.join(writer)
            yield* until(() => seen[0]! >= acknowledged[0]! && seen[1]! >= acknowledged[1]!)
            for (const [p, reader] of readers.entries()) {
              yield* Fiber.interrupt(reader)
              assert.deepStrictEqual(yield* log.bounds("raw_ticks", p), { start: 0, end: acknowledged[p]! })
            }
            // The member is one still, or again.
            const b = yield* join(log, "g")
            yield* Queue.take(b.assigned)
          })
        )
      )

      it.live("writes once what was sent again because nobody answered", () =>
        Effect.scoped(
          Effect.gen(function* () {
            const server = yield* ownKafka
            const at = server.settings().KAFKA_BROKERS!
            const times = {
              deliveryTimeoutMs: 60_000,
              requestTimeoutMs: 500,
              connectTimeoutMs: 400,
              metadataMs: 60_000
            }
            const log = yield* open(kafkaOptions({ engine, brokers: at, ...times }))
            for (let p = 0; p < 2; p++) yield* log.append("raw_ticks", p, numbered(0, 10))
            for (let round = 1; round <= 3; round++) {
              yield* Effect.promise(() => server.pause())
              const appends = yield* Effect.forEach([0, 1], (p) =>
                Effect.forkChild(log.append("raw_ticks", p, numbered(round * 10, 10)), { startImmediately: true })
              )
              // Time for an attempt or two to go unanswered: they wait in the broker's sockets, and are read when it wakes.
              yield* Effect.sleep("1200 millis")
              server.signal("SIGCONT")
              for (const append of appends) assert.strictEqual(yield* Fiber.join(append), round * 10)
            }
            for (let p = 0; p < 2; p++) {
              const { end } = yield* log.bounds("raw_ticks", p)
              const values = (yield* take(log.read("raw_ticks", p, 0), end)).map(({ value }) => Number(show(value)))
              assert.deepStrictEqual(
                values,
                Array.from({ length: 40 }, (_, i) => i)
              )
            }
          })
        )
      )

      it.live("reports an append unanswered as unknown and one never sent as failed, each in its time", () =>
        Effect.scoped(
          Effect.gen(function* () {
            const server = yield* ownKafka
            const at = server.settings().KAFKA_BROKERS!
            const log = yield* open(
              kafkaOptions({
                engine,
                brokers: at,
                // Long enough for the first append to a broker that has just started on a busy machine.
                deliveryTimeoutMs: 6000,
                requestTimeoutMs: 500,
                connectTimeoutMs: 400,
                metadataMs: 60_000
              })
            )
            yield* log.append("raw_ticks", 0, numbered(0, 10))
            yield* Effect.promise(() => server.pause())
            const unanswered = yield* Effect.flip(log.append("raw_ticks", 0, numbered(10, 10)))
            assert.strictEqual(unanswered.outcome, "unknown")
            server.signal("SIGCONT")
            // The partition goes on under a new identity; what was unknown is in the log once or not at all.
            // Only what is surely not in the log is sent again.
            const first = yield* log
              .append("raw_ticks", 0, numbered(20, 10))
              .pipe(Effect.retry({ times: 20, while: ({ outcome }) => outcome === "failed" }))
            const values = (yield* take(log.read("raw_ticks", 0, 0), first + 10)).map(({ value }) =>
              Number(show(value))
            )
            assert.strictEqual(new Set(values).size, values.length)
            assert.isTrue(values.length === 20 || values.length === 30)
            yield* Effect.promise(() => server.kill())
            // The connection is seen to be gone; from then on nothing can be sent.
            const lost = yield* Effect.flip(log.append("raw_ticks", 1, numbered(0, 10)))
            const refused = yield* Effect.flip(log.append("raw_ticks", 1, numbered(0, 10)))
            assert.include(["failed", "unknown"], lost.outcome)
            assert.strictEqual(refused.outcome, "failed")
          })
        )
      )
    }
  )
}

const compiler =
  installed && spawnSync("java", ["--list-modules"], { encoding: "utf8" }).stdout?.includes("jdk.compiler")

describe.skipIf(!compiler)(`Kafka's own producer${compiler ? "" : " (no Kafka, or Java without a compiler)"}`, () => {
  it("puts every key into the partition that the platform expects", () => {
    const folder = mkdtempSync(pathOf(tmpdir(), "mdp-partitioner-"))
    const file = pathOf(folder, "Partitioner.java")
    writeFileSync(
      file,
      `import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
       public class Partitioner {
         public static void main(String[] keys) {
           for (String key : keys) System.out.println(BuiltInPartitioner.partitionForKey(key.getBytes(), 12));
         }
       }`
    )
    const tokens = [
      1,
      12,
      123,
      1234,
      256_265,
      738_561,
      2_147_483_647,
      ...Array.from({ length: 200 }, (_, i) => i * 7919)
    ]
    const ran = spawnSync("java", ["-cp", `${KAFKA_JARS}/*`, file, ...tokens.map(String)], { encoding: "utf8" })
    rmSync(folder, { recursive: true, force: true })
    assert.strictEqual(ran.status, 0, ran.stderr)
    assert.deepStrictEqual(
      ran.stdout.trim().split("\n").map(Number),
      tokens.map((token) => partitionOf(token, 12))
    )
  })
})
