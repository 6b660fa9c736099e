/** Decides how the product's share of the bench kite runs: from the bytes of frames to the log's acknowledgement. */
import { Effect, Layer } from "effect"
import { log } from "../../src/commands/services.ts"
import { layerLog } from "../../src/layers/feeds/RawSink.ts"
import { Inbox } from "../../src/layers/kite/Inbox.ts"
import { KiteRecords } from "../../src/layers/kite/KiteRecords.ts"
import { decodeFrame } from "../../src/schema/kite/packets.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { RawSink, type RawSinkTick } from "../../src/streams/ports/RawSink.ts"
import { FRAME_PACKETS, KiteFrames } from "../kiteFrames.ts"
import { report } from "../servers.ts"

const packets = Number(process.argv[2])
/** Frames that a socket hands over in one turn. */
const AT_ONCE = 40

await Effect.gen(function* () {
  const settings = yield* Effect.fromResult(readSettings(process.env))
  const services = yield* Layer.build(Layer.provide(layerLog, log(settings)))
  yield* Effect.gen(function* () {
    const sink = yield* RawSink
    const frames = new KiteFrames()
    const records = new KiteRecords(frames.tokens, "full", settings.MAX_FUTURE_SKEW_MS)
    const inbox = new Inbox()
    const cpu = process.cpuUsage()
    const started = performance.now()
    let sent = 0
    const read = Effect.gen(function* () {
      for (let given = 0; given < packets; ) {
        if (!inbox.isPaused) {
          for (let i = 0; i < AT_ONCE && given < packets; i++, given += FRAME_PACKETS) {
            const into: Array<RawSinkTick> = []
            for (const packet of decodeFrame(frames.next())!.packets) records.take(packet, Date.now() * 1000, into)
            inbox.put(into)
          }
        }
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      }
    })
    const handOn = Effect.gen(function* () {
      while (sent < packets) {
        const taken = yield* inbox.take
        yield* sink.publish(taken)
        sent += taken.length
      }
    })
    yield* Effect.all([read, handOn], { concurrency: 2 })
    const seconds = (performance.now() - started) / 1000
    const { user, system } = process.cpuUsage(cpu)
    if (sent !== packets) throw new Error(`${sent} records were sent of ${packets} packets`)
    report({ ticks: packets, seconds, cpuSeconds: (user + system) / 1e6 })
  }).pipe(Effect.provide(services))
}).pipe(Effect.scoped, Effect.runPromise)
process.disconnect()
