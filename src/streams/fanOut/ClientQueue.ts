/**
 * Decides what waits for one client: a bounded ring of shared frames that gives up the oldest when full, and accounts
 * for exactly what it gave up.
 */
import { evictedFrame, type TickFields, tickFrame } from "../../schema/Protocol.ts"

/** What the queue needs of a connection. */
export interface ClientSocket {
  /** Hands over one text frame; false where the peer does not keep up and the frame waits in the socket. */
  readonly send: (text: string) => boolean
  /** Bytes that wait in the socket. */
  readonly buffered: () => number
  /** Runs `sends` so that they leave as one write. */
  readonly cork: (sends: () => void) => void
  /** Closes, if need be once the peer has read; `why` names it in a figure, `error` is what broke where something did. */
  readonly end: (code: number, reason: string, why: EndReason, error?: unknown) => void
}

/** Why the server ends a client, as its figure is labelled. */
export type EndReason =
  | "key"
  | "unauthorized"
  | "too_many_messages"
  | "too_many_bytes"
  | "too_large"
  | "bad_messages"
  | "unread"
  | "overload"
  | "failed"
  | "stopping"

/** What waits for all clients of a hub together, kept up to date by their queues. */
export interface Held {
  /** Ticks in queues. */
  ticks: number
  /** Bytes of messages to be read, of answers, and of what sockets have not sent. */
  bytes: number
}

/** What every frame of one publish shares. */
export interface Published {
  /** When the log had the newest of them, epoch microseconds; 0 where nobody knows. */
  readonly at: number
}

/** One tick on its way to every client that wants it: one object and one text, however many they are. */
export class Frame {
  /** 0 for a frame of no instrument, such as a clock. */
  readonly token: number
  readonly epoch: number
  readonly position: number
  /** The first position that this frame accounts for: below `position` where the log itself has a hole. */
  readonly first: number
  /** Frames that go right before it: a hole told, a gap told. */
  readonly before: ReadonlyArray<string> | undefined
  readonly published: Published
  private tick: TickFields | undefined
  private encoded: string

  constructor(
    token: number,
    epoch: number,
    position: number,
    first: number,
    before: ReadonlyArray<string> | undefined,
    published: Published,
    tick: TickFields | undefined,
    encoded: string
  ) {
    this.token = token
    this.epoch = epoch
    this.position = position
    this.first = first
    this.before = before
    this.published = published
    this.tick = tick
    this.encoded = encoded
  }

  /** The text, written when the first client needs it. */
  text(): string {
    if (this.tick !== undefined) {
      this.encoded = tickFrame(this.tick)
      this.tick = undefined
    }
    return this.encoded
  }
}

/** An answer in its place among the ticks; never evicted, so its weight is bounded instead. */
export interface Notice {
  /** The instrument whose losses are told before it; 0 where there is none. */
  readonly token: number
  /** About the bytes it keeps in memory. */
  readonly weight: number
  /** The next text of it, or `undefined` after the last. */
  readonly next: () => string | undefined
  /** Called once: true when all of it went to the socket, false when the client is gone. */
  readonly done?: (sent: boolean) => void
}

/** One text as a notice. */
export const textNotice = (text: string): Notice => {
  let rest: string | undefined = text
  return {
    token: 0,
    weight: text.length + 64,
    next: () => {
      const now = rest
      rest = undefined
      return now
    }
  }
}

/** Positions given up, from the queue's place `index` on. */
interface Loss {
  readonly index: number
  readonly epoch: number
  readonly from: number
  to: number
}

interface WaitingNotice {
  readonly at: number
  readonly notice: Notice
}

const FIRST_SLOTS = 64
/** Room that an empty queue keeps at most. */
const KEPT_SLOTS = 4_096
const FIRST_MARKS = 16
/** A publish delivers at most so many ticks at a time: frames are marked by 16-bit numbers. */
export const MAX_DELIVERY = 1_024
const NO_FRAMES: ReadonlyArray<Frame> = []
/** A frame of a batching client is closed above this many characters or messages. */
const BATCH_CHARS = 65_536
const BATCH_MESSAGES = 1_000
/** Characters that one flush hands to the socket at most, and one text more: others are to have their turn. */
export const MAX_FLUSH_CHARS = 262_144
/** Answers that a client asked for and does not read; above it the client is closed with 1008. */
export const MAX_NOTICE_WEIGHT = 16_777_216

