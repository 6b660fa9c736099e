/** Decides how tests meet a Kite server: one played by a market that the test itself moves on, and a sink that keeps what a feed sends. */
import { Effect, Exit, Layer, Redacted, Scope } from "effect"
import { KiteBoard } from "../../src/http/kiteSim/KiteBoard.ts"
import { API_KEY, type KiteServer, type KiteServerOptions, serveKite } from "../../src/http/kiteSim/KiteServer.ts"
import { CONNECTION_TIMES, type ConnectionTimes } from "../../src/layers/kite/connection.ts"
import { makeSecrets, type TokenSource } from "../../src/layers/kite/secrets.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import { isIndexToken, type KitePacket } from "../../src/schema/kite/packets.ts"
import { defaultSimulation } from "../../src/schema/Simulation.ts"
import { RawSink, type RawSinkTick } from "../../src/streams/ports/RawSink.ts"

/** Ten seconds before now: stamps are never ahead of the clock. */
const BEGUN_BEFORE_MS = 10_000

/** Waits for something that real sockets bring about, however long it takes. */
export const until = (what: string, holds: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    const wait: Effect.Effect<void> = Effect.suspend(() =>
      holds() ? Effect.void : Effect.andThen(Effect.sleep(5), wait)
    )
    return wait
  }).pipe(
    // A guard against a hang, far from what a slow machine needs.
    Effect.timeoutOrElse({ duration: "4 minutes", orElse: () => Effect.die(new Error(`never: ${what}`)) })
  )

export interface Played {
  readonly board: KiteBoard
  /** Moves the market on by so many milliseconds, and sends what changed. */
  readonly step: (ms: number) => void
  /** Of every frame that went out whole, in order. */
  readonly sent: ReadonlyArray<KitePacket>
  readonly server: () => KiteServer
  /** Serves on the port it had, from another process as it were. */
  readonly start: Effect.Effect<void, StartError>
  readonly stop: Effect.Effect<void>
}

/** A Kite server whose market stands still unless it is moved. */
export const playedKite = (
  symbols: number,
  options: Partial<KiteServerOptions> & { readonly rate?: number } = {}
): Effect.Effect<Played, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const board = new KiteBoard({ ...defaultSimulation, symbols, rate: options.rate ?? 2000, loss: 0 })
    const begunAt = (Date.now() - BEGUN_BEFORE_MS) * 1000
    const sent: Array<KitePacket> = []
    let port = options.port ?? 0
    let server: KiteServer | undefined
    let close: Effect.Effect<void> = Effect.void
    const start = Effect.gen(function* () {
      const scope = yield* Scope.make()
      close = Scope.close(scope, Exit.void)
      server = yield* serveKite(board, {
        heartbeatMs: 50,
        ...options,
        port,
        onSent: (packets) => {
          for (const packet of packets) sent.push(packet)
        }
      }).pipe(Effect.provideService(Scope.Scope, scope))
      port = server.port
    })
    const stop = Effect.suspend(() => {
      const closing = close
      close = Effect.void
      return closing
    })
    yield* Effect.acquireRelease(start, () => stop)
    let time = 0
    return {
      board,
      step: (ms) => {
        time += ms * 1000
        do server!.changed(board.advance(time, begunAt, 4000))
        while (board.time < time)
      },
      sent,
      server: () => server!,
      start,
      stop
    }
  })

/** Short enough for a test to wait for. */
export const quickTimes: ConnectionTimes = {
  ...CONNECTION_TIMES,
  minMs: 5,
  maxMs: 50,
  aliveMs: 1000,
  silenceMs: 2000,
  stableMs: 100,
  overlapMs: 200,
  handshakeMs: 2000
}

export interface Said {
  readonly level: "info" | "warn"
  readonly text: string
}

export const secretsOf = (
  source: TokenSource,
  more: { readonly waits?: boolean; readonly onRefused?: (what: string) => void; readonly apiKey?: string } = {}
) =>
  makeSecrets({
    apiKey: Redacted.make(more.apiKey ?? API_KEY),
    source,
    waits: more.waits ?? true,
    onRefused: more.onRefused ?? (() => undefined)
  })

export interface RawRecord {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly price?: number
  readonly day_volume?: number
  readonly occurrence?: number
  readonly received_ts?: number
  readonly quote?: Readonly<Record<string, unknown>>
}

/** A sink that keeps what it takes, once `each` lets it. */
export const keeping = (each: () => Effect.Effect<void> = () => Effect.void) => {
  const records: Array<RawRecord> = []
  const take = (ticks: ReadonlyArray<RawSinkTick>) => {
    for (const { value } of ticks) records.push(JSON.parse(Buffer.from(value).toString()) as RawRecord)
  }
  const layer = Layer.succeed(RawSink, { publish: (ticks) => Effect.map(each(), () => take(ticks)) })
  return { records, layer }
}

/** What tells a tick from any other, by the broker's packet. */
export const tickOfPacket = (p: KitePacket): string =>
  isIndexToken(p.token)
    ? `${p.token} ${p.exchangeSeconds} ${p.lastPrice}`
    : `${p.token} ${p.lastTradeSeconds} ${p.lastPrice} ${p.volume}`

export const tickOfRecord = (r: RawRecord): string =>
  isIndexToken(r.instrument_token)
    ? `${r.instrument_token} ${r.exchange_ts / 1_000_000} ${r.price}`
    : `${r.instrument_token} ${r.exchange_ts / 1_000_000} ${r.price} ${r.day_volume}`
