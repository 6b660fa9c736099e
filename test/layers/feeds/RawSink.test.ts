import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Patience } from "../../../src/layers/feeds/Instance.ts"
import {
  type HttpSinkOptions,
  layerHttp,
  layerLog,
  MAX_BODY_BYTES,
  MAX_WAITING_BYTES
} from "../../../src/layers/feeds/RawSink.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { LogError } from "../../../src/schema/Errors.ts"
import { partitionOf } from "../../../src/schema/Partition.ts"
import { type LogRecord, TickLog } from "../../../src/streams/log/TickLog.ts"
import { publishWithin, RawSink, type RawSinkTick } from "../../../src/streams/ports/RawSink.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"
import { serve } from "../../http/serving.ts"
import { freePort } from "../../support/services.ts"

const PARTITIONS = 4
const memoryLog = MemoryLog.layer({
  partitions: PARTITIONS,
  capacity: 5000,
  dlqCapacity: 10,
  retained: 5000,
  batch: 500
})
const tick = (token: number, text: string): RawSinkTick => ({ token, value: Buffer.from(text) })
const text = (record: LogRecord) => Buffer.from(record.value ?? []).toString()

const readAll = (log: TickLog["Service"], partition: number) =>
  Effect.gen(function* () {
    const { end } = yield* log.bounds("raw_ticks", partition)
    if (end === 0) return []
    const arrays = yield* log.read("raw_ticks", partition, 0).pipe(
      Stream.takeUntil((records) => records.at(-1)!.offset >= end - 1),
      Stream.runCollect
    )
    return arrays.flat()
  })

