/**
 * Decides which inner modules of kafkajs are used, and what each must have: the library does not promise them, so an update
 * that takes one away is told by its name, at the import and in a test, and not by whatever fails later.
 */
import { createRequire } from "node:module"
import type { Socket } from "node:net"

/** The parts of kafkajs that are used; it ships types for its front only. */
export interface Protocol<A> {
  readonly request: object
  readonly response: {
    readonly decode: (payload: Buffer) => Promise<unknown>
    readonly parse: (data: unknown) => Promise<A>
  }
  readonly requestTimeout?: number
}

export interface JsConnection {
  readonly requestQueue: {
    scheduleCheckPendingRequests: () => void
    readonly pending: ReadonlyArray<unknown>
    readonly throttledUntil: number
  }
  readonly socket?: Socket
  readonly isConnected: () => boolean
  readonly send: <A>(protocol: Protocol<A>) => Promise<A>
  readonly rejectRequests: (error: Error) => void
  readonly disconnect: () => Promise<boolean>
}

export interface JsConnectionPool {
  readonly pool: ReadonlyArray<JsConnection>
}

export interface JsBroker {
  /** By API key, once connected. */
  readonly versions: Readonly<Record<number, { readonly maxVersion: number }>>
  readonly connect: () => Promise<void>
  readonly lookupRequest: <A>(apiKey: number, requests: unknown) => (options: unknown) => Protocol<A>
  readonly initProducerId: (
    options: unknown
  ) => Promise<{ readonly producerId: string; readonly producerEpoch: number }>
  readonly heartbeat: (options: unknown) => Promise<unknown>
  readonly syncGroup: (options: unknown) => Promise<{ readonly memberAssignment: Buffer }>
  readonly leaveGroup: (options: unknown) => Promise<unknown>
  readonly offsetCommit: (options: unknown) => Promise<unknown>
}

export interface JsLogger {
  readonly namespace: (name: string) => JsLogger
}

/** What is used of each inner module: `call`: the module itself is called, or made new; else names in it. */
export const INNER_MODULES = {
  "kafkajs/src/broker": "call",
  "kafkajs/src/network/connectionPool": "call",
  "kafkajs/src/network/socketFactory": "call",
  "kafkajs/src/loggers": ["createLogger", "LEVELS"],
  "kafkajs/src/protocol/requests": ["requests"],
  "kafkajs/src/protocol/requests/apiKeys": ["Fetch", "JoinGroup"]
} as const satisfies Readonly<Record<string, "call" | ReadonlyArray<string>>>

const require = createRequire(import.meta.url)

/** An inner module; throws a sentence where kafkajs has none of that name any more, or another. */
export const innerModule = (
  name: string,
  uses: "call" | ReadonlyArray<string>,
  load: (name: string) => unknown = require
): unknown => {
  const lost = (what: string) =>
    new Error(
      `kafkajs has ${what} any more, which KAFKA_ENGINE=kafkajs needs: take version 2.2.4, or see kafkajsModules.ts`
    )
  let found: unknown
  try {
    found = load(name)
  } catch (cause) {
    throw Object.assign(lost(`no module ${name}`), { cause })
  }
  if (uses === "call") {
    if (typeof found !== "function") throw lost(`no function in ${name}`)
    return found
  }
  for (const part of uses) {
    if (typeof found !== "object" || found === null || !(part in found)) throw lost(`no ${part} in ${name}`)
  }
  return found
}

const inner = (name: keyof typeof INNER_MODULES): unknown => innerModule(name, INNER_MODULES[name])

export const Broker = inner("kafkajs/src/broker") as new (options: {
  readonly connectionPool: JsConnectionPool
  readonly logger: JsLogger
  readonly authenticationTimeout: number
  readonly allowAutoTopicCreation: boolean
}) => JsBroker
export const ConnectionPool = inner("kafkajs/src/network/connectionPool") as new (options: unknown) => JsConnectionPool
export const socketFactory = (inner("kafkajs/src/network/socketFactory") as () => unknown)()
export const { createLogger, LEVELS } = inner("kafkajs/src/loggers") as {
  readonly createLogger: (options: { readonly level: number; readonly logCreator: () => () => void }) => JsLogger
  readonly LEVELS: { readonly NOTHING: number }
}
export const { requests } = inner("kafkajs/src/protocol/requests") as {
  readonly requests: Readonly<Record<string, unknown>>
}
export const apiKeys = inner("kafkajs/src/protocol/requests/apiKeys") as Readonly<Record<"Fetch" | "JoinGroup", number>>
