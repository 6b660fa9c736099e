/**
 * Decides whether one misbehaving client or feed costs the others anything: ten good clients beside one of each kind,
 * their latency with and without it, the memory of worker and server, and the figure in /metrics that names it.
 *
 * All of it runs on one host, the misbehaver too, which in life has a machine of its own. What it takes of the cores just
 * by being there is not the platform's doing: before each kind a bystander is there, as busy, that knows nothing of the
 * platform, in turns with the kind, and the good clients beside a kind are held against those beside the bystander.
 */
import { type ChildProcess, fork } from "node:child_process"
import { readFile } from "node:fs/promises"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Ground, now, residentMb, type SoakOptions } from "./ground.ts"
import { LiveClient, latencies, type Percentiles, type Range, type Span } from "./latency.ts"
import type { Report } from "./report.ts"

const SYMBOLS = 50
const CLIENTS = 10
const WARM_UP_S = 30
/** What an interrupted misbehaver leaves is let go before anything else is measured. */
const REST_S = 2
/** Bystander and misbehaver take turns: what the host itself does meanwhile falls on both. */
const TURNS = 3
/**
 * Where a kind's p99 counts as unchanged: its middle turn lies among the lower nine tenths of the bystander's, which differ
 * by up to four times among themselves on two cores that run everything.
 */
const ORDINARY = 0.9
const FLAT = 1.15

/** Each kind, and what of /metrics names it: any of these grows while it is there. */
const KINDS: Readonly<Record<string, ReadonlyArray<string>>> = {
  "pings-unread": ['topology_clients_ended_total{reason="too_many_messages"}'],
  "since-storm": ['topology_clients_ended_total{reason="too_', "topology_messages_refused_total"],
  "many-tokens": ['topology_clients_ended_total{reason="too_', "topology_messages_refused_total"],
  "never-reads": [
    "topology_evictions_total",
    'topology_clients_ended_total{reason="unread"}',
    'topology_buffer_size_events{buffer="clients"'
  ],
  "connect-flood": ["topology_upgrades_refused_total", "topology_http_refused_total"],
  "broken-frames": ['topology_messages_refused_total{code="bad_message"}'],
  "half-sent": ['topology_http_refused_total{kind="body"'],
  "unread-streams": ['topology_http_refused_total{kind="stream"'],
  searches: [
    'topology_http_answers_total{route="/api/v1/instruments/search",status="200"',
    'topology_http_refused_total{kind="ordinary"'
  ],
  "unknown-names": ['topology_http_answers_total{route="/api/v1/historical/candles",status="404"'],
  "huge-fields": ['topology_stage_discarded_events_total{stage="ingest",reason="invalid"'],
  "unheard-tokens": ["topology_unknown_instruments"]
}

type Figures = ReadonlyMap<string, number>

const figuresOf = async (urls: ReadonlyArray<string>): Promise<Figures> => {
  const found = new Map<string, number>()
  for (const url of urls) {
    const text = await (await fetch(`${url}/metrics`, { headers: { connection: "close" } })).text()
    for (const line of text.split("\n")) {
      if (line.startsWith("#") || line === "") continue
      const at = line.lastIndexOf(" ")
      const name = line.slice(0, at)
      found.set(name, (found.get(name) ?? 0) + Number(line.slice(at + 1)))
    }
  }
  return found
}

/** Figures that grew, those of ordinary work left out. */
const grown = (before: Figures, after: Figures): ReadonlyArray<string> =>
  [...after].filter(([name, n]) => n > (before.get(name) ?? 0)).map(([name]) => name)

const start = (kind: string, url: string): ChildProcess =>
  fork(fileURLToPath(new URL("./misbehavior.ts", import.meta.url)), [kind, url])

/** Linux counts CPU in hundredths of a second. */
const TICKS_PER_SECOND = 100

