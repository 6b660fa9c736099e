/** Decides how a line of the audit is logged: as the others are, by fields that a program can tell apart. */
import { Effect } from "effect"
import { withFields } from "../../streams/run/fields.ts"

export type AuditFields = Readonly<Record<string, string | number>>

export const auditLine = (fields: AuditFields): Effect.Effect<void> =>
  // Text has what a line is annotated with, JSON its fields.
  withFields(Effect.annotateLogs(Effect.logInfo("audit"), fields), fields)