export class ClientQueue {
  closed = false
  /** Set where the answers weigh too much: whoever flushes ends the connection. */
  overloaded = false
  /** A frame is an array of messages. */
  batch = false
  /** When the last frame that went to the socket was published; 0 where none went since this was read. */
  lastPublished = 0
  evicted = 0
  /** The last flush stopped for the others' sake: it is to be called again soon. */
  unfinished = false

  /** Ticks it holds at most. */
  capacity: number
  private readonly socket: ClientSocket
  private readonly bufferBytes: number
  private readonly held: Held
  /** What of `held` is this client's. */
  private heldTicks = 0
  private heldBytes = 0
  /** Bytes of the client's own messages that wait to be read. */
  private unread = 0
  /** Bytes that the socket had not sent when it was last asked. */
  private unsent = 0
  /** A power of two long; `head` and `tail` count all that ever went through. */
  private slots: Array<Frame | undefined> = new Array(FIRST_SLOTS).fill(undefined)
  private head = 0
  private tail = 0
  private blocked = false
  private notices: Array<WaitingNotice> = []
  private firstNotice = 0
  private noticeWeight = 0
  /** Notices that eviction has gone past, and the place of the newest of them. */
  private passed = 0
  private passedAt = 0
  private readonly losses = new Map<number, Array<Loss>>()
  /** Frames of the publish under way that are for this client, and how many of them went out at once. */
  private marks = new Uint16Array(FIRST_MARKS)
  private marked = 0
  private sent = 0
  private frames = NO_FRAMES
  private gathered = ""
  private gatheredMessages = 0
  /** Characters that this flush may still hand over. */
  private room = 0

  constructor(socket: ClientSocket, capacity: number, bufferBytes: number, held: Held = { ticks: 0, bytes: 0 }) {
    this.socket = socket
    this.capacity = capacity
    this.bufferBytes = bufferBytes
    this.held = held
  }

  /** Ticks that wait. */
  get size(): number {
    return this.tail - this.head
  }

  /** Bytes that wait for this client: its messages, its answers, and what its socket has not sent. */
  get bytes(): number {
    return this.heldBytes
  }

  resize(capacity: number): void {
    this.capacity = capacity
    this.cut(capacity)
  }

  /** Gives up the oldest ticks, down to so many. */
  cut(ticks: number): void {
    while (this.size > ticks) this.evict()
    // A long queue that was is no reason to keep its room.
    if (this.slots.length > FIRST_SLOTS && this.size * 4 < this.slots.length) this.shrink()
    this.account()
  }

  /** Counts bytes of the client's own messages that came (or, negative, were read). */
  receive(bytes: number): void {
    this.unread += bytes
    this.account()
  }

  /** Brings what is held of this client into the sum of all. */
  private account(): void {
    const ticks = this.tail - this.head
    if (ticks !== this.heldTicks) {
      this.held.ticks += ticks - this.heldTicks
      this.heldTicks = ticks
    }
    const bytes = this.unread + this.unsent + this.noticeWeight
    if (bytes !== this.heldBytes) {
      this.held.bytes += bytes - this.heldBytes
      this.heldBytes = bytes
    }
  }

  /**
   * Marks a frame of the publish under way by its index; answers whether it is the first. Small numbers, not frames:
   * most clients keep up, and nothing of theirs needs to be kept.
   */
  mark(index: number): boolean {
    const at = this.marked++
    if (at === this.marks.length) this.growMarks()
    this.marks[at] = index
    return at === 0
  }

  /** Hands the marked frames over, in order, behind whatever waits; what the socket does not take is queued. */
  deliver(frames: ReadonlyArray<Frame>): void {
    if (this.closed) {
      this.marked = 0
      return
    }
    // What waits goes first: in the same write where there is room for these behind it.
    if (!this.isIdle && this.size + this.marked > this.capacity) this.flush()
    this.sent = 0
    if (this.isIdle && !this.batch && !this.isFull()) {
      this.frames = frames
      this.socket.cork(this.sendMarked)
      this.frames = NO_FRAMES
    }
    if (this.sent < this.marked) {
      for (let i = this.sent; i < this.marked; i++) this.push(frames[this.marks[i]!]!)
      this.flush()
    }
    this.marked = 0
    this.account()
  }

