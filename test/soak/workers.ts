/**
 * Decides what becomes of twelve partitions when one of three workers is killed, another joins, and one is stopped in
 * order: who has each, for how long it was silent, and whether its instruments go on where they stood.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Admin } from "@platformatic/kafka"
import { decodeTick } from "../../src/schema/TickJson.ts"
import { Ground, now, type SoakOptions } from "./ground.ts"
import { seconds as inSeconds, type Report } from "./report.ts"

/** So many that every partition has ticks all the time. */
const SYMBOLS = 300
const WORKERS = 3
const CALM_S = 10
/** A partition's new owner is known this long after the session ended, and it is heard again. */
const TAKEN_OVER_MS = 10_000
/** What stays where it was goes on, whoever comes and goes. */
const STAYS_MS = 3000
const SETTLES_WITHIN_MS = 60_000

/** Partition to member. */
type Owners = ReadonlyMap<number, string>

class Members {
  readonly #admin: Admin
  readonly #partitions: number
  /** Member to the worker's number. */
  readonly names = new Map<string, string>()

  constructor(brokers: string, partitions: number) {
    this.#admin = new Admin({ clientId: "soak", bootstrapBrokers: brokers.split(","), retries: 10 })
    this.#partitions = partitions
  }

  async #look(): Promise<{ readonly members: ReadonlySet<string>; readonly owners: Owners }> {
    const group = (await this.#admin.describeGroups({ groups: ["process"] })).get("process")
    const owners = new Map<number, string>()
    const members = new Set<string>()
    for (const [id, { assignments }] of group?.members ?? []) {
      members.add(id)
      for (const partition of assignments?.get("raw_ticks")?.partitions ?? []) owners.set(partition, id)
    }
    return group?.state.toUpperCase() === "STABLE" ? { members, owners } : { members, owners: new Map() }
  }

  /** Waits until so many members share all partitions; who is new has the name. */
  async settled(count: number, name?: string): Promise<Owners> {
    const until = Date.now() + SETTLES_WITHIN_MS
    while (Date.now() < until) {
      const { members, owners } = await this.#look()
      if (members.size === count && owners.size === this.#partitions) {
        if (name !== undefined) for (const id of members) if (!this.names.has(id)) this.names.set(id, name)
        return owners
      }
      await sleep(100)
    }
    throw new Error(`${count} members did not share all partitions within ${SETTLES_WITHIN_MS / 1000} s`)
  }

  of(owners: Owners, partition: number): string {
    return this.names.get(owners.get(partition)!) ?? "?"
  }

  close(): Promise<void> {
    return this.#admin.close()
  }
}

interface Event {
  readonly name: string
  readonly from: number
  readonly to: number
  readonly before: Owners
  readonly after: Owners
}

/** The longest time in ms between two appends, of those that reach into the span; to its end where nothing came any more. */
export const longestHole = (times: ReadonlyArray<number>, from: number, to: number): number => {
  let longest = 0
  let last = from
  for (const time of times) {
    if (time >= from) longest = Math.max(longest, Math.min(time, to) - last)
    if (time >= to) return longest / 1000
    last = time
  }
  return Math.max(longest, to - last) / 1000
}

