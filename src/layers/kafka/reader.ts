/**
 * Decides how a partition is read from Kafka: as a stream at its reader's pace, one fetch ahead, waiting for a broker that
 * is away; or a piece of it at once. Readers of one group share their fetches.
 */
import { type Array as Arr, Cause, Effect, Stream } from "effect"
import { LogError } from "../../schema/Errors.ts"
import type { LogRecord, Slice, TickLog, Topic } from "../../streams/log/TickLog.ts"
import { inTurns, live, TURN_RECORDS, turn } from "../../streams/run/turns.ts"
import { backoff, inOneLine, isPassing, isStale, type KafkaCluster, pause } from "./cluster.ts"
import { KafkaFetcher, type LogPlace } from "./fetcher.ts"
import { decodeBatches } from "./recordBatch.ts"
import { failure, recreated, type TopicState, type Topics } from "./topics.ts"
import { CODE, type Fetched, KafkaRefusal, KafkaUnreadable } from "./Wire.ts"

/** How long a broker may wait for records of a piece that is asked for: the piece is what is there. */
const SLICE_WAIT_MS = 1

/** What a broker is asked for by these numbers: the first offset, and the one after the last. */
export const START = -2
export const END = -1
/**
 * Sinks write in batches: at the end of their partitions they look this often, so that a tick is not a fetch and a batch
 * for each of them.
 */
const SINK_LOOK_MS = 50
/** What sinks ask of a partition while live ticks are read: it is decoded in one go. */
const SINK_FETCH_BYTES = 131_072
/**
 * On the way to live clients ticks of several partitions that come within so short a time share an answer
 * (figures in docs/decisions/0009).
 */
const LIVE_LOOK_MS = 1
/** What reads without a group, as a server does. No group is named like this. */
const UNGROUPED = ""

export type Records = Arr.NonEmptyReadonlyArray<LogRecord>

export interface ReaderOptions {
  readonly fetchBytes: number
  readonly fetchWaitMs: number
  readonly fetchConnections: number
  /** Records handed to a reader at a time. */
  readonly batch: number
}

interface Shared {
  readonly cluster: KafkaCluster
  readonly topics: Topics
  readonly options: ReaderOptions
  readonly fetcherOf: (group: string) => KafkaFetcher
}

const isLive = (group: string): boolean => group === UNGROUPED || group === "process"

/** One reader of one partition: `next` answers the next array and waits for it; `stop` ends a wait. */
class Reader {
  readonly #shared: Shared
  readonly #state: TopicState
  readonly #partition: number
  readonly #incarnation: string
  readonly #fetcher: KafkaFetcher
  readonly #isLive: boolean
  #offset: number
  /** Bytes that the fetch under way may bring. */
  #asked = 0
  #recordTime = 0
  #ready: Array<LogRecord> = []
  #taken = 0
  #ahead: Promise<Fetched> | undefined
  #stopped = false
  #place: LogPlace = "end"

  constructor(shared: Shared, state: TopicState, partition: number, from: number, incarnation: string, group: string) {
    this.#shared = shared
    this.#state = state
    this.#partition = partition
    this.#offset = from
    this.#incarnation = incarnation
    this.#isLive = isLive(group)
    this.#fetcher = shared.fetcherOf(group)
  }

  stop(): void {
    this.#stopped = true
  }

  #fetch(): Promise<Fetched> {
    const isSmall = !this.#isLive && inTurns()
    this.#asked = isSmall
      ? Math.min(this.#shared.options.fetchBytes, SINK_FETCH_BYTES)
      : this.#shared.options.fetchBytes
    const part = {
      topic: this.#state.name,
      topicId: this.#incarnation,
      partition: this.#partition,
      offset: this.#offset,
      maxBytes: this.#asked
    }
    return this.#fetcher.fetch(part, this.#place, () => !this.#stopped)
  }