  /** Puts a frame behind the others; full: tries the socket, then gives up the oldest. */
  private push(frame: Frame): void {
    let size = this.tail - this.head
    if (size >= this.capacity) {
      // Ending a client is left to `flush`: here others are still to be served.
      if (!this.blocked && !this.overloaded) this.flush()
      if (this.tail - this.head >= this.capacity) this.evict()
      size = this.tail - this.head
    }
    if (this.closed) return
    if (size === this.slots.length) this.grow()
    this.slots[this.tail++ & (this.slots.length - 1)] = frame
  }

  private get isIdle(): boolean {
    return (
      this.head === this.tail && this.firstNotice === this.notices.length && this.losses.size === 0 && !this.overloaded
    )
  }

  /** Puts an answer behind the ticks that wait now. */
  notify(notice: Notice): void {
    if (this.closed) {
      notice.done?.(false)
      return
    }
    this.notices.push({ at: this.tail, notice })
    this.noticeWeight += notice.weight
    if (this.noticeWeight > MAX_NOTICE_WEIGHT) this.overloaded = true
    this.account()
  }

  /** Hands to the socket what it takes now. */
  flush(): void {
    if (this.closed) return
    if (this.overloaded) {
      this.end(1008, "answers are not read", "unread")
      return
    }
    this.unfinished = false
    if (this.isFull() || this.isIdle) {
      this.account()
      return
    }
    this.room = MAX_FLUSH_CHARS
    this.socket.cork(this.drain)
    this.account()
  }

  /** Lets go of everything and ends the connection. */
  end(code: number, reason: string, why: EndReason, error?: unknown): void {
    if (this.closed) return
    this.close()
    this.socket.end(code, reason, why, error)
  }

  /** The connection is gone. */
  close(): void {
    if (this.closed) return
    this.closed = true
    const waiting = this.notices.slice(this.firstNotice)
    this.slots = []
    this.head = 0
    this.tail = 0
    this.notices = []
    this.firstNotice = 0
    this.losses.clear()
    this.gathered = ""
    this.noticeWeight = 0
    this.unread = 0
    this.unsent = 0
    this.unfinished = false
    this.account()
    for (const { notice } of waiting) notice.done?.(false)
  }

  private readonly sendMarked = (): void => {
    const { frames, marks, marked, socket } = this
    let i = 0
    let published = 0
    while (i < marked) {
      const frame = frames[marks[i++]!]!
      if (frame.before !== undefined) for (const text of frame.before) socket.send(text)
      published = frame.published.at
      if (!socket.send(frame.text()) && this.isFull()) break
    }
    this.sent = i
    this.lastPublished = published
  }

  private growMarks(): void {
    const marks = new Uint16Array(this.marks.length * 2)
    marks.set(this.marks)
    this.marks = marks
  }

  private grow(): void {
    this.reslot(this.slots.length * 2)
  }

  private shrink(): void {
    let length = FIRST_SLOTS
    while (length < this.size) length *= 2
    this.reslot(length)
  }

  private reslot(length: number): void {
    const size = this.tail - this.head
    const before = this.slots
    const slots: Array<Frame | undefined> = new Array(length).fill(undefined)
    for (let i = 0; i < size; i++) {
      slots[(this.head + i) & (slots.length - 1)] = before[(this.head + i) & (before.length - 1)]
    }
    this.slots = slots
  }

  private evict(): void {
    const at = this.head & (this.slots.length - 1)
    const frame = this.slots[at]!
    this.slots[at] = undefined
    const index = this.head++
    while (this.firstNotice + this.passed < this.notices.length) {
      const next = this.notices[this.firstNotice + this.passed]!.at
      if (next > index) break
      this.passedAt = next
      this.passed++
    }
    if (frame.token === 0) return
    this.evicted++
    const losses = this.losses.get(frame.token)
    const last = losses?.[losses.length - 1]
    // A loss never reaches across an answer: what was lost before it is told before it, the rest after it.
    if (last !== undefined && last.epoch === frame.epoch && frame.first > last.to && last.index >= this.passedAt) {
      last.to = frame.position
      return
    }
    const loss = { index, epoch: frame.epoch, from: frame.first, to: frame.position }
    if (losses === undefined) this.losses.set(frame.token, [loss])
    else losses.push(loss)
  }

