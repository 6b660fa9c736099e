/**
 * Decides how the stages are joined into groups, and describes that as data: nodes, edges, capacities, and what a full
 * buffer does. The commands, `/topology` and topology.md all read it from here.
 */
import { Effect, Stream } from "effect"
import type { LogError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import type { Claims } from "./ports/Claims.ts"
import { feedClocks } from "./process/feedClocks.ts"
import { type LostOffsetsSettings, lostOffsets } from "./run/lostOffsets.ts"
import { type ProcessSettings, processPartition } from "./process/process.ts"
import type { Readiness } from "./run/Readiness.ts"
import { aloneInGroup } from "./run/restart.ts"
import type { StateSnapshots } from "./ports/StateSnapshots.ts"
import { TickLog } from "./log/TickLog.ts"

/**
 * The group `process`: one pipeline an assigned partition, started on assignment, ended on revocation; degraded while
 * one of them keeps failing.
 */
export const runProcess = (
  settings: ProcessSettings & LostOffsetsSettings
): Effect.Effect<void, LogError, TickLog | Claims | StateSnapshots | Readiness> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const lost = yield* lostOffsets("process", "raw_ticks", settings)
    const clocks = yield* feedClocks
    const run = aloneInGroup("process")((assigned) =>
      processPartition(
        {
          ...assigned,
          read: (from, until) =>
            Stream.unwrap(Effect.as(lost.reached(assigned.partition, from), assigned.read(from, until)))
        },
        settings,
        lost,
        clocks
      ).pipe(Effect.raceFirst(assigned.revoked))
    )
    yield* log
      .assignments("process", "raw_ticks")
      .pipe(Stream.mapEffect(run, { concurrency: "unbounded" }), Stream.runDrain)
  }).pipe(Effect.scoped)

/** What a full buffer does. */
export type WhenFull = "block" | "drop-newest" | "drop-oldest" | "evict"

export type NodeKind = "source" | "log" | "stage" | "sink" | "server"

export interface TopologyNode {
  readonly id: string
  readonly kind: NodeKind
  /** The consumer group whose member runs it. */
  readonly group?: string
  readonly does: string
}

export interface TopologyEdge {
  readonly from: string
  readonly to: string
  /** The bounded buffer on the edge, where there is one; its name is the label of its metrics, where it has some. */
  readonly buffer?: {
    readonly name: string
    readonly capacity: number
    readonly unit: string
    readonly whenFull: WhenFull
    /** The same limit in bytes, where there is one beside. */
    readonly bytes?: number
  }
}

export interface TopologyDescription {
  readonly nodes: ReadonlyArray<TopologyNode>
  readonly edges: ReadonlyArray<TopologyEdge>
}

export type TopologySettings = Pick<
  Settings,
  | "KAFKA_BROKERS"
  | "LOG_CAPACITY_RECORDS"
  | "LOG_CAPACITY_BYTES"
  | "DLQ_CAPACITY_RECORDS"
  | "DLQ_CAPACITY_BYTES"
  | "STORE_BATCH_TICKS"
  | "ARCHIVE_BATCH_TICKS"
  | "RING_TICKS"
  | "CLIENT_CAPACITY"
  | "REPLAY_WINDOW_TICKS"
>

