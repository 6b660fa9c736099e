/** Decides how rows are written as a file of columns while they are read: by parts, each a record batch or a row group. */
import { Effect, type Scope, Stream } from "effect"
import type { ArchiveError } from "../../schema/Errors.ts"
import { RowBuffer, type TableName } from "../../schema/tables.ts"
import { ROW_GROUP_ROWS } from "./parquetSchema.ts"
import type { FileFormat } from "./rowFile.ts"
import type { Answers, Request } from "./rowWorker.ts"
import { makeThread } from "./thread.ts"

export interface RowFiles {
  /** The bytes of a file of all rows, as they come. */
  readonly write: <A extends object, E>(
    rows: Stream.Stream<A, E>,
    table: TableName,
    format: FileFormat
  ) => Stream.Stream<Uint8Array<ArrayBuffer>, E | ArchiveError>
}

/** With the thread that writes them, which starts when the first is asked for. */
export const make: Effect.Effect<RowFiles, never, Scope.Scope> = Effect.gen(function* () {
  const thread = yield* makeThread<Request, Answers>({
    file: "./rowWorker",
    from: import.meta.url,
    title: "the thread of exports"
  })
  let files = 0

  const write: RowFiles["write"] = (rows, table, format) =>
    Stream.unwrap(
      Effect.gen(function* () {
        files += 1
        const file = files
        const first = yield* Effect.acquireRelease(thread.ask({ kind: "begin", file, table, format }), () =>
          // Where it has ended there is nothing to forget.
          Effect.ignore(thread.ask({ kind: "forget", file }))
        )
        const buffer = new RowBuffer(table, ROW_GROUP_ROWS)
        const written = Effect.suspend(() => {
          const part = buffer.take()
          if (part === undefined) return Effect.succeed([])
          // All columns of a part lie in one buffer.
          const handedOver = part.columns.instrument_token.buffer
          return Effect.map(thread.ask({ kind: "rows", file, part }, [handedOver]), (bytes) => [bytes])
        })
        const push = (some: ReadonlyArray<object>) =>
          Effect.gen(function* () {
            const parts: Array<Uint8Array<ArrayBuffer>> = []
            for (const row of some) {
              buffer.add(row)
              if (buffer.isFull) parts.push(...(yield* written))
            }
            return [undefined, parts] as const
          })
        const end = Effect.gen(function* () {
          return [...(yield* written), yield* thread.ask({ kind: "end", file })]
        })
        return Stream.fromArray([first]).pipe(
          Stream.concat(
            Stream.mapAccumArrayEffect(
              rows,
              () => undefined,
              (_, some) => push(some)
            )
          ),
          Stream.concat(Stream.fromArrayEffect(end))
        )
      })
    )
  return { write }
})
