/**
 * Decides how Kite's ticker becomes raw records: connections side by side into one bounded inbox, from there into the log
 * in order, sent again until it has them; and the account of what came and what became of it.
 */
import { Clock, Effect, Fiber } from "effect"
import type { FeedError } from "../../schema/Errors.ts"
import type { KiteMode } from "../../schema/kite/packets.ts"
import { RawSink, type RawSinkTick } from "../../streams/ports/RawSink.ts"
import {
  CONNECTION_TIMES,
  type ConnectionCounts,
  type ConnectionTimes,
  keepConnected,
  noConnections
} from "./connection.ts"
import { Inbox } from "./Inbox.ts"
import { partsOf } from "./instruments.ts"
import { KiteRecords, type PacketCounts } from "./KiteRecords.ts"
import { hasEnded } from "./rest.ts"
import type { Secrets } from "./secrets.ts"

/** The first wait for a log that does not take what it is sent; each is twice the one before, up to the last. */
const FIRST_WAIT_MS = 100
const LONGEST_WAIT_MS = 5000
const REPORT_MS = 1000
/** How often Kite is asked whether the token still holds: a ticker may send no ticks any more, or go on for a while. */
const CHECK_MS = 60_000

export interface KiteFeedOptions {
  readonly wsRoot: string
  readonly secrets: Secrets
  readonly tokens: ReadonlyArray<number>
  readonly mode: KiteMode
  /** How far ahead of this process's clock a stamp may be. */
  readonly maxAheadMs: number
  readonly times?: ConnectionTimes
  /** Where Kite is asked about the token while connections are up; nowhere unless said. */
  readonly root?: string
  /** How often; a minute unless said. */
  readonly checkMs?: number
  /** Records that wait at most; full: the sockets are not read. */
  readonly capacity?: number
  /** How often `progress` is called; a second unless said. */
  readonly reportMs?: number
  readonly onSay: (level: "info" | "warn", text: string) => void
  /** Called again and again, and last with `isFinal`, also where the run was interrupted. */
  readonly progress?: (summary: KiteSummary, isFinal: boolean) => void
}

export interface KiteSummary {
  readonly instruments: number
  readonly connections: number
  /** Connections that are up. */
  readonly up: number
  readonly seconds: number
  readonly packets: Readonly<PacketCounts>
  readonly sockets: Readonly<ConnectionCounts>
  /** Records that the log has, and those that wait for it. */
  readonly sent: number
  readonly waiting: number
  /** Times that the inbox was full. */
  readonly fulls: number
}

/** The account in lines for a person: each packet is in one of the named places. */
export const describeSummary = ({ packets: p, sent, sockets: s, waiting }: KiteSummary): string =>
  `${p.received} packets in ${s.frames} frames: ${p.recorded} recorded, ${p.unchanged} unchanged, ${p.outdated} outdated, ` +
  `${p.unasked} not asked for, ${p.otherMode} of another mode, ${p.undated} without a time, ` +
  `${p.ahead} ahead of the clock; ` +
  `besides ${s.unknownPackets} of unknown lengths and ${s.brokenFrames} broken frames\n` +
  `${p.records} records: ${sent} sent, ${waiting} waiting; ${p.ticks} ticks, ${p.quotes} quotes; ` +
  `${s.connected} connections, ${s.ended.closed} closed, ${s.ended.lost} lost, ${s.ended.dead} dead, ` +
  `${s.ended.silent} silent, ${s.ended.broken} broken, ${s.failed} refused or failed`

/** Feeds until it is interrupted: then the sockets close, and what has come is in the log before it is done. */
export const run = (options: KiteFeedOptions): Effect.Effect<never, FeedError, RawSink> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const sink = yield* RawSink
      const clock = yield* Clock.Clock
      const begunAt = clock.currentTimeMillisUnsafe()
      const { maxAheadMs, mode, onSay, progress, root, secrets, tokens, wsRoot } = options
      const times = options.times ?? CONNECTION_TIMES
      const inbox = new Inbox(options.capacity)
      const records = new KiteRecords(tokens, mode, maxAheadMs)
      const counts = noConnections()
      const parts = partsOf(tokens)
      let up = 0
      let sent = 0
      let underWay = 0
      let isRefused = false

      const summary = (): KiteSummary => ({
        instruments: tokens.length,
        connections: parts.length,
        up,
        seconds: (clock.currentTimeMillisUnsafe() - begunAt) / 1000,
        packets: records.counts,
        sockets: counts,
        sent,
        waiting: inbox.size + underWay,
        fulls: inbox.fulls
      })

      /** The same records have the same identity: sent again, none is there twice. */
      const publish = (taken: ReadonlyArray<RawSinkTick>): Effect.Effect<void, FeedError> =>
        Effect.gen(function* () {
          let isTold = false
          for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(LONGEST_WAIT_MS, 2 * waitMs)) {
            // Of a fiber that nobody stops: a sink may let go of its own waits where it is stopped, and so of what it has.
            const under = yield* Effect.forkDetach(sink.publish(taken))
            const failure = yield* Fiber.join(under).pipe(Effect.as(undefined), Effect.catch(Effect.succeed))
            if (failure === undefined) break
            // What has never been taken is more likely sent to the wrong place, or without a key, than about to be.
            if (sent === 0 && failure._tag === "FeedError") {
              isRefused = true
              return yield* failure
            }
            if (!isTold) onSay("warn", `the log takes no ticks: ${failure.message}; they are kept and sent again`)
            isTold = true
            yield* Effect.sleep(waitMs)
          }
          if (isTold) onSay("info", "the log takes ticks again")
          sent += taken.length
          underWay = 0
        })

      const handOn = Effect.flatMap(inbox.take, (taken) => {
        underWay = taken.length
        return Effect.uninterruptible(publish(taken))
      })

      const connect = Effect.forEach(
        parts,
        (part, index) =>
          keepConnected({
            name: parts.length === 1 ? "the connection" : `connection ${index + 1} of ${parts.length}`,
            wsRoot,
            secrets,
            tokens: part,
            mode,
            times,
            inbox,
            counts,
            onSay,
            onUp: (isUp) => {
              up += isUp ? 1 : -1
            },
            onFrame: ({ packets }, receivedTs, origin) => {
              const into: Array<RawSinkTick> = []
              let hasNews = false
              const { ahead } = records.counts
              for (const packet of packets) hasNews = records.take(packet, receivedTs, into, origin) || hasNews
              if (ahead === 0 && records.counts.ahead > 0) {
                onSay(
                  "warn",
                  `a packet is stamped more than ${maxAheadMs} ms ahead of this host's clock: such packets are passed over and counted`
                )
              }
              inbox.put(into)
              return hasNews
            }
          }),
        { concurrency: "unbounded", discard: true }
      )
      const report = Effect.sleep(options.reportMs ?? REPORT_MS).pipe(
        Effect.andThen(Effect.sync(() => progress?.(summary(), false)))
      )

      /** Where nothing is up, the next handshake tells. */
      const check = Effect.gen(function* () {
        yield* Effect.sleep(options.checkMs ?? CHECK_MS)
        const token = secrets.latest()
        if (root === undefined || token === undefined || up === 0) return
        if (yield* hasEnded(root, secrets, token)) yield* secrets.lapse(token)
      })

      const all = Effect.all([connect, Effect.forever(handOn), Effect.forever(report), Effect.forever(check)], {
        concurrency: "unbounded",
        discard: true
      })
      const exit = yield* Effect.exit(restore(all))
      while (inbox.size > 0 && !isRefused) yield* handOn
      progress?.(summary(), true)
      return yield* Effect.andThen(exit, Effect.never)
    })
  )
