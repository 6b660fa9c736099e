/**
 * Decides what waits for one client: a bounded ring of shared frames, what becomes of a tick that finds it full, by the
 * client's policy, and an exact account of what was given up.
 */
import { closingFrame, type Place, type Policy, SLOW_CODE, type TickFields, tickFrame } from "../../schema/Protocol.ts"
import { Losses } from "./Losses.ts"
import { keyOfYielding, type LatestFrame, LatestSlots } from "./latest.ts"

/** What the queue needs of a connection. */
export interface ClientSocket {
  /**
   * Hands over one text frame; false where the peer does not keep up and the frame waits in the socket. `many` messages
   * are in it: worth compressing where the peer reads that.
   */
  readonly send: (text: string, many?: boolean) => boolean
  /** Bytes that wait in the socket. */
  readonly buffered: () => number
  /** The peer has not read what was handed over, of which there is enough; whoever flushes is told when it reads on. */
  readonly isBehind: () => boolean
  /** The peer is on its way to be behind: what can wait is to leave the rest to what cannot. */
  readonly isSlow: () => boolean
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
  | "slow"
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
  /** It tells something of an instrument to who does not want its ticks. */
  readonly isBeside: boolean
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
    this.isBeside = tick === undefined && token !== 0
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
  /** Where the instrument's stream stands before what is still to come of it; undefined where it has no place yet. */
  readonly place?: () => Place | undefined
  /** Called once: true when all of it went to the socket, false when the client is gone. */
  readonly done?: (sent: boolean) => void
}

/** One text as a notice, about an instrument where it is. */
export const textNotice = (text: string, token = 0): Notice => {
  let rest: string | undefined = text
  return {
    token,
    weight: text.length + 64,
    next: () => {
      const now = rest
      rest = undefined
      return now
    }
  }
}

/** What a queue needs of the client that it is of. */
export interface QueueOwner {
  /** Takes up one of the instruments that were left out, from its place; false where none can be now. */
  readonly takeUp: () => boolean
  /** Ticks are left out from now on, until the client reads on. */
  readonly paused: () => void
  /** Where each stream stands for the peer, as `since` of its next connection. */
  readonly places: () => Iterable<readonly [token: number, place: Place]>
}

/** An instrument whose ticks are left out: they will be read anew from `place` on. */
interface Missed {
  place: Place
  /** When the first was left out, in milliseconds of `performance.now`. */
  readonly at: number
}

/** How a client is to be ended by whoever flushes. */
interface Doom {
  readonly code: number
  readonly reason: string
  readonly why: EndReason
}

const UNREAD: Doom = { code: 1008, reason: "answers are not read", why: "unread" }
const slow = (reason: string): Doom => ({ code: SLOW_CODE, reason, why: "slow" })

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
/** A frame of a batching client is closed above this many characters that yield to ticks: none is to wait long for it. */
const YIELDING_CHARS = 8_192
/** Characters that one flush hands to the socket at most, and one text more: others are to have their turn. */
export const MAX_FLUSH_CHARS = 262_144
/**
 * Behind so many ticks that wait, what has a state has its turn: who is always behind is to hear of it too. What yields has
 * none before it.
 */
const TICKS_A_SLOT = 16
/** Answers that a client asked for and does not read; above it the client is closed with 1008. */
export const MAX_NOTICE_WEIGHT = 16_777_216
/** So much of them may still wait where whoever answers goes on. */
const ANSWERS_LEFT = 262_144

export class ClientQueue {
  closed = false
  /** Set where the client cannot be kept: others are to be served first, so whoever flushes ends it. */
  private doom: Doom | undefined
  /** What becomes of a tick that finds the queue full. */
  policy: Policy = "evict-oldest"
  owner: QueueOwner | undefined
  /** Called once, when answers that waited have gone to the socket. */
  answered: (() => void) | undefined
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
  private readonly losses = new Losses()
  /** Of `conflate`: where the tick of each instrument waits that a newer one takes the place of. */
  private waiting: Map<number, number> | undefined
  /** Of `pause`: what is left out, longest ago first; undefined where nothing is. */
  private missed: Map<number, Missed> | undefined
  /** Of instruments whose ticks are not wanted, up to where what is told of them may have been lost. */
  private readonly beside = new Map<number, Place>()
  /** Frames of the publish under way that are for this client, and how many of them went out at once. */
  private marks = new Uint16Array(FIRST_MARKS)
  private marked = 0
  private sent = 0
  private frames = NO_FRAMES
  private gathered = ""
  private gatheredMessages = 0
  /** What has a state; undefined for who asked for none. */
  private latest: LatestSlots | undefined
  /** Of it, what goes only where no tick waits. */
  private yielding: LatestSlots | undefined
  private isOffered = false
  /** Ticks that went before what waits in slots. */
  private ticksSinceSlot = 0
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