  private readonly drain = (): void => {
    let published = 0
    for (;;) {
      if (this.firstNotice !== this.notices.length && this.notices[this.firstNotice]!.at <= this.head) {
        if (!this.tellNotice()) break
        continue
      }
      if (this.head === this.tail) {
        if (this.losses.size !== 0 && !this.tellLosses()) break
        // Places start over, so that they stay small whole numbers for ever.
        if (this.firstNotice === this.notices.length) this.rewind()
        break
      }
      const { slots } = this
      const at = this.head & (slots.length - 1)
      const frame = slots[at]!
      slots[at] = undefined
      this.head++
      if (this.losses.size !== 0) this.tellLoss(frame.token, this.head)
      if (frame.before !== undefined) for (const text of frame.before) this.send(text)
      published = frame.published.at
      if (!this.send(frame.text())) break
      if (this.closed) return
    }
    if (this.gathered !== "") this.sendGathered()
    if (published !== 0) this.lastPublished = published
  }

  private rewind(): void {
    if (this.slots.length > KEPT_SLOTS) this.slots = new Array(FIRST_SLOTS).fill(undefined)
    this.head = 0
    this.tail = 0
    this.notices.length = 0
    this.firstNotice = 0
    this.passed = 0
    this.passedAt = 0
  }

  /** False where the socket takes no more, or the others are to have their turn. */
  private send(text: string): boolean {
    if (this.closed) return false
    this.room -= text.length
    if (!this.batch) return (this.socket.send(text) || !this.isFull()) && this.hasRoom()
    this.gathered = this.gathered === "" ? `[${text}` : `${this.gathered},${text}`
    if (++this.gatheredMessages < BATCH_MESSAGES && this.gathered.length < BATCH_CHARS) return true
    return this.sendGathered()
  }

  private sendGathered(): boolean {
    const text = `${this.gathered}]`
    this.gathered = ""
    this.gatheredMessages = 0
    return (this.socket.send(text) || !this.isFull()) && this.hasRoom()
  }

  private isFull(): boolean {
    this.unsent = this.socket.buffered()
    this.blocked = this.unsent >= this.bufferBytes
    return this.blocked
  }

  private hasRoom(): boolean {
    if (this.room > 0) return true
    this.unfinished = true
    return false
  }

  private tellNotice(): boolean {
    const { at, notice } = this.notices[this.firstNotice]!
    if (notice.token !== 0 && this.losses.size !== 0) this.tellLoss(notice.token, at)
    for (let text = notice.next(); text !== undefined; text = notice.next()) {
      if (!this.send(text)) return false
    }
    if (this.closed) return false
    this.noticeWeight -= notice.weight
    this.firstNotice++
    if (this.passed > 0) this.passed--
    if (this.firstNotice === this.notices.length) {
      this.notices.length = 0
      this.firstNotice = 0
    } else if (this.firstNotice >= 1024 && this.firstNotice * 2 > this.notices.length) {
      this.notices = this.notices.slice(this.firstNotice)
      this.firstNotice = 0
    }
    notice.done?.(true)
    return true
  }

  /** Tells what was lost of an instrument before a place in the queue. */
  private tellLoss(token: number, before: number): void {
    const losses = this.losses.get(token)
    if (losses === undefined) return
    let told = 0
    while (told < losses.length && losses[told]!.index < before) {
      const loss = losses[told++]!
      this.send(evictedFrame(token, loss.epoch, loss.from, loss.to))
    }
    if (told === losses.length) this.losses.delete(token)
    else losses.splice(0, told)
  }

  private tellLosses(): boolean {
    for (const token of [...this.losses.keys()]) {
      this.tellLoss(token, this.tail)
      if (this.closed || this.isFull() || !this.hasRoom()) return this.losses.size === 0 && !this.closed
    }
    return true
  }
}
