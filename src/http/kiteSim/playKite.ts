/** Decides how the simulated Kite runs in real time: the beat of its market, when the faults of the command line come, and its ledger. */
import { Clock, Effect } from "effect"
import { noLedger, openLedger } from "../../layers/feeds/ledger.ts"
import type { FeedError, StartError } from "../../schema/Errors.ts"
import type { Simulation } from "../../schema/Simulation.ts"
import type { Fault } from "./faults.ts"
import { KiteBoard } from "./KiteBoard.ts"
import { type KiteServer, type KiteServerFigures, type SettledFrame, serveKite } from "./KiteServer.ts"

/** How often the market goes on. */
const BEAT_MS = 10
const BATCH_PACKETS = 4000
const REPORT_MS = 1000
const MICROS_PER_SECOND = 1_000_000

/** A line of the ledger for each packet of a frame. */
const ledgerLines = ({ connection, isRead, packets }: SettledFrame): string =>
  packets
    .map((p) => {
      const stamps = {
        exchange_ts: p.exchangeSeconds * MICROS_PER_SECOND,
        last_trade_ts: p.lastTradeSeconds * MICROS_PER_SECOND
      }
      const said = { instrument_token: p.token, mode: p.mode, ...stamps, price: p.lastPrice, day_volume: p.volume }
      return `${JSON.stringify({ connection, read: isRead, ...said })}\n`
    })
    .join("")

export interface PlayOptions extends Simulation {
  readonly port: number
  readonly faults: ReadonlyArray<{ readonly afterMs: number; readonly fault: Fault }>
  /** Told once it listens. */
  readonly onListening: (server: KiteServer) => void
  readonly onFault: (fault: Fault) => void
  readonly progress: (figures: KiteServerFigures) => void
}

/** Plays until its duration is over or it is interrupted. */
export const playKite = (options: PlayOptions): Effect.Effect<void, StartError | FeedError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      const board = new KiteBoard(options)
      let settled = ""
      const ledger = options.ledger === undefined ? noLedger : yield* openLedger(options.ledger)
      const write = Effect.suspend(() => {
        const lines = settled
        settled = ""
        return ledger.write(lines)
      })
      // After the server, whose end settles what was under way.
      yield* Effect.addFinalizer(() => Effect.ignore(Effect.andThen(write, ledger.end)))
      const server = yield* serveKite(board, {
        port: options.port,
        onFault: options.onFault,
        ...(options.ledger === undefined
          ? {}
          : {
              onSettled: (frame: SettledFrame) => {
                settled += ledgerLines(frame)
              }
            })
      })
      options.onListening(server)
      for (const { afterMs, fault } of options.faults) {
        yield* Effect.forkScoped(
          Effect.delay(
            Effect.sync(() => server.fault(fault)),
            afterMs
          )
        )
      }
      yield* Effect.forkScoped(
        Effect.forever(
          Effect.andThen(
            Effect.sleep(REPORT_MS),
            Effect.sync(() => options.progress(server.figures()))
          )
        )
      )
      const begunAt = clock.currentTimeMillisUnsafe()
      const duration = options.durationMs ?? Number.POSITIVE_INFINITY
      let rested = 0
      let last = begunAt
      for (;;) {
        const now = clock.currentTimeMillisUnsafe()
        if (server.isResting()) rested += now - last
        else {
          const until = (now - begunAt - rested) * 1000
          // What is not yet played goes on at once: a beat has room for so many packets.
          let changed: ReadonlyArray<number>
          do {
            changed = board.advance(until, (begunAt + rested) * 1000, BATCH_PACKETS)
            server.changed(changed)
          } while (board.time < until)
        }
        last = now
        yield* Effect.uninterruptible(write)
        if (now - begunAt >= duration) return
        yield* Effect.sleep(BEAT_MS)
      }
    })
  )