  /** About the bytes of answers that wait. */
  get unanswered(): number {
    return this.noticeWeight
  }

  /** The client does not read what was handed over, of which there is enough. */
  get isBehind(): boolean {
    return this.socket.isBehind()
  }

  /** The client is to be ended by the next flush. */
  get isDoomed(): boolean {
    return this.doom !== undefined
  }

  /** When the first tick was left out that the client has not caught up with; undefined where there is none. */
  get missedSince(): number | undefined {
    for (const { at } of this.missed?.values() ?? []) return at
    return undefined
  }

  resize(capacity: number): void {
    this.capacity = capacity
    if (this.gives) this.cut(capacity)
  }

  /** Another policy from here on; what waits is what the last one left. */
  change(policy: Policy): void {
    if (policy === this.policy) return
    this.policy = policy
    this.waiting = policy === "conflate" ? this.lastOfEach() : undefined
  }

  /** The policy gives up ticks where there is no room. */
  private get gives(): boolean {
    return this.policy === "evict-oldest" || this.policy === "conflate"
  }

  /**
   * Brings the queue down to so many ticks: the oldest are given up, or, of a client that is to lose none, the newest left
   * out. A client that is to lose none and can be left none out is ended.
   */
  cut(ticks: number): void {
    if (this.gives) while (this.size > ticks) this.evict()
    else this.leaveOutNewest(ticks)
    // A long queue that was is no reason to keep its room.
    if (this.slots.length > FIRST_SLOTS && this.size * 4 < this.slots.length) this.shrink()
    this.account()
  }

  /** A new run has come: what comes from here on takes the place of nothing that waits. */
  keepApart(): void {
    this.waiting?.clear()
    this.beside.clear()
  }

  /** Cannot be kept: the next flush says where its streams stand and closes it. */
  giveUp(reason: string): void {
    this.doom ??= slow(reason)
  }

  /** Leaves out an instrument's ticks after a place, until the client reads on. */
  leaveOut(token: number, place: Place): void {
    this.missed ??= new Map()
    if (!this.missed.has(token)) this.missed.set(token, { place, at: performance.now() })
  }

  /** Where an instrument stands that is left out. */
  missedAt(token: number): Place | undefined {
    return this.missed?.get(token)?.place
  }

  /** The instrument that was left out longest ago, from now on not left out. */
  takeMissed(): { readonly token: number; readonly place: Place } | undefined {
    for (const [token, { place }] of this.missed ?? []) {
      this.forgetMissed(token)
      return { token, place }
    }
    return undefined
  }

  /** Up to where an instrument was told of beside its ticks, or may have been told as lost. */
  besideAt(token: number): Place | undefined {
    return this.beside.get(token)
  }

  standBeside(token: number, { epoch, position }: Place): void {
    this.beside.set(token, { epoch, position })
  }

  forgetBeside(token: number): void {
    this.beside.delete(token)
  }

  forgetMissed(token: number): void {
    if (this.missed?.delete(token) && this.missed.size === 0) this.missed = undefined
  }

  /** The instruments of which something waits, and where the stream of each stood before that. */
  places(): Map<number, Place | undefined> {
    const places = new Map<number, Place | undefined>()
    const order = new Map<number, number>()
    const see = (token: number, at: number, place: Place | undefined): void => {
      const known = order.get(token)
      if (known !== undefined && known <= at) return
      order.set(token, at)
      places.set(token, place)
    }
    // An answer goes before the tick at its place, a loss right behind that tick's.
    for (const { at, notice } of this.notices.slice(this.firstNotice)) {
      if (notice.token !== 0) see(notice.token, at, notice.place?.())
    }
    for (let i = this.head; i < this.tail; i++) {
      const frame = this.slots[i & (this.slots.length - 1)]!
      if (frame.token !== 0) see(frame.token, i + 0.5, placeBefore(frame))
    }
    this.losses.first((token, index, epoch, position) => see(token, index + 0.4, { epoch, position }))
    return places
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
    const bytes =
      this.unread + this.unsent + this.noticeWeight + (this.latest?.weight ?? 0) + (this.yielding?.weight ?? 0)
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
    if (!this.isIdle && (this.waiting !== undefined || this.size + this.marked > this.capacity)) this.flush()
    this.sent = 0
    if (this.isIdle && !this.closed && !this.isFull()) {
      this.frames = frames
      this.socket.cork(this.batch ? this.gatherMarked : this.sendMarked)
      this.frames = NO_FRAMES
    }
    if (this.sent < this.marked) {
      for (let i = this.sent; i < this.marked; i++) this.push(frames[this.marks[i]!]!)
      this.marked = 0
      this.flush()
    }
    this.marked = 0
    this.account()
  }

