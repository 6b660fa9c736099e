import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted } from "effect"
import type { KiteSummary } from "../../../src/layers/kite/KiteFeed.ts"
import * as KiteFeed from "../../../src/layers/kite/KiteFeed.ts"
import type { Secrets } from "../../../src/layers/kite/secrets.ts"
import { isIndexToken, type KitePacket } from "../../../src/schema/kite/packets.ts"
import type { Quote } from "../../../src/schema/Quote.ts"
import { unclaimed } from "../../../src/streams/process/claim.ts"
import { makeStates, stages } from "../../../src/streams/process/process.ts"
import { settings, tookOut } from "../../streams/process/stageTests.ts"
import {
  keeping,
  type Played,
  playedKite,
  quickTimes,
  type RawRecord,
  type Said,
  secretsOf,
  tickOfPacket,
  tickOfRecord,
  until
} from "../../support/kite.ts"

const tokensOf = (played: Played): ReadonlyArray<number> =>
  played.board.instruments.map(({ instrument_token }) => instrument_token)

interface Feeding {
  readonly records: ReadonlyArray<RawRecord>
  readonly said: ReadonlyArray<Said>
  /** Stops it as a signal does, and answers its account. */
  readonly stop: Effect.Effect<KiteSummary>
  readonly summary: () => KiteSummary
  readonly isUp: (connections?: number) => boolean
  readonly exit: Effect.Effect<Exit.Exit<never, unknown>>
}

/** A feed on a played server, in this process. */
const feeding = (
  played: Played,
  options: Partial<KiteFeed.KiteFeedOptions> & {
    readonly secrets?: Secrets
    readonly sink?: ReturnType<typeof keeping>
  } = {}
) =>
  Effect.gen(function* () {
    const sink = options.sink ?? keeping()
    const said: Array<Said> = []
    let last: KiteSummary | undefined
    let up = 0
    const wsRoot = `ws://127.0.0.1:${played.server().port}`
    const fiber = yield* Effect.forkScoped(
      KiteFeed.run({
        wsRoot,
        secrets: secretsOf({ token: Redacted.make(played.server().accessToken()) }),
        tokens: tokensOf(played),
        mode: "full",
        maxAheadMs: 5000,
        times: quickTimes,
        onSay: (level, text) => said.push({ level, text }),
        reportMs: 10,
        ...options,
        progress: (summary) => {
          last = structuredClone(summary)
          up = summary.up
        }
      }).pipe(Effect.provide(sink.layer))
    )
    const feed: Feeding = {
      records: sink.records,
      said,
      summary: () => last!,
      isUp: (connections = 1) => last !== undefined && up === connections && last.sockets.connected >= connections,
      exit: Fiber.await(fiber),
      stop: Effect.andThen(
        Fiber.interrupt(fiber),
        Effect.sync(() => last!)
      )
    }
    return feed
  })

const ticksOf = (records: ReadonlyArray<RawRecord>) => records.filter(({ price }) => price !== undefined)

/** Ticks of full packets: what a feed in that mode is to have. */
const meant = (sent: ReadonlyArray<KitePacket>): ReadonlySet<string> =>
  new Set(sent.filter(({ mode }) => mode === "full").map(tickOfPacket))

/** Every tick that was sent is there, none that was not, and none twice. */
const assertTicks = (records: ReadonlyArray<RawRecord>, sent: ReadonlyArray<KitePacket>): void => {
  const wanted = meant(sent)
  const ticks = ticksOf(records)
  const got = new Map<string, number>()
  for (const tick of ticks) {
    const name = `${tickOfRecord(tick)} ${tick.occurrence ?? 0}`
    got.set(name, (got.get(name) ?? 0) + 1)
  }
  const twice = [...got].filter(([, times]) => times > 1)
  assert.deepStrictEqual(twice.slice(0, 3), [], `${twice.length} twice`)
  const had = new Set(ticks.map(tickOfRecord))
  const lost = [...wanted].filter((name) => !had.has(name))
  assert.deepStrictEqual(lost.slice(0, 3), [], `${lost.length} of ${wanted.size} lost`)
  const strange = [...had].filter((name) => !wanted.has(name))
  assert.deepStrictEqual(strange.slice(0, 3), [], `${strange.length} made up`)
}

