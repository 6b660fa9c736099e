/**
 * Decides how the stages are joined into groups: one table says what each group reads, runs and writes, and what its
 * buffers hold. The commands start groups from it; lag, `/topology` and topology.md tell of it.
 */
import type { Effect } from "effect"
import type { LogError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import type { FanOut } from "./fanOut/Hub.ts"
import { MAX_WAITING } from "./fanOut/StoredBars.ts"
import { serveLive } from "./fanOut/serveLive.ts"
import { FOLLOW_DISCARDS, quotesOf } from "./log/follow.ts"
import type { TickLog, Topic } from "./log/TickLog.ts"
import type { Archive } from "./ports/Archive.ts"
import type { Checkpoints } from "./ports/Checkpoints.ts"
import type { Claims } from "./ports/Claims.ts"
import type { RecentQuotes } from "./ports/RecentQuotes.ts"
import type { RecentTicks } from "./ports/RecentTicks.ts"
import type { TickStore } from "./ports/TickStore.ts"
import { DISCARDS } from "./process/batch.ts"
import { STAGE_NODES } from "./process/process.ts"
import { runProcess } from "./process/runProcess.ts"
import type { Replays } from "./replay/Replays.ts"
import type { Drain } from "./run/Drain.ts"
import type { Readiness } from "./run/Readiness.ts"
import { compactDays } from "./sinks/compactDays.ts"
import { refreshCandles } from "./sinks/refreshCandles.ts"
import { retention } from "./sinks/retention.ts"
import { ARCHIVE_DISCARDS, writeArchive } from "./sinks/writeArchive.ts"
import { RING_DISCARDS, writeRecentTicks } from "./sinks/writeRecentTicks.ts"
import { STORE_DISCARDS, writeStore } from "./sinks/writeStore.ts"

/** What a full buffer does to who fills it. */
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
  | "KAFKA_FETCH_BYTES"
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

/** What runs for as long as its process; by its name it is logged, and degraded where it fails. */
export interface Part<R> {
  readonly name: string
  readonly run: Effect.Effect<void, LogError, R>
}

/** A consumer group, or the readers of a server, which are in none. */
export interface Group<R> {
  readonly reads: Topic
  /** Whether it takes records on purpose long before it writes and commits them. */
  readonly gathers: boolean
  readonly parts: (settings: Settings) => ReadonlyArray<Part<R>>
  /** `discards`: why it takes out what it does, of each that counts what goes through it. */
  readonly nodes: ReadonlyArray<readonly [id: string, kind: NodeKind, does: string, discards?: ReadonlyArray<string>]>
  /** From the log that it reads to what it writes. */
  readonly edges: (settings: TopologySettings) => ReadonlyArray<TopologyEdge>
}

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

/** Kafka holds what its retention says, and is never full for who writes: what waits in a process is what it fetched. */
const readFrom = (topic: Topic, to: string, settings: TopologySettings): TopologyEdge =>
  settings.KAFKA_BROKERS === undefined
    ? buffered(
        topic,
        to,
        topic,
        settings.LOG_CAPACITY_RECORDS,
        "records a partition",
        "block",
        settings.LOG_CAPACITY_BYTES
      )
    : buffered(topic, to, "fetched", settings.KAFKA_FETCH_BYTES, "bytes a partition", "block")

const writtenTo = (from: string, settings: TopologySettings): TopologyEdge =>
  settings.KAFKA_BROKERS === undefined
    ? buffered(
        from,
        "raw_ticks_dlq",
        "raw_ticks_dlq",
        settings.DLQ_CAPACITY_RECORDS,
        "records a partition",
        "drop-oldest",
        settings.DLQ_CAPACITY_BYTES
      )
    : { from, to: "raw_ticks_dlq" }

/** What reads `normalized_ticks` for a sink or a server; ticks and quotes are counted apart. */
const follows = (reader: string): Group<never>["nodes"] => [
  [reader, "stage", "drops what was published again", FOLLOW_DISCARDS],
  [quotesOf(reader), "stage", "drops quotes that were published again", FOLLOW_DISCARDS]
]
/** The way of the quotes, beside that of the ticks. */
const quotesThrough = (reader: string, to: string): ReadonlyArray<TopologyEdge> => [
  { from: "normalized_ticks", to: quotesOf(reader) },
  { from: quotesOf(reader), to }
]
/** The stages that ticks go through. */
const OF_TICKS = STAGE_NODES.filter(([id]) => id !== "quote")

const process: Group<TickLog | Claims | Checkpoints | Readiness> = {
  reads: "raw_ticks",
  gathers: false,
  parts: (settings) => [{ name: "process", run: runProcess(settings) }],
  nodes: STAGE_NODES.map(([id, does]) => [id, "stage", does, DISCARDS[id]]),
  edges: (settings) => [
    readFrom("raw_ticks", "decode", settings),
    ...OF_TICKS.slice(1).map(([to], i) => ({ from: OF_TICKS[i]![0], to })),
    { from: "decode", to: "quote" },
    { from: "quote", to: "publish" },
    { from: "publish", to: "normalized_ticks" },
    writtenTo("publish", settings)
  ]
}

const store: Group<TickLog | TickStore | Archive | Readiness | Drain> = {
  reads: "normalized_ticks",
  gathers: false,
  parts: (settings) => [
    { name: "store", run: writeStore(settings) },
    { name: "candles", run: refreshCandles(settings) },
    { name: "old days", run: retention(settings) }
  ],
  nodes: [
    ...follows("follow-store"),
    ["store", "sink", "ticks, candles and bookmarks in one transaction", STORE_DISCARDS],
    [quotesOf("store"), "sink", "quotes, and the open interest of bars, in the same one", STORE_DISCARDS]
  ],
  edges: (settings) => [
    readFrom("normalized_ticks", "follow-store", settings),
    buffered("follow-store", "store", "store", settings.STORE_BATCH_TICKS * 2, "ticks", "block"),
    ...quotesThrough("follow-store", quotesOf("store"))
  ]
}

const recent: Group<TickLog | RecentTicks | RecentQuotes | Readiness | Drain> = {
  reads: "normalized_ticks",
  gathers: false,
  parts: (settings) => [{ name: "ring", run: writeRecentTicks(settings) }],
  nodes: [
    ...follows("follow-ring"),
    ["ring", "sink", "newest ticks of each instrument", RING_DISCARDS],
    [quotesOf("ring"), "sink", "latest quote of each instrument", RING_DISCARDS]
  ],
  edges: (settings) => [
    readFrom("normalized_ticks", "follow-ring", settings),
    buffered("follow-ring", "ring", "ring", settings.RING_TICKS, "ticks an instrument", "drop-oldest"),
    ...quotesThrough("follow-ring", quotesOf("ring"))
  ]
}

const archive: Group<TickLog | Archive | Readiness | Drain> = {
  reads: "normalized_ticks",
  gathers: true,
  parts: (settings) => [
    { name: "archive", run: writeArchive(settings) },
    { name: "compaction", run: compactDays }
  ],
  nodes: [
    ...follows("follow-archive"),
    ["archive", "sink", "Parquet, a range of a partition and a trading day an object", ARCHIVE_DISCARDS],
    [quotesOf("archive"), "sink", "quotes of the same ranges, in objects of their own", ARCHIVE_DISCARDS]
  ],
  edges: (settings) => [
    readFrom("normalized_ticks", "follow-archive", settings),
    buffered("follow-archive", "archive", "archive", settings.ARCHIVE_BATCH_TICKS * 2, "ticks a partition", "block"),
    ...quotesThrough("follow-archive", quotesOf("archive"))
  ]
}

const server: Group<TickLog | Readiness | FanOut | Replays> = {
  reads: "normalized_ticks",
  gathers: false,
  parts: () => [{ name: "server", run: serveLive }],
  nodes: [
    ...follows("follow-server"),
    ["reorder-by-watermark", "stage", "puts a replay back in global order by its watermarks"],
    ["fan-out", "server", "WebSocket: backfill, then live, one queue a client"],
    ["rest", "server", "history, quotes, instruments, replays"]
  ],
  edges: (settings) => [
    readFrom("normalized_ticks", "follow-server", settings),
    { from: "follow-server", to: "reorder-by-watermark" },
    { from: "reorder-by-watermark", to: "fan-out" },
    buffered("follow-server", "fan-out", "client", settings.CLIENT_CAPACITY, "ticks a client", "evict"),
    ...quotesThrough("follow-server", "fan-out"),
    { from: "store", to: "rest" },
    { from: "ring", to: "fan-out" },
    buffered("store", "fan-out", "stored_bars", MAX_WAITING, "bars of five minutes", "drop-oldest")
  ]
}

/** The table: by the names that its consumer groups have in the log. */
export const groups = { process, store, recent, archive, server } as const

/** The groups that a worker may run; every server reads for itself. */
export const STAGES = ["process", "store", "recent", "archive"] as const
export type Stage = (typeof STAGES)[number]

/** What lag is told of: the topic that each consumer group reads. */
export const consumerGroups: ReadonlyMap<string, Topic> = new Map(STAGES.map((stage) => [stage, groups[stage].reads]))

/** The groups that take records on purpose long before they write and commit them. */
export const gatheringGroups: ReadonlySet<string> = new Set(STAGES.filter((stage) => groups[stage].gathers))

/** The whole topology with the capacities in force. */
export const describe = (settings: TopologySettings): TopologyDescription => {
  const sources: ReadonlyArray<TopologyNode> = [
    { id: "dma", kind: "source", does: "tick-by-tick feed" },
    { id: "snapshot", kind: "source", does: "conflated backup feed" },
    { id: "ingest", kind: "source", does: "POST /api/v1/ingest and feed commands" },
    { id: "replay", kind: "source", does: "a stored day, paced, in global order" },
    { id: "raw_ticks", kind: "log", does: "every tick as its feed sent it" },
    { id: "normalized_ticks", kind: "log", does: "every tick once, ordered, gaps marked; quotes beside" },
    { id: "raw_ticks_dlq", kind: "log", does: "what cannot go on, as it came, with the reason" }
  ]
  return {
    nodes: [
      ...sources,
      ...Object.entries(groups).flatMap(([name, { nodes }]) =>
        nodes.map(
          ([id, kind, does]): TopologyNode => (name === "server" ? { id, kind, does } : { id, kind, group: name, does })
        )
      )
    ],
    edges: [
      { from: "dma", to: "raw_ticks" },
      { from: "snapshot", to: "raw_ticks" },
      { from: "ingest", to: "raw_ticks" },
      { from: "store", to: "replay" },
      buffered("replay", "raw_ticks", "replay_window", settings.REPLAY_WINDOW_TICKS, "ticks, all replays", "block"),
      ...Object.values(groups).flatMap(({ edges }) => edges(settings))
    ]
  }
}
