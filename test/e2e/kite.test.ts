/**
 * Two `mdp feed kite` of one account side by side on a Kite server with 3,000 instruments that has one fault after the
 * other: what they had read is published once, and every place has what the server shows.
 */
import { createHash } from "node:crypto"
import { createReadStream, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, ManagedRuntime, Result } from "effect"
import { assert, describe, it } from "vitest"
import { missing, serviceNames } from "../../scripts/servers/install.ts"
import { kiteInstruments } from "../../src/http/kiteSim/KiteBoard.ts"
import * as Kafka from "../../src/layers/kafka/KafkaLog.ts"
import { fullSymbol } from "../../src/schema/Instrument.ts"
import { isIndexToken } from "../../src/schema/kite/packets.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import type { Tick } from "../../src/schema/Tick.ts"
import { decodeTick } from "../../src/schema/TickJson.ts"
import { MarkTracker } from "../../src/streams/log/bookmark.ts"
import { KIND_HEADER, QUOTE_KIND } from "../../src/streams/log/headers.ts"
import { consumerGroups } from "../../src/streams/topology.ts"
import { Cluster } from "../crash/cluster.ts"
import { all, drained, settle } from "../crash/oracle.ts"
import { Witness } from "../crash/witness.ts"
import { LONG_MS } from "../support/guards.ts"
import { type RawRecord, tickOfRecord } from "../support/kite.ts"
import { withinOneDay } from "../support/oneDay.ts"
import type { Mdp } from "../support/processes.ts"
import { isInstalled, s3Access } from "../support/services.ts"

const lacking = serviceNames.filter((service) => !isInstalled(service)).map(missing)
const skipped = lacking.length === 0 ? "" : ` (skipped: ${lacking.join(", ")} not installed)`

const INSTRUMENTS = 3000
/** Ticks a second that the market means, and packets that go out between two faults. */
const RATE = 600
const BETWEEN = 1500
/** Bars are asked for of one instrument in so many. */
const BARS_OF_ONE_IN = 10
/** A guard against a hang. */
const COMES_WITHIN_MS = 240_000
const QUOTES_AT_ONCE = { kite: 500, platform: 300 }
const EVERY_LOOK_MS = 50

const until = async (what: string, holds: () => boolean | Promise<boolean>): Promise<void> => {
  const end = Date.now() + COMES_WITHIN_MS
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`never: ${what}`)
    await sleep(EVERY_LOOK_MS)
  }
}

/** What the ledger has of a packet. */
interface Sent {
  readonly read: boolean
  readonly mode: string
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly last_trade_ts: number
  readonly price: number
  readonly day_volume: number
}

/** Names of ticks as `tickOfRecord` has them: all that were sent, and those that a feed had read. */
const readLedger = async (path: string) => {
  const sent = new Set<string>()
  const read = new Set<string>()
  for await (const line of createInterface({ input: createReadStream(path) })) {
    const packet = JSON.parse(line) as Sent
    if (packet.mode !== "full") continue
    const { instrument_token, last_trade_ts, price, day_volume } = packet
    const exchange_ts = isIndexToken(instrument_token) ? packet.exchange_ts : last_trade_ts
    const name = tickOfRecord({ instrument_token, exchange_ts, price, day_volume })
    sent.add(name)
    if (packet.read) read.add(name)
  }
  return { sent, read }
}

/** A simulated Kite as a process of its own, and how it is spoken to. */
class Kite {
  readonly place: string
  constructor(place: string) {
    this.place = place
  }

