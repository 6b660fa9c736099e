/**
 * Decides what the bench kite is held against: the same frames read field by field and sent as the same records by the
 * same driver, with nothing bounded, refused, counted or kept but the last volume.
 */
import { Producer } from "@platformatic/kafka"
import { partitionOf } from "../../src/schema/Partition.ts"
import { FRAME_PACKETS, KiteFrames } from "../kiteFrames.ts"
import { report } from "../servers.ts"

const packets = Number(process.argv[2])
const topic = process.argv[3]!
const partitions = Number(process.argv[4])
const BATCH = 4000

const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({
  clientId: "bare",
  bootstrapBrokers: [process.env.KAFKA_BROKERS!],
  idempotent: true,
  acks: -1
})
const frames = new KiteFrames()
const volumes = new Map<number, number>()
let out: Array<{ topic: string; partition: number; key: Buffer; value: Buffer }> = []
let sent = 0
let underWay: Promise<unknown> = Promise.resolve()

const price = (view: DataView, at: number) => view.getInt32(at) / 100
const side = (view: DataView, from: number) => {
  let text = ""
  for (let at = from; at < from + 60; at += 12) {
    text += `${at === from ? "" : ","}[${price(view, at + 4)},${view.getUint32(at)},${view.getUint16(at + 8)}]`
  }
  return text
}

const take = (frame: Uint8Array): void => {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  for (let at = 4; at < frame.byteLength; at += 186) {
    const token = view.getUint32(at)
    const volume = view.getUint32(at + 16)
    if (volumes.get(token) === volume) continue
    volumes.set(token, volume)
    const stamp = view.getUint32(at + 60) * 1_000_000
    const text =
      `{"instrument_token":${token},"exchange_ts":${stamp},"price":${price(view, at + 4)},"feed":"snapshot","day_volume":${volume},` +
      `"received_ts":${Date.now() * 1000},"quote":{"bid":[${side(view, at + 64)}],"ask":[${side(view, at + 124)}],` +
      `"total_buy_quantity":${view.getUint32(at + 20)},"total_sell_quantity":${view.getUint32(at + 24)},` +
      `"average_price":${price(view, at + 12)},"last_quantity":${view.getUint32(at + 8)},"last_trade_ts":${view.getUint32(at + 44) * 1_000_000},` +
      `"open":${price(view, at + 28)},"high":${price(view, at + 32)},"low":${price(view, at + 36)},"previous_close":${price(view, at + 40)}}}`
    out.push({
      topic,
      partition: partitionOf(token, partitions),
      key: Buffer.from(String(token)),
      value: Buffer.from(text)
    })
  }
}

const cpu = process.cpuUsage()
const started = performance.now()
for (let given = 0; given < packets; given += FRAME_PACKETS) {
  take(frames.next())
  if (out.length < BATCH && given + FRAME_PACKETS < packets) continue
  const messages = out
  out = []
  await underWay
  underWay = producer.send({ messages })
  sent += messages.length
}
await underWay
const seconds = (performance.now() - started) / 1000
const { user, system } = process.cpuUsage(cpu)
if (sent !== packets) throw new Error(`the bare loop sent ${sent} records of ${packets} packets`)
report({ ticks: packets, seconds, cpuSeconds: (user + system) / 1e6 })
await producer.close()
process.disconnect()
