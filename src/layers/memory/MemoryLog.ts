/**
 * Decides how the log lives in one process: partitions as arrays in memory, bounded in records and in bytes, consumer
 * groups with real assignment, a fresh incarnation at every start. What a group has yet to take is never dropped: a full
 * partition blocks its producers.
 */
import { randomUUID } from "node:crypto"
import { type Array as Arr, Cause, Clock, Deferred, Effect, Layer, Queue, Stream } from "effect"
import { LogError } from "../../schema/Errors.ts"
import {
  type AssignedPartition,
  type Commit,
  type LogRecord,
  type NewRecord,
  TickLog,
  TOPICS,
  type Topic
} from "../../streams/log/TickLog.ts"

export interface MemoryLogOptions {
  readonly partitions: number
  /** Records a partition holds at most. `raw_ticks` and `normalized_ticks` block when full, the DLQ drops its oldest. */
  readonly capacity: number
  readonly dlqCapacity: number
  /** Records a partition keeps after every reader has passed them. */
  readonly retained: number
  /** Records handed to a reader at a time. */
  readonly batch: number
  /** The same limits in bytes (`sizeOf`); by default none. */
  readonly bytes?: {
    readonly capacity: number
    readonly dlqCapacity: number
    readonly retained: number
  }
}

/** Bytes handed to a reader at a time, unless a single record has more. */
export const READ_BYTES = 1024 * 1024

/** What a record takes beside its texts and its value: its object, its place in the array, the value's view. */
const RECORD_BYTES = 160
const HEADER_BYTES = 32

/** About what a record takes in memory. */
export const sizeOf = ({ key, value, headers }: NewRecord): number => {
  let size = RECORD_BYTES + (value === null ? 0 : value.byteLength) + (key === null ? 0 : key.length)
  if (headers !== undefined) {
    for (const name in headers) size += HEADER_BYTES + name.length + headers[name]!.length * 2
  }
  return size
}

/** One partition: `records[i]` has offset `start + i - head`. Dropping is amortised by moving `head`. */
class PartitionLog {
  records: Array<LogRecord> = []
  /** Index in `records` of the oldest record still held. */
  head = 0
  /** Offset of the oldest record still held. */
  start = 0
  /** What the records held take. */
  bytes = 0
  lastRecordTime = 0
  /** Readers waiting for the next record, and producers waiting for room. */
  readers: Array<() => void> = []
  readonly producers: Array<() => void> = []
  /** Offsets that may not be dropped yet: one entry a group or reader. */
  readonly holds = new Map<object, number>()

  get end(): number {
    return this.start + this.records.length - this.head
  }

  drop(count: number): void {
    for (let i = 0; i < count; i++) {
      this.bytes -= sizeOf(this.records[this.head + i]!)
      this.records[this.head + i] = undefined as never
    }
    this.head += count
    this.start += count
    if (this.head > 1024 && this.head * 2 > this.records.length) {
      this.records = this.records.slice(this.head)
      this.head = 0
    }
  }

  /** The oldest offset that some group or reader has yet to take; the end where there is none. */
  get held(): number {
    let oldest = this.end
    for (const offset of this.holds.values()) if (offset < oldest) oldest = offset
    return Math.max(oldest, this.start)
  }

  /** Drops what nobody holds beyond so many records and bytes. */
  trim(records: number, bytes: number): void {
    const { held } = this
    const count = Math.min(held, this.end - records) - this.start
    if (count > 0) this.drop(count)
    while (this.bytes > bytes && this.start < held) this.drop(1)
  }

  /** The records from an index on, up to a number of them and `READ_BYTES`, and one at least. */
  slice(at: number, most: number): ReadonlyArray<LogRecord> {
    const { records } = this
    const end = Math.min(records.length, at + most)
    let to = at
    for (let bytes = 0; to < end; to++) {
      bytes += sizeOf(records[to]!)
      if (bytes > READ_BYTES && to > at) break
    }
    return records.slice(at, to)
  }

  wakeProducers(): void {
    for (const wake of this.producers.splice(0)) wake()
  }

  wakeReaders(): void {
    const waiting = this.readers
    this.readers = []
    for (const wake of waiting) wake()
  }
}

interface Member {
  readonly id: number
  readonly queue: Queue.Queue<AssignedPartition, Cause.Done>
  readonly owned: Map<number, Deferred.Deferred<void>>
}

class Group {
  readonly members: Array<Member> = []
  readonly committed = new Map<number, Commit>()
}

