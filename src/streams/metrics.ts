/** Decides every figure an operator can read: all metric handles, their names and labels, in one file. */
import { type Context, Metric } from "effect"

type Labels = Readonly<Record<string, string>>

/** A metric, and how to have it with labels: as one of its own, whose series is found without making its key anew. */
type Labelled<M> = M & { readonly labelled: (labels: Labels) => M }

const labelled = <M extends object>(of: (attributes: Labels | undefined) => M): Labelled<M> =>
  Object.assign(of(undefined), { labelled: of })

/** One figure as a page tells of it. */
export interface MetricDescription {
  readonly name: string
  readonly type: "counter" | "gauge" | "histogram"
  readonly labels: ReadonlyArray<string>
  readonly description: string
}

const described: Array<MetricDescription> = []
/** Every figure there is, in the order of this file. */
export const catalog: ReadonlyArray<MetricDescription> = described

/** A counter with the names of its labels. */
const counter = (name: string, description: string, ...labels: ReadonlyArray<string>) => {
  described.push({ name, type: "counter", labels, description })
  return labelled((attributes) => Metric.counter(name, { description, incremental: true, attributes }))
}
const gauge = (name: string, description: string, ...labels: ReadonlyArray<string>) => {
  described.push({ name, type: "gauge", labels, description })
  return labelled((attributes) => Metric.gauge(name, { description, attributes }))
}
const histogram = (
  name: string,
  options: { readonly description: string; readonly boundaries: Array<number> },
  ...labels: ReadonlyArray<string>
) => {
  described.push({ name, type: "histogram", labels, description: options.description })
  return labelled((attributes) => Metric.histogram(name, { ...options, attributes }))
}

