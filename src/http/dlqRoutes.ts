/** Decides how dead letters are read and sent again over REST, a bounded piece of work for each request. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { type LogError, Overloaded } from "../schema/Errors.ts"
import {
  dlqBounds,
  type LetterPlace,
  listLetters,
  newestLetters,
  retryLetters,
  showLetter
} from "../streams/deadLetters.ts"
import { TickLog } from "../streams/log/TickLog.ts"
import { Api, DEFAULT_LETTERS } from "./Api.ts"
import { Caller } from "./caller.ts"
import { readCursor, refusedCursor, writeCursor } from "./cursor.ts"
import { BadRequest } from "./errors.ts"
import { logFailure, overloaded } from "./failures.ts"
import { HttpSettings } from "./HttpSettings.ts"
import { json } from "./wire.ts"

const LIST = "dlq"
const RETRY = "dlq-retry"
const START: LetterPlace = { partition: 0, offset: 0 }

/** The numbers of a cursor, all of them there and none below 0. */
const numbersOf = (kind: string, cursor: string, length: number): ReadonlyArray<number> | BadRequest => {
  const place = readCursor(kind, 0, cursor, length)
  if (place instanceof BadRequest) return place
  return place.every((part): part is number => part !== null && part >= 0) ? place : refusedCursor(cursor)
}

export const dlqRoutes = HttpApiBuilder.group(
  Api,
  "dlq",
  Effect.fnUntraced(function* (handlers) {
    const log = yield* TickLog
    const { INGEST_WAIT_MS } = yield* HttpSettings

    const refusePartition = (partition: number | undefined) =>
      partition !== undefined && partition >= log.partitions
        ? new BadRequest({
            parameter: "partition",
            message: `partition: expected 0 to ${log.partitions - 1}, got ${partition}`
          })
        : Effect.void

    const append = (partition: number, records: Parameters<typeof log.append>[2]) =>
      log.append("raw_ticks", partition, records).pipe(
        Effect.timeoutOrElse({
          duration: INGEST_WAIT_MS,
          orElse: (): Effect.Effect<number, LogError | Overloaded> =>
            Effect.fail(
              new Overloaded({ message: `the log stayed full for ${INGEST_WAIT_MS} ms`, retryAfterSeconds: 1 })
            )
        })
      )

    return handlers.handleAll({
      letters: ({ query: { limit = DEFAULT_LETTERS, cursor, reason, partition, order = "oldest" } }) =>
        Effect.gen(function* () {
          yield* refusePartition(partition)
          let from = START
          if (cursor !== undefined) {
            if (order === "newest") {
              return yield* new BadRequest({
                parameter: "cursor",
                message: "cursor: expected none with order=newest, which has one page only"
              })
            }
            const place = numbersOf(LIST, cursor, 2)
            if (place instanceof BadRequest) return yield* place
            from = { partition: place[0]!, offset: place[1]! }
          }
          const wanted = { reason, partition }
          // Made text at once: a page must not hold on to all that its letters were cut from.
          const show = (letter: Parameters<typeof showLetter>[0]) => JSON.stringify(showLetter(letter))
          const { letters, next, total } = yield* (
            order === "newest"
              ? newestLetters(log, wanted, limit, show)
              : listLetters(log, wanted, { from, limit }, show)
          ).pipe(Effect.mapError(logFailure))
          const nextCursor = next === undefined ? null : writeCursor(LIST, 0, [next.partition, next.offset])
          return json(`{"letters":[${letters.join(",")}],"next_cursor":${JSON.stringify(nextCursor)},"total":${total}}`)
        }),
      retryLetters: ({ payload: { all, reason, partition, offset, cursor } }) =>
        Effect.gen(function* () {
          yield* refusePartition(partition)
          const isPlace = partition !== undefined || offset !== undefined
          if (all === true && isPlace) {
            return yield* new BadRequest({
              parameter: "all",
              message: "all: expected without partition and offset, got true beside them"
            })
          }
          if (all !== true && !isPlace && reason === undefined) {
            return yield* new BadRequest({
              parameter: "all",
              message: 'all: expected "all":true, a reason, or a partition with or without an offset, got none of them'
            })
          }
          if (offset !== undefined && partition === undefined) {
            return yield* new BadRequest({
              parameter: "partition",
              message: "partition: expected beside offset, got nothing"
            })
          }
          let from = START
          let ends: ReadonlyArray<number>
          if (cursor === undefined) ({ ends } = yield* Effect.mapError(dlqBounds(log), logFailure))
          else {
            const place = numbersOf(RETRY, cursor, 2 + log.partitions)
            if (place instanceof BadRequest) return yield* place
            from = { partition: place[0]!, offset: place[1]! }
            ends = place.slice(2)
          }
          const { sent, cut, batches, next, stopped } = yield* Effect.mapError(
            retryLetters(log, { reason, partition, offset }, { from, ends }, append),
            logFailure
          )
          if (sent > 0) (yield* Caller).did("dlq_retry", { sent })
          if (stopped !== undefined && sent === 0) {
            return yield* stopped._tag === "Overloaded" ? overloaded(stopped) : logFailure(stopped)
          }
          return {
            sent,
            cut,
            batches,
            next_cursor: next === undefined ? null : writeCursor(RETRY, 0, [next.partition, next.offset, ...ends])
          }
        })
    })
  })
)
