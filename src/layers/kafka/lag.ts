/** Decides what is told of groups: how far each is behind in each partition, and how many members the broker counts. */
import { Effect } from "effect"
import type { TickLog, Topic } from "../../streams/log/TickLog.ts"
import { ofIncarnation } from "./assignments.ts"
import { inOneLine } from "./cluster.ts"
import { END, START } from "./reader.ts"
import { failure, type Topics } from "./topics.ts"

/** `groups`: those that are told of now, and what each reads. */
export const kafkaLag = (
  topics: Topics,
  prefix: string,
  groups: () => ReadonlyMap<string, Topic>
): Pick<TickLog["Service"], "lag" | "members"> => {
  const lag = Effect.suspend(() => {
    const asking = groups()
    return Effect.tryPromise({
      try: async () => {
        const all = Array.from({ length: topics.partitions }, (_, partition) => partition)
        const bound = async (topic: Topic, which: number) =>
          [topic, await topics.ask((open) => open.offsets(topics.of(topic).name, all, which))] as const
        const asked = [...new Set(asking.values())]
        const starts = new Map(await Promise.all(asked.map((topic) => bound(topic, START))))
        const committed = await Promise.all(
          [...asking].map(async ([group, topic]) => {
            const id = prefix + group
            const { name, incarnation } = topics.of(topic)
            const found = await topics.ask(async (open) => (await open.coordinatorAdmin(id)).committed(id, name, all))
            return new Map(all.map((partition) => [partition, ofIncarnation(incarnation, found.get(partition))]))
          })
        )
        // The ends last, so that no group is ever shown ahead of its log.
        const ends = new Map(await Promise.all(asked.map((topic) => bound(topic, END))))
        return [...asking].flatMap(([group, topic], i) =>
          all.map((partition) => {
            const from = committed[i]!.get(partition)?.offset ?? starts.get(topic)!.get(partition)!
            return { group, topic, partition, records: Math.max(0, ends.get(topic)!.get(partition)! - from) }
          })
        )
      },
      catch: (cause) => failure("read", topics.of("raw_ticks"), -1, `lag: ${inOneLine(cause)}`)
    })
  })

  const members = Effect.suspend(() =>
    Effect.tryPromise({
      try: () =>
        Promise.all(
          [...groups().keys()].map(async (group) => {
            const id = prefix + group
            return { group, members: await topics.ask(async (open) => (await open.coordinatorAdmin(id)).members(id)) }
          })
        ),
      catch: (cause) => failure("read", topics.of("raw_ticks"), -1, `members of groups: ${inOneLine(cause)}`)
    })
  )
  return { lag, members }
}
