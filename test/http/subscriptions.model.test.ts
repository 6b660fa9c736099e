/**
 * Random clients of every policy that subscribe, leave, subscribe again with `since` and `backfill`, read slowly, break off
 * and come back, against the rule and a model of what each must be told. A failure names its seed: `SEED=17` runs that
 * one, `RUNS=5000` more of them.
 */
import { assert, describe, it } from "@effect/vitest"
import { type Answer, type Place, POLICIES, type Policy } from "../../src/schema/Protocol.ts"
import { isAfter, type Tick } from "../../src/schema/Tick.ts"
import { Hub } from "../../src/streams/fanOut/Hub.ts"
import { historyFrom, settle } from "../support/history.ts"
import { EPOCH, hubSettings, NOW, priceOf, quoteAt, randomFrom, tickOf } from "../support/hub.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import { Conversation } from "../support/session.ts"

const RUNS = Number(process.env.RUNS ?? 100)
const SEED = process.env.SEED === undefined ? undefined : Number(process.env.SEED)
const STEPS = 150
const TOKENS = 5
/** Ticks of an instrument in memory, where others have the rest; no backfill is longer. */
const RING = 40

const after = (a: Place, b: Place): boolean => isAfter(a.epoch, a.position, b)
const same = (a: Place, b: Place): boolean => a.epoch === b.epoch && a.position === b.position

/** An instrument that a client has, or left. */
interface Known {
  isHeld: boolean
  /** Where the stream stands, where the model can know: while it is held and ticks have come, at the newest of them. */
  place: Place | undefined
  /** The place is the client's own word: nobody had it when it said so. */
  isClaim: boolean
  /** The newest tick when it was subscribed. */
  newest: Place | undefined
}

class Peer {
  readonly policy: Policy
  /** It wants the channel `quote` too. */
  readonly hasQuotes: boolean
  /** Loses nothing but what it does not ask for. */
  private readonly isWhole: boolean
  readonly known = new Map<number, Known>()
  /** Where a loss may end though the client is to lose nothing: what it did not ask for. */
  private readonly ends = new Map<number, Array<{ readonly place: Place; readonly isLeast: boolean }>>()
  /** Subscriptions accepted on this connection, by token, and backfills that answered them. */
  readonly accepted = new Map<number, number>()
  readonly answered = new Map<number, number>()
  talk: Conversation

  constructor(policy: Policy, isWhole: boolean, talk: Conversation, hasQuotes: boolean) {
    this.policy = policy
    this.hasQuotes = hasQuotes
    this.isWhole = isWhole
    this.talk = talk
  }

  get checker(): RuleChecker {
    return this.talk.checker
  }

  get held(): ReadonlyArray<number> {
    return [...this.known].filter(([, { isHeld }]) => isHeld).map(([token]) => token)
  }

  /** `isLeast`: there or later, where it takes a while to find out that nobody has what the client says. */
  mayLoseTo(token: number, place: Place | undefined, isLeast = false): void {
    if (place === undefined) return
    const end = { place, isLeast }
    const ends = this.ends.get(token)
    if (ends === undefined) this.ends.set(token, [end])
    else ends.push(end)
  }

  /** The client is on another connection now. */
  comesBack(talk: Conversation): void {
    this.talk = talk
    this.checker.quotes.clear()
    this.known.clear()
    this.accepted.clear()
    this.answered.clear()
  }

  /** Looks at what came since the last look. */
  hear(): void {
    for (const message of this.talk.fresh()) {
      const ticks = message.type === "backfill" ? message.data : message.type === "tick" ? [message] : []
      for (const { instrument_token: token, epoch, position, price } of ticks) {
        assert.strictEqual(price, priceOf(token, epoch, position))
      }
      if (message.type === "backfill") {
        this.answered.set(message.instrument_token, (this.answered.get(message.instrument_token) ?? 0) + 1)
      }
      if (message.type !== "evicted" || !this.isWhole) continue
      const { instrument_token: token, epoch, from, to } = message
      const end = { epoch, position: to }
      const isAllowed = this.ends.get(token)?.some((o) => same(o.place, end) || (o.isLeast && after(end, o.place)))
      assert.isTrue(isAllowed === true, `${this.policy} lost ${from}..${to} of ${token} in ${epoch}`)
    }
  }
}