/** Seconds of CPU that a process has had; NaN where the system does not say. */
const cpuSeconds = async (pid: number | undefined): Promise<number> => {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
  // The name, in parentheses, may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** Waits for so many seconds, and looks once a second. */
const during = async (seconds: number, look?: () => Promise<void>): Promise<Range> => {
  const from = now()
  while (now() - from < seconds * 1e6) {
    await sleep(1000)
    await look?.()
  }
  return { from, to: now() }
}

const mean = (list: ReadonlyArray<number>): number => list.reduce((sum, n) => sum + n, 0) / list.length

export const misbehave = async (
  { engine, seconds, rate, kinds: asked }: SoakOptions,
  report: Report
): Promise<void> => {
  const kinds = asked.length === 0 ? Object.keys(KINDS) : asked
  const unknown = kinds.find((kind) => KINDS[kind] === undefined)
  if (unknown !== undefined)
    throw new Error(`--kinds: expected some of ${Object.keys(KINDS).join(", ")}, got ${unknown}`)
  process.stdout.write(
    `misbehave, ${engine}: ${rate} ticks/s, ${CLIENTS} good clients, each of ${kinds.length} kinds ${TURNS} times for ${seconds} s\n`
  )
  const ground = await Ground.set(engine, SYMBOLS)
  const clients = Array.from({ length: CLIENTS }, () => new LiveClient(ground.server.url, ground.tokens))
  const processes = [ground.workers[0]!, ground.server]
  const urls = processes.map(({ url }) => url)
  try {
    while (!clients.every(({ isSubscribed }) => isSubscribed)) await sleep(20)
    const feed = await ground.play(rate)
    report.tell("the feed runs")
    await sleep(WARM_UP_S * 1000)
    const quiet: Array<Range> = [{ from: now(), to: now() + seconds * 1e6 }]
    await sleep(seconds * 1000)
    /** Beside the bystander of each kind, and beside the kind. */
    const calm: Array<ReadonlyArray<Range>> = []
    const spans: Array<Span> = []
    /** Of one core, in each kind's time: the worker's, the server's and the misbehaver's own. */
    const cpu: Array<ReadonlyArray<number>> = []
    const memory: Array<ReadonlyArray<number>> = []
    const named = new Map<string, ReadonlyArray<string>>()
    for (const kind of kinds) {
      const beside: Array<Range> = []
      const ranges: Array<Range> = []
      const used: Array<ReadonlyArray<number>> = []
      const samples: Array<ReadonlyArray<number>> = []
      const grew = new Set<string>()
      let healthy = 0
      for (let turn = 0; turn < TURNS; turn++) {
        const usual = await figuresOf(urls)
        const neighbour = start("bystander", ground.server.url)
        beside.push(await during(seconds))
        neighbour.kill("SIGKILL")
        const before = await figuresOf(urls)
        const ordinary = new Set(grown(usual, before))
        const child = start(kind, ground.server.url)
        const measured = [...processes.map(({ mdp }) => mdp.child.pid), child.pid]
        const cpuBefore = await Promise.all(measured.map(cpuSeconds))
        const range = await during(seconds, async () => void samples.push(await residentMb(processes)))
        const cpuAfter = await Promise.all(measured.map(cpuSeconds))
        const health = await fetch(`${ground.server.url}/healthz`)
        if (health.status === 200) healthy++
        const after = await figuresOf(urls)
        child.kill("SIGKILL")
        ranges.push(range)
        const elapsed = (range.to - range.from) / 1e6
        used.push(cpuAfter.map((after, i) => (after - cpuBefore[i]!) / elapsed))
        for (const name of grown(before, after)) if (!ordinary.has(name) && !name.includes("_bucket")) grew.add(name)
        await sleep(REST_S * 1000)
      }
      calm.push(beside)
      spans.push({ name: kind, ranges })
      cpu.push(used[0]!.map((_, i) => mean(used.map((turn) => turn[i]!))))
      memory.push(processes.map((_, i) => mean(samples.map((sample) => sample[i]!))))
      named.set(kind, [...grew])
      const sizes = memory.at(-1)!.map((mb) => mb.toFixed(0))
      report.tell(`${kind}: /healthz 200 ${healthy} of ${TURNS} times, worker and server ${sizes.join(" and ")} MB`)
    }
    const meant = await feed.stop()
    report.tell(`the feed has ended after ${meant.length} ticks`)
    await sleep(REST_S * 1000)

    const windows = calm.flat()
    const found = await latencies(ground, clients, [
      { name: "nobody", ranges: quiet },
      { name: "a bystander", ranges: windows },
      ...spans,
      // Each window by itself.
      ...[...windows, ...spans.flatMap(({ ranges }) => ranges)].map((range): Span => ({ name: "", ranges: [range] }))
    ])
    const [nobody, bystander] = found as [Percentiles, Percentiles]
    const rows = found.slice(2, 2 + kinds.length)
    const each = found.slice(2 + kinds.length).map(({ p99 }) => p99)
    const besideBystander = each.slice(0, windows.length).sort((a, b) => a - b)
    const bound = besideBystander[Math.floor(besideBystander.length * ORDINARY)]!
    const p99s = kinds.map((_, i) => each.slice(windows.length + i * TURNS, windows.length + (i + 1) * TURNS))
    const cells = ({ count, ...times }: Percentiles) => [
      String(count),
      ...Object.values(times).map((ms: number) => ms.toFixed(1))
    ]
    const listed = (times: ReadonlyArray<number>) => times.map((ms) => ms.toFixed(0)).join(" ")
    report.table([
      [
        "beside",
        "deliveries",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "most ms",
        "p99 by turn",
        "worker MB",
        "server MB",
        "cores"
      ],
      ["nobody", ...cells(nobody), "", "", "", ""],
      ["a bystander", ...cells(bystander), "", "", "", ""],
      ...rows.map((row, i) => [
        kinds[i]!,
        ...cells(row),
        listed(p99s[i]!),
        ...memory[i]!.map((mb) => mb.toFixed(0)),
        cpu[i]!.map((share) => share.toFixed(2)).join(" ")
      ])
    ])
    report.tell(`p99 beside the bystander, by turn: ${listed(besideBystander)}`)
    p99s.forEach((times, i) => {
      const p99 = [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)]!
      const measured = `${p99.toFixed(1)} ms in the middle turn, at most ${bound.toFixed(1)}`
      report.check(`good clients' p99 is unchanged beside ${kinds[i]}`, p99 <= bound, measured)
    })
    for (const [kind, names] of named) {
      const own = names.filter((name) => KINDS[kind]!.some((meant) => name.startsWith(meant)))
      report.check(`/metrics names ${kind}`, own.length > 0, own.join(", ") || `grew: ${names.join(", ") || "nothing"}`)
    }
    for (const [i, name] of ["worker", "server"].entries()) {
      const quarter = Math.max(1, Math.floor(memory.length / 4))
      const sizes = memory.map((sizes) => sizes[i]!)
      const second = mean(sizes.slice(quarter, 2 * quarter))
      const last = mean(sizes.slice(-quarter))
      report.check(
        `the ${name}'s memory is flat: the last quarter's mean at most ${FLAT} × the second's`,
        last <= FLAT * second,
        `${last.toFixed(0)} MB after ${second.toFixed(0)} MB`
      )
    }
    const undisturbed = clients.filter(({ evicted, isClosed }) => evicted === 0 && !isClosed).length
    report.check("no good client was disconnected or evicted", undisturbed === CLIENTS, `${undisturbed} of ${CLIENTS}`)
    const ended = processes.filter(({ mdp }) => mdp.isOver).map(({ name }) => name)
    report.check("worker and server live", ended.length === 0, ended.join(", ") || "both")
  } catch (error) {
    for (const { name, mdp } of processes) {
      const state = mdp.isOver ? `ended with ${mdp.code ?? mdp.signal}` : "lives"
      report.tell(`${name}: ${state}; its last lines:\n${mdp.stderr.slice(-2000)}`)
    }
    throw error
  } finally {
    for (const client of clients) client.close()
    await ground.close()
  }
}