/** The whole topology with the capacities in force. */
export const describe = (settings: TopologySettings): TopologyDescription => {
  const node = (id: string, kind: NodeKind, does: string, group?: string): TopologyNode =>
    group === undefined ? { id, kind, does } : { id, kind, group, does }
  const buffered = (
    from: string,
    to: string,
    name: string,
    capacity: number,
    unit: string,
    whenFull: WhenFull,
    bytes?: number
  ): TopologyEdge => ({
    from,
    to,
    buffer: { name, capacity, unit, whenFull, ...(bytes === undefined ? {} : { bytes }) }
  })
  const raw = settings.LOG_CAPACITY_RECORDS
  // Kafka holds what its retention says: no buffer of a process, and never full for who writes.
  const logged = (...edge: Parameters<typeof buffered>): TopologyEdge =>
    settings.KAFKA_BROKERS === undefined ? buffered(...edge) : { from: edge[0], to: edge[1] }
  const rawBytes = settings.LOG_CAPACITY_BYTES
  return {
    nodes: [
      node("dma", "source", "tick-by-tick feed"),
      node("snapshot", "source", "conflated backup feed"),
      node("ingest", "source", "POST /api/v1/ingest and feed commands"),
      node("replay", "source", "a stored day, paced, in global order"),
      node("raw_ticks", "log", "every tick as its feed sent it"),
      node("decode", "stage", "reads raw records; what cannot be read goes to the DLQ", "process"),
      node("normalize", "stage", "one form, identity, trading day; stamps too far ahead go to the DLQ", "process"),
      node("deduplicate", "stage", "sessions, arbitration between feeds, each identity once", "process"),
      node("sequence", "stage", "gaps, status, volume, epoch and position", "process"),
      node("publish", "stage", "writes clean ticks and dead letters, then commits", "process"),
      node("normalized_ticks", "log", "every tick once, ordered, gaps marked"),
      node("raw_ticks_dlq", "log", "what cannot go on, as it came, with the reason"),
      node("follow-store", "stage", "drops what was published again", "store"),
      node("store", "sink", "ticks, candles and bookmarks in one transaction", "store"),
      node("follow-ring", "stage", "drops what was published again", "recent"),
      node("ring", "sink", "newest ticks of each instrument", "recent"),
      node("follow-archive", "stage", "drops what was published again", "archive"),
      node("archive", "sink", "Parquet, a range of a partition and a trading day an object", "archive"),
      node("follow-server", "stage", "drops what was published again"),
      node("reassemble", "stage", "puts a replay back in global order by its watermarks"),
      node("fan-out", "server", "WebSocket: backfill, then live, one queue a client"),
      node("rest", "server", "history, quotes, instruments, replays")
    ],
    edges: [
      { from: "dma", to: "raw_ticks" },
      { from: "snapshot", to: "raw_ticks" },
      { from: "ingest", to: "raw_ticks" },
      buffered("replay", "raw_ticks", "replay_window", settings.REPLAY_WINDOW_TICKS, "ticks, all replays", "block"),
      logged("raw_ticks", "decode", "raw_ticks", raw, "records a partition", "block", rawBytes),
      { from: "decode", to: "normalize" },
      { from: "normalize", to: "deduplicate" },
      { from: "deduplicate", to: "sequence" },
      { from: "sequence", to: "publish" },
      { from: "publish", to: "normalized_ticks" },
      logged(
        "publish",
        "raw_ticks_dlq",
        "raw_ticks_dlq",
        settings.DLQ_CAPACITY_RECORDS,
        "records a partition",
        "drop-oldest",
        settings.DLQ_CAPACITY_BYTES
      ),
      logged("normalized_ticks", "follow-store", "normalized_ticks", raw, "records a partition", "block", rawBytes),
      buffered("follow-store", "store", "store", settings.STORE_BATCH_TICKS * 2, "ticks", "block"),
      { from: "normalized_ticks", to: "follow-ring" },
      buffered("follow-ring", "ring", "ring", settings.RING_TICKS, "ticks an instrument", "drop-oldest"),
      { from: "normalized_ticks", to: "follow-archive" },
      buffered("follow-archive", "archive", "archive", settings.ARCHIVE_BATCH_TICKS * 2, "ticks a partition", "block"),
      { from: "normalized_ticks", to: "follow-server" },
      { from: "follow-server", to: "reassemble" },
      { from: "reassemble", to: "fan-out" },
      buffered("follow-server", "fan-out", "client", settings.CLIENT_CAPACITY, "ticks a client", "evict"),
      { from: "store", to: "rest" },
      { from: "store", to: "replay" },
      { from: "ring", to: "fan-out" },
      { from: "store", to: "fan-out" }
    ]
  }
}

/** What a buffer holds at most. */
const capacityOf = ({ capacity, unit, bytes }: NonNullable<TopologyEdge["buffer"]>): string =>
  bytes === undefined ? `${capacity} ${unit}` : `${capacity} ${unit}, ${bytes} bytes`

/** As a Mermaid flow chart. */
export const toMermaid = ({ nodes, edges }: TopologyDescription): string => {
  const id = (name: string) => name.replaceAll("-", "_")
  const shape = (n: TopologyNode) =>
    n.kind === "log"
      ? `${id(n.id)}[(${n.id})]`
      : n.kind === "source"
        ? `${id(n.id)}([${n.id}])`
        : `${id(n.id)}[${n.id}]`
  const groups = [...new Set(nodes.flatMap((n) => (n.group === undefined ? [] : [n.group])))]
  return [
    "flowchart LR",
    ...nodes.filter((n) => n.group === undefined).map((n) => `  ${shape(n)}`),
    ...groups.flatMap((group) => [
      `  subgraph group_${group} [group ${group}]`,
      ...nodes.filter((n) => n.group === group).map((n) => `    ${shape(n)}`),
      "  end"
    ]),
    ...edges.map(({ from, to, buffer }) =>
      buffer === undefined
        ? `  ${id(from)} --> ${id(to)}`
        : `  ${id(from)} -->|"${capacityOf(buffer)}, full: ${buffer.whenFull}"| ${id(to)}`
    )
  ].join("\n")
}

/** As text for a terminal: each node with where it hands on to. */
export const toText = ({ nodes, edges }: TopologyDescription): string => {
  const width = Math.max(...nodes.map((n) => n.id.length))
  const lines: Array<string> = []
  for (const n of nodes) {
    lines.push(`${n.id.padEnd(width)}  ${n.does}${n.group === undefined ? "" : `  [group ${n.group}]`}`)
    const out = edges.filter((edge) => edge.from === n.id)
    out.forEach(({ to, buffer }, i) => {
      const branch = i === out.length - 1 ? "└─►" : "├─►"
      const held = buffer === undefined ? "" : `  (${capacityOf(buffer)}; full: ${buffer.whenFull})`
      lines.push(`${" ".repeat(width)}  ${branch} ${to}${held}`)
    })
  }
  return lines.join("\n")
}