  /** Puts a frame behind the others; full: tries the socket, then does as the policy says. */
  private push(frame: Frame): void {
    if (frame.isBeside) this.standBeside(frame.token, frame)
    if (this.missed?.has(frame.token)) return
    if (this.waiting !== undefined && this.takesPlace(this.waiting, frame)) return
    let size = this.tail - this.head
    if (size >= this.capacity) {
      // Ending a client is left to `flush`: here others are still to be served.
      if (!this.blocked && this.doom === undefined) this.flush()
      if (this.tail - this.head >= this.capacity && !this.makeRoom(frame)) return
      size = this.tail - this.head
    }
    if (this.closed) return
    if (size === this.slots.length) this.grow()
    this.waiting?.set(frame.token, this.tail)
    this.slots[this.tail++ & (this.slots.length - 1)] = frame
  }

  /** Whether there is room for a frame now; else it is left out. */
  private makeRoom(frame: Frame): boolean {
    if (this.gives) {
      this.evict()
      return true
    }
    if (frame.token !== 0) this.leaveOutFrom(frame)
    if (this.policy === "disconnect") this.giveUp(`the queue is full: ${this.capacity} ticks wait`)
    return false
  }

  private leaveOutFrom(frame: Frame): void {
    const isFirst = this.missed === undefined
    this.leaveOut(frame.token, placeBefore(frame))
    if (isFirst && this.policy === "pause") this.owner?.paused()
  }

  /** Whether a frame takes the place of an older one that waits, which is given up. */
  private takesPlace(waiting: Map<number, number>, frame: Frame): boolean {
    // Clocks have an order with the ticks: only one right behind another takes its place.
    const at = frame.token === 0 ? this.tail - 1 : waiting.get(frame.token)
    if (at === undefined || at < this.head) return false
    const slot = at & (this.slots.length - 1)
    const old = this.slots[slot]!
    if (frame.token === 0) {
      if (old.token !== 0 || this.newestNotice > at) return false
    } else {
      this.evicted++
      const answeredAt = Math.max(this.passedAt, this.newestNotice)
      this.losses.add(old, at, answeredAt, false)
    }
    this.slots[slot] = frame
    return true
  }

  /** The place of the newest answer that waits. */
  private get newestNotice(): number {
    return this.firstNotice === this.notices.length ? -1 : this.notices[this.notices.length - 1]!.at
  }

  /** Where the last tick of each instrument waits, of those that no answer about it stands behind. */
  private lastOfEach(): Map<number, number> {
    const last = new Map<number, number>()
    for (let i = this.head; i < this.tail; i++) last.set(this.slots[i & (this.slots.length - 1)]!.token, i)
    for (const { at, notice } of this.notices.slice(this.firstNotice)) {
      if ((last.get(notice.token) ?? at) < at) last.delete(notice.token)
    }
    return last
  }

  private leaveOutNewest(ticks: number): void {
    // What an answer stands behind stays: the answer counts on it.
    const floor = Math.max(this.head + ticks, this.newestNotice)
    if (this.policy === "pause") {
      while (this.tail > floor) {
        const at = --this.tail & (this.slots.length - 1)
        const frame = this.slots[at]!
        this.slots[at] = undefined
        if (frame.token === 0) continue
        this.leaveOutFrom(frame)
        this.missed!.get(frame.token)!.place = placeBefore(frame)
        this.losses.endAt(frame.token, this.tail)
      }
    }
    if (this.size > ticks) this.giveUp("the clients of this server are behind too far, and this one most")
  }

