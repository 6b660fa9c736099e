/** Decides how a line of the log says to a program what its text says to a person: by fields beside it, where lines are JSON. */
import { Context, Effect } from "effect"

export type Fields = Readonly<Record<string, string | number | boolean | ReadonlyArray<string | number>>>

/** Those of the line that is being logged; text leaves them out. */
export const LineFields = Context.Reference<Fields>("market-data-platform/streams/LineFields", {
  defaultValue: () => ({})
})

/** Logs with fields beside the text. */
export const withFields = <A, E, R>(logged: Effect.Effect<A, E, R>, fields: Fields): Effect.Effect<A, E, R> =>
  Effect.provideService(logged, LineFields, fields)
