/** Decides whether live clients notice that PostgreSQL is killed for a while, and whether the store then has everything. */
import { setTimeout as sleep } from "node:timers/promises"
import { Ground, now, type SoakOptions } from "./ground.ts"
import { LiveClient, latencies, type Range, type Span } from "./latency.ts"
import { seconds as inSeconds, type Report } from "./report.ts"

const SYMBOLS = 50
const CLIENTS = 4
/** Until the processes run compiled code, so that what comes before is no worse for that. */
const WARM_UP_S = 30
/**
 * The market has one burst a second, and a minute's p99 is that of its worst two: of the same run it may be a third more
 * or less. Several minutes of each kind make a comparison.
 */
const KILLS = 3
const CATCHES_UP_WITHIN_MS = 300_000
/** Unchanged: at most so many times what it was before, and so many ms. */
const FACTOR = 1.25
const ALLOWANCE_MS = 2

export const postgresAway = async ({ engine, seconds, rate }: SoakOptions, report: Report): Promise<void> => {
  process.stdout.write(
    `postgres-away, ${engine}: ${rate} ticks/s, ${CLIENTS} live clients, PostgreSQL killed ${KILLS} times for ${seconds} s\n`
  )
  const ground = await Ground.set(engine, SYMBOLS)
  const clients = Array.from({ length: CLIENTS }, () => new LiveClient(ground.server.url, ground.tokens))
  try {
    const { postgres } = ground.cluster
    while (!clients.every(({ isSubscribed }) => isSubscribed)) await sleep(20)
    const feed = await ground.play(rate)
    report.tell("the feed runs")
    await sleep(WARM_UP_S * 1000)
    const spans: Record<"before" | "away" | "after" | "catching up", Array<Range>> = {
      before: [],
      away: [],
      after: [],
      "catching up": []
    }
    for (let kill = 1; kill <= KILLS; kill++) {
      const beginsAt = now()
      await sleep(seconds * 1000)

      const killedAt = now()
      await postgres.kill()
      report.tell(`PostgreSQL killed, ${kill} of ${KILLS}`)
      await sleep(seconds * 1000)
      for (const { name, url } of [ground.server, ground.workers[0]!]) {
        const answer = await fetch(`${url}/readyz`)
        report.tell(`meanwhile the ${name}'s /readyz: ${answer.status} ${(await answer.text()).trim()}`)
      }
      const waiting = await ground.figure(ground.workers[0]!, "topology_consumer_lag_records", 'group="store"')
      report.tell(`the store's lag as /metrics has it: ${waiting} records`)

      const startedAt = now()
      await postgres.start()
      const backAt = now()
      const ends = await ground.ends()
      report.tell(`PostgreSQL answers again, ${inSeconds((backAt - startedAt) / 1000)} after its start`)
      const isLevel = await ground.storeReaches(ends, CATCHES_UP_WITHIN_MS)
      const levelAt = now()
      const took = `${inSeconds((levelAt - backAt) / 1000)} after PostgreSQL came back`
      report.check("the store has all that was published before that", isLevel, took)
      await sleep(Math.max(0, seconds * 1000 - (levelAt - backAt) / 1000))

      spans.before.push({ from: beginsAt, to: killedAt })
      spans.away.push({ from: killedAt, to: backAt })
      spans.after.push({ from: backAt, to: now() })
      spans["catching up"].push({ from: backAt, to: levelAt })
    }
    const meant = await feed.stop()
    report.tell(`the feed has ended after ${meant.length} ticks`)

    const all = Object.entries(spans).map(([name, ranges]): Span => ({ name, ranges }))
    const single = Array.from({ length: KILLS }, (_, kill) =>
      all.map(({ name, ranges }): Span => ({ name: `${kill + 1}: ${name}`, ranges: [ranges[kill]!] }))
    ).flat()
    const found = await latencies(ground, clients, [...all, ...single])
    report.table([
      ["PostgreSQL", "seconds", "deliveries", "p50 ms", "p99 ms", "p99.9 ms", "most ms"],
      ...[...all, ...single].map(({ name, ranges }, i) => {
        const { count, ...times } = found[i]!
        const length = ranges.reduce((sum, { from, to }) => sum + to - from, 0) / 1e6
        return [name, length.toFixed(1), String(count), ...Object.values(times).map((ms) => ms.toFixed(1))]
      })
    ])
    const [before, away, after] = found
    const bound = before!.p99 * FACTOR + ALLOWANCE_MS
    for (const [when, { p99 }] of [
      ["while PostgreSQL was away", away!],
      ["after it came back, catching up included", after!]
    ] as const) {
      const measured = `${p99.toFixed(1)} ms, at most ${bound.toFixed(1)} (${FACTOR} × ${before!.p99.toFixed(1)} + ${ALLOWANCE_MS})`
      report.check(`p99 unchanged ${when}`, p99 <= bound, measured)
    }
    const undisturbed = clients.filter(({ evicted, isClosed }) => evicted === 0 && !isClosed).length
    report.check("no live client was disconnected or evicted", undisturbed === CLIENTS, `${undisturbed} of ${CLIENTS}`)
    await ground.closeAccount(report, meant)
  } finally {
    for (const client of clients) client.close()
    await ground.close()
  }
}