/** What the last quote of each instrument says is what the server shows. */
const assertAtRest = (records: ReadonlyArray<RawRecord>, { board }: Played): void => {
  const quotes = new Map<number, Readonly<Record<string, unknown>>>()
  const volumes = new Map<number, number | undefined>()
  const prices = new Map<number, number>()
  for (const { day_volume, instrument_token, price, quote } of records) {
    if (quote !== undefined) {
      quotes.set(instrument_token, quote)
      volumes.set(instrument_token, day_volume)
    }
    if (price !== undefined) prices.set(instrument_token, price)
  }
  let compared = 0
  for (const { instrument_token: token } of board.instruments) {
    const packet = board.packet(token)
    if (packet === undefined) continue
    const quote = quotes.get(token)
    assert.isDefined(quote, String(token))
    assert.strictEqual(prices.get(token), packet.lastPrice)
    assert.deepStrictEqual([quote.open, quote.high, quote.low], [packet.open, packet.high, packet.low])
    assert.strictEqual(quote.previous_close, packet.close)
    if (!isIndexToken(token)) {
      assert.deepStrictEqual([quote.bid, quote.ask], [packet.bid, packet.ask])
      assert.deepStrictEqual(
        [quote.total_buy_quantity, quote.total_sell_quantity, volumes.get(token), quote.last_quantity],
        [packet.buyQuantity, packet.sellQuantity, packet.volume, packet.lastQuantity]
      )
    }
    compared += 1
  }
  assert.isAbove(compared, 0)
}

/** Each packet and each record is in one place. */
const assertAccount = (
  { packets: p, sent, waiting, ...summary }: KiteSummary,
  records: ReadonlyArray<RawRecord>
): void => {
  assert.strictEqual(p.received, p.recorded + p.unchanged + p.outdated + p.unasked + p.otherMode + p.undated)
  assert.deepStrictEqual([sent, waiting], [p.records, 0])
  assert.strictEqual(records.length, p.records)
  assert.strictEqual(ticksOf(records).length, p.ticks)
  assert.strictEqual(records.filter(({ quote }) => quote !== undefined).length, p.quotes)
  const s = summary.sockets
  const ended = s.ended.closed + s.ended.lost + s.ended.dead + s.ended.silent + s.ended.broken
  assert.isAtLeast(s.connected, ended)
}

/** Everything that was sent has come: nothing is under way any more. */
const caughtUp = (feed: Feeding, played: Played) =>
  until("all that was sent has come", () => {
    const had = new Set(ticksOf(feed.records).map(tickOfRecord))
    for (const name of meant(played.sent)) if (!had.has(name)) return false
    return true
  })

/** Waits until each instrument's newest packet is known, as once it has asked anew it is. */
const settled = (feed: Feeding, played: Played) =>
  until("the newest of each instrument is there", () => {
    const had = new Set(ticksOf(feed.records).map(tickOfRecord))
    return played.board.instruments.every(({ instrument_token }) => {
      const packet = played.board.packet(instrument_token)
      return packet === undefined || had.has(tickOfPacket(packet))
    })
  })

