/** Decides `mdp dlq`: dead letters listed with their reasons, and sent again once what was wrong is mended. */
import { Effect, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { StartError } from "../schema/Errors.ts"
import { partitionOf } from "../schema/Partition.ts"
import { printable } from "../schema/printable.ts"
import { BATCH_HEADER, CUT_HEADER } from "../streams/publish.ts"
import { type LogRecord, TickLog } from "../streams/TickLog.ts"
import { wrongUsage } from "./run.ts"
import { log, required, settings } from "./services.ts"

const MAX_VALUE_CHARS = 4096

const partitionFlag = Flag.Int("partition").pipe(Flag.withDescription("DLQ partition"), Flag.optional)
const offsetFlag = Flag.Int("offset").pipe(Flag.withDescription("DLQ offset in that partition"), Flag.optional)

const reasonFlag = Flag.String("reason").pipe(Flag.withDescription("only reasons that hold this text"), Flag.optional)

interface Letter extends LogRecord {
  readonly partition: number
}

/** Runs `take` on every dead letter that the log holds now, in the order of each partition. */
const eachLetter = <E, R>(
  wanted: (letter: Letter) => boolean,
  take: (letters: ReadonlyArray<Letter>) => Effect.Effect<boolean, E, R>
) =>
  Effect.gen(function* () {
    const topic = yield* TickLog
    // All ends first: what is sent again meanwhile may come back into a partition that is yet to be read.
    const all = yield* Effect.forEach(Array.from({ length: topic.partitions }).keys(), (partition) =>
      topic.bounds("raw_ticks_dlq", partition)
    )
    for (const [partition, { start, end }] of all.entries()) {
      if (start === end) continue
      let goesOn = true
      yield* topic.read("raw_ticks_dlq", partition, start).pipe(
        Stream.takeUntil((records) => records[records.length - 1]!.offset >= end - 1),
        Stream.runForEach((records) => {
          const letters = records
            .filter((record) => record.offset < end)
            .map((record) => ({ ...record, partition }))
            .filter(wanted)
          if (!goesOn || letters.length === 0) return Effect.void
          return Effect.map(take(letters), (more) => {
            goesOn = more
          })
        })
      )
      if (!goesOn) return
    }
  })

/** Where the letter is in the DLQ, as `retry` takes it, and under `from` where its record was. */
const show = ({ partition, offset, recordTime, headers = {}, key, value, unreadable }: Letter): string => {
  const {
    reason = unreadable?.message,
    topic,
    partition: fromPartition,
    offset: fromOffset,
    index,
    ...others
  } = headers
  const from = { topic, partition: Number(fromPartition), offset: Number(fromOffset), index: Number(index) }
  return JSON.stringify({
    partition,
    offset,
    at: recordTime,
    reason,
    from,
    ...(Object.keys(others).length === 0 ? {} : { headers: others }),
    key,
    // A batch is no text.
    ...(unreadable !== undefined || headers[BATCH_HEADER] !== undefined
      ? { base64: value === null ? null : Buffer.from(value).toString("base64") }
      : { value: value === null ? null : Buffer.from(value).toString("utf8").slice(0, MAX_VALUE_CHARS) })
  })
}

const onLog = <E, R>(effect: Effect.Effect<void, E, R>) =>
  Effect.gen(function* () {
    const given = yield* settings
    yield* required(given, "KAFKA_BROKERS", "by mdp dlq: an embedded log lives in its own process only")
    yield* Effect.scoped(Effect.provide(effect, log(given)))
  })

const list = Command.make(
  "list",
  {
    limit: Flag.Int("limit").pipe(Flag.withDescription("letters shown at most (default 100)"), Flag.withDefault(100)),
    reason: reasonFlag
  },
  Effect.fnUntraced(function* ({ limit, reason }) {
    if (limit < 1) return yield* wrongUsage(`mdp dlq list: --limit: expected 1 or more, got ${limit}`)
    let shown = 0
    const holds = Option.getOrElse(reason, () => "")
    yield* onLog(
      eachLetter(
        (letter) => (letter.headers?.reason ?? "").includes(holds),
        (letters) =>
          Effect.sync(() => {
            for (const letter of letters.slice(0, limit - shown)) process.stdout.write(`${printable(show(letter))}\n`)
            shown += letters.length
            return shown < limit
          })
      )
    )
  })
).pipe(Command.withDescription("Dead letters as NDJSON: where each came from, why, and what it was"))

const retry = Command.make(
  "retry",
  {
    partition: partitionFlag,
    offset: offsetFlag,
    all: Flag.Boolean("all").pipe(
      Flag.withDescription("every dead letter that the log holds"),
      Flag.withDefault(false)
    ),
    reason: reasonFlag
  },
  Effect.fnUntraced(function* ({ partition, offset, all, reason }) {
    const isPlace = Option.isSome(partition) || Option.isSome(offset)
    if (all && isPlace) return yield* wrongUsage("mdp dlq retry: --all goes without --partition and --offset")
    if (!all && !isPlace && Option.isNone(reason)) {
      return yield* wrongUsage("mdp dlq retry: expected --all, --reason, or --partition with or without --offset")
    }
    if (Option.isSome(offset) && Option.isNone(partition)) {
      return yield* wrongUsage("mdp dlq retry: --offset needs --partition")
    }
    let sent = 0
    let cut = 0
    let batches = 0
    const holds = Option.getOrElse(reason, () => "")
    yield* onLog(
      eachLetter(
        (letter) =>
          (letter.headers?.reason ?? "").includes(holds) &&
          (!isPlace ||
            (letter.partition === Option.getOrNull(partition) &&
              (Option.isNone(offset) || letter.offset === offset.value))),
        (letters) =>
          Effect.gen(function* () {
            const topic = yield* TickLog
            for (const { key, value, headers, partition: from, unreadable } of letters) {
              if (unreadable !== undefined || headers?.[BATCH_HEADER] !== undefined) {
                batches++
                continue
              }
              if (headers?.[CUT_HEADER] !== undefined) {
                cut++
                continue
              }
              // A key that is a token says where the tick belongs; the rest goes back where it came from.
              const token = key !== null && /^\d{1,10}$/.test(key) ? Number(key) : undefined
              const to = token === undefined ? from : partitionOf(token, topic.partitions)
              yield* topic.append("raw_ticks", to, [{ key, value }])
              sent++
            }
            return true
          })
      )
    )
    if (cut > 0) process.stderr.write(`${cut} kept: too large for the DLQ, it has only their beginning\n`)
    if (batches > 0) process.stderr.write(`${batches} kept: batches of records that cannot be read\n`)
    if (sent + cut + batches === 0 && isPlace) {
      return yield* new StartError({ message: "mdp dlq retry: the DLQ holds no such letter (mdp dlq list)" })
    }
    process.stdout.write(`${sent} sent again${sent === 0 ? "" : "; what is still wrong comes back to the DLQ"}\n`)
  })
).pipe(Command.withDescription("Send dead letters through the pipeline again"))

export const dlq = Command.make("dlq").pipe(
  Command.withDescription("What could not go on"),
  Command.withSubcommands([list, retry])
)