  private get isIdle(): boolean {
    return (
      this.head === this.tail &&
      this.firstNotice === this.notices.length &&
      this.losses.size === 0 &&
      this.missed === undefined &&
      this.doom === undefined
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
    this.waiting?.delete(notice.token)
    if (this.noticeWeight > MAX_NOTICE_WEIGHT) this.doom ??= UNREAD
    this.account()
  }

  /** Puts a frame into its slot, in the place of the one before it; whether it is the first since the last flush. */
  offer(frame: LatestFrame): boolean {
    if (this.closed) return false
    if (frame.yields === true) {
      this.yielding ??= new LatestSlots(false)
      this.yielding.put(frame)
    } else {
      this.latest ??= new LatestSlots(true)
      this.latest.put(frame)
    }
    if (this.isOffered) return false
    this.isOffered = true
    return true
  }

  /** Lets go of what waits in slots: it is no more. */
  forgetLatest(): void {
    this.latest?.clear()
    this.yielding?.clear()
    this.account()
  }

  /** Nothing of an instrument's state is wanted any more. */
  leaveLatest(token: number): void {
    this.latest?.leave(token)
    this.yielding?.drop(keyOfYielding(token))
    this.account()
  }

  /** What yields is wanted no more of an instrument: of a text that nobody is told any more this slot would be the last. */
  dropYielding(token: number): void {
    this.yielding?.drop(keyOfYielding(token))
    this.account()
  }

  /** Frames in slots that were given up since this was last asked. */
  takeDropped(): number {
    let dropped = 0
    for (const slots of [this.latest, this.yielding]) {
      if (slots === undefined) continue
      dropped += slots.dropped
      slots.dropped = 0
    }
    return dropped
  }

  /** Hands to the socket what it takes now. */
  flush(): void {
    if (this.closed) return
    this.isOffered = false
    if (this.doom !== undefined) {
      this.finish(this.doom)
      return
    }
    this.unfinished = false
    if (this.isFull() || (this.isIdle && !this.hasLatest && !this.mayYield)) {
      this.account()
      return
    }
    this.room = MAX_FLUSH_CHARS
    this.socket.cork(this.drain)
    this.isOffered = false
    this.account()
  }

  private get hasLatest(): boolean {
    return this.latest !== undefined && this.latest.size > 0
  }

  /** There is something that yields, and it would cost no tick anything: whatever was handed over is gone by now. */
  private get mayYield(): boolean {
    return (
      this.yielding !== undefined &&
      this.yielding.size > 0 &&
      this.missed === undefined &&
      this.socket.buffered() === 0 &&
      !this.socket.isSlow()
    )
  }

  /** Ends a client that cannot be kept; one that is slow is told first where its streams stand. */
  private finish({ code, reason, why }: Doom): void {
    if (why === "slow" && this.owner !== undefined) {
      const text = closingFrame(code, reason, this.owner.places())
      this.socket.send(this.batch ? `[${text}]` : text, this.batch)
    }
    this.end(code, reason, why)
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
    this.waiting = undefined
    this.missed = undefined
    this.answered = undefined
    this.latest = undefined
    this.yielding = undefined
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

  /** As `sendMarked`, for a client whose frames are arrays. */
  private readonly gatherMarked = (): void => {
    const { frames, marks, marked } = this
    let i = 0
    let published = 0
    // Others have had their turn before: what one delivery marks is bounded.
    this.room = Number.POSITIVE_INFINITY
    while (i < marked) {
      const frame = frames[marks[i++]!]!
      if (frame.before !== undefined) for (const text of frame.before) this.send(text)
      published = frame.published.at
      if (!this.send(frame.text())) break
    }
    if (this.gathered !== "") this.sendGathered()
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
    if (this.waiting?.get(frame.token) === index) this.waiting.delete(frame.token)
    // A loss never reaches across an answer: what was lost before it is told before it, the rest after it.
    this.losses.add(frame, index, this.passedAt, true)
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
        // Not while ticks of this publish are yet to be put in: they are in memory already.
        if (this.missed !== undefined && this.marked === 0 && this.owner?.takeUp()) continue
        // Places start over, so that they stay small whole numbers for ever.
        if (this.firstNotice === this.notices.length) this.rewind()
        if (this.hasLatest) {
          if (!this.sendLatest()) break
          continue
        }
        if (this.gathered.length > YIELDING_CHARS && !this.sendGathered()) break
        if (!this.mayYield || !this.send(this.yielding!.take()!)) break
        continue
      }
      if (this.hasLatest && ++this.ticksSinceSlot >= TICKS_A_SLOT) {
        this.ticksSinceSlot = 0
        if (!this.sendLatest()) break
      }
      const { slots } = this
      const at = this.head & (slots.length - 1)
      const frame = slots[at]!
      slots[at] = undefined
      if (this.waiting?.get(frame.token) === this.head) this.waiting.delete(frame.token)
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

  private sendLatest(): boolean {
    const text = this.latest!.take()
    return text === undefined || this.send(text)
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
    return (this.socket.send(text, true) || !this.isFull()) && this.hasRoom()
  }

  private isFull(): boolean {
    this.unsent = this.socket.buffered()
    this.blocked = this.unsent >= this.bufferBytes || this.socket.isBehind()
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
    if (this.noticeWeight < ANSWERS_LEFT) this.tellAnswered()
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

  private tellAnswered(): void {
    const { answered } = this
    if (answered === undefined) return
    this.answered = undefined
    answered()
  }

  /** Tells what was lost of an instrument before a place in the queue. */
  private tellLoss(token: number, before: number): void {
    this.losses.tell(token, before, this.sayLoss)
  }

  private readonly sayLoss = (text: string): void => {
    this.send(text)
  }

  private tellLosses(): boolean {
    for (const token of [...this.losses.tokens]) {
      this.tellLoss(token, this.tail)
      if (this.closed || this.isFull() || !this.hasRoom()) return this.losses.size === 0 && !this.closed
    }
    return true
  }
}

/** Where an instrument's stream stands right before a frame. */
const placeBefore = ({ epoch, first }: Frame): Place => ({ epoch, position: first - 1 })