  async next(): Promise<Records | LogError> {
    let silentSince: number | undefined
    for (let attempt = 0; this.#taken >= this.#ready.length; ) {
      if (this.#stopped) return failure("read", this.#state, this.#partition, "the reader was stopped")
      if (this.#state.incarnation !== this.#incarnation) return recreated("read", this.#state, this.#partition)
      if (this.#shared.cluster.closed) return failure("read", this.#state, this.#partition, "the log was closed")
      let fetched: Fetched
      try {
        fetched = await (this.#ahead ?? this.#fetch())
        this.#ahead = undefined
        if (fetched.code !== CODE.NONE && fetched.code !== CODE.OFFSET_OUT_OF_RANGE) {
          throw new KafkaRefusal(fetched.code, "fetch")
        }
        if (fetched.code === CODE.NONE) this.#take(fetched)
      } catch (cause) {
        this.#ahead = undefined
        if (cause instanceof KafkaUnreadable) {
          const where = `${this.#state.name}-${this.#partition} from offset ${this.#offset} on`
          const message = `${where} cannot be read: ${inOneLine(cause)}`
          return failure("read", this.#state, this.#partition, message)
        }
        if (!isPassing(cause)) return failure("read", this.#state, this.#partition, inOneLine(cause))
        // A broker away is waited for: nothing is lost by it, and nobody else could read either.
        if (silentSince === undefined) {
          silentSince = Date.now()
          if (attempt > 2)
            this.#shared.topics.warn(
              `${this.#state.name}-${this.#partition} cannot be read just now: ${inOneLine(cause)}`
            )
        } else if (Date.now() - silentSince > 30_000) silentSince = undefined
        this.#shared.cluster.stale()
        if (cause instanceof KafkaRefusal && isStale(cause.code))
          await this.#shared.topics.look().catch(() => undefined)
        await pause(backoff(attempt++))
        continue
      }
      attempt = 0
      if (fetched.code === CODE.OFFSET_OUT_OF_RANGE) {
        const out = await this.#outOfRange()
        if (out === undefined) continue
        return out
      }
      // The next fetch is under way while the reader works on this one: one ahead, never more.
      if (this.#ready.length > 0) {
        this.#ahead = this.#fetch()
        this.#ahead.catch(() => undefined)
      }
    }
    const left = this.#ready.length - this.#taken
    let batch = Math.min(left, this.#shared.options.batch)
    if (!this.#isLive) {
      if (inTurns()) batch = Math.min(batch, TURN_RECORDS)
      await turn(batch)
    } else live(this.#recordTime)
    if (batch === this.#ready.length) {
      const all = this.#ready
      this.#ready = []
      return all as unknown as Records
    }
    const some = this.#ready.slice(this.#taken, this.#taken + batch)
    this.#taken += some.length
    if (this.#taken >= this.#ready.length) {
      this.#ready = []
      this.#taken = 0
    }
    return some as unknown as Records
  }

  async #outOfRange(): Promise<LogError | undefined> {
    try {
      await this.#shared.topics.look()
      if (this.#state.incarnation !== this.#incarnation) return recreated("read", this.#state, this.#partition)
      const [starts, ends] = await this.#shared.topics.ask((open) =>
        Promise.all([
          open.offsets(this.#state.name, [this.#partition], START),
          open.offsets(this.#state.name, [this.#partition], END)
        ])
      )
      const start = starts.get(this.#partition)!
      const end = ends.get(this.#partition)!
      // A replica that has just become leader may be a moment behind.
      if (this.#offset >= start && this.#offset <= end) return undefined
      const message =
        this.#offset < start
          ? `offset ${this.#offset} is no longer held: the log starts at ${start}`
          : `offset ${this.#offset} is not held: the log ends at ${end}`
      return failure("read", this.#state, this.#partition, message, "not_held")
    } catch (cause) {
      const message = `offset ${this.#offset} is not held, and where the log starts is not known: ${inOneLine(cause)}`
      return failure("read", this.#state, this.#partition, message, "not_held")
    }
  }

  #take({ bytes, aborted }: Fetched): void {
    const { records, next, recordTime } = decodeBatches(bytes, this.#offset, this.#recordTime, aborted)
    const isCut = bytes.length > 0 && next === this.#offset
    // One at most, the first.
    const unreadable = records[0]?.unreadable
    if (unreadable !== undefined) {
      this.#shared.topics.warn(`${this.#state.name}-${this.#partition}: ${unreadable.message}; it is passed over`)
    }
    this.#place = isCut ? "cut" : bytes.length >= this.#asked / 4 ? "behind" : "end"
    this.#offset = next
    this.#recordTime = recordTime
    this.#ready = records
    this.#taken = 0
  }
}

export interface KafkaReads extends Pick<TickLog["Service"], "read" | "slice" | "bounds" | "offsetAt"> {
  /** For a member of a group: of a topic in the incarnation in which the member joined. */
  readonly readFrom: (
    state: TopicState,
    partition: number,
    from: number,
    incarnation: string,
    group: string,
    until?: Effect.Effect<void>
  ) => Stream.Stream<Records, LogError>
}

export const kafkaReads = (cluster: KafkaCluster, topics: Topics, options: ReaderOptions): KafkaReads => {
  const fetchers = new Map<string, KafkaFetcher>()
  const fetcherOf = (group: string): KafkaFetcher => {
    let fetcher = fetchers.get(group)
    if (fetcher === undefined) {
      fetcher = new KafkaFetcher(cluster, group, {
        maxWaitMs: options.fetchWaitMs,
        connections: options.fetchConnections,
        lookMs: isLive(group) ? LIVE_LOOK_MS : SINK_LOOK_MS
      })
      fetchers.set(group, fetcher)
    }
    return fetcher
  }
  const shared: Shared = { cluster, topics, options, fetcherOf }

  const readFrom = (
    state: TopicState,
    partition: number,
    from: number,
    incarnation: string,
    group: string,
    until: Effect.Effect<void> = Effect.never
  ): Stream.Stream<Records, LogError> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const reader = yield* Effect.acquireRelease(
          Effect.sync(() => new Reader(shared, state, partition, from, incarnation, group)),
          (open) => Effect.sync(() => open.stop())
        )
        // Not Stream.interruptWhen: its queue costs every batch two fibers' turns, and its sets of waiters keep alive
        // what went through them until the heap is collected as a whole (docs/decisions/0012).
        let isOver = false
        let end = () => {}
        const over = Effect.sync(() => {
          isOver = true
          end()
        })
        yield* Effect.forkScoped(Effect.andThen(until, over), { startImmediately: true })
        return Stream.fromEffectRepeat(
          Effect.callback<Records, LogError | Cause.Done>((resume) => {
            if (isOver) return resume(Cause.done())
            end = () => resume(Cause.done())
            reader.next().then(
              (got) => resume(got instanceof LogError ? Effect.fail(got) : Effect.succeed(got)),
              (cause) => resume(Effect.die(cause))
            )
          })
        )
      })
    )

  const query = <A>(
    topic: Topic,
    partition: number,
    request: (cluster: KafkaCluster, name: string) => Promise<A>
  ): Effect.Effect<A, LogError> =>
    Effect.suspend(() => {
      const state = topics.known(topic, partition)
      return Effect.tryPromise({
        try: () => topics.ask((open) => request(open, state.name)),
        catch: (cause) => failure("read", state, partition, inOneLine(cause))
      })
    })

  const bounds = (topic: Topic, partition: number) =>
    query(topic, partition, async (open, name) => {
      const [start, end] = await Promise.all([
        open.offsets(name, [partition], START),
        open.offsets(name, [partition], END)
      ])
      return { start: start.get(partition)!, end: end.get(partition)! }
    })

  const slice = (topic: Topic, partition: number, from: number, limit: number): Effect.Effect<Slice, LogError> => {
    const { incarnation } = topics.of(topic)
    return Effect.flatMap(
      query(topic, partition, async (open, name) => {
        const wire = await open.patient("slice", await open.leader(name, partition))
        const part = { topic: name, topicId: incarnation, partition, offset: from, maxBytes: options.fetchBytes }
        const [fetched] = await wire.fetch({ parts: [part], maxBytes: options.fetchBytes, maxWaitMs: SLICE_WAIT_MS })
        const { code, bytes, aborted } = fetched!
        if (code === CODE.OFFSET_OUT_OF_RANGE) return undefined
        if (code !== CODE.NONE) throw new KafkaRefusal(code, "fetch")
        const { records, next } = decodeBatches(bytes, from, 0, aborted)
        return records.length <= limit
          ? { records, next }
          : { records: records.slice(0, limit), next: records[limit - 1]!.offset + 1 }
      }),
      (found) => {
        if (found !== undefined) return Effect.succeed(found)
        return Effect.flatMap(bounds(topic, partition), ({ start }) =>
          start > from ? slice(topic, partition, start, limit) : Effect.succeed({ records: [], next: from })
        )
      }
    )
  }

  return {
    readFrom,
    read: (topic, partition, from) =>
      Stream.suspend(() => {
        const state = topics.known(topic, partition)
        return readFrom(state, partition, from, state.incarnation, UNGROUPED)
      }),
    slice,
    bounds,
    offsetAt: (topic, partition, micros) =>
      query(topic, partition, async (open, name) => {
        const at = await open.offsets(name, [partition], Math.max(0, Math.ceil(micros / 1000)))
        const found = at.get(partition)!
        return found >= 0 ? found : (await open.offsets(name, [partition], END)).get(partition)!
      })
  }
}