export const workers = async ({ engine, seconds, rate }: SoakOptions, report: Report): Promise<void> => {
  process.stdout.write(`workers, ${engine}: ${WORKERS} workers, ${rate} ticks/s, ${seconds} s after each event\n`)
  const ground = await Ground.set(engine, SYMBOLS)
  const { KAFKA_SESSION_TIMEOUT_MS: sessionMs, KAFKA_HEARTBEAT_MS: heartbeatMs, PARTITIONS } = ground.settings
  process.stdout.write(
    `  KAFKA_SESSION_TIMEOUT_MS is ${sessionMs}: only after this long without a heartbeat (one every ${heartbeatMs} ms) is a killed\n` +
      "  worker known to be gone; its partitions are silent at least that long, less up to a heartbeat\n"
  )
  const members = new Members(ground.cluster.settings.KAFKA_BROKERS!, PARTITIONS)
  try {
    await members.settled(1, "1")
    while (ground.workers.length < WORKERS) {
      await ground.worker()
      await members.settled(ground.workers.length, String(ground.workers.length))
    }
    const feed = await ground.play(rate)
    await sleep(CALM_S * 1000)
    const calm = { from: now(), to: 0 }
    await sleep(CALM_S * 1000)
    calm.to = now()

    const events: Array<Event> = []
    const happens = async (name: string, count: number, fault: () => Promise<string | undefined>): Promise<void> => {
      const before = await members.settled(ground.cluster.processes.filter(isWorking).length)
      const from = now()
      report.tell(name)
      const newcomer = await fault()
      // The member of a killed worker is still in the group until its session ends.
      let after = await members.settled(count, newcomer)
      const until = Date.now() + seconds * 1000
      while (Date.now() < until) {
        await sleep(200)
        after = await members.settled(count)
      }
      events.push({ name, from, to: now(), before, after })
    }
    const isWorking = ({ name, mdp }: (typeof ground.cluster.processes)[number]) =>
      name.startsWith("worker") && !mdp.isOver
    await happens("kill -9 of worker 1", 2, async () => {
      await ground.cluster.kill(ground.workers[0]!)
      return undefined
    })
    await happens("worker 4 joins", 3, async () => {
      await ground.worker()
      return "4"
    })
    let stopped: number | null = null
    let stoppedIn = 0
    await happens("SIGTERM to worker 2", 2, async () => {
      const from = now()
      stopped = await ground.cluster.stop(ground.workers[1]!)
      stoppedIn = (now() - from) / 1000
      return undefined
    })
    const meant = await feed.stop()
    report.tell(`the feed has ended after ${meant.length} ticks`)

    // Record times of every partition, and of every instrument where its ticks lie in time.
    const appended: Array<ReadonlyArray<number>> = []
    const instruments: Array<Map<number, { epochs: Set<number>; first: number; last: number }>> = []
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const times: Array<number> = []
      const seen: (typeof instruments)[number] = new Map()
      await ground.read(partition, (records) => {
        for (const { recordTime, value } of records) {
          times.push(recordTime)
          const tick = value === null ? undefined : decodeTick(value)
          if (tick === undefined) continue
          const known = seen.get(tick.instrument_token)
          if (known === undefined) {
            seen.set(tick.instrument_token, { epochs: new Set([tick.epoch]), first: recordTime, last: recordTime })
          } else {
            known.epochs.add(tick.epoch)
            known.last = recordTime
          }
        }
      })
      appended.push(times)
      instruments.push(seen)
    }

    const silent = events.map(({ from, to }) => appended.map((times) => longestHole(times, from, to)))
    const moved = (event: Event, partition: number) =>
      members.of(event.before, partition) !== members.of(event.after, partition)
    const ms = (n: number) => `${Math.round(n)} ms`
    process.stdout.write(
      "  the longest time without an append to normalized_ticks, and the worker that has the partition:\n"
    )
    report.table([
      ["partition", "calm", ...events.map(({ name }) => name)],
      ...appended.map((times, partition) => [
        String(partition),
        ms(longestHole(times, calm.from, calm.to)),
        ...events.map((event, i) => {
          const { before, after } = event
          const who = moved(event, partition)
            ? `${members.of(before, partition)} → ${members.of(after, partition)}`
            : `    ${members.of(after, partition)}`
          return `${ms(silent[i]![partition]!)}  ${who}`
        })
      ])
    ])

    const all = appended.map((_, partition) => partition)
    events.forEach((event, i) => {
      const gone = all.filter((partition) => moved(event, partition))
      const most = (of: ReadonlyArray<number>) => Math.max(0, ...of.map((partition) => silent[i]![partition]!))
      const bound = (i === 0 ? sessionMs : 0) + TAKEN_OVER_MS
      report.check(
        `${event.name}: what moved was heard again within ${inSeconds(bound)}`,
        gone.length > 0 && most(gone) <= bound,
        `${gone.length} partitions moved, silent for ${ms(most(gone))} at most`
      )
      const stayed = all.filter((partition) => !moved(event, partition))
      report.check(
        `${event.name}: what stayed went on, silent for ${inSeconds(STAYS_MS)} at most`,
        most(stayed) <= STAYS_MS,
        `${stayed.length} partitions stayed, silent for ${ms(most(stayed))} at most`
      )
      const across = gone.flatMap((partition) =>
        [...instruments[partition]!.values()].filter(({ first, last }) => first < event.from && last >= event.from)
      )
      const same = across.filter(({ epochs }) => epochs.size === 1).length
      report.check(
        `${event.name}: state moved along, so that every instrument of a moved partition went on in its epoch`,
        across.length > 0 && same === across.length,
        `${same} of ${across.length} instruments`
      )
    })
    const killed = all.filter((partition) => members.of(events[0]!.before, partition) === "1")
    report.check(
      "only the killed worker's partitions moved",
      killed.length > 0 && all.every((partition) => moved(events[0]!, partition) === killed.includes(partition)),
      `${killed.length} of ${PARTITIONS} were its`
    )
    report.check("the stopped worker ended in order", stopped === 0, `exit ${stopped} after ${ms(stoppedIn)}`)
    await ground.closeAccount(report, meant)
  } finally {
    await members.close()
    await ground.close()
  }
}