export const stageReceived = counter(
  "topology_stage_received_events_total",
  "Ticks (records at decode) that a stage took in",
  "stage"
)
export const stageSent = counter("topology_stage_sent_events_total", "Ticks that a stage handed on", "stage")
export const stageDiscarded = counter(
  "topology_stage_discarded_events_total",
  "Ticks that a stage took out, by reason",
  "stage",
  "reason"
)
export const bufferSize = gauge("topology_buffer_size_events", "What waits in a bounded buffer", "buffer")
export const bufferMaxSize = gauge("topology_buffer_max_size_events", "The most a bounded buffer holds", "buffer")
export const bufferBytes = gauge("topology_buffer_size_bytes", "Bytes that wait in a bounded buffer", "buffer")
export const bufferMaxBytes = gauge("topology_buffer_max_size_bytes", "The most bytes a bounded buffer holds", "buffer")
export const sinkFlush = histogram(
  "topology_sink_flush_seconds",
  {
    description: "Time a sink took to write one batch",
    boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
  },
  "sink"
)
export const consumerLag = gauge(
  "topology_consumer_lag_records",
  "Records between what a group has committed and the end of the log",
  "group",
  "topic",
  "partition"
)
export const heldRecords = gauge(
  "topology_group_held_records",
  "Records a group has taken and gathers before it writes and commits them; they count in its lag until then",
  "group",
  "topic",
  "partition"
)
export const partitionsAssigned = gauge(
  "topology_partition_assigned",
  "1 while this process runs a partition of a group",
  "group",
  "partition"
)
export const lostRecords = counter(
  "topology_log_lost_records_total",
  "Records that the log no longer held when a group was to take them",
  "group",
  "topic",
  "partition"
)
export const tickLatency = histogram(
  "topology_tick_latency_seconds",
  {
    description: "Time a tick took over one edge: exchange to received, received to published, published to client",
    boundaries: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 60]
  },
  "edge"
)
export const gaps = counter("topology_gaps_total", "Gaps opened in contiguous sequences")
export const gapFills = counter("topology_gap_fills_total", "Missing numbers that came while their gap was open")
export const lostTicks = counter(
  "topology_lost_ticks_total",
  "Missing numbers that had not come when their gap was given up"
)
export const feedWins = counter(
  "topology_feed_wins_total",
  "Ticks published, by the feed that brought them first",
  "feed"
)
export const feedLead = histogram(
  "topology_feed_lead_seconds",
  {
    description: "By how much the winning feed was ahead when the other's copy came",
    boundaries: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5]
  },
  "feed"
)
export const claimsDegraded = gauge("topology_claims_degraded", "1 while ticks pass without a claim")
export const checkpointsDegraded = gauge("topology_snapshots_degraded", "1 while partition states cannot be kept")
export const claimsForeign = counter("topology_claims_foreign_total", "Ticks that another writer had claimed")
export const orderAlarms = counter(
  "topology_order_alarms_total",
  "Positions that were not the last one plus one",
  "reader"
)
export const newEpochs = counter("topology_new_epochs_total", "Instrument days begun afresh")
export const feedClockAhead = gauge(
  "topology_feed_clock_ahead_seconds",
  "How far ahead of the log's clock a feed stamps, while what it stamps so goes to the DLQ",
  "feed"
)
export const processInstruments = gauge(
  "topology_process_instruments",
  "Instruments whose day a partition of process holds",
  "partition"
)
export const processForgotten = counter(
  "topology_process_instruments_forgotten_total",
  "Instruments silent longest whose day was forgotten because there were too many"
)
export const newSessions = counter(
  "topology_new_sessions_total",
  "Numberings begun in the midst of an instrument's day, by what opened them",
  "reason"
)
export const subscribers = gauge("topology_subscribers", "WebSocket clients connected")
export const evictions = counter(
  "topology_evictions_total",
  "Ticks that slow clients were told as missing, by policy; evict-longest: all queues together were full",
  "policy"
)
export const clientPauses = counter(
  "topology_client_pauses_total",
  "Times that a client with policy pause did not read, and its streams waited"
)
export const pausedClients = gauge("topology_clients_paused", "WebSocket clients whose streams wait until they read on")
export const behindClients = gauge(
  "topology_clients_behind",
  "WebSocket clients that do not read: CLIENT_FLIGHT_BYTES are on their way to them"
)
export const latestDropped = counter(
  "topology_latest_dropped_total",
  "Bars, states and quotes given up that waited for a WebSocket client: of one that reads too slowly the oldest of too many"
)
export const barsGivenUp = counter(
  "topology_bars_given_up_total",
  "Live bars of which a late tick was not told: too many waited for the store, or it did not answer",
  "reason"
)
export const httpRequestsActive = gauge(
  "topology_http_requests_active",
  "Requests under way, by kind: operator, body (being received), ordinary, stream, drain (refused, still being sent); listener: kite's are the gateway's",
  "kind",
  "listener"
)
export const httpRefused = counter(
  "topology_http_refused_total",
  "Connections and requests refused or ended before their answer was whole, by kind and reason",
  "kind",
  "reason"
)
export const httpAnswers = counter(
  "topology_http_answers_total",
  "Requests answered, by route and status",
  "route",
  "status"
)
export const httpBodyBytes = counter("topology_http_body_bytes_total", "Bytes of requests' bodies that came in")
export const httpConnections = gauge(
  "topology_http_connections",
  "Connections that are open, WebSockets included; listener: kite's are the gateway's",
  "listener"
)
export const httpMaxConnections = gauge(
  "topology_http_max_connections",
  "The most connections that are let be open: the process's file descriptors less those kept for drivers",
  "listener"
)
export const kiteConnections = gauge("topology_kite_connections", "Clients of the Kite gateway's ticker")
export const kiteSubscriptions = gauge(
  "topology_kite_subscriptions",
  "Instruments that they subscribe to, all together"
)
export const tlsExpires = gauge(
  "topology_tls_expires_seconds",
  "Until the certificate that is shown expires; below 0 once it has"
)
export const tlsRenewals = counter(
  "topology_tls_renewals_total",
  "Certificates that took the place of another, and those that could not (refused), by outcome",
  "outcome"
)
export const clientsEnded = counter("topology_clients_ended_total", "WebSocket clients that are gone, by why", "reason")
export const upgradesRefused = counter(
  "topology_upgrades_refused_total",
  "WebSocket upgrades refused, by why",
  "reason"
)
export const messagesRefused = counter("topology_messages_refused_total", "WebSocket messages refused, by code", "code")
export const apiKeys = gauge("topology_api_keys", "API keys that hold")
export const apiKeysDegraded = gauge(
  "topology_api_keys_degraded",
  "1 while API_KEYS_FILE cannot be used, and the keys read before hold"
)
export const unauthorized = counter(
  "topology_unauthorized_total",
  "Requests, connections and messages without a key that holds, by why",
  "reason"
)
export const keyRequests = counter("topology_key_requests_total", "Requests let in by a key", "key")
export const keyRefused = counter(
  "topology_key_refused_total",
  "What a key was refused: scope, instruments, rate (REQUESTS_PER_KEY), connections (CONNECTIONS_PER_KEY)",
  "key",
  "reason"
)
export const keyConnections = gauge("topology_key_connections", "WebSocket clients of a key", "key")
export const unknownInstruments = gauge("topology_unknown_instruments", "Tokens seen that no instrument has")
export const instrumentsLeftOut = gauge(
  "topology_instruments_left_out",
  "Rows of the instruments table that are no instrument, or too many, and so cannot be found"
)
export const residentMemory = gauge("process_resident_memory_bytes", "Memory of this process, threads included")
export const heapUsed = gauge("process_heap_used_bytes", "Of it, what lies in the heap of the main thread")
export const externalMemory = gauge("process_external_memory_bytes", "Of it, buffers that the main thread holds")

/** Binds labels and context, so that updating is one call. */
export const bind = <Input, State>(
  metric: Labelled<Metric.Metric<Input, State>>,
  labels: Labels,
  context: Context.Context<never>
): { readonly add: (value: Input) => void } => {
  const bound = Object.keys(labels).length === 0 ? metric : metric.labelled(labels)
  return { add: (value) => bound.updateUnsafe(value, context) }
}
