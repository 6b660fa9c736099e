import { assert, describe, it } from "@effect/vitest"
import type * as answers from "../../src/client/answers.ts"
import type * as client from "../../src/client/messages.ts"
import type { Bar, HistoricalTick, ListedInstrument } from "../../src/http/Api.ts"
import type { Interval } from "../../src/schema/Candle.ts"
import * as protocol from "../../src/schema/Protocol.ts"
import type { Replay, ReplayRequest } from "../../src/streams/replay/Replays.ts"

/** Fails to compile where what the server has is not what the client takes it for. */
const takes = <Theirs, _Ours extends Theirs>() => undefined
/** Both ways. */
const same = <A extends B, B extends C, C = A>() => undefined

describe("the client's types", () => {
  it("take every frame that the server sends, and say nothing that it does not take", () => {
    takes<client.ServerMessage, protocol.ServerMessage>()
    same<client.TickFrame, protocol.TickFrame>()
    same<client.Answer, protocol.Answer>()
    same<client.ClientMessage, protocol.ClientMessage>()
  })

  it("take every answer of REST", () => {
    same<answers.Instrument, ListedInstrument>()
    same<answers.HistoricalTick, typeof HistoricalTick.Type>()
    same<answers.Bar, Bar>()
    same<answers.ReplayStatus, Replay>()
    same<answers.ReplayRequest, ReplayRequest>()
    same<answers.Interval, Interval>()
  })

  it("name every channel and policy of the protocol", () => {
    const channels: ReadonlyArray<client.Channel> = protocol.CHANNELS
    const policies: ReadonlyArray<client.Policy> = protocol.POLICIES
    assert.isNotEmpty(channels)
    assert.isNotEmpty(policies)
  })
})