/** `isShort`: memory is short, and Redis and the store have the rest; else memory has all. */
const scenario = async (seed: number, isShort: boolean): Promise<void> => {
  const random = randomFrom(seed)
  const all = new Map<number, Array<Tick>>()
  const { history } = historyFrom(all, { ring: RING + random.below(60), store: () => 0, up: () => true })
  /** All clients together may be cut down: who would lose by it is closed, or has what it needs elsewhere. */
  const isTight = random.chance(0.2)
  const hub = new Hub({
    settings: {
      ...hubSettings,
      RING_TICKS: isShort ? RING : 100_000,
      CLIENT_CAPACITY: 1 + random.below(30),
      CLIENT_BUFFER_BYTES: 1 + random.below(3000),
      CLIENTS_TICKS: isTight ? 40 : 2_000_000
    },
    now: () => NOW,
    graceMs: 0,
    ...(isShort ? { history } : {})
  })
  const peers: Array<Peer> = []
  const newest = (token: number): Place | undefined => hub.live.place(token)
  /** Some sockets push back, others take everything and have it read later. */
  const talkTo = (checker: RuleChecker) => {
    const window = random.chance(0.5) ? 1 + random.below(3000) : undefined
    return new Conversation(hub, { fast: random.chance(0.3), checker, window })
  }

  let offset = 0
  const publish = (): void => {
    const places = new Map<number, Place>()
    const ticks = Array.from({ length: random.below(25) }, () => {
      const token = 1 + random.below(TOKENS)
      const { epoch, position } = places.get(token) ?? newest(token) ?? { epoch: EPOCH, position: 0 }
      const place = random.chance(0.01) ? { epoch: epoch + 60, position: 1 } : { epoch, position: position + 1 }
      places.set(token, place)
      const tick = tickOf(
        token,
        place.epoch,
        place.position,
        random.chance(0.1) ? { status: "STALE", gap_from: 1 } : {}
      )
      const list = all.get(token)
      if (list === undefined) all.set(token, [tick])
      else list.push(tick)
      return tick
    })
    const quotes = Array.from({ length: random.below(8) }, () =>
      quoteAt(1 + random.below(TOKENS), NOW + random.below(3) * 1000, ++offset, { oi: offset })
    )
    hub.publish(ticks, NOW, undefined, quotes)
  }

  /** Some place near where the stream of an instrument or the client stands. */
  const somePlace = (peer: Peer, token: number): Place => {
    const own = peer.checker.place(token)
    const stands = newest(token) ?? { epoch: EPOCH, position: 0 }
    if (random.chance(0.3)) return own ?? stands
    if (random.chance(0.2)) return stands
    const { epoch, position } = random.chance(0.5) ? stands : (own ?? stands)
    const other = random.chance(0.1) ? (random.chance(0.5) ? 60 : -60) : 0
    return { epoch: epoch + other, position: Math.max(0, position + random.below(20) - 10) }
  }

  /** Whether only the server knows where a stream stands: what it has yet to read elsewhere, the model does not see. */
  const isHidden = ({ policy }: Peer): boolean => isShort || policy === "pause"

  /** Checks what a client was answered, and keeps what follows from it. */
  const take = (peer: Peer, token: number, since: Place | undefined, backfill: number, answer: Answer): void => {
    const known = peer.known.get(token)
    const stands = known?.isHeld === true && newest(token) !== undefined ? newest(token) : known?.place
    const at = answer.at === undefined ? undefined : { epoch: answer.at[0], position: answer.at[1] }
    const what = `${peer.policy}, since ${JSON.stringify(since)}, backfill ${backfill}: ${JSON.stringify(answer)}`
    if (!answer.accepted) {
      assert.strictEqual(answer.reason, known?.isHeld === true ? "already_subscribed" : "already_sent", what)
      assert.isTrue(since === undefined ? backfill > 0 && known?.isHeld : after(at!, since), what)
      // Nothing that came is beyond where the stream stands; what the client says itself may be.
      const own = peer.checker.place(token)
      assert.isFalse(own !== undefined && known?.isClaim !== true && after(own, at!), what)
    } else if (at !== undefined) assert.isTrue(since !== undefined && after(since, at), what)
    if (known === undefined || !isHidden(peer)) {
      const isOld = stands !== undefined && (since === undefined ? known?.isHeld && backfill > 0 : after(stands, since))
      assert.strictEqual(answer.accepted, isOld !== true, what)
      const here = isOld === true || known?.isHeld === true ? stands : newest(token)
      const isTold = isOld === true || (since !== undefined && here !== undefined && after(since, here))
      assert.deepStrictEqual(at, isTold ? here : undefined, what)
    }
    if (!answer.accepted) return
    peer.accepted.set(token, (peer.accepted.get(token) ?? 0) + 1)
    if (known?.isHeld === true && stands !== undefined) return
    const now = newest(token)
    if (since !== undefined) {
      // What the client says that it has, and was not sent here; or all that there is, where nobody has what it says.
      peer.mayLoseTo(token, since)
      peer.mayLoseTo(token, now, isShort)
    } else if (known !== undefined && now !== undefined) {
      peer.mayLoseTo(token, { epoch: now.epoch, position: Math.max(0, now.position - backfill) })
    }
    peer.known.set(token, {
      isHeld: true,
      place: since ?? known?.place,
      isClaim: since === undefined ? known?.isClaim === true : now === undefined || after(since, now),
      newest: now
    })
  }

  const subscribe = (peer: Peer, tokens: ReadonlyArray<number>, places: Map<number, Place>, backfill: number): void => {
    for (const token of tokens) {
      if (peer.checker.place(token) !== undefined || peer.known.has(token)) continue
      // Where it must begin, of an instrument that the client never had, is not for the rule to say.
      const since = places.get(token)
      const now = newest(token)
      if (since !== undefined) peer.checker.places.set(token, { ...since })
      else if (now !== undefined) {
        peer.checker.places.set(token, { epoch: now.epoch, position: Math.max(0, now.position - backfill) })
      }
    }
    peer.talk.send({
      action: "subscribe",
      tokens,
      since: Object.fromEntries([...places].map(([token, { epoch, position }]) => [token, [epoch, position]])),
      backfill,
      policy: peer.policy,
      ...(peer.hasQuotes ? { channels: ["tick", "gap", "quote"] } : {}),
      batch: random.chance(0.3),
      ...(random.chance(0.1) ? { capacity: (peer.policy === "conflate" ? TOKENS : 1) + random.below(40) } : {})
    })
    // The answer of a client that is told to be too slow meanwhile is not given.
    if (peer.talk.socket.ended !== undefined) return
    for (const answer of peer.talk.answers) {
      const token = answer.instrument_token!
      take(peer, token, places.get(token), backfill, answer)
    }
  }

  const leave = (peer: Peer, tokens: ReadonlyArray<number>): void => {
    const held = new Set(peer.held)
    peer.talk.send({ action: "unsubscribe", tokens })
    const expected = tokens.map((token) => ({ instrument_token: token, removed: held.delete(token) }))
    assert.deepStrictEqual(peer.talk.left.tokens, expected)
    assert.sameMembers([...peer.talk.left.held], [...held])
    for (const token of tokens) {
      const known = peer.known.get(token)
      if (known?.isHeld !== true) continue
      known.isHeld = false
      // What is left before it was looked up, or before the client read on, is not answered any more.
      if (isHidden(peer)) peer.accepted.delete(token)
      known.place = newest(token) ?? known.place
      // Of an instrument without a place nothing is remembered.
      if (known.place === undefined) peer.known.delete(token)
    }
  }

  /** Comes back with what it has; from where it was told when it was closed, for what it was told of. */
  const comeBack = (peer: Peer, places: Map<number, Place>): void => {
    const { checker, held } = peer
    for (const token of [...checker.places.keys()]) if (!held.includes(token)) checker.places.delete(token)
    if (peer.talk.socket.ended === undefined) hub.disconnect(peer.talk.client)
    peer.comesBack(talkTo(checker))
    for (const token of held) {
      const own = checker.place(token)
      const place = places.get(token) ?? (own === undefined ? undefined : { ...own })
      subscribe(peer, [token], place === undefined ? new Map() : new Map([[token, place]]), 0)
      if (peer.talk.socket.ended !== undefined) return
    }
  }

  /** Where a client that was closed as too slow was told that its streams stand. */
  const closedAt = (peer: Peer): Map<number, Place> => {
    const { messages, socket } = peer.talk
    assert.strictEqual(socket.ended?.code, 4001, socket.ended?.reason)
    const closing = messages.at(-1)!
    assert.isTrue(peer.policy === "disconnect" || (peer.policy === "pause" && isTight), peer.policy)
    if (closing.type !== "closing") assert.fail(JSON.stringify(closing))
    assert.strictEqual(closing.reason, socket.ended!.reason)
    hub.disconnect(peer.talk.client)
    return new Map(
      Object.entries(closing.since).map(([token, [epoch, position]]) => [Number(token), { epoch, position }])
    )
  }

  const someTokens = () => [...new Set(Array.from({ length: 1 + random.below(3) }, () => 1 + random.below(TOKENS)))]

  const act = (peer: Peer): void => {
    const what = random.next()
    if (what < 0.35) {
      const tokens = someTokens()
      const places = new Map<number, Place>()
      if (random.chance(0.5)) for (const token of tokens) places.set(token, somePlace(peer, token))
      subscribe(peer, tokens, places, random.chance(0.5) ? 1 + random.below(RING - 1) : 0)
    } else if (what < 0.5) leave(peer, someTokens())
    else if (what < 0.55) comeBack(peer, new Map())
    else peer.talk.client.flush()
  }

  const look = (peer: Peer): void => {
    peer.hear()
    for (let i = 0; peer.talk.socket.ended !== undefined && i < 50; i++) {
      comeBack(peer, closedAt(peer))
      peer.hear()
    }
  }

  for (let step = 0; step < STEPS; step++) {
    if (random.chance(0.5)) publish()
    for (const peer of peers) look(peer)
    if (peers.length < 6 && random.chance(0.15)) {
      const policy = POLICIES[random.below(POLICIES.length)]!
      // A backfill that waits may find that short memory has moved on: `pause` asks elsewhere then.
      const isWhole = policy === "pause" || (policy === "disconnect" && !isShort)
      peers.push(new Peer(policy, isWhole, talkTo(new RuleChecker({ keep: true })), random.chance(0.6)))
    }
    const peer = peers[random.below(peers.length)]
    if (peer !== undefined) act(peer)
    for (const { talk } of peers) if (!talk.socket.isFast && random.chance(0.5)) talk.read(random.below(5000))
    if (isShort && random.chance(0.5)) await settle()
    for (const one of peers) look(one)
  }
  for (let i = 0; i < (isShort ? 200 : 20); i++) {
    for (const { talk } of peers) {
      talk.socket.isFast = true
      talk.read(1e9)
    }
    await settle()
    for (const peer of peers) look(peer)
  }

  for (const peer of peers) {
    const { checker, policy, talk } = peer
    assert.strictEqual(talk.client.queue.size, 0)
    for (const token of peer.held) {
      // What was told last of book and day is what is known, and nothing of it went to who does not want it.
      const quote = peer.hasQuotes ? hub.live.quote(token) : undefined
      assert.strictEqual(checker.quotes.get(token)?.oi, quote?.oi, `quote of ${token}, ${policy}`)
      const { isClaim, newest: before } = peer.known.get(token)!
      const now = newest(token)
      if (now === undefined) continue
      assert.deepStrictEqual(checker.place(token), now, `${policy} ${token}`)
      // The newest of each comes, and nothing takes its place but a newer one.
      if (policy === "conflate" && !isTight && !isClaim && (before === undefined || after(now, before))) {
        assert.isTrue(
          checker.received.get(token)?.some((place) => same(place, now)),
          `the newest of ${token}`
        )
      }
    }
    for (const [token, count] of peer.accepted) assert.isAtLeast(peer.answered.get(token) ?? 0, count, `${policy}`)
  }

  for (const { talk } of peers) hub.disconnect(talk.client)
  assert.deepStrictEqual(hub.held, { ticks: 0, bytes: 0 })
  assert.strictEqual(hub.subscriptions, 0)
}

describe("clients of every policy, whatever they ask for", () => {
  const seeds = SEED === undefined ? Array.from({ length: RUNS }, (_, i) => i + 1) : [SEED]
  for (const isShort of [false, true]) {
    const where = isShort ? "memory, Redis and the store" : "memory"
    it(`are told what the model says, out of ${where}`, { timeout: 30_000 + RUNS * 200 }, async () => {
      for (const seed of seeds) {
        await scenario(seed, isShort).catch((error: unknown) => {
          throw new Error(`SEED=${seed}: ${error instanceof Error ? error.message : error}`, { cause: error })
        })
      }
    })
  }
})