describe("a raw sink over the log", () => {
  it.effect("hands the log about a MiB at a time, and a tick that has more by itself", () => {
    const MIB = 1024 * 1024
    const appended: Array<ReadonlyArray<number>> = []
    const noting = Layer.effect(
      TickLog,
      Effect.map(TickLog, (log) => ({
        ...log,
        append: (_topic, _partition, records) =>
          Effect.sync(() => {
            appended.push(records.map(({ value }) => value!.byteLength))
            return 0
          })
      }))
    ).pipe(Layer.provide(memoryLog))
    return Effect.gen(function* () {
      const sink = yield* RawSink
      const sized = (size: number): RawSinkTick => ({ token: 1, value: new Uint8Array(size) })
      yield* sink.publish([sized(MIB / 2), sized(MIB / 2), sized(1), sized(2 * MIB), sized(3)])
      assert.deepStrictEqual(appended, [[MIB / 2, MIB / 2], [1], [2 * MIB], [3]])
    }).pipe(Effect.provide(layerLog.pipe(Layer.provide(noting))))
  })

  it.live("puts each tick in its token's partition under its token, with its headers, in order", () =>
    Effect.gen(function* () {
      const sink = yield* RawSink
      const log = yield* TickLog
      const ticks = Array.from({ length: 3000 }, (_, i) => tick(100 + (i % 40), String(i)))
      yield* sink.publish(ticks)
      yield* sink.publish([{ ...tick(100, "replayed"), headers: { replay: "r1" } }])
      let found = 0
      for (let partition = 0; partition < PARTITIONS; partition++) {
        const records = yield* readAll(log, partition)
        found += records.length
        const last = new Map<string, number>()
        for (const record of records) {
          assert.strictEqual(partitionOf(Number(record.key), PARTITIONS), partition)
          if (text(record) === "replayed") {
            assert.deepStrictEqual(record.headers, { replay: "r1" })
            continue
          }
          assert.isAbove(Number(text(record)), last.get(record.key!) ?? -1)
          last.set(record.key!, Number(text(record)))
        }
      }
      assert.strictEqual(found, 3001)
    }).pipe(Effect.provide(layerLog.pipe(Layer.provideMerge(memoryLog))))
  )

  /** The log, with what is under way and how much at most was, per partition and together. */
  const watched = (hold: Effect.Effect<void, LogError>) => {
    const under = new Map<number, number>()
    let most = 0
    let mostTogether = 0
    const layer = Layer.effect(
      TickLog,
      Effect.gen(function* () {
        const log = yield* TickLog
        return {
          ...log,
          append: (topic, partition, records) =>
            Effect.acquireUseRelease(
              Effect.sync(() => {
                under.set(partition, (under.get(partition) ?? 0) + 1)
                most = Math.max(most, under.get(partition)!)
                mostTogether = Math.max(
                  mostTogether,
                  [...under.values()].reduce((a, b) => a + b)
                )
              }),
              () => Effect.andThen(hold, log.append(topic, partition, records)),
              () => Effect.sync(() => under.set(partition, under.get(partition)! - 1))
            )
        } satisfies TickLog["Service"]
      })
    ).pipe(Layer.provide(memoryLog))
    return { layer: layerLog.pipe(Layer.provideMerge(layer)), most: () => most, mostTogether: () => mostTogether }
  }

  it.effect("has one append a partition under way whoever publishes, and partitions side by side", () =>
    Effect.gen(function* () {
      const subject = watched(Effect.sleep(5))
      yield* Effect.gen(function* () {
        const sink = yield* RawSink
        const fiber = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, caller) => caller),
          (caller) => sink.publish(Array.from({ length: 40 }, (_, i) => tick(i, String(caller)))),
          { concurrency: "unbounded", discard: true }
        ).pipe(Effect.forkChild({ startImmediately: true }))
        yield* TestClock.adjust(1000)
        yield* Fiber.join(fiber)
      }).pipe(Effect.provide(subject.layer))
      assert.strictEqual(subject.most(), 1)
      assert.strictEqual(subject.mostTogether(), PARTITIONS)
    })
  )

  it.effect("refuses what would wait beyond its bound, and takes ticks again once there is room", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const subject = watched(Deferred.await(gate))
      yield* Effect.gen(function* () {
        const sink = yield* RawSink
        const large = { token: 1, value: new Uint8Array(MAX_WAITING_BYTES - 10) }
        const waiting = yield* Effect.forkChild(sink.publish([large]), { startImmediately: true })
        const refused = yield* Effect.flip(sink.publish([tick(2, "more than ten bytes")]))
        assert.strictEqual(refused._tag, "Overloaded")
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(waiting)
        yield* sink.publish([tick(2, "more than ten bytes")])
      }).pipe(Effect.provide(subject.layer))
    })
  )

  it.effect("fails with the partition that failed, after the others have their ticks", () =>
    Effect.gen(function* () {
      const failure = new LogError({
        operation: "append",
        topic: "raw_ticks",
        partition: partitionOf(1, PARTITIONS),
        outcome: "unknown",
        message: "no answer"
      })
      let appended = 0
      const layer = Layer.effect(
        TickLog,
        Effect.map(
          TickLog,
          (log) =>
            ({
              ...log,
              append: (_topic, partition) =>
                partition === failure.partition
                  ? Effect.fail(failure)
                  : Effect.delay(
                      Effect.sync(() => appended++),
                      10
                    )
            }) satisfies TickLog["Service"]
        )
      ).pipe(Layer.provide(memoryLog))
      yield* Effect.gen(function* () {
        const sink = yield* RawSink
        const fiber = yield* Effect.forkChild(sink.publish(Array.from({ length: 40 }, (_, i) => tick(i, "x"))), {
          startImmediately: true
        })
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.fail(failure))
        assert.strictEqual(appended, PARTITIONS - 1)
      }).pipe(Effect.provide(layerLog.pipe(Layer.provide(layer))))
    })
  )

  it.effect("sends again into a topic that was recreated: a feed counts on no offset", () =>
    Effect.gen(function* () {
      let refused = 0
      const layer = Layer.effect(
        TickLog,
        Effect.map(
          TickLog,
          (log) =>
            ({
              ...log,
              append: (topic, partition, records) =>
                Effect.suspend(() => {
                  if (refused++ > 0) return log.append(topic, partition, records)
                  return new LogError({
                    operation: "append",
                    topic,
                    partition,
                    outcome: "unknown",
                    message: "the log went back",
                    reason: "incarnation"
                  })
                })
            }) satisfies TickLog["Service"]
        )
      ).pipe(Layer.provideMerge(memoryLog))
      yield* Effect.gen(function* () {
        yield* Effect.flatMap(RawSink, (sink) => sink.publish([tick(1, "x")]))
        assert.strictEqual(refused, 2)
        const records = yield* Effect.flatMap(TickLog, (log) => readAll(log, partitionOf(1, PARTITIONS)))
        assert.deepStrictEqual(records.map(text), ["x"])
      }).pipe(Effect.provide(layerLog.pipe(Layer.provideMerge(layer))))
    })
  )

  it.effect("is overloaded where a full log makes it wait too long", () =>
    Effect.gen(function* () {
      const sink = yield* RawSink
      const log = yield* TickLog
      // A reader that does not read holds what it has yet to take.
      yield* log.assignments("idle", "raw_ticks").pipe(Stream.runDrain, Effect.forkScoped({ startImmediately: true }))
      yield* TestClock.adjust(10)
      const many = Array.from({ length: 6000 }, (_, i) => tick(1, String(i)))
      const fiber = yield* Effect.forkChild(Effect.flip(publishWithin(sink, many, 5000)), { startImmediately: true })
      yield* TestClock.adjust(5000)
      const failed = yield* Fiber.join(fiber)
      assert.strictEqual(failed._tag, "Overloaded")
    }).pipe(Effect.provide(layerLog.pipe(Layer.provideMerge(memoryLog))))
  )
})

