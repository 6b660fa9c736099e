/**
 * Decides how a group's member gets its partitions: each as it is gained, until it is revoked, with what the group has
 * committed in this incarnation of the topic.
 */
import { Cause, Deferred, Effect, Queue, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { AssignedPartition, Commit, Topic } from "../../streams/log/TickLog.ts"
import { inOneLine, type KafkaCluster } from "./cluster.ts"
import { KafkaMember } from "./groupMember.ts"
import type { KafkaReads } from "./reader.ts"
import { failure, recreated, type Topics } from "./topics.ts"

/** Longest time a stop waits for the group to be told. */
const LEAVE_MS = 2000
/**
 * Every commit names the incarnation of its topic before what it says: a member that has not noticed yet that the topic was
 * recreated may still commit, and Kafka knows topics by their names only.
 */
const named = (incarnation: string, { offset, metadata }: Commit): Commit => ({
  offset,
  metadata: `${incarnation} ${metadata}`
})

/** A commit as it was given; undefined where it was made in another incarnation. What another tool has set is taken as it is. */
export const ofIncarnation = (incarnation: string, commit: Commit | undefined): Commit | undefined => {
  const [, made, metadata] = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) (.*)$/s.exec(commit?.metadata ?? "") ?? []
  if (commit === undefined || metadata === undefined) return commit
  return made === incarnation ? { offset: commit.offset, metadata } : undefined
}

export interface AssignmentOptions {
  readonly prefix: string
  readonly sessionTimeoutMs: number
  readonly heartbeatMs: number
  readonly requestTimeoutMs: number
}

/** `onJoin` is told of each group that is joined, and what it reads. */
export const kafkaAssignments = (
  cluster: KafkaCluster,
  topics: Topics,
  { readFrom }: KafkaReads,
  options: AssignmentOptions,
  onJoin: (group: string, topic: Topic) => void
) => {
  let memberCount = 0
  return (group: string, topic: Topic): Stream.Stream<AssignedPartition, LogError> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const state = topics.of(topic)
        const { incarnation } = state
        onJoin(group, topic)
        // At most one entry a partition and rebalance; the member takes them as they come.
        const queue = yield* Queue.make<AssignedPartition, LogError | Cause.Done>({ capacity: topics.partitions * 64 })
        const owned = new Map<number, Deferred.Deferred<void>>()
        const lost = (partition: number) => {
          const revoked = owned.get(partition)
          owned.delete(partition)
          if (revoked !== undefined) Deferred.doneUnsafe(revoked, Effect.void)
        }
        const fail = (error: LogError) => {
          for (const partition of [...owned.keys()]) lost(partition)
          Queue.failCauseUnsafe(queue, Cause.fail(error))
        }
        const member = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const opened: KafkaMember = new KafkaMember(
              cluster,
              `member ${group} ${memberCount++}`,
              options.prefix + group,
              state.name,
              topics.partitions,
              {
                sessionTimeoutMs: options.sessionTimeoutMs,
                rebalanceTimeoutMs: options.sessionTimeoutMs,
                heartbeatMs: options.heartbeatMs,
                requestTimeoutMs: options.requestTimeoutMs
              },
              {
                gained: ({ partition, committed }) => {
                  const revoked = Deferred.makeUnsafe<void>()
                  owned.set(partition, revoked)
                  const owns = () => owned.get(partition) === revoked
                  Queue.offerUnsafe(queue, {
                    partition,
                    committed: ofIncarnation(incarnation, committed),
                    revoked: Deferred.await(revoked),
                    read: (from, until = Effect.never) => {
                      const over = Effect.raceFirst(Deferred.await(revoked), until)
                      return readFrom(state, partition, from, incarnation, group, over)
                    },
                    commit: (commit) =>
                      Effect.tryPromise({
                        try: () => opened.commit(partition, named(incarnation, commit), owns),
                        catch: (cause) => failure("commit", state, partition, inOneLine(cause))
                      })
                  })
                },
                lost,
                warned: (message) => topics.warn(`group ${options.prefix + group}: ${message}`),
                failed: (message) => fail(failure("assign", state, -1, `group ${options.prefix + group}: ${message}`))
              }
            )
            return opened
          }),
          (open) => Effect.promise(() => open.leave(LEAVE_MS))
        )
        const anew = () => {
          fail(recreated("assign", state, -1))
          void member.leave(LEAVE_MS)
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            state.listeners.add(anew)
          }),
          () => Effect.sync(() => state.listeners.delete(anew))
        )
        return Stream.fromQueue(queue)
      })
    )
}