describe("a feed of Kite's ticker", () => {
  it.live("takes 3,000 instruments: every tick once, and at rest what the server shows", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(3000, { rate: 20_000 })
      const feed = yield* feeding(played)
      yield* until("up", () => feed.isUp())
      yield* until("asked for all", () => played.server().figures().subscriptions === 3000)
      for (let i = 0; i < 20; i++) {
        played.step(100)
        yield* Effect.yieldNow
      }
      yield* caughtUp(feed, played)
      assert.isAtLeast(meant(played.sent).size, 3000)
      const summary = yield* feed.stop
      assertTicks(feed.records, played.sent)
      assertAtRest(feed.records, played)
      assertAccount(summary, feed.records)
      assert.deepStrictEqual(feed.said, [])
    })
  )

  it.live("spreads what one connection may not have, and asks each for its own", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(7000, { rate: 50_000 })
      const feed = yield* feeding(played)
      yield* until("up", () => feed.isUp(3))
      yield* until("asked for all", () => played.server().figures().subscriptions === 7000)
      for (let i = 0; i < 5; i++) {
        played.step(100)
        yield* Effect.yieldNow
      }
      yield* caughtUp(feed, played)
      const summary = yield* feed.stop
      assertTicks(feed.records, played.sent)
      assertAccount(summary, feed.records)
    })
  )

  const comesBack = (
    name: string,
    fault: (played: Played) => Effect.Effect<void> | void,
    expected: (summary: KiteSummary) => number,
    line: RegExp
  ) =>
    it.live(
      `is back after ${name}: no tick lost that came while it was connected, none twice, at rest as the server`,
      () =>
        Effect.gen(function* () {
          const played = yield* playedKite(300)
          const feed = yield* feeding(played)
          yield* until("up", () => feed.isUp() && played.server().figures().subscriptions === 300)
          for (let i = 0; i < 10; i++) played.step(100)
          yield* caughtUp(feed, played)
          const before = [...played.sent]
          const result = fault(played)
          if (result !== undefined) yield* result
          // The market goes on meanwhile, and nobody sees all of it.
          for (let i = 0; i < 5; i++) played.step(100)
          yield* until("ended", () => expected(feed.summary()) >= 1)
          yield* until("up again", () => feed.isUp() && played.server().figures().subscriptions === 300)
          const after = played.sent.length
          for (let i = 0; i < 10; i++) played.step(100)
          yield* settled(feed, played)
          const summary = yield* feed.stop
          const ticks = new Set(ticksOf(feed.records).map(tickOfRecord))
          for (const packet of [...before, ...played.sent.slice(after)]) {
            if (packet.mode === "full") assert.isTrue(ticks.has(tickOfPacket(packet)), tickOfPacket(packet))
          }
          assertAtRest(feed.records, played)
          assertAccount(summary, feed.records)
          const names = ticksOf(feed.records).map((tick) => `${tickOfRecord(tick)} ${tick.occurrence ?? 0}`)
          assert.strictEqual(new Set(names).size, names.length)
          assert.match(feed.said.map(({ text }) => text).join("\n"), line)
          assert.isTrue(feed.said.some(({ text }) => /^the connection is back after \d+\.\d s$/.test(text)))
        })
    )

  const ask = (fault: Parameters<ReturnType<Played["server"]>["fault"]>[0]) => (played: Played) =>
    played.server().fault(fault)

  comesBack(
    "a reset within a frame",
    ask({ fault: "reset" }),
    (s) => s.sockets.ended.lost,
    /the connection: .*again in/
  )
  comesBack(
    "a socket that is up and silent",
    (played) =>
      Effect.gen(function* () {
        played.server().fault({ fault: "stall" })
        yield* until("given up", () => played.server().figures().connections === 0)
        played.server().fault({ fault: "none" })
      }),
    (s) => s.sockets.ended.dead,
    /nothing came for \d\.\d s, not even a sign of life/
  )
  comesBack("a connection that its server forgot", ask({ fault: "half-open" }), (s) => s.sockets.ended.dead, /not even/)
  comesBack(
    "signs of life without ticks while instruments trade",
    (played) =>
      Effect.gen(function* () {
        played.server().fault({ fault: "mute" })
        yield* until("given up", () => played.server().figures().accepted >= 2)
        played.server().fault({ fault: "none" })
      }),
    (s) => s.sockets.ended.silent,
    /nothing new came for 2\.\d s, though instruments trade/
  )
  comesBack(
    "a frame that is cut",
    ask({ fault: "cut" }),
    (s) => s.sockets.ended.broken,
    /a frame does not add up: it says/
  )
  comesBack(
    "a restart of the server",
    (played) => Effect.orDie(Effect.andThen(played.stop, played.start)),
    (s) => s.sockets.ended.closed + s.sockets.ended.lost,
    /the connection: /
  )
  comesBack(
    "a server that is down for a while",
    ask({ fault: "down", ms: 300 }),
    (s) => s.sockets.ended.lost,
    /the connection: .*again in/
  )
  comesBack(
    "a server that answers late",
    (played) => {
      played.server().fault({ fault: "late", by: 700 })
      played.server().fault({ fault: "reset" })
    },
    (s) => s.sockets.ended.lost,
    /the connection: /
  )
  comesBack(
    "handshakes that are refused",
    (played) => {
      played.server().fault({ fault: "refuse", status: 503, handshakes: 3 })
      played.server().fault({ fault: "reset" })
    },
    (s) => s.sockets.ended.lost,
    /the connection was refused \(503: \{"status":"error","message":"the ticker is not to be had"/
  )
  for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4000]) {
    comesBack(
      `a close with ${code}`,
      ask({ fault: "close", code, reason: "on purpose" }),
      (s) => s.sockets.ended.closed,
      new RegExp(`Kite closed it: .* \\(${code}: on purpose\\); again in`)
    )
  }

  it.live("passes packets that it does not know, and those of instruments that nobody asked for", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(50)
      const feed = yield* feeding(played)
      yield* until("up", () => feed.isUp() && played.server().figures().subscriptions === 50)
      played.server().fault({ fault: "strange", frames: 2 })
      played.server().fault({ fault: "error", message: "a token such as simulated-1 is none of ours" })
      for (let i = 0; i < 5; i++) played.step(100)
      yield* caughtUp(feed, played)
      const summary = yield* feed.stop
      assertTicks(feed.records, played.sent)
      assertAccount(summary, feed.records)
      assert.deepStrictEqual([summary.sockets.unknownPackets, summary.packets.unasked], [10, 2])
      assert.deepStrictEqual(feed.said, [
        { level: "warn", text: "the connection: Kite says error: a token such as … is none of ours" }
      ])
    })
  )

  it.live("is not read while the log is full, and loses nothing by it", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(300)
      let isOpen = false
      const sink = keeping(() => until("the log has room", () => isOpen))
      const feed = yield* feeding(played, { sink, capacity: 500 })
      yield* until("up", () => feed.isUp() && played.server().figures().subscriptions === 300)
      yield* until("full", () => {
        played.step(100)
        return feed.summary().fulls > 0
      })
      // For longer than a connection that is read may be silent.
      const fullAt = Date.now()
      yield* until("full for long", () => Date.now() - fullAt > 2 * quickTimes.aliveMs)
      const { ended } = feed.summary().sockets
      isOpen = true
      yield* caughtUp(feed, played)
      const summary = yield* feed.stop
      assert.deepStrictEqual(ended, { closed: 0, lost: 0, dead: 0, silent: 0, broken: 0 })
      assertTicks(feed.records, played.sent)
      assertAccount(summary, feed.records)
    })
  )

  it.live("waits for another token where a file has it, says so once, and shows none", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-kite-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const file = join(folder, "token")
      const played = yield* playedKite(50)
      writeFileSync(file, `${played.server().accessToken()}\n`)
      const refused: Array<string> = []
      const feed = yield* feeding(played, { secrets: secretsOf({ file }, { onRefused: (what) => refused.push(what) }) })
      yield* until("up", () => feed.isUp() && played.server().figures().subscriptions === 50)
      played.step(1000)
      yield* caughtUp(feed, played)
      played.server().fault({ fault: "expire" })
      yield* until("refused", () => refused.length === 1)
      yield* until("it has tried", () => (played.server().figures().refused[403] ?? 0) >= 1)
      played.step(500)
      writeFileSync(file, yield* renewed(played))
      yield* until("up again", () => feed.isUp() && played.server().figures().subscriptions === 50)
      played.step(1000)
      yield* settled(feed, played)
      const summary = yield* feed.stop
      assertAtRest(feed.records, played)
      assertAccount(summary, feed.records)
      assert.strictEqual(refused.length, 1)
      assert.match(
        refused[0]!,
        /^Kite refuses the API key or the access token \(403\): .*write the new token to .*token; it is waited for$/
      )
      assert.strictEqual(played.server().figures().refused[403], 1)
      const everything = [...feed.said.map(({ text }) => text), ...refused].join("\n")
      assert.notInclude(everything, "simulated-")
    })
  )

  /** A feed whose token is in a file, up with all its instruments. */
  const fedByFile = (options: Partial<KiteFeed.KiteFeedOptions> = {}) =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-kite-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const file = join(folder, "token")
      const played = yield* playedKite(300)
      writeFileSync(file, `${played.server().accessToken()}\n`)
      const refused: Array<string> = []
      const secrets = secretsOf({ file }, { onRefused: (what) => refused.push(what) })
      const root = `http://127.0.0.1:${played.server().port}`
      const feed = yield* feeding(played, { secrets, root, checkMs: 20, ...options })
      yield* until("up", () => feed.isUp() && played.server().figures().subscriptions === 300)
      return { file, played, refused, feed }
    })

  /** Waits while the market goes on. */
  const untilMeanwhile = (what: string, played: Played, holds: () => boolean) =>
    until(what, () => {
      played.step(10)
      return holds()
    })
  const goesOn = (feed: Feeding) => () => feed.said.some(({ text }) => /goes on with the new access token/.test(text))

  it.live("passes to the next token of its file while its connection stands, and loses nothing between the two", () =>
    Effect.gen(function* () {
      const { feed, file, played, refused } = yield* fedByFile({ checkMs: 60_000 })
      yield* untilMeanwhile("a packet of each", played, () =>
        played.board.instruments.every(({ instrument_token }) => played.board.packet(instrument_token) !== undefined)
      )
      // Everything that the server shows is read by somebody, though the next handshake takes its time.
      played.server().fault({ fault: "late", by: 300 })
      writeFileSync(file, yield* renewed(played))
      const shown = new Set<string>()
      yield* until("on the new one", () => {
        played.step(10)
        for (const { instrument_token } of played.board.instruments) {
          shown.add(tickOfPacket(played.board.packet(instrument_token)!))
        }
        return goesOn(feed)()
      })
      const { sent } = played
      const before = sent.length
      yield* untilMeanwhile("more ticks", played, () => sent.length > before + 1000)
      yield* caughtUp(feed, played)
      const had = new Set(ticksOf(feed.records).map(tickOfRecord))
      assert.deepStrictEqual(
        [...shown].filter((name) => !had.has(name)),
        []
      )
      const summary = yield* feed.stop
      assertTicks(feed.records, sent)
      assertAtRest(feed.records, played)
      assertAccount(summary, feed.records)
      assert.deepStrictEqual(
        feed.said.map(({ text }) => text),
        ["the connection goes on with the new access token"]
      )
      assert.deepStrictEqual([refused, played.server().figures().accepted], [[], 2])
    })
  )

  it.live(
    "says once that its token has ended where the ticker goes on, and takes its ticks until the next is there",
    () =>
      Effect.gen(function* () {
        const { feed, file, played, refused } = yield* fedByFile()
        played.server().fault({ fault: "lapse" })
        yield* untilMeanwhile("said", played, () => refused.length > 0)
        const { length } = feed.records
        yield* untilMeanwhile("ticks all the same", played, () => feed.records.length > length + 500)
        assert.strictEqual(feed.summary().sockets.connected, 1)
        writeFileSync(file, yield* renewed(played))
        yield* untilMeanwhile("on the new one", played, goesOn(feed))
        yield* caughtUp(feed, played)
        const summary = yield* feed.stop
        assertTicks(feed.records, played.sent)
        assertAccount(summary, feed.records)
        assert.strictEqual(refused.length, 1)
        assert.match(
          refused[0]!,
          /^Kite refuses the API key or the access token \(403\), though the ticker has not ended yet: .* write the new token to .*token; it takes the place of this one$/
        )
        assert.deepStrictEqual(played.server().figures().refused, {})
        assert.notMatch([...feed.said.map(({ text }) => text), ...refused].join("\n"), /simulated-/)
      })
  )

  it.live("keeps the connection that stands where the next token is none that is let in", () =>
    Effect.gen(function* () {
      const { feed, file, played, refused } = yield* fedByFile({ checkMs: 60_000 })
      writeFileSync(file, "not-a-session")
      yield* untilMeanwhile("refused", played, () => refused.length === 1)
      const { length } = feed.records
      yield* untilMeanwhile("ticks all the same", played, () => feed.records.length > length + 500)
      assert.deepStrictEqual([feed.said, feed.summary().sockets.connected], [[], 1])
      writeFileSync(file, yield* renewed(played))
      yield* untilMeanwhile("on the new one", played, goesOn(feed))
      yield* caughtUp(feed, played)
      yield* feed.stop
      assertTicks(feed.records, played.sent)
      assert.deepStrictEqual(played.server().figures().refused, { 403: 1 })
    })
  )

  it.live("lets its connection go for the next where the key has no room for both", () =>
    Effect.gen(function* () {
      const { feed, file, played } = yield* fedByFile({ checkMs: 60_000 })
      for (let i = 0; i < 2; i++) yield* feeding(played)
      yield* untilMeanwhile("three", played, () => played.server().figures().connections === 3)
      writeFileSync(file, yield* renewed(played))
      yield* untilMeanwhile("in again", played, () => feed.said.length > 0)
      assert.isAtLeast(played.server().figures().refused[429]!, 3)
      played.step(500)
      yield* settled(feed, played)
      yield* feed.stop
      assertAtRest(feed.records, played)
      assert.match(feed.said.map(({ text }) => text).join("\n"), /^the connection is back after \d\.\d s$/)
    })
  )

  it.live("ends with one line where no other token can come", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(5)
      const feed = yield* feeding(played, { secrets: secretsOf({ token: Redacted.make("wrong-token") }) })
      const exit = yield* feed.exit
      assert.isTrue(Exit.isFailure(exit))
      const text = JSON.stringify(exit)
      assert.match(text, /Kite refuses the API key or the access token \(403\): .*KITE_ACCESS_TOKEN and start again/)
      assert.notInclude(text + JSON.stringify(feed.said), "wrong-token")
      assert.strictEqual(played.server().figures().refused[403], 1)
    })
  )

  it.live("is one too many where the key has three connections, and comes in when one leaves", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(9)
      const feeds = yield* Effect.forEach([1, 2, 3], () => feeding(played))
      yield* until("three", () => played.server().figures().connections === 3)
      const fourth = yield* feeding(played)
      yield* until("refused", () => (played.server().figures().refused[429] ?? 0) > 0)
      yield* until("said", () => fourth.said.length > 0)
      assert.match(fourth.said[0]!.text, /too many connections of this key, which may have 3 \(429/)
      yield* feeds[0]!.stop
      yield* until("in", () => fourth.isUp())
      played.step(500)
      yield* settled(fourth, played)
    })
  )
})

