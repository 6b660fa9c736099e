/** Decides how a line of the audit is logged: as the others are, by fields that a program can tell apart. */
import { Effect } from "effect"

export type AuditFields = Readonly<Record<string, string | number>>

export const auditLine = (fields: AuditFields): Effect.Effect<void> =>
  Effect.annotateLogs(Effect.logInfo("audit"), fields)
