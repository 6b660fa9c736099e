/** A member of a group in a process of its own: commits every partition it holds over and over, and says what happens. */
import { Effect, Stream } from "effect"
import * as Kafka from "../../../src/layers/kafka/KafkaLog.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"

/** Maps do not come through an argument. */
const options: Kafka.KafkaOptions = { ...(JSON.parse(process.argv[2]!) as Kafka.KafkaOptions), groups: new Map() }
const say = (...words: ReadonlyArray<string | number>) => process.stdout.write(`${words.join(" ")}\n`)

const program = Effect.gen(function* () {
  const log = yield* TickLog
  yield* log.assignments("g", "raw_ticks").pipe(
    Stream.flatMap(
      (assigned) => {
        say("own", assigned.partition)
        const commits = Effect.gen(function* () {
          for (let offset = 1; ; offset++) {
            yield* assigned.commit({ offset, metadata: "child" }).pipe(
              Effect.tap(() => Effect.sync(() => say("committed", assigned.partition))),
              Effect.tapError((error) => Effect.sync(() => say("refused", assigned.partition, error.operation)))
            )
            yield* Effect.sleep("20 millis")
          }
        })
        return Stream.fromEffect(
          Effect.andThen(
            Effect.ignore(commits),
            Effect.tap(assigned.revoked, () => Effect.sync(() => say("revoked", assigned.partition)))
          )
        )
      },
      { concurrency: "unbounded" }
    ),
    Stream.runDrain
  )
})

await Effect.runPromise(program.pipe(Effect.provide(Kafka.layer(options))))