describe("two feeds of one account side by side", () => {
  it.live("do no harm: through process every tick is there once, and the last quote is what the server shows", () =>
    Effect.gen(function* () {
      const played = yield* playedKite(300)
      const sink = keeping()
      const one = yield* feeding(played, { sink })
      const isAsked = (subscriptions: number) => () => played.server().figures().subscriptions === subscriptions
      yield* until("one is up", isAsked(300))
      for (let i = 0; i < 10; i++) {
        played.step(100)
        yield* Effect.yieldNow
      }
      // The other comes later, and gets of each instrument what the one has long had.
      const other = yield* feeding(played, { sink })
      yield* until("both are up", isAsked(600))
      for (let i = 0; i < 20; i++) {
        played.step(100)
        yield* Effect.yieldNow
        if (i % 7 !== 3) continue
        const { accepted } = played.server().figures()
        played.server().fault({ fault: "reset" })
        played.step(100)
        yield* until("both are up again", () => played.server().figures().accepted === accepted + 2 && isAsked(600)())
      }
      yield* until("both are up again", isAsked(600))
      for (let i = 0; i < 10; i++) played.step(100)
      yield* settled(one, played)
      yield* one.stop
      yield* other.stop

      const { quotes, ticks, twice } = processed(sink.records)
      assert.isAbove(twice, 0, "the two had nothing in common")
      const names = ticks.map(({ tick }) => `${tick.instrument_token} ${tick.exchange_ts} ${tick.sequence_id}`)
      assert.strictEqual(new Set(names).size, names.length)
      const wanted = meant(played.sent)
      const trades = ticks.map(({ raw }) =>
        tickOfRecord({ ...raw, ...(raw.day_volume < 0 ? {} : { day_volume: raw.day_volume }) })
      )
      const tradable = trades.filter((_, i) => !isIndexToken(ticks[i]!.tick.instrument_token))
      assert.strictEqual(new Set(tradable).size, tradable.length, "a trade is there twice")
      assert.isTrue(trades.every((trade) => wanted.has(trade)))
      // Volumes of ticks make the day's, however often the feeds said it.
      const volumes = new Map<number, number>()
      for (const { tick } of ticks) {
        volumes.set(tick.instrument_token, (volumes.get(tick.instrument_token) ?? 0) + tick.volume)
      }
      const firsts = new Map<number, number>()
      for (const { raw } of ticks) {
        if (!firsts.has(raw.instrument_token)) firsts.set(raw.instrument_token, raw.day_volume)
      }
      for (const { instrument_token: token } of played.board.instruments) {
        const packet = played.board.packet(token)
        if (packet === undefined || packet.isIndex) continue
        const latest = quotes.get(token)!
        assert.deepStrictEqual([latest.bid, latest.ask], [packet.bid, packet.ask], String(token))
        assert.deepStrictEqual([latest.day_volume, latest.high], [packet.volume, packet.high])
        assert.include([packet.volume, packet.volume - firsts.get(token)!], volumes.get(token))
      }
    })
  )
})

