/** Decides which answer each of the platform's failures becomes; what others said of it is cut, and in one line. */
import type { ArchiveError, FeedError, LogError, Overloaded, StoreError } from "../schema/Errors.ts"
import { showText } from "../schema/Explain.ts"
import { TooManyRequests, Unavailable } from "./errors.ts"

/** How soon a client may ask again after something behind the server did not answer. */
const RETRY_AFTER_SECONDS = 1
const MAX_TOLD_CHARS = 300

const told = (message: string): string => showText(message, MAX_TOLD_CHARS)

export const storeFailure = (error: StoreError): Unavailable =>
  new Unavailable({
    message: `the store did not do ${error.operation}: ${told(error.message)}`,
    retryAfterSeconds: RETRY_AFTER_SECONDS
  })

export const archiveFailure = (error: ArchiveError): Unavailable =>
  new Unavailable({
    message: `the archive did not do ${error.operation}: ${told(error.message)}`,
    retryAfterSeconds: RETRY_AFTER_SECONDS
  })

export const logFailure = (error: LogError | FeedError): Unavailable =>
  new Unavailable({
    message:
      error._tag === "LogError"
        ? `the log did not do ${error.operation} on ${error.topic}/${error.partition}: ${told(error.message)}`
        : told(error.message),
    retryAfterSeconds: RETRY_AFTER_SECONDS
  })

export const overloaded = (error: Overloaded): TooManyRequests =>
  new TooManyRequests({ message: told(error.message), retryAfterSeconds: error.retryAfterSeconds })
