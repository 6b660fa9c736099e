/** Decides how the server is started for a test, on a free port, and asked through a real socket. */
import { type IncomingHttpHeaders, request } from "node:http"
import { request as secureRequest } from "node:https"
import { Context, Effect, Layer } from "effect"
import * as Access from "../../src/http/access.ts"
import type { Bounds } from "../../src/http/front.ts"
import { HttpSettings } from "../../src/http/HttpSettings.ts"
import type { OperatorSettings } from "../../src/http/Operator.ts"
import * as Server from "../../src/http/Server.ts"
import * as RawSinkLayer from "../../src/layers/feeds/RawSink.ts"
import * as History from "../../src/layers/history/History.ts"
import * as InstrumentsLayer from "../../src/layers/instruments/Instruments.ts"
import * as MemoryCounters from "../../src/layers/memory/MemoryCounters.ts"
import * as MemoryLog from "../../src/layers/memory/MemoryLog.ts"
import * as ReplayService from "../../src/layers/replays/ReplayService.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import type { Quote } from "../../src/schema/Quote.ts"
import { TickLog } from "../../src/streams/log/TickLog.ts"
import { Overview } from "../../src/streams/Overview.ts"
import type { Archive } from "../../src/streams/ports/Archive.ts"
import { LatestQuotes } from "../../src/streams/ports/LatestQuotes.ts"
import type { TickStore } from "../../src/streams/ports/TickStore.ts"
import { ReplayAudience } from "../../src/streams/replay/ReplayAudience.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"

export const PARTITIONS = 4

const nobody = Layer.succeed(ReplayAudience, {
  open: () => {},
  publish: () => {},
  clock: () => {},
  close: () => {},
  clients: () => 1
})

const self = { life: "life-1", worker: "instance here:1", role: "instance" as const, started_at: 0, stages: [] }

/** A worker's own port, on a free one. */
export const operatorSettings: OperatorSettings = {
  METRICS_HOST: "127.0.0.1",
  METRICS_PORT: 0,
  METRICS_ALLOW: undefined,
  API_KEYS_FILE: undefined,
  ALLOWED_HOSTS: undefined,
  HTTP_ADDRESS_PERCENT: 50
}

export interface Serving {
  readonly store: Layer.Layer<TickStore>
  /** Where days are that the store has dropped; nowhere unless given. */
  readonly archive?: Layer.Layer<Archive>
  /** The newest quotes that are known; none unless given. */
  readonly quotes?: ReadonlyArray<Quote>
  readonly settings?: Partial<HttpSettings["Service"]>
  readonly log?: Partial<MemoryLog.MemoryLogOptions>
  readonly mounts?: ReadonlyArray<Server.Mount>
  readonly bounds?: Bounds
  /** Who listens to replays; one client to each unless told otherwise. */
  readonly audience?: Layer.Layer<ReplayAudience>
  /** Who is let in; everybody unless told otherwise. */
  readonly access?: Layer.Layer<Access.Access, StartError>
}

/** The server on embedded services, for as long as the scope. */
export const serve = ({
  store,
  archive,
  quotes = [],
  settings,
  log,
  mounts,
  bounds,
  audience = nobody,
  access = Access.layerOpen
}: Serving) => {
  const services = Layer.mergeAll(
    access,
    Layer.succeed(LatestQuotes, (tokens) => {
      const known = quotes.filter((quote) => tokens.includes(quote.instrument_token))
      return Effect.succeed(new Map(known.map((quote) => [quote.instrument_token, quote])))
    }),
    RawSinkLayer.layerLog,
    InstrumentsLayer.layer,
    Layer.succeed(HttpSettings, {
      HOST: "127.0.0.1",
      PORT: 0,
      TLS_CERT_FILE: undefined,
      TLS_KEY_FILE: undefined,
      ALLOWED_HOSTS: undefined,
      ALLOWED_ORIGINS: undefined,
      METRICS_ALLOW: undefined,
      HTTP_REQUESTS: 256,
      HTTP_BODIES: 128,
      HTTP_STREAMS: 32,
      HTTP_ADDRESS_PERCENT: 100,
      INGEST_WAIT_MS: 5000,
      MAX_FUTURE_SKEW_MS: 5000,
      DRAIN_DEADLINE_MS: 10_000,
      describe: () => ({ nodes: [], edges: [] }),
      ...settings
    })
  ).pipe(
    Layer.provideMerge(Overview.layer({ self, expected: [] })),
    Layer.provideMerge(archive === undefined ? History.layerOfStore : Layer.provide(History.layer, archive)),
    Layer.provideMerge(store),
    Layer.provideMerge(Layer.merge(Readiness.layer, MemoryCounters.layer)),
    Layer.provideMerge(
      MemoryLog.layer({
        partitions: PARTITIONS,
        capacity: 100_000,
        dlqCapacity: 10,
        retained: 100_000,
        batch: 1000,
        ...log
      })
    )
  )
  const replays = ReplayService.layer({
    REPLAY_WINDOW_TICKS: 100,
    REPLAY_IDLE_MS: 600_000,
    REPLAY_STORE_LAG_RECORDS: 100_000,
    MAX_REPLAYS: 2
  }).pipe(Layer.provide(audience))
  return Layer.build(Server.layer(mounts, bounds).pipe(Layer.provideMerge(replays), Layer.provideMerge(services))).pipe(
    Effect.map((context) => ({
      port: Context.get(context, Server.Server).port,
      log: Context.get(context, TickLog),
      readiness: Context.get(context, Readiness),
      context
    }))
  )
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  readonly bytes: Buffer
  /** The body as JSON; `undefined` where it is none. */
  readonly json: unknown
}

export interface Asked {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array
  /** Over TLS, trusting this authority's certificate. */
  readonly ca?: string
  /** Where the server is called; loopback unless given. */
  readonly host?: string
  readonly localAddress?: string
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** One request over its own connection; any header may be sent, also a false Host. */
export const ask = (
  port: number,
  path: string,
  { method, headers, body, ca, host, localAddress }: Asked = {}
): Effect.Effect<Answer> =>
  Effect.callback((resume) => {
    const sent = (ca === undefined ? request : secureRequest)(
      {
        ...(ca === undefined ? {} : { ca }),
        ...(localAddress === undefined ? {} : { localAddress }),
        host: host ?? "127.0.0.1",
        port,
        path,
        method: method ?? "GET",
        headers: { ...(body === undefined ? {} : { "content-length": Buffer.byteLength(body) }), ...headers },
        agent: false
      },
      (response) => {
        const parts: Array<Buffer> = []
        response.on("data", (part: Buffer) => parts.push(part))
        response.on("end", () => {
          const bytes = Buffer.concat(parts)
          const text = bytes.toString("utf8")
          resume(
            Effect.succeed({
              status: response.statusCode ?? 0,
              headers: response.headers,
              text,
              bytes,
              json: parse(text)
            })
          )
        })
        response.on("error", (error) => resume(Effect.die(error)))
      }
    )
    sent.on("error", (error) => resume(Effect.die(error)))
    sent.end(body)
    return Effect.sync(() => sent.destroy())
  })