/** What the group `process` publishes of these records, and how many ticks it met again. */
const processed = (records: ReadonlyArray<RawRecord>) => {
  const states = makeStates()
  const stage = stages(states, "raw", { partition: 0, partitions: 1 }, settings, () => {})
  const batch = stage.quote(
    stage.sequence(
      unclaimed(
        stage.deduplicate(
          stage.normalize(
            stage.decode(
              records.map((record, offset) => ({
                offset,
                recordTime: record.received_ts!,
                key: null,
                value: Buffer.from(JSON.stringify(record)),
                headers: undefined
              }))
            )
          )
        )
      )
    )
  )
  assert.deepStrictEqual(
    batch.dead.map(({ reason }) => reason),
    []
  )
  const quotes = new Map<number, Quote>()
  for (const { quote } of batch.quotes) quotes.set(quote.instrument_token, quote)
  return { ticks: batch.ticks, quotes, twice: tookOut(batch, "duplicate") }
}

/** Logs in again at the played server, as a user does. */
const renewed = (played: Played): Effect.Effect<string> =>
  Effect.promise(async () => {
    const { createHash } = await import("node:crypto")
    const checksum = createHash("sha256").update("simulatedonesimulated").digest("hex")
    const response = await fetch(`http://127.0.0.1:${played.server().port}/session/token`, {
      method: "POST",
      body: new URLSearchParams({ api_key: "simulated", request_token: "one", checksum })
    })
    const { data } = (await response.json()) as { readonly data: { readonly access_token: string } }
    return data.access_token
  })
