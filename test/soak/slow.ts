/**
 * Decides whether clients that read slowly cost those that keep up anything: a hundred of these, with and without one
 * of each policy beside them, in turns. What each slow one lost is exactly what it was told.
 */
import { type ChildProcess, fork } from "node:child_process"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { POLICIES } from "../../src/schema/Protocol.ts"
import { placesOf } from "./clients.ts"
import type { Order, Sighted } from "./crowd.ts"
import { Ground, now, residentMb, type SoakOptions } from "./ground.ts"
import { LiveClient, latencies, type Range } from "./latency.ts"
import type { Report } from "./report.ts"

const SYMBOLS = 50
const FAST = 100
const TOKENS_EACH = 10
const TURNS = 4
/** Until there is a backfill to fill a socket with. */
const WARM_UP_S = 25
/** Where a p99 counts as unchanged. */
const FACTOR = 1.25
const SLACK_MS = 2
const FLAT = 1.15

const middle = (list: ReadonlyArray<number>): number => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]!
const mean = (list: ReadonlyArray<number>): number => list.reduce((sum, n) => sum + n, 0) / list.length

/** What a process says next. */
const said = <A>(process: ChildProcess): Promise<A> =>
  new Promise((resolve, reject) => {
    process.once("message", (message) => resolve(message as A))
    process.once("exit", (code) => reject(new Error(`the slow ones ended with ${code}`)))
  })

export const slow = async ({ engine, seconds, rate }: SoakOptions, report: Report): Promise<void> => {
  process.stdout.write(
    `slow, ${engine}: ${rate} ticks/s, ${FAST} clients that keep up, one of each policy that does not, ${TURNS} turns of ${seconds} s\n`
  )
  const ground = await Ground.set(engine, SYMBOLS)
  const { url } = ground.server
  const fast = Array.from({ length: FAST }, (_, i) => {
    const at = (i * TOKENS_EACH) % SYMBOLS
    return new LiveClient(url, ground.tokens.slice(at, at + TOKENS_EACH))
  })
  let sleepers: ChildProcess | undefined
  try {
    while (!fast.every(({ isSubscribed }) => isSubscribed)) await sleep(20)
    const feed = await ground.play(rate)
    report.tell("the feed runs")
    await sleep(WARM_UP_S * 1000)
    const without: Array<Range> = []
    const beside: Array<Range> = []
    const memory: Array<number> = []
    for (let turn = 0; turn < TURNS; turn++) {
      without.push({ from: now(), to: now() + seconds * 1e6 })
      await sleep(seconds * 1000)
      sleepers = fork(fileURLToPath(new URL("./sleepers.ts", import.meta.url)), [
        url,
        String(SYMBOLS),
        String(ground.tokens[0]!)
      ])
      await said<"full">(sleepers)
      const from = now()
      for (let i = 0; i < seconds; i++) {
        await sleep(1000)
        memory.push((await residentMb([ground.server]))[0]!)
      }
      beside.push({ from, to: now() })
      // Those of the last turn stay for the account.
      if (turn < TURNS - 1) sleepers.kill("SIGKILL")
    }
    const meant = await feed.stop()
    report.tell(`the feed has ended after ${meant.length} ticks`)
    await ground.storeReaches(await ground.ends(), 60_000)
    const places = await placesOf(ground)
    const found = await latencies(ground, fast, [
      { name: "nobody", ranges: without },
      { name: "slow ones", ranges: beside },
      ...[...without, ...beside].map((range) => ({ name: "", ranges: [range] }))
    ])
    const p99s = found.slice(2).map(({ p99 }) => p99)
    const before = middle(p99s.slice(0, TURNS))
    const after = middle(p99s.slice(TURNS))
    report.table([
      ["beside", "deliveries", "p50 ms", "p99 ms", "p99.9 ms", "p99 by turn"],
      ...["nobody", "slow ones"].map((name, i) => [
        name,
        String(found[i]!.count),
        ...[found[i]!.p50, found[i]!.p99, found[i]!.p999].map((ms) => ms.toFixed(1)),
        p99s
          .slice(i * TURNS, (i + 1) * TURNS)
          .map((ms) => ms.toFixed(0))
          .join(" ")
      ])
    ])
    report.check(
      "the p99 of those that keep up is unchanged beside slow ones",
      after <= FACTOR * before + SLACK_MS,
      `${after.toFixed(1)} ms in the middle turn after ${before.toFixed(1)} ms`
    )
    const order: Order = { settle: places }
    const answer = said<Sighted>(sleepers!)
    sleepers!.send(order)
    const { unsettled, counts } = await answer
    report.check(
      "each slow one lost exactly what it was told",
      unsettled.length === 0,
      `${POLICIES.map((policy) => `${policy} ${counts[`${policy} lost`]} of ${counts[`${policy} lost`]! + counts[`${policy} had`]!} in ${counts[`${policy} told of losses`]} frames`).join(", ")}; disconnect closed ${counts["disconnect closed"]} times`,
      unsettled
    )
    for (const policy of ["pause", "disconnect"]) {
      report.check(`${policy}: nothing is lost`, counts[`${policy} lost`] === 0, `${counts[`${policy} lost`]} ticks`)
    }
    for (const policy of ["evict-oldest", "conflate"]) {
      report.check(
        `${policy}: it was told of losses`,
        counts[`${policy} lost`]! > 0,
        `${counts[`${policy} lost`]} ticks`
      )
    }
    report.check("disconnect: it was closed", counts["disconnect closed"]! > 0, `${counts["disconnect closed"]} times`)
    const byTurn = Array.from({ length: TURNS }, (_, i) => mean(memory.slice(i * seconds, (i + 1) * seconds)))
    report.tell(`the server's memory by turn, MB: ${byTurn.map((mb) => mb.toFixed(0)).join(" ")}`)
    const quarter = Math.max(1, Math.floor(memory.length / 4))
    const second = mean(memory.slice(quarter, 2 * quarter))
    const last = mean(memory.slice(-quarter))
    report.check(
      "the server's memory is flat",
      last <= FLAT * second,
      `${last.toFixed(0)} MB after ${second.toFixed(0)} MB`
    )
    const undisturbed = fast.filter(({ evicted, isClosed }) => evicted === 0 && !isClosed).length
    report.check("nobody that keeps up was evicted or closed", undisturbed === FAST, `${undisturbed} of ${FAST}`)
  } finally {
    for (const client of fast) client.close()
    sleepers?.kill("SIGKILL")
    await ground.close()
  }
}