interface Request {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly type: string | undefined
  readonly body: string
}

/** A server that answers as told. */
const serving = (answer: (request: Request, response: ServerResponse, n: number) => void) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const requests: Array<Request> = []
      const server = createServer((incoming: IncomingMessage, response) => {
        const chunks: Array<Buffer> = []
        incoming.on("data", (chunk: Buffer) => chunks.push(chunk))
        incoming.on("end", () => {
          const request = {
            method: incoming.method,
            url: incoming.url,
            type: incoming.headers["content-type"],
            body: Buffer.concat(chunks).toString()
          }
          requests.push(request)
          answer(request, response, requests.length - 1)
        })
      })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      return { server, requests, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
    }),
    ({ server }) =>
      Effect.promise(() => {
        server.closeAllConnections()
        return new Promise((resolve) => server.close(resolve))
      })
  )

const accept = (request: Request, response: ServerResponse) =>
  response
    .setHeader("content-type", "application/json")
    .end(JSON.stringify({ accepted: request.body.trimEnd().split("\n").length, rejected: [] }))

const patient: Patience = { limitMs: 60_000 }

const publishTo = (url: string, ticks: ReadonlyArray<RawSinkTick>, options: HttpSinkOptions = { patience: patient }) =>
  Effect.gen(function* () {
    const sink = yield* RawSink
    yield* sink.publish(ticks)
  }).pipe(Effect.provide(layerHttp(url, options)))

/** How an effect ends that waits for real answers, while time passes only as fast as they come. */
const whileTimePasses = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    while (fiber.pollUnsafe() === undefined) {
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      yield* TestClock.adjust(50)
    }
    return yield* Fiber.join(fiber)
  })