const make = (options: MemoryLogOptions): Effect.Effect<TickLog["Service"]> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const topics = new Map<Topic, { readonly incarnation: string; readonly partitions: ReadonlyArray<PartitionLog> }>()
    for (const topic of TOPICS) {
      topics.set(topic, {
        incarnation: randomUUID(),
        partitions: Array.from({ length: options.partitions }, () => new PartitionLog())
      })
    }
    const groups = new Map<string, Group>()
    let nextMember = 0

    const most = options.bytes?.capacity ?? Number.POSITIVE_INFINITY
    const mostOfDlq = options.bytes?.dlqCapacity ?? Number.POSITIVE_INFINITY
    const retainedBytes = options.bytes?.retained ?? Number.POSITIVE_INFINITY
    const trim = (log: PartitionLog): void => log.trim(options.retained, retainedBytes)
    /** After a hold has moved. */
    const release = (log: PartitionLog): void => {
      trim(log)
      log.wakeProducers()
    }

    const logOf = (topic: Topic, partition: number): PartitionLog => {
      const log = topics.get(topic)?.partitions[partition]
      if (log === undefined) throw new RangeError(`${topic} has no partition ${partition}`)
      return log
    }

    const append = (topic: Topic, partition: number, records: ReadonlyArray<NewRecord>) =>
      Effect.suspend((): Effect.Effect<number, LogError> => {
        const log = logOf(topic, partition)
        const isDlq = topic === "raw_ticks_dlq"
        let size = 0
        for (const record of records) {
          const bytes = sizeOf(record)
          if (isDlq && bytes > mostOfDlq) {
            return new LogError({
              operation: "append",
              topic,
              partition,
              outcome: "failed",
              reason: "too_large",
              message: `a record of ${bytes} bytes: ${topic} holds ${mostOfDlq} a partition`
            })
          }
          size += bytes
        }
        const write = (): number => {
          const now = Math.floor(Number(clock.currentTimeNanosUnsafe() / 1000n))
          const recordTime = Math.max(now, log.lastRecordTime)
          log.lastRecordTime = recordTime
          const first = log.end
          let offset = first
          for (const { key, value, headers } of records) {
            log.records.push({ key, value, headers, offset: offset++, recordTime })
          }
          log.bytes += size
          if (isDlq) {
            const over = log.end - log.start - options.dlqCapacity
            if (over > 0) log.drop(over)
            while (log.bytes > mostOfDlq) log.drop(1)
          } else trim(log)
          log.wakeReaders()
          return first
        }
        // An append larger than the whole capacity is let in once nobody holds anything.
        const hasRoom = () => {
          if (isDlq) return true
          trim(log)
          const held = log.end - log.held
          return held === 0 || (held + records.length <= options.capacity && log.bytes + size <= most + retainedBytes)
        }
        if (hasRoom()) return Effect.succeed(write())
        return Effect.callback<number>((resume) => {
          const wake = () => {
            if (hasRoom()) resume(Effect.succeed(write()))
            else log.producers.push(wake)
          }
          log.producers.push(wake)
          return Effect.sync(() => {
            const at = log.producers.indexOf(wake)
            if (at >= 0) log.producers.splice(at, 1)
          })
        })
      })

    /** The next array at or after `from`; waits for one. `undefined` once `closed` completes. */
    const pull = (topic: Topic, log: PartitionLog, from: { offset: number }, isClosed: () => boolean) =>
      Effect.suspend((): Effect.Effect<Arr.NonEmptyReadonlyArray<LogRecord>, LogError | Cause.Done> => {
        const take = (): Effect.Effect<Arr.NonEmptyReadonlyArray<LogRecord>, LogError | Cause.Done> | undefined => {
          if (isClosed()) return Cause.done()
          if (from.offset < log.start) {
            return Effect.fail(
              new LogError({
                operation: "read",
                topic,
                partition: topics.get(topic)!.partitions.indexOf(log),
                outcome: "failed",
                reason: "not_held",
                message: `offset ${from.offset} is no longer held: the log starts at ${log.start}`
              })
            )
          }
          if (from.offset >= log.end) return undefined
          const at = log.head + from.offset - log.start
          const records = log.slice(at, options.batch)
          from.offset += records.length
          return Effect.succeed(records as unknown as Arr.NonEmptyReadonlyArray<LogRecord>)
        }
        const now = take()
        if (now !== undefined) return now
        return Effect.callback((resume) => {
          const wake = () => {
            const then = take()
            if (then === undefined) log.readers.push(wake)
            else resume(then)
          }
          log.readers.push(wake)
          return Effect.sync(() => {
            log.readers = log.readers.filter((one) => one !== wake)
          })
        })
      })

    const read = (topic: Topic, partition: number, from: number) =>
      Stream.suspend(() => {
        const log = logOf(topic, partition)
        const position = { offset: from }
        const holder = {}
        return Stream.fromEffectRepeat(
          Effect.suspend(() => {
            // What was handed out last has been worked on by now: the hold follows the reader.
            log.holds.set(holder, position.offset)
            release(log)
            return pull(topic, log, position, () => false)
          })
        ).pipe(
          Stream.ensuring(
            Effect.sync(() => {
              log.holds.delete(holder)
              release(log)
            })
          )
        )
      })

    const rebalance = (group: Group, name: string, topic: Topic): Effect.Effect<void> =>
      Effect.gen(function* () {
        const members = group.members
        const target = (partition: number) => members[partition % members.length]
        for (const member of members) {
          for (const [partition, revoked] of member.owned) {
            if (target(partition) === member) continue
            member.owned.delete(partition)
            yield* Deferred.succeed(revoked, undefined)
            logOf(topic, partition).wakeReaders()
          }
        }
        for (let partition = 0; partition < options.partitions; partition++) {
          const member = target(partition)
          if (member === undefined || member.owned.has(partition)) continue
          const revoked = yield* Deferred.make<void>()
          member.owned.set(partition, revoked)
          yield* Queue.offer(member.queue, assigned(group, name, topic, member, partition, revoked))
        }
      })

    const assigned = (
      group: Group,
      name: string,
      topic: Topic,
      member: Member,
      partition: number,
      revoked: Deferred.Deferred<void>
    ): AssignedPartition => {
      const log = logOf(topic, partition)
      const owns = () => member.owned.get(partition) === revoked
      return {
        partition,
        committed: group.committed.get(partition),
        revoked: Deferred.await(revoked),
        read: (from, until = Effect.never) =>
          Stream.unwrap(
            Effect.gen(function* () {
              const position = { offset: from }
              let isOver = false
              const over = Effect.sync(() => {
                isOver = true
                log.wakeReaders()
              })
              yield* Effect.forkScoped(Effect.andThen(until, over), { startImmediately: true })
              return Stream.fromEffectRepeat(pull(topic, log, position, () => isOver || !owns()))
            })
          ),
        commit: (commit) =>
          Effect.suspend(() => {
            if (!owns()) {
              return Effect.fail(
                new LogError({
                  operation: "commit",
                  topic,
                  partition,
                  outcome: "failed",
                  message: `group ${name} gave the partition to another member`
                })
              )
            }
            group.committed.set(partition, commit)
            log.holds.set(group, commit.offset)
            release(log)
            return Effect.void
          })
      }
    }

    const assignments = (name: string, topic: Topic) =>
      Stream.unwrap(
        Effect.gen(function* () {
          let group = groups.get(`${name}\n${topic}`)
          if (group === undefined) {
            group = new Group()
            groups.set(`${name}\n${topic}`, group)
            // From its first member on, a group holds what it has not committed.
            for (let p = 0; p < options.partitions; p++) logOf(topic, p).holds.set(group, logOf(topic, p).start)
          }
          const joined = group
          const member: Member = {
            id: nextMember++,
            // At most one entry a partition and rebalance; the member takes them as they come.
            queue: yield* Queue.make<AssignedPartition, Cause.Done>({ capacity: options.partitions * 64 }),
            owned: new Map()
          }
          joined.members.push(member)
          yield* Effect.addFinalizer(() =>
            Effect.gen(function* () {
              joined.members.splice(joined.members.indexOf(member), 1)
              for (const revoked of member.owned.values()) yield* Deferred.succeed(revoked, undefined)
              member.owned.clear()
              for (let p = 0; p < options.partitions; p++) logOf(topic, p).wakeReaders()
              yield* rebalance(joined, name, topic)
            })
          )
          yield* rebalance(joined, name, topic)
          return Stream.fromQueue(member.queue)
        })
      )

    return {
      partitions: options.partitions,
      incarnation: (topic) => topics.get(topic)!.incarnation,
      latest: (topic) => Effect.succeed(topics.get(topic)!.incarnation),
      append: (topic, partition, records, incarnation = topics.get(topic)!.incarnation) =>
        incarnation === topics.get(topic)!.incarnation
          ? append(topic, partition, records)
          : new LogError({
              operation: "append",
              topic,
              partition,
              outcome: "failed",
              message: `${topic} is not the one with incarnation ${incarnation}`,
              reason: "incarnation"
            }),
      read,
      slice: (topic, partition, from, limit) =>
        Effect.sync(() => {
          const log = logOf(topic, partition)
          const first = Math.max(from, log.start)
          const at = log.head + first - log.start
          const records = log.slice(at, limit)
          return { records, next: first + records.length }
        }),
      bounds: (topic, partition) =>
        Effect.sync(() => {
          const log = logOf(topic, partition)
          return { start: log.start, end: log.end }
        }),
      bytes: Effect.sync(() =>
        [...topics].flatMap(([topic, { partitions }]) =>
          partitions.map(({ bytes }, partition) => ({ topic, partition, bytes }))
        )
      ),
      offsetAt: (topic, partition, micros) =>
        Effect.sync(() => {
          const log = logOf(topic, partition)
          let low = log.head
          let high = log.records.length
          while (low < high) {
            const middle = (low + high) >>> 1
            if (log.records[middle]!.recordTime < micros) low = middle + 1
            else high = middle
          }
          return log.start + low - log.head
        }),
      assignments,
      lag: Effect.sync(() =>
        [...groups].flatMap(([key, group]) => {
          const [name, topic] = key.split("\n") as [string, Topic]
          return Array.from({ length: options.partitions }, (_, partition) => {
            const log = logOf(topic, partition)
            return {
              group: name,
              topic,
              partition,
              records: log.end - (group.committed.get(partition)?.offset ?? log.start)
            }
          })
        })
      ),
      members: Effect.sync(() =>
        [...groups].map(([key, { members }]) => ({ group: key.split("\n")[0]!, members: members.length }))
      )
    } satisfies TickLog["Service"]
  })

export const layer = (options: MemoryLogOptions): Layer.Layer<TickLog> => Layer.effect(TickLog, make(options))
