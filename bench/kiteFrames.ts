/** Decides what the benches of Kite's ticker read: frames of full packets of 3,000 instruments, each with a new trade. */
import { encodePacket, joinPackets } from "../src/schema/kite/packets.ts"

const INSTRUMENTS = 3000
export const FRAME_PACKETS = 100
/** Of NSE: the low byte says so. */
const FIRST_TOKEN = 0x101
const START = Math.floor(Date.now() / 1000) - 3600
/** Packets of all instruments that come within a second. */
const A_SECOND = 30_000

const side = (price: number, step: number) =>
  Array.from({ length: 5 }, (_, i) => [price + step * (i + 1), 100 + i, 3] as const)

/** Frames of all instruments in turn, made once; `next` writes into one what has changed since it was last given out. */
export class KiteFrames {
  readonly tokens: ReadonlyArray<number> = Array.from({ length: INSTRUMENTS }, (_, i) => FIRST_TOKEN + i * 256)
  readonly #frames: ReadonlyArray<Uint8Array>
  #given = 0

  constructor() {
    const packets = this.tokens.map((token, i) =>
      encodePacket({
        token,
        mode: "full",
        isIndex: false,
        lastPrice: 100 + (i % 1000) / 20,
        lastQuantity: 10,
        averagePrice: 100,
        volume: 0,
        buyQuantity: 1000,
        sellQuantity: 2000,
        open: 99,
        high: 160,
        low: 90,
        close: 98.5,
        change: 0,
        lastTradeSeconds: START,
        oi: 0,
        oiDayHigh: 0,
        oiDayLow: 0,
        exchangeSeconds: START,
        bid: side(100, -0.05),
        ask: side(100, 0.05)
      })
    )
    this.#frames = Array.from({ length: INSTRUMENTS / FRAME_PACKETS }, (_, i) =>
      joinPackets(packets.slice(i * FRAME_PACKETS, (i + 1) * FRAME_PACKETS))
    )
  }

  next(): Uint8Array {
    const frame = this.#frames[this.#given % this.#frames.length]!
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
    const seconds = START + Math.floor((this.#given * FRAME_PACKETS) / A_SECOND)
    for (let at = 4; at < frame.byteLength; at += 186) {
      const volume = view.getUint32(at + 16) + 10
      view.setUint32(at + 16, volume)
      view.setUint32(at + 44, seconds)
      view.setUint32(at + 60, seconds)
      // The quantity of the best bid.
      view.setUint32(at + 64, 100 + (volume % 1000))
    }
    this.#given += 1
    return frame
  }
}