  async #ask(path: string, init: RequestInit = {}): Promise<Readonly<Record<string, unknown>>> {
    const answer = await fetch(`http://${this.place}${path}`, init)
    const text = await answer.text()
    if (answer.status !== 200) throw new Error(`${path}: ${answer.status} ${text}`)
    return (JSON.parse(text) as { readonly data: Readonly<Record<string, unknown>> }).data
  }

  async figures() {
    return (await this.#ask("/sim/faults")) as {
      readonly connections: number
      readonly subscriptions: number
      readonly accepted: number
      readonly packets: number
      readonly access_token: string
    }
  }

  fault(fault: object): Promise<unknown> {
    const headers = { "content-type": "application/json" }
    return this.#ask("/sim/faults", { method: "POST", headers, body: JSON.stringify(fault) })
  }

  /** Logs in again, as the account's owner does each morning. */
  async renew(): Promise<string> {
    const checksum = createHash("sha256").update("simulatedonesimulated").digest("hex")
    const body = new URLSearchParams({ api_key: "simulated", request_token: "one", checksum })
    return (await this.#ask("/session/token", { method: "POST", body })).access_token as string
  }

  async quotes(names: ReadonlyArray<string>): Promise<ReadonlyMap<string, KiteQuote>> {
    const found = new Map<string, KiteQuote>()
    const { access_token: token } = await this.figures()
    for (let from = 0; from < names.length; from += QUOTES_AT_ONCE.kite) {
      const asked = names.slice(from, from + QUOTES_AT_ONCE.kite).map((name) => `i=${encodeURIComponent(name)}`)
      const headers = { authorization: `token simulated:${token}` }
      for (const [name, quote] of Object.entries(await this.#ask(`/quote?${asked.join("&")}`, { headers }))) {
        found.set(name, quote as KiteQuote)
      }
    }
    return found
  }
}

interface Level {
  readonly price: number
  readonly quantity: number
  readonly orders: number
}
interface KiteQuote {
  readonly instrument_token: number
  readonly last_price: number
  readonly last_quantity: number
  readonly volume: number
  readonly buy_quantity: number
  readonly sell_quantity: number
  readonly oi: number
  readonly ohlc: Readonly<Record<"open" | "high" | "low" | "close", number>>
  readonly depth: Readonly<Record<"buy" | "sell", ReadonlyArray<Level>>>
}

/** What both say, of a server's quote. */
const shownByKite = (quote: KiteQuote) => {
  const { ohlc } = quote
  const index = { last: quote.last_price, day: [ohlc.open, ohlc.high, ohlc.low, ohlc.close] }
  if (isIndexToken(quote.instrument_token)) return index
  const side = (levels: ReadonlyArray<Level>) =>
    levels.filter(({ quantity }) => quantity > 0).map(({ orders, price, quantity }) => [price, quantity, orders])
  return {
    ...index,
    bid: side(quote.depth.buy),
    ask: side(quote.depth.sell),
    totals: [quote.buy_quantity, quote.sell_quantity, quote.volume, quote.last_quantity]
  }
}

interface PlatformQuote {
  readonly instrument_token: number
  readonly last: { readonly price: number } | null
  readonly quote?: Readonly<Record<string, number & ReadonlyArray<unknown>>>
}

const shownByPlatform = ({ instrument_token, last, quote }: PlatformQuote) => {
  const index = { last: last?.price, day: [quote?.open, quote?.high, quote?.low, quote?.previous_close] }
  if (isIndexToken(instrument_token)) return index
  return {
    ...index,
    bid: quote?.bid,
    ask: quote?.ask,
    totals: [quote?.total_buy_quantity, quote?.total_sell_quantity, quote?.day_volume, quote?.last_quantity]
  }
}

/** Instruments of which `GET /quotes` says something else than the server does. */
const differing = async (url: string, shown: ReadonlyMap<string, KiteQuote>): Promise<ReadonlyArray<string>> => {
  const wanted = [...shown.values()]
  const found: Array<string> = []
  for (let from = 0; from < wanted.length; from += QUOTES_AT_ONCE.platform) {
    const some = wanted.slice(from, from + QUOTES_AT_ONCE.platform)
    const tokens = some.map(({ instrument_token }) => instrument_token)
    const answer = await fetch(`${url}/api/v1/quotes?tokens=${tokens.join()}`)
    const { quotes } = (await answer.json()) as { readonly quotes: ReadonlyArray<PlatformQuote> }
    for (const [i, quote] of quotes.entries()) {
      const [kite, platform] = [JSON.stringify(shownByKite(some[i]!)), JSON.stringify(shownByPlatform(quote))]
      if (kite !== platform) found.push(`${quote.instrument_token}: Kite ${kite}, the platform ${platform}`)
    }
  }
  return found
}

/** Each packet and each record in one place of the account that a feed settles at its end; how many records it sent. */
const accountOf = ({ stdout }: Mdp): number => {
  const packets =
    /(\d+) packets in \d+ frames: (\d+) recorded, (\d+) unchanged, (\d+) outdated, (\d+) not asked for, (\d+) of another mode, (\d+) without a time, (\d+) ahead of the clock/.exec(
      stdout
    )!
  const [received, ...places] = packets.slice(1).map(Number)
  assert.strictEqual(
    received,
    places.reduce((sum, n) => sum + n, 0)
  )
  const [made, sent, waiting] = /(\d+) records: (\d+) sent, (\d+) waiting/.exec(stdout)!.slice(1).map(Number)
  assert.deepStrictEqual([sent, waiting], [made, 0])
  return sent!
}

describe.skipIf(lacking.length > 0)(`two feeds of a Kite account${skipped}`, () => {
  it("lose nothing they had read and publish nothing twice, whatever the server does; at rest all say what it shows", {
    timeout: 4 * LONG_MS
  }, async () => {
    await withinOneDay(4 * LONG_MS)
    const settings = { PARTITIONS: "4", ARCHIVE_FLUSH_MS: "2000" }
    const cluster = await Cluster.start("platformatic", { isPlain: true, settings })
    let witness: Witness | undefined
    const feeds: Array<Mdp> = []
    const runtime = ManagedRuntime.make(
      Kafka.layerOf(Result.getOrThrow(readSettings(cluster.settings)), consumerGroups)
    )
    try {
      const ledger = join(cluster.folder, "ledger.ndjson")
      const market = ["--symbols", String(INSTRUMENTS), "--rate", String(RATE), "--ledger", ledger]
      const sim = cluster.spawn(["feed", "sim", "--serve", "kite", "--port", "0", ...market])
      const server = await cluster.run("server", ["server"])
      const worker = await cluster.worker("worker")
      for (const { url } of [server, worker]) {
        await until("ready", async () => (await fetch(`${url}/readyz`)).status === 200)
      }
      const instruments = kiteInstruments(INSTRUMENTS)
      witness = new Witness(
        () => server.url,
        instruments.map(({ instrument_token }) => instrument_token)
      )
      const place = () => /REST {5}http:\/\/(127\.0\.0\.1:\d+)/.exec(sim.stdout)?.[1]
      await until("the simulated Kite listens", () => place() !== undefined)
      const kite = new Kite(place()!)

      const file = join(cluster.folder, "token")
      const putToken = (token: string) => {
        writeFileSync(`${file}.new`, token)
        renameSync(`${file}.new`, file)
      }
      putToken((await kite.figures()).access_token)
      const startFeed = (): Mdp => {
        const roots = ["--root", `http://${kite.place}`, "--ws-root", `ws://${kite.place}`]
        const keys = { KITE_API_KEY: "simulated", KITE_ACCESS_TOKEN_FILE: file }
        const feed = cluster.spawn(["feed", "kite", "--exchange", "SIM", ...roots], keys)
        feeds.push(feed)
        return feed
      }

      const running = () => feeds.filter(({ isOver }) => !isOver)
      /** All are up again since so many handshakes were let in, and ticks go out to them. */
      const upSince = async (accepted: number) => {
        await until("all are up with all instruments", async () => {
          for (const feed of feeds) if (feed.isOver && feed.signal === null) throw new Error(feed.stderr)
          const [now, count] = [await kite.figures(), running().length]
          return now.accepted >= accepted && now.connections === count && now.subscriptions === count * INSTRUMENTS
        })
        const { packets } = await kite.figures()
        await until("ticks go out", async () => (await kite.figures()).packets > packets + BETWEEN)
      }
      const suffer = async (...faults: ReadonlyArray<object>) => {
        const { accepted } = await kite.figures()
        for (const fault of faults) await kite.fault(fault)
        await upSince(accepted + running().length)
      }
      const bothSay = (what: RegExp, ...who: ReadonlyArray<Mdp>) =>
        until(String(what), () => who.every(({ stderr }) => what.test(stderr)))

      // One alone, so that none has what another lost; then two.
      const killed = startFeed()
      await upSince(1)
      await suffer({ fault: "reset" })
      await suffer({ fault: "cut" })
      await suffer({ fault: "down", ms: 1500 })
      const joined = await kite.figures()
      const staying = startFeed()
      await upSince(joined.accepted + 1)
      await suffer({ fault: "reset" })
      await suffer({ fault: "cut", frames: 2 })
      await suffer({ fault: "close", code: 1012, reason: "it starts again" })
      await suffer({ fault: "late", by: 1000 }, { fault: "reset" })
      await kite.fault({ fault: "none" })
      await suffer({ fault: "half-open" })

      // One of them is killed, and another takes its place.
      killed.kill("SIGKILL")
      await until("it is gone", () => killed.isOver)
      const { accepted } = await kite.figures()
      const replacing = startFeed()
      await upSince(accepted + 1)
      const two = [staying, replacing]

      // The next token while connections stand, then one that ends with its connections.
      const before = await kite.figures()
      putToken(await kite.renew())
      await bothSay(/the connection goes on with the new access token/, ...two)
      await upSince(before.accepted + 2)
      await suffer({ fault: "stall", ms: 7000 })
      const stood = await kite.figures()
      await kite.fault({ fault: "expire" })
      await bothSay(/Kite refuses .* it is waited for/, ...two)
      putToken(await kite.renew())
      await upSince(stood.accepted + 2)

      // Nothing changes any more: everybody comes to say what the server shows.
      await kite.fault({ fault: "rest" })
      const shown = await kite.quotes(instruments.map(fullSymbol))
      assert.isAbove(shown.size, (INSTRUMENTS * 9) / 10)
      let left: ReadonlyArray<string> = []
      await until("the platform says what the server shows", async () => {
        left = await differing(server.url, shown)
        return left.length === 0
      }).catch((error) => assert.fail(`${error}: ${left.length} differ, such as ${left.slice(0, 2).join("; ")}`))
      for (const feed of two) feed.kill("SIGTERM")
      sim.kill("SIGTERM")
      await until("all have ended", () => sim.isOver && two.every(({ isOver }) => isOver))
      assert.deepStrictEqual(
        [sim.code, ...two.map(({ code }) => code)],
        [0, 0, 0],
        two.map(({ stderr }) => stderr).join("\n")
      )

      // The account: what was read is published, what is published was sent, each once.
      assert.isUndefined(await drained(runtime, COMES_WITHIN_MS))
      const { read, sent } = await readLedger(ledger)
      const [raw, normalized, dead] = await runtime.runPromise(
        Effect.all([all("raw_ticks"), all("normalized_ticks"), all("raw_ticks_dlq")])
      )
      assert.strictEqual(dead.flat().length, 0)
      const published: Array<Tick> = []
      const names = new Map<string, number>()
      for (const [partition, records] of normalized.entries()) {
        const tracker = new MarkTracker(undefined)
        const from = new Map(raw[partition]!.map(({ offset, value }) => [offset, value!]))
        for (const { headers, value } of records) {
          const tick = headers?.[KIND_HEADER] === QUOTE_KIND ? undefined : decodeTick(value!)
          if (tick === undefined || !tracker.take(tick.source)) continue
          published.push(tick)
          const record = JSON.parse(Buffer.from(from.get(tick.source[1])!).toString()) as RawRecord
          assert.deepStrictEqual(
            [tick.instrument_token, tick.exchange_ts, tick.price],
            [record.instrument_token, record.exchange_ts, record.price]
          )
          const name = `${tickOfRecord(record)} ${record.occurrence ?? 0}`
          names.set(name, (names.get(name) ?? 0) + 1)
        }
      }
      const few = (found: ReadonlyArray<string>) => `${found.length}: ${found.slice(0, 3).join("; ")}`
      const had = new Set([...names.keys()].map((name) => name.slice(0, name.lastIndexOf(" "))))
      assert.strictEqual(few([...names].filter(([, times]) => times > 1).map(([name]) => name)), "0: ", "twice")
      assert.strictEqual(few([...read].filter((name) => !had.has(name))), "0: ", `lost of ${read.size}`)
      assert.strictEqual(few([...had].filter((name) => !sent.has(name))), "0: ", "never sent")
      assert.isAbove(read.size, INSTRUMENTS)

      // Every place has what is published, bars are a recompute, and the witness saw each tick once.
      const { checker } = witness
      await until("the witness has seen all", () => {
        return checker.ticks + checker.backfilled + checker.evicted >= published.length
      })
      await cluster.poll()
      const meant = published.map((tick) => ({ ...tick, reached: ["kite"] }))
      const hasBars = (token: number) => token % BARS_OF_ONE_IN === 0 || isIndexToken(token)
      const access = s3Access(cluster.s3.settings())
      const { figures, problems } = await settle(cluster, { runtime }, { meant, hasBars }, witness, access, server.url)
      assert.deepStrictEqual(problems, [])
      assert.isAbove(figures.bars!, 0)

      // Records of the feeds that could settle their own, and of each stage.
      const settled = two.map(accountOf)
      assert.isAtMost(settled[0]! + settled[1]!, raw.flat().length)
      for (const stage of ["decode", "normalize", "deduplicate", "sequence", "publish", "quote"]) {
        const out =
          cluster.total(`topology_stage_sent_events_total{stage="${stage}"}`) +
          [...cluster.figures.get(worker)!]
            .filter(([name]) => name.startsWith(`topology_stage_discarded_events_total{stage="${stage}"`))
            .reduce((sum, [, n]) => sum + n, 0)
        assert.strictEqual(cluster.total(`topology_stage_received_events_total{stage="${stage}"}`), out, stage)
      }
      assert.strictEqual(cluster.total(`topology_stage_sent_events_total{stage="publish"}`), published.length)

      // One line for each thing that happened, and neither key nor token in any.
      for (const { stderr } of two) assert.strictEqual(stderr.match(/Kite refuses/g)!.length, 1, stderr)
      const said = [...feeds.map((feed) => feed.stdout + feed.stderr), cluster.logs()].join("\n")
      assert.match(said, /the connection is back after \d+\.\d s/)
      assert.notMatch(said, /simulated/)
    } catch (error) {
      // What every process said comes first to who looks into it.
      console.error(feeds.map(({ stderr }, i) => `=== feed ${i + 1}\n${stderr}`).join("\n"), cluster.logs())
      throw error
    } finally {
      witness?.close()
      await runtime.dispose()
      await cluster.close()
    }
  })
})
