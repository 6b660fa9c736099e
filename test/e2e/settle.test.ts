import { createReadStream } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { type BarTick, barsOf } from "../support/candles.ts"
import { LONG_MS } from "../support/guards.ts"
import { withinOneDay } from "../support/oneDay.ts"
import { folder, getJson, getLines, getMetrics, start, startInstance, untilDrained } from "../support/processes.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import { connect } from "../support/webSocketServer.ts"

const SYMBOLS = 20
const RATE = 1500
const SECONDS = 20
const FIRST = 9_000_001
const tokens = Array.from({ length: SYMBOLS }, (_, i) => FIRST + i)

interface Meant {
  readonly instrument_token: number
  readonly sequence_id: number
  readonly price: number
  readonly reached: ReadonlyArray<string>
}

const readLedger = async (path: string): Promise<ReadonlyArray<Meant>> => {
  const meant: Array<Meant> = []
  for await (const line of createInterface({ input: createReadStream(path) })) meant.push(JSON.parse(line) as Meant)
  // A line is written when its tick's fate is settled, which is not always in order.
  return meant.sort((a, b) => a.sequence_id - b.sequence_id)
}

const random = (seed: number) => () => {
  seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff
  return seed / 0x7fffffff
}

// Long: an instance takes two lossy feeds, and every account is closed.
describe("two feeds that lose, repeat and reorder packets, settled against the ledger", { timeout: LONG_MS }, () => {
  it.live("closes every account: clients, store, gaps, candles and metrics", () =>
    Effect.gen(function* () {
      yield* Effect.promise(() => withinOneDay(180_000))
      const dir = yield* folder
      const ledgerFile = join(dir, "ledger.ndjson")
      const { mdp, url, ws } = yield* startInstance(["run"], {
        DATA_DIR: join(dir, "data"),
        ARCHIVE_FLUSH_MS: "500"
      })

      // One client sees everything from the first tick on.
      const witness = yield* connect(ws, { checker: new RuleChecker({ keep: true }), keep: false })
      const gaps = new Map<number, Set<number>>(tokens.map((token) => [token, new Set()]))
      witness.ws.on("message", (data: Buffer) => {
        const message = JSON.parse(data.toString()) as {
          type: string
          instrument_token: number
          from: number
          to: number
        }
        if (message.type === "gap") {
          for (let n = message.from; n <= message.to; n++) gaps.get(message.instrument_token)!.add(n)
        } else if (message.type === "gap_filled") {
          for (let n = message.from; n <= message.to; n++) gaps.get(message.instrument_token)!.delete(n)
        }
      })
      witness.send({ action: "subscribe", tokens, capacity: 100_000, backfill: 1000 })
      yield* witness.until((client) => client.checker.backfills === SYMBOLS)

      const feed = yield* start(
        [
          ...["feed", "sim", "--symbols", String(SYMBOLS), "--rate", String(RATE), "--duration", `${SECONDS}s`],
          ...["--loss", "0.03", "--duplicate", "0.03", "--reorder", "0.03", "--seed", "7", "--ledger", ledgerFile],
          ...["--url", url]
        ],
        {}
      )

      const untilOver = feed.until(() => (feed.isOver ? true : undefined), "its end")

      // 200 clients at random instants; half of them come back with what they had.
      const next = random(42)
      const visitor = Effect.gen(function* () {
        const count = 1 + Math.floor(next() * 5)
        const wanted = Array.from({ length: count }, () => tokens[Math.floor(next() * SYMBOLS)]!)
        const checker = new RuleChecker()
        const backfill = Math.floor(next() * 300)
        const stay = 10 + Math.floor(next() * 40)
        for (let visit = 0; visit < (next() < 0.5 ? 1 : 2); visit++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const client = yield* connect(ws, { checker, keep: false })
              const seen = checker.ticks
              client.send({
                action: "subscribe",
                tokens: [...new Set(wanted)],
                ...(visit === 0 ? { backfill } : { since: checker.since() })
              })
              // The last of them may find the feed at its end, after which nothing comes any more.
              yield* Effect.race(
                client.until(() => checker.ticks >= seen + stay),
                untilOver
              )
              assert.isUndefined(client.broken)
            })
          )
        }
        return checker
      })
      yield* feed.until(() => (feed.isOver || gaps.get(FIRST)!.size >= 0 ? true : undefined), "its start")
      const visits = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i),
          (i) => Effect.andThen(Effect.sleep(Math.floor((i * (SECONDS - 4) * 1000) / 200 + next() * 500)), visitor),
          { concurrency: "unbounded" }
        )
      )
      yield* untilOver
      assert.strictEqual(feed.code, 0, feed.stderr)
      const checkers = yield* Fiber.join(visits)
      yield* untilDrained(url)

      const meant = yield* Effect.promise(() => readLedger(ledgerFile))
      const reached = meant.filter((tick) => tick.reached.length > 0)
      const lost = meant.filter((tick) => tick.reached.length === 0)
      // How many those are depends on the machine: a market that is held up goes on slower.
      assert.match(feed.stdout, new RegExp(`(^|\\n)${meant.length} ticks in `))
      assert.isAbove(lost.length, 0)

      // Clients: the rule held for all, and the witness saw every tick once.
      assert.isAbove(
        checkers.reduce((n, checker) => n + checker.ticks, 0),
        1000
      )
      yield* witness.until((client) => client.checker.ticks + client.checker.backfilled >= reached.length)
      assert.strictEqual(witness.checker.ticks + witness.checker.backfilled, reached.length)
      assert.strictEqual(witness.checker.evicted, 0)

      // Gaps: what is still missing is exactly what reached no feed.
      for (const token of tokens) {
        const expected = lost.filter((tick) => tick.instrument_token === token).map((tick) => tick.sequence_id)
        assert.deepStrictEqual(
          [...gaps.get(token)!].sort((a, b) => a - b),
          expected,
          `gaps of ${token}`
        )
      }

      // Store: each tick that reached a feed, once.
      const year = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
      let rows = 0
      for (const token of tokens) {
        const ticks = yield* getLines(`${url}/api/v1/historical/ticks?instrument_token=${token}&${year}`)
        rows += ticks.length
        const expected = reached.filter((tick) => tick.instrument_token === token)
        assert.deepStrictEqual(
          ticks.map((tick) => tick.sequence_id as number).sort((a, b) => a - b),
          expected.map((tick) => tick.sequence_id),
          `ticks of ${token}`
        )
        const prices = new Map(expected.map((tick) => [tick.sequence_id, tick.price]))
        for (const tick of ticks) assert.strictEqual(tick.price, prices.get(tick.sequence_id as number))

        // Candles equal a recompute from these ticks.
        for (const [interval, minutes] of [
          ["1m", 1],
          ["5m", 5]
        ] as const) {
          const answer = (yield* getJson(
            `${url}/api/v1/historical/candles?instrument_token=${token}&interval=${interval}&${year}`
          )) as { readonly candles: ReadonlyArray<Record<string, unknown>> }
          assert.deepStrictEqual(
            answer.candles.map(({ ts, open, high, low, close, volume }) => ({ ts, open, high, low, close, volume })),
            barsOf(ticks as unknown as ReadonlyArray<BarTick>, minutes) as never,
            `${interval} of ${token}`
          )
        }
      }
      assert.strictEqual(rows, reached.length)

      // Metrics: received = sent + discarded at every stage, from the packets that were sent to the rows that are there.
      const figures = yield* getMetrics(url)
      const figure = (name: string) => figures.get(name) ?? 0
      const packets = [...feed.stdout.matchAll(/sent (\d+)/g)].reduce((n, match) => n + Number(match[1]), 0)
      assert.strictEqual(figure(`topology_stage_received_events_total{stage="decode"}`), packets)
      const ofQuotes = ["quote", "store-quotes", "ring-quotes", "archive-quotes"]
      const ofTicks = ["decode", "normalize", "deduplicate", "sequence", "publish", "store", "ring", "archive"]
      for (const stage of [...ofTicks, ...ofQuotes]) {
        let out = figure(`topology_stage_sent_events_total{stage="${stage}"}`)
        for (const [name, n] of figures) {
          if (name.startsWith(`topology_stage_discarded_events_total{stage="${stage}"`)) out += n
        }
        assert.strictEqual(figure(`topology_stage_received_events_total{stage="${stage}"}`), out, stage)
      }
      for (const stage of ["follow-store", "follow-ring", "follow-archive", "follow-server"]) {
        assert.strictEqual(figure(`topology_stage_sent_events_total{stage="${stage}"}`), reached.length, stage)
      }
      const quotes = figure(`topology_stage_sent_events_total{stage="quote"}`)
      assert.isAbove(quotes, SYMBOLS)
      for (const sink of ["store", "ring", "archive", "server"]) {
        assert.strictEqual(figure(`topology_stage_sent_events_total{stage="follow-${sink}-quotes"}`), quotes, sink)
      }
      assert.strictEqual(figure(`topology_stage_sent_events_total{stage="store"}`), reached.length)
      assert.strictEqual(figure("topology_order_alarms_total"), 0)
      assert.strictEqual(figure("topology_new_epochs_total"), SYMBOLS)

      mdp.kill("SIGTERM")
      assert.strictEqual(yield* mdp.ended, 0, mdp.stderr)
      assert.strictEqual(mdp.complaints, "")
    }).pipe(Effect.scoped)
  )
})
