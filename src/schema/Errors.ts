/** Decides which failures the platform knows by name. Each says which part failed and why, and carries no secret. */
import { Schema } from "effect"

/** A setting that is missing or wrong; `message` is the one line an operator reads. */
export class SettingError extends Schema.TaggedError<SettingError>()("SettingError", {
  setting: Schema.String,
  message: Schema.String
}) {}

/** Something at start that cannot be had: a port, a folder, a server. One line, exit 1. */
export class StartError extends Schema.TaggedError<StartError>()("StartError", { message: Schema.String }) {}

/**
 * The log refused or did not answer. `outcome` is `unknown` where an append may have happened: the caller ends the
 * partition's pipeline and recovers from what the log holds.
 */
export class LogError extends Schema.TaggedError<LogError>()("LogError", {
  operation: Schema.Literals(["open", "append", "read", "commit", "assign"]),
  topic: Schema.String,
  partition: Schema.Int,
  outcome: Schema.Literals(["failed", "unknown"]),
  message: Schema.String,
  /** Where it is one that a caller can act on: what it asked for is too large, no longer held, or in a recreated topic. */
  reason: Schema.optionalKey(Schema.Literals(["too_large", "not_held", "incarnation"]))
}) {}

/** The database refused or did not answer; the transaction is to be asked again. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.String,
  message: Schema.String,
  /** False where asking again cannot help: a row that the schema refuses. */
  transient: Schema.Boolean
}) {}

/** The archive refused or did not answer. */
export class ArchiveError extends Schema.TaggedError<ArchiveError>()("ArchiveError", {
  operation: Schema.String,
  message: Schema.String,
  /** Where it is one object's: it is there no longer, or it is not what was put there. */
  object: Schema.optionalKey(
    Schema.Struct({ name: Schema.String, is: Schema.Literals(["gone", "corrupt"]), reason: Schema.String })
  )
}) {}

/** Another writer began a range where this one was to begin: it is completed as it was begun, up to `last`. */
export class RangeTaken extends Schema.TaggedError<RangeTaken>()("RangeTaken", {
  last: Schema.Int,
  message: Schema.String
}) {}

/** Claims, ring or checkpoints could not be reached: the pipeline goes on degraded. */
export class CacheError extends Schema.TaggedError<CacheError>()("CacheError", {
  operation: Schema.String,
  message: Schema.String
}) {}

/** A feed's input that cannot be read: file, line, column. */
export class FeedError extends Schema.TaggedError<FeedError>()("FeedError", { message: Schema.String }) {}

/** The log cannot take more just now; ask again in `retryAfterSeconds`. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  message: Schema.String,
  retryAfterSeconds: Schema.Int
}) {}
