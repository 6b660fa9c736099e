/**
 * Decides whether every stream obeys the rule whatever clients do: hundreds of them subscribe, leave, sleep and come
 * back at random, under every policy, while one of two servers is killed now and then; and whether the bars they were
 * sent end as REST answers them.
 */
import { type ChildProcess, fork, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { PYTHON } from "../../scripts/servers/install.ts"
import { decodeTick } from "../../src/schema/TickJson.ts"
import type { Running } from "../crash/cluster.ts"
import { LossyProxy } from "../support/LossyProxy.ts"
import type { Order, Places, Sighted } from "./crowd.ts"
import { Ground, now, type SoakOptions } from "./ground.ts"
import type { Report } from "./report.ts"

const SYMBOLS = 200
const CLIENTS = 500
const FLEETS = 2
/** Applications on each of the client libraries besides. */
const APPLICATIONS = 20
const LIBRARIES = ["library", "python"] as const
const KILL_EVERY_MS = 30_000
/** Late ticks: so many a second, so old at most. */
const LATE_EVERY_MS = 500
const OLDEST_MS = 20 * 60_000
const INTERVALS = ["1m", "5m"] as const
const LONGEST_BAR_MICROS = 300_000_000

/** Where the stream of each instrument stands in the log. */
export const placesOf = async (ground: Ground): Promise<Places> => {
  const places: Record<string, readonly [epoch: number, position: number]> = {}
  for (let partition = 0; partition < ground.settings.PARTITIONS; partition++) {
    await ground.read(partition, (records) => {
      for (const { value } of records) {
        const tick = value === null ? undefined : decodeTick(value)
        if (tick === undefined || tick.old) continue
        const [epoch = 0, position = 0] = places[tick.instrument_token] ?? []
        if (tick.epoch > epoch || (tick.epoch === epoch && tick.position > position)) {
          places[tick.instrument_token] = [tick.epoch, tick.position]
        }
      }
    })
  }
  return places
}

/** What the crowds saw, as one. */
const together = (sighted: ReadonlyArray<Sighted>) => {
  const counts: Record<string, number> = {}
  const bars = new Map<string, Map<number, string>>()
  const problems = sighted.flatMap(({ violations }) => violations)
  for (const each of sighted) {
    for (const [name, n] of Object.entries(each.counts)) counts[name] = (counts[name] ?? 0) + n
    for (const [name, revisions] of Object.entries(each.bars)) {
      const all = bars.get(name) ?? new Map<number, string>()
      bars.set(name, all)
      for (const [revision, bar] of Object.entries(revisions)) {
        const known = all.get(Number(revision))
        if (known !== undefined && known !== bar) problems.push(`${name}: revision ${revision} is ${bar} and ${known}`)
        all.set(Number(revision), bar)
      }
    }
  }
  return { counts, bars, problems, unsettled: sighted.flatMap(({ unsettled }) => unsettled) }
}

export const clients = async ({ engine, seconds, rate }: SoakOptions, report: Report): Promise<void> => {
  process.stdout.write(
    `clients, ${engine}: ${CLIENTS} clients, ${rate} ticks/s, one of two servers killed every ${KILL_EVERY_MS / 1000} s, for ${seconds} s\n`
  )
  const ground = await Ground.set(engine, SYMBOLS)
  const fleets: Array<ChildProcess> = []
  const tells: Array<(order: Order) => void> = []
  const proxies: Array<LossyProxy> = []
  try {
    let servers: ReadonlyArray<Running> = [ground.server, await ground.cluster.run("server 2", ["server"])]
    const tell = (order: Order) => {
      for (const told of tells) told(order)
    }
    const urls = () => tell({ urls: servers.map(({ url }) => url) })
    // An application knows one address for good, whoever listens behind it.
    for (const at of [0, 1]) {
      const proxy = new LossyProxy(() => Number(new URL(servers[at]!.url).port))
      await proxy.listen()
      proxies.push(proxy)
    }
    const seen = (fleet: ChildProcess, name: string, heard: (sighted: (all: Sighted) => void) => void) => {
      fleets.push(fleet)
      return new Promise<Sighted>((resolve, reject) => {
        heard(resolve)
        fleet.once("error", reject)
        fleet.once("exit", (code) => reject(new Error(`${name} ended with ${code}`)))
      })
    }
    const crowd = (program: string, args: ReadonlyArray<string>): Promise<Sighted> => {
      const fleet = fork(fileURLToPath(new URL(program, import.meta.url)), args)
      tells.push((order) => fleet.send(order))
      return seen(fleet, program, (resolve) => fleet.once("message", resolve))
    }
    const pythonCrowd = (args: ReadonlyArray<string>): Promise<Sighted> => {
      const program = fileURLToPath(new URL("./pythonCrowd.py", import.meta.url))
      const PYTHONPATH = fileURLToPath(new URL("../../clients/python/src", import.meta.url))
      const fleet = spawn(PYTHON, [program, ...args], {
        env: { ...process.env, PYTHONPATH },
        stdio: ["pipe", "pipe", "inherit"]
      })
      tells.push((order) => {
        if ("settle" in order) fleet.stdin.end(`${JSON.stringify(order)}\n`)
      })
      return seen(fleet, program, (resolve) => {
        createInterface(fleet.stdout).once("line", (line) => resolve(JSON.parse(line) as Sighted))
      })
    }
    const market = [String(SYMBOLS), String(ground.tokens[0]!)]
    const addresses = proxies.map(({ port }) => `http://127.0.0.1:${port}`).join(",")
    const answers = [
      ...Array.from({ length: FLEETS }, (_, i) =>
        crowd("./fleet.ts", [String(i + 1), String(CLIENTS / FLEETS), ...market])
      ),
      crowd("./libraryCrowd.ts", [addresses, String(APPLICATIONS), ...market]),
      pythonCrowd([addresses, String(APPLICATIONS), ...market])
    ]
    for (const answer of answers) answer.catch(() => {})
    const feed = await ground.play(rate)
    urls()
    report.tell("the feed runs, and the clients come")

    let late = 0
    const from = now()
    const lateTick = async (): Promise<void> => {
      const token = ground.tokens[late++ % SYMBOLS]!
      const exchange_ts = Math.floor(now() - Math.random() * OLDEST_MS * 1000)
      const tick = { feed: "late", instrument_token: token, exchange_ts, price: 100 + (late % 7), volume: 1 }
      const target = servers[late % servers.length]!
      await fetch(`${target.url}/api/v1/ingest`, {
        method: "POST",
        headers: { "content-type": "application/x-ndjson" },
        body: JSON.stringify(tick)
      }).catch(() => undefined)
    }
    let kills = 0
    let nextKill = Date.now() + KILL_EVERY_MS
    const until = Date.now() + seconds * 1000
    while (Date.now() < until) {
      await lateTick()
      await sleep(LATE_EVERY_MS)
      if (Date.now() < nextKill || until - Date.now() < KILL_EVERY_MS / 2) continue
      // The one that is asked stays for the account: the other dies, and every second time they change places.
      const dying = servers[1]!
      await ground.cluster.kill(dying)
      kills++
      const fresh = await ground.cluster.run(`server ${kills + 2}`, ["server"])
      while ((await fetch(`${fresh.url}/readyz`)).status !== 200) await sleep(50)
      servers = [fresh, servers[0]!]
      ground.server = fresh
      urls()
      nextKill = Date.now() + KILL_EVERY_MS
    }
    const meant = await feed.stop()
    report.tell(`the feed has ended after ${meant.length} ticks, ${late} late ones and ${kills} kills`)
    const ends = await ground.ends()
    const isStored = await ground.storeReaches(ends, 60_000)
    tell({ settle: await placesOf(ground) })
    const { counts, bars, problems, unsettled } = together(await Promise.all(answers))
    report.table([
      ["what", "times"],
      ...Object.entries(counts)
        .sort(([a], [b]) => a.localeCompare(b))
        .map(([name, n]) => [name, String(n)])
    ])
    report.check(
      "every stream obeys the rule, message by message, under every policy",
      problems.length === 0 && (counts.tick ?? 0) > 0,
      `${counts.tick} ticks, ${counts.connections} connections`,
      problems.slice(0, 10)
    )
    report.check(
      "every stream that is listened to ends where the log does",
      unsettled.length === 0,
      `${unsettled.length} do not`,
      unsettled.slice(0, 10)
    )
    for (const policy of ["pause", "disconnect"]) {
      const lost = counts[`evicted deep ${policy}`] ?? 0
      report.check(`clients under ${policy} lost nothing, however long they slept`, lost === 0, `${lost} ticks`)
    }
    for (const policy of ["evict-oldest", "conflate"]) {
      const lost = counts[`evicted deep ${policy}`] ?? 0
      report.check(`clients under ${policy} that slept long were told of losses`, lost > 0, `${lost} ticks`)
    }
    const told = counts.closing ?? 0
    report.check("clients under disconnect were told where they stood", told > 0, `${told} times`)

    for (const library of LIBRARIES) {
      const given = counts[`${library} tick`] ?? 0
      report.check(
        `applications on the ${library === "python" ? "Python" : "TypeScript"} client had a stream each that obeys the rule`,
        given > 0,
        `${given} ticks over ${counts[`${library} connections`]} connections`
      )
    }

    const differing: Array<string> = []
    let compared = 0
    for (const token of ground.tokens) {
      for (const interval of INTERVALS) {
        const span = `from=${Math.floor(from - OLDEST_MS * 1000 - LONGEST_BAR_MICROS)}&to=${Math.floor(now() + 60_000_000)}`
        const url = `${ground.server.url}/api/v1/historical/candles?instrument_token=${token}&interval=${interval}&${span}`
        const { candles } = (await (await fetch(url)).json()) as { candles: ReadonlyArray<{ readonly ts: number }> }
        const byStart = new Map(candles.map((candle) => [candle.ts, candle as unknown as Record<string, unknown>]))
        for (const [name, revisions] of bars) {
          if (!name.startsWith(`${token}/${interval}/`)) continue
          compared++
          const last = Math.max(...revisions.keys())
          const sent = JSON.parse(revisions.get(last)!) as Record<string, unknown>
          const answered = byStart.get(Number(name.slice(name.lastIndexOf("/") + 1)))
          const isSame = ["open", "high", "low", "close", "volume"].every((key) => sent[key] === answered?.[key])
          if (!isSame) differing.push(`${name}: sent ${revisions.get(last)}, REST ${JSON.stringify(answered)}`)
        }
      }
    }
    report.check(
      "the last revision of every bar that was sent is what REST answers",
      isStored && compared > 0 && differing.length === 0,
      `${compared} bars`,
      differing.slice(0, 10)
    )
    const alarms = ground.cluster.alarms
    report.check("nothing ended by itself", alarms.length === 0, `${alarms.length} alarms`, alarms.slice(0, 5))
  } finally {
    for (const fleet of fleets) fleet.kill("SIGKILL")
    for (const proxy of proxies) proxy.close()
    await ground.close()
  }
}
