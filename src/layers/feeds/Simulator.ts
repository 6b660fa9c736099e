/** Decides how a simulated market runs in real time: its beat, its slowing down with the sink, its end and its ledger. */
import { Clock, Effect, Exit } from "effect"
import type { FeedError, LogError, Overloaded } from "../../schema/Errors.ts"
import type { Simulation } from "../../schema/Simulation.ts"
import { publishPatiently, RawSink } from "../../streams/ports/RawSink.ts"
import { type Ledger, noLedger, openLedger } from "./ledger.ts"
import { encodeLedgerLine, encodePacket, Market, type MarketCounts, type Packet } from "./Market.ts"

/** How often packets that are due are sent. */
const BEAT_MS = 10
/** Packets published at a time. */
const BATCH_PACKETS = 4000
/** A market that the sink has put back by more than this does not catch up: it goes on slower. */
const MAX_LAG_MICROS = 500_000

export interface RunOptions extends Simulation {
  /** Names this run's connections; made up where absent. */
  readonly runId?: string
  /** Called once a second, and last with `isFinal`, also where the run was interrupted. */
  readonly progress?: (summary: Summary, isFinal: boolean) => void
}

export interface Summary extends Readonly<MarketCounts> {
  readonly seconds: number
  /** Ticks meant a second. */
  readonly rate: number
}

/** Two lines for a person. Each packet of the snapshot feed has a quote. */
export const describeSummary = (s: Summary): string =>
  `${s.ticks} ticks in ${s.seconds.toFixed(1)} s, ${Math.round(s.rate)}/s\n` +
  `dma sent ${s.dmaSent} (lost ${s.dmaLost}, duplicated ${s.dmaDuplicated}, reordered ${s.dmaReordered}); ` +
  `snapshot sent ${s.snapshotSent} with quotes (lost ${s.snapshotLost})`

const makeRunId = (micros: number): string =>
  `${micros.toString(36)}${Math.floor(Math.random() * 0x100000)
    .toString(36)
    .padStart(4, "0")}`

/**
 * Plays a market into the sink until its duration is over or it is interrupted. Either way it ends in order: what is
 * held back goes out, every instrument gets its closing tick, the ledger is complete; only then is it done.
 */
export const run = (options: RunOptions): Effect.Effect<Summary, LogError | Overloaded | FeedError, RawSink> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const sink = yield* RawSink
      const ledger = options.ledger === undefined ? noLedger : yield* openLedger(options.ledger)
      return yield* play(options, sink, ledger, restore).pipe(Effect.onExit(() => Effect.ignore(ledger.end)))
    })
  )

const micros = Effect.map(
  Effect.all([Clock.currentTimeNanos, Clock.monotonicTimeNanos]),
  ([wall, monotonic]) => [Number(wall / 1000n), Number(monotonic / 1000n)] as const
)

const play = (
  options: RunOptions,
  sink: RawSink["Service"],
  ledger: Ledger,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<Summary, LogError | Overloaded | FeedError> =>
  Effect.gen(function* () {
    const market = new Market(options)
    const [wallBegin, begin] = yield* micros
    const runId = options.runId ?? makeRunId(wallBegin)
    const duration = options.durationMs === undefined ? Number.POSITIVE_INFINITY : options.durationMs * 1000

    const send = (packets: ReadonlyArray<Packet>): Effect.Effect<void, LogError | Overloaded | FeedError> =>
      Effect.gen(function* () {
        const ticks = packets.map((packet) => ({
          token: packet.tick.instrument_token,
          value: Buffer.from(encodePacket(packet, options, runId))
        }))
        yield* publishPatiently(sink, ticks)
        market.acknowledge(packets)
        const settled = market.takeSettled()
        if (settled.length > 0) yield* ledger.write(settled.map(encodeLedgerLine).join(""))
      })

    const summary = Effect.map(micros, ([, now]): Summary => {
      const seconds = Math.max(0.000_001, (now - begin) / 1_000_000)
      return { ...market.counts, seconds, rate: market.counts.ticks / seconds }
    })

    /** By how much the market has been put back since it began. */
    let slip = 0
    let reportAt = begin + 1_000_000
    let isInterrupted = false
    let begunAt = wallBegin
    while (!isInterrupted) {
      const [wall, now] = yield* micros
      slip = Math.max(slip, now - begin - market.time - MAX_LAG_MICROS)
      const due = now - begin - slip
      begunAt = wall - due
      const until = Math.min(due, duration - slip)
      const packets = market.advance(until, begunAt, BATCH_PACKETS)
      if (packets.length > 0) yield* send(packets)
      if (options.progress !== undefined && now >= reportAt) {
        reportAt = now + 1_000_000
        options.progress(yield* summary, false)
      }
      if (now - begin >= duration && market.time >= until) break
      const pause = market.time < until ? Effect.yieldNow : Effect.sleep(BEAT_MS)
      isInterrupted = Exit.isFailure(yield* Effect.exit(restore(pause)))
    }

    const closing = market.close(begunAt)
    for (let from = 0; from < closing.length; from += BATCH_PACKETS) {
      yield* send(closing.slice(from, from + BATCH_PACKETS))
    }
    yield* ledger.end
    const final = yield* summary
    options.progress?.(final, true)
    return final
  })
