/**
 * Decides what waits for an application that takes its messages one by one: at most so many; beyond that the oldest go,
 * and which ticks they were is told right where they are missing.
 */
import type { EpochChange, Message, Missed } from "./messages.ts"

/** Rooms that a buffer begins with; it grows up to its size as it is needed. */
const FIRST_ROOMS = 64

export class Buffer {
  readonly size: number
  #rooms: Array<Message | undefined>
  #head = 0
  #count = 0
  /** Of each instrument, what was let go and is not told yet. */
  readonly #lost = new Map<number, Array<Missed | EpochChange>>()
  /** Of what was let go, what is to be told before anything else. */
  #told: Array<Missed | EpochChange> = []
  #toldAt = 0
  /** Messages that were let go. */
  evicted = 0

  constructor(size: number) {
    this.size = size
    this.#rooms = new Array(Math.min(size, FIRST_ROOMS))
  }

  get count(): number {
    return this.#count
  }

  get isFull(): boolean {
    return this.#count >= this.size
  }

  push(message: Message): void {
    if (this.#count === this.#rooms.length) this.#grow()
    this.#rooms[(this.#head + this.#count) % this.#rooms.length] = message
    this.#count++
  }

  /** Lets the oldest go. */
  evict(): void {
    const message = this.#take()
    if (message === undefined) return
    this.evicted++
    if (message.type === "tick") this.#lose(message.instrument_token, message.epoch, message.position)
    else if (message.type === "missed" || message.type === "epoch") this.#keep(message)
  }

  shift(): Message | undefined {
    const told = this.#told[this.#toldAt]
    if (told !== undefined) {
      this.#toldAt++
      return told
    }
    if (this.#lost.size > 0) {
      // Whatever was let go is older than all that is left.
      this.#told = [...this.#lost.values()].flat()
      this.#toldAt = 1
      this.#lost.clear()
      return this.#told[0]
    }
    return this.#take()
  }

  clear(): void {
    this.#rooms = []
    this.#head = 0
    this.#count = 0
    this.#lost.clear()
    this.#told = []
    this.#toldAt = 0
  }

  #take(): Message | undefined {
    if (this.#count === 0) return undefined
    const message = this.#rooms[this.#head]
    this.#rooms[this.#head] = undefined
    this.#head = (this.#head + 1) % this.#rooms.length
    this.#count--
    return message
  }

  #grow(): void {
    const rooms = this.#rooms
    const grown: Array<Message | undefined> = new Array(Math.max(FIRST_ROOMS, rooms.length * 2))
    for (let i = 0; i < this.#count; i++) grown[i] = rooms[(this.#head + i) % rooms.length]
    this.#rooms = grown
    this.#head = 0
  }

  #lose(token: number, epoch: number, position: number): void {
    const lost = this.#lost.get(token)
    const last = lost?.[lost.length - 1]
    if (last?.type === "missed" && last.reason === "buffer" && last.epoch === epoch && last.to === position - 1) {
      lost![lost!.length - 1] = missed(token, epoch, last.from!, position)
    } else this.#keep(missed(token, epoch, position, position))
  }

  /** In order; epochs that went by unseen become one, so that what waits to be told stays short. */
  #keep(message: Missed | EpochChange): void {
    const lost = this.#lost.get(message.instrument_token)
    if (lost === undefined) {
      this.#lost.set(message.instrument_token, [message])
      return
    }
    if (message.type === "epoch") {
      const first = lost.find((known) => known.type === "epoch")
      if (first !== undefined) {
        const until = lost.indexOf(first)
        lost.length = until
        lost.push({ ...message, from: first.from, reason: first.reason === "day" ? message.reason : first.reason })
        return
      }
    } else {
      const last = lost[lost.length - 1]
      const isNext = last?.type === "missed" && last.epoch === message.epoch && last.to !== null
      if (isNext && message.from === last.to + 1) {
        lost[lost.length - 1] = missed(message.instrument_token, message.epoch, last.from!, message.to!)
        return
      }
      if (last?.type === "missed" && last.to === null && message.to === null) return
    }
    lost.push(message)
  }
}

const missed = (token: number, epoch: number, from: number, to: number): Missed => ({
  type: "missed",
  instrument_token: token,
  epoch,
  from,
  to,
  count: to - from + 1,
  reason: "buffer"
})
