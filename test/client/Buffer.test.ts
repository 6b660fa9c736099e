import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { Buffer } from "../../src/client/Buffer.ts"
import type { EpochChange, Message, Missed, Tick } from "../../src/client/messages.ts"
import { frame } from "../support/clients.ts"
import { EPOCH } from "../support/hub.ts"

const tick = (token: number, position: number, epoch = EPOCH): Tick => ({
  ...frame(token, position, epoch),
  live: true
})
const missed = (token: number, from: number, to: number, reason: Missed["reason"] = "buffer"): Missed => ({
  type: "missed",
  instrument_token: token,
  epoch: EPOCH,
  from,
  to,
  count: to - from + 1,
  reason
})
const change = (token: number, from: number, to: number): EpochChange => ({
  type: "epoch",
  instrument_token: token,
  from: [EPOCH + from, 9],
  to: [EPOCH + to, 0],
  reason: "lost"
})

/** Puts messages in as a stream does. */
const filled = (size: number, messages: ReadonlyArray<Message>): Buffer => {
  const buffer = new Buffer(size)
  for (const message of messages) {
    if (buffer.isFull) buffer.evict()
    buffer.push(message)
  }
  return buffer
}
const drained = (buffer: Buffer): ReadonlyArray<Message> => {
  const all: Array<Message> = []
  for (let message = buffer.shift(); message !== undefined; message = buffer.shift()) all.push(message)
  return all
}

describe("what waits for the application", () => {
  it("comes out as it went in, however far it has turned round", () => {
    const buffer = new Buffer(100)
    let [put, got] = [0, 0]
    for (let round = 1; round <= 99; round++) {
      for (let i = 0; i < round; i++) buffer.push(tick(1, ++put))
      for (let i = 0; i < round; i++) assert.strictEqual((buffer.shift() as Tick).position, ++got)
    }
    assert.isUndefined(buffer.shift())
  })

  it("is told as missed where it had to go, before what is left", () => {
    const buffer = filled(2, [tick(1, 1), tick(2, 7), tick(1, 2), tick(1, 3), tick(2, 8)])
    assert.strictEqual(buffer.evicted, 3)
    assert.deepStrictEqual(drained(buffer), [missed(1, 1, 2), missed(2, 7, 7), tick(1, 3), tick(2, 8)])
  })

  it("joins what the server told as missed with what went after it", () => {
    const buffer = filled(1, [tick(1, 1), missed(1, 2, 9, "slow"), tick(1, 10), tick(1, 11)])
    assert.deepStrictEqual(drained(buffer), [missed(1, 1, 10), tick(1, 11)])
  })

  it("keeps the change of an epoch, and makes one of several", () => {
    const three = [
      tick(1, 9),
      change(1, 0, 60),
      tick(1, 1, EPOCH + 60),
      change(1, 60, 90),
      tick(1, 1, EPOCH + 90),
      tick(1, 2, EPOCH + 90)
    ]
    assert.deepStrictEqual(drained(filled(1, three)), [
      missed(1, 9, 9),
      { ...change(1, 0, 90), to: [EPOCH + 90, 0] },
      { ...missed(1, 1, 1), epoch: EPOCH + 90 },
      tick(1, 2, EPOCH + 90)
    ])
  })

  const steps = Arbitrary.array(
    Arbitrary.schema(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: -3, maximum: 3 })))),
    { maxLength: 300 }
  )
  const sizes = Arbitrary.schema(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 12 }))))

  it.prop(
    "accounts for every tick, each once and in order, and never holds more than its size",
    [steps, sizes],
    ([list, size]) => {
      const buffer = new Buffer(size)
      const put = [0, 0, 0, 0]
      const told = [0, 0, 0, 0]
      const tell = (message: Message | undefined) => {
        if (message?.type === "tick") assert.strictEqual(message.position, ++told[message.instrument_token]!)
        else if (message?.type === "missed") {
          assert.strictEqual(message.from, told[message.instrument_token]! + 1)
          told[message.instrument_token] = message.to!
        }
        return message
      }
      for (const step of list) {
        if (step > 0) {
          if (buffer.isFull) buffer.evict()
          buffer.push(tick(step, ++put[step]!))
          assert.isAtMost(buffer.count, size)
        } else for (let i = step; i < 0; i++) tell(buffer.shift())
      }
      while (tell(buffer.shift()) !== undefined);
      assert.deepStrictEqual(told, put)
    }
  )
})