describe("a raw sink over HTTP", () => {
  it.live("sends a tick a line, in order, in bodies within the bound", () =>
    Effect.gen(function* () {
      const { requests, url } = yield* serving(accept)
      const ticks = Array.from({ length: 1000 }, (_, i) => tick(i, `{"n":${i},"pad":"${"x".repeat(9000)}"}`))
      yield* publishTo(`${url}/`, ticks)
      assert.isAbove(requests.length, 2)
      for (const { body, method, type, url } of requests) {
        assert.deepStrictEqual([method, url, type], ["POST", "/api/v1/ingest", "application/x-ndjson"])
        assert.isAtMost(body.length, MAX_BODY_BYTES)
      }
      const lines = requests
        .map((request) => request.body)
        .join("")
        .trimEnd()
        .split("\n")
      assert.deepStrictEqual(
        lines,
        ticks.map((t) => Buffer.from(t.value).toString())
      )
    })
  )

  it.live("sends nothing where there is nothing", () =>
    Effect.gen(function* () {
      const { requests, url } = yield* serving(accept)
      yield* publishTo(url, [])
      assert.strictEqual(requests.length, 0)
    })
  )

  it.live("sends a body again after the wait that a full instance asks for", () =>
    Effect.gen(function* () {
      const { requests, url } = yield* serving((request, response, n) => {
        if (n < 2) response.writeHead(429, { "retry-after": "0" }).end()
        else accept(request, response)
      })
      yield* publishTo(url, [tick(1, "a"), tick(2, "b")])
      assert.deepStrictEqual(
        requests.map((request) => request.body),
        ["a\nb\n", "a\nb\n", "a\nb\n"]
      )
    })
  )

  it.effect("waits for an instance that cuts a connection, is away, or is not ready, with growing pauses", () =>
    Effect.gen(function* () {
      const waits: Array<string> = []
      const { requests, url } = yield* serving((request, response, n) => {
        if (n === 1 || n === 2) response.socket?.resetAndDestroy()
        else if (n === 3) response.writeHead(503, { "retry-after": "7" }).end()
        else accept(request, response)
      })
      const patience: Patience = {
        limitMs: 60_000,
        onWait: ({ isFull, leftMs, nth, reason }) => waits.push(`${nth} ${reason} ${isFull} ${leftMs > 0}`)
      }
      yield* whileTimePasses(
        Effect.gen(function* () {
          const sink = yield* RawSink
          yield* sink.publish([tick(1, "a")])
          yield* sink.publish([tick(1, "b")])
        }).pipe(Effect.provide(layerHttp(url, { patience })))
      )
      assert.deepStrictEqual(
        requests.map((request) => request.body),
        ["a\n", "b\n", "b\n", "b\n", "b\n"]
      )
      assert.match(waits.join(), /^1 \w+ false true,2 \w+ false true,3 it is not ready false true$/)
    })
  )

  it.effect("gives up an instance that stays away, naming the address and for how long", () =>
    Effect.gen(function* () {
      let asked = 0
      const { url } = yield* serving((request, response, n) => {
        asked += 1
        if (n === 0) accept(request, response)
        else response.socket?.resetAndDestroy()
      })
      const failed = yield* whileTimePasses(
        Effect.gen(function* () {
          const sink = yield* RawSink
          yield* sink.publish([tick(1, "a")])
          return yield* Effect.flip(sink.publish([tick(1, "b")]))
        }).pipe(Effect.provide(layerHttp(url, { patience: { limitMs: 20_000 } })))
      )
      assert.match(failed.message, new RegExp(`^no running instance answers at ${url}/api/v1/ingest: \\w+, for 20 s$`))
      // 250 ms, twice as much each time, 5 s at most.
      assert.isAtLeast(asked, 3)
      assert.isAtMost(asked, 12)
    })
  )

  it.live("sends nothing again where it may not wait", () =>
    Effect.gen(function* () {
      const { requests, url } = yield* serving((_, response) => response.socket?.resetAndDestroy())
      const failed = yield* Effect.flip(publishTo(url, [tick(1, "a")], { patience: { limitMs: 0 } }))
      assert.match(failed.message, /^no running instance answers at \S+: \w+$/)
      assert.strictEqual(requests.length, 1)
    })
  )

  it.live("stopped while it waits, it stops at once, also where what it sends may not be interrupted", () =>
    Effect.gen(function* () {
      const isWaiting = yield* Deferred.make<void>()
      const { url } = yield* serving((_, response) => response.writeHead(503, { "retry-after": "30" }).end())
      const patience: Patience = {
        limitMs: 600_000,
        onWait: () => Deferred.doneUnsafe(isWaiting, Exit.void)
      }
      const fiber = yield* Effect.forkChild(Effect.uninterruptible(publishTo(url, [tick(1, "a")], { patience })))
      yield* Deferred.await(isWaiting)
      yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
    })
  )

  it.effect("gives up an instance that stays full", () =>
    Effect.gen(function* () {
      let requests = 0
      const { url } = yield* serving((_, response) => {
        requests += 1
        response.writeHead(429, { "retry-after": "20" }).end()
      })
      const fiber = yield* Effect.forkChild(Effect.flip(publishTo(url, [tick(1, "a")])), { startImmediately: true })
      while (fiber.pollUnsafe() === undefined) {
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        // Time passes only once an answer is there to be waited out.
        yield* TestClock.adjust(1000)
      }
      const failed = yield* Fiber.join(fiber)
      assert.strictEqual(failed.message, `POST ${url}/api/v1/ingest answered 429, for 60 s`)
      assert.isAtLeast(requests, 1)
      assert.isAtMost(requests, 4)
    })
  )

  it.live("reports the lines that the instance refused", () =>
    Effect.gen(function* () {
      const { url } = yield* serving((_, response) =>
        response.end(JSON.stringify({ accepted: 1, rejected: [{ line: 2, reason: "price: expected number, got 1" }] }))
      )
      const failed = yield* Effect.flip(publishTo(url, [tick(1, "a"), tick(2, "b")]))
      assert.strictEqual(failed.message, `${url} took 1 of 2 ticks; 1 tick rejected: price: expected number, got 1`)
      const refused: Array<unknown> = []
      yield* publishTo(url, [tick(1, "a"), tick(2, "b")], {
        patience: patient,
        onRefused: (found) => refused.push(found)
      })
      assert.deepStrictEqual(refused, [{ ticks: 1, reason: "price: expected number, got 1" }])
    })
  )

  it.live("says how far a feed's clock is ahead, as the instance tells it", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(new Rows()) })
      const raw = (aheadMs: number) =>
        tick(1, `{"instrument_token":1,"exchange_ts":${(Date.now() + aheadMs) * 1000},"price":5}`)
      const url = `http://127.0.0.1:${port}`
      const failed = yield* Effect.flip(publishTo(url, [raw(-1000), raw(3_600_000), raw(3_600_000)]))
      const said = /^(.*): exchange_ts is (\d+\.\d) s ahead of the server's clock$/.exec(failed.message)
      assert.strictEqual(said?.[1], `${url} took 1 of 3 ticks; 2 ticks rejected`, failed.message)
      // An hour, but for the time that the request took.
      assert.isAbove(Number(said?.[2]), 1800)
      assert.isAtMost(Number(said?.[2]), 3600)
    })
  )

  it.live("says what another answer means, and who does not answer", () =>
    Effect.gen(function* () {
      const { url } = yield* serving((_, response) =>
        response.writeHead(415).end(JSON.stringify({ _tag: "X", message: "expected application/x-ndjson" }))
      )
      const refused = yield* Effect.flip(publishTo(url, [tick(1, "a")]))
      assert.strictEqual(refused.message, `POST ${url}/api/v1/ingest answered 415: expected application/x-ndjson`)
      // Where there never was a connection: of one that has just been ended the client may not know yet.
      const nowhere = `http://127.0.0.1:${yield* Effect.promise(() => freePort())}`
      const absent = yield* Effect.flip(publishTo(nowhere, [tick(1, "a")]))
      assert.strictEqual(absent.message, `no running instance answers at ${nowhere}/api/v1/ingest: ECONNREFUSED`)
    })
  )
})
