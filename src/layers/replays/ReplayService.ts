/**
 * Decides how a server runs its replays: reads the past, puts runs into the log within the shared window, takes what
 * comes back, tells the clients, and ends what nobody listens to.
 */
import { randomBytes } from "node:crypto"
import { Cause, Clock, Effect, Exit, Fiber, Layer, Schedule, Scope } from "effect"
import { LogError, Overloaded, type StoreError } from "../../schema/Errors.ts"
import { showText } from "../../schema/Explain.ts"
import { fullSymbol } from "../../schema/Instrument.ts"
import { describeMeaning } from "../../schema/Meaning.ts"
import type { Settings } from "../../schema/Settings.ts"
import { IST_OFFSET_MICROS, tradingDay } from "../../schema/Tick.ts"
import { TickLog } from "../../streams/log/TickLog.ts"
import * as metrics from "../../streams/metrics.ts"
import { History, type PastTicks } from "../../streams/ports/History.ts"
import { didYouMean, Instruments } from "../../streams/ports/Instruments.ts"
import { makePace, type Pace } from "../../streams/replay/pace.ts"
import { ReplayAudience } from "../../streams/replay/ReplayAudience.ts"
import {
  MAX_REPLAY_SYMBOLS,
  type Replay,
  type ReplayChange,
  ReplayOver,
  ReplayRefused,
  type ReplayRequest,
  type ReplayState,
  Replays,
  type Speed,
  UnknownReplay,
  UnknownSymbol
} from "../../streams/replay/Replays.ts"
import { type Release, WatermarkReorder } from "../../streams/replay/reorderByWatermark.ts"
import { endRun, makeWindow, replay, type Slice, sliceTicks, storedPackets } from "../../streams/replay/replay.ts"

export type ReplaySettings = Pick<
  Settings,
  "REPLAY_WINDOW_TICKS" | "REPLAY_IDLE_MS" | "REPLAY_STORE_LAG_RECORDS" | "MAX_REPLAYS"
>

/** Replays that are over and still listed; one more drops the oldest. */
const LISTED_AFTER_END = 50
/** Runs that are still in the pipeline for each replay allowed: stopped ones leave it a little later. */
const RUNS_A_REPLAY = 4
/** How often it is looked whether anyone listens, and the clients are told the time. */
const HEARTBEAT_MS = 1000
/** The clock is told after ticks at most this often. */
const CLOCK_EVERY_MS = 100
/** How often the store's lag is asked for, and how long a run waits before it asks again. */
const LAG_EVERY_MS = 100
const LAG_WAIT_MS = 20
/** The consumer group that writes the store. */
const STORE_GROUP = "store"
/** How long a stopping server tries to tell the pipeline that its runs are over. */
const GOODBYE_MS = 1000
/** Instruments named where a symbol may mean several. */
const MAX_CHOICES = 5
const RETRY_AFTER_SECONDS = 10
/** What others said of a failure is told up to here. */
const MAX_FAILURE_CHARS = 500
const MICROS_PER_MINUTE = 60_000_000
const MICROS_PER_DAY = 86_400_000_000

/** One replay, from its start until it drops off the list. */
interface Entry {
  readonly id: string
  readonly runKey: string
  readonly run: number
  readonly from: number
  readonly to: number
  readonly total: number
  readonly detached: boolean
  readonly isSimulated: boolean
  readonly pace: Pace
  state: ReplayState
  failure: { readonly _tag: string; readonly message: string } | undefined
  /** Ticks out of the pipeline. */
  sent: number
  /** Ticks and quotes on the way to that. */
  onTheWay: number
  /** exchange_ts of the last that came out. */
  lastOut: number | undefined
  /** Those that have not come out, by watermark. */
  readonly slices: Map<number, Slice>
  watermark: number
  /** The end watermark went in: the pipeline will free the run by itself. */
  endSent: boolean
  clockToldAt: number
  listenedAt: number
  fiber: Fiber.Fiber<void> | undefined
}

const speedNumber = (speed: Speed): number => (speed === "inf" ? Number.POSITIVE_INFINITY : speed)
const isOver = (entry: Entry): boolean => entry.state === "ended" || entry.state === "failed"

/** `HH:MM` in minutes. */
const minutes = (text: string): number => Number(text.slice(0, 2)) * 60 + Number(text.slice(3))

/** The half-open range of a trading day that is asked for, in epoch microseconds. */
const rangeOf = (request: ReplayRequest): { readonly from: number; readonly to: number } => {
  const midnight = Date.parse(`${request.date}T00:00:00Z`) * 1000 - IST_OFFSET_MICROS
  return {
    from: request.from === undefined ? midnight : midnight + minutes(request.from) * MICROS_PER_MINUTE,
    to: request.to === undefined ? midnight + MICROS_PER_DAY : midnight + minutes(request.to) * MICROS_PER_MINUTE
  }
}

const make = (settings: ReplaySettings) =>
  Effect.gen(function* () {
    const history = yield* History
    const log = yield* TickLog
    const instruments = yield* Instruments
    const audience = yield* ReplayAudience
    const clock = yield* Clock.Clock
    const scope = yield* Scope.Scope
    const context = yield* Effect.context<never>()

    const window = makeWindow(settings.REPLAY_WINDOW_TICKS)
    const reorder = new WatermarkReorder(log.partitions, window.capacity)
    const entries = new Map<string, Entry>()
    /** Runs whose end has not come out yet, those of stopped replays included. */
    const runs = new Map<string, Entry>()
    let starting = 0

    const inFlight = metrics.bind(metrics.bufferSize, { buffer: "replay_window" }, context)
    inFlight.add(0)
    metrics.bind(metrics.bufferMaxSize, { buffer: "replay_window" }, context).add(window.capacity)

    const now = () => clock.currentTimeMillisUnsafe()
    const active = () => {
      let count = 0
      for (const entry of entries.values()) if (!isOver(entry)) count++
      return count
    }

    /** Everything up to here has come out; while nothing is on its way, the market's own time. */
    const clockOf = (entry: Entry): number | undefined => {
      const { lastOut } = entry
      if (entry.onTheWay > 0 || isOver(entry)) return lastOut
      const position = entry.pace.positionUnsafe()
      if (position === undefined || (lastOut !== undefined && lastOut > position)) return lastOut
      // While the store is silent the market's time runs on, but not out of what is replayed.
      return Math.min(position, entry.to)
    }
    const tellClock = (entry: Entry, isWhole = false) => {
      entry.clockToldAt = now()
      audience.clock(entry.id, { run: entry.run, ts: clockOf(entry) ?? null, state: entry.state, isWhole })
    }
    const show = (entry: Entry): Replay => {
      const speed = entry.pace.speedUnsafe()
      return {
        id: entry.id,
        state: entry.state,
        speed: speed === Number.POSITIVE_INFINITY ? "inf" : speed,
        clock: clockOf(entry) ?? null,
        run: entry.run,
        from: entry.from,
        to: entry.to,
        sent: entry.sent,
        total: entry.total,
        ...(entry.failure === undefined ? {} : { failure: entry.failure })
      }
    }

    /** The run is gone from the pipeline, or nothing of it will come out any more. */
    const forget = (entry: Entry) => {
      runs.delete(entry.runKey)
      reorder.close(entry.runKey)
      window.dropUnsafe(entry.runKey)
      inFlight.add(window.usedUnsafe())
    }
    const finish = (entry: Entry, state: "ended" | "failed", failure?: Entry["failure"], isWhole = false) => {
      if (isOver(entry)) return
      entry.state = state
      entry.failure = failure
      tellClock(entry, isWhole)
      audience.close(entry.id)
      let over = 0
      for (const other of entries.values()) if (isOver(other)) over++
      for (const other of entries.values()) {
        if (over <= LISTED_AFTER_END) break
        if (!isOver(other)) continue
        entries.delete(other.id)
        over--
      }
    }

    /** Hands a slice to the clients and counts it. */
    const tell = ({ run, watermark, end, ticks, quotes }: Release) => {
      const entry = runs.get(run)
      if (entry === undefined) return
      const slice = entry.slices.get(watermark)
      entry.onTheWay -= slice?.packets ?? 0
      if (isOver(entry)) return
      entry.sent += slice?.ticks ?? 0
      const last = Math.max(
        ticks[ticks.length - 1]?.exchange_ts ?? Number.NEGATIVE_INFINITY,
        quotes[quotes.length - 1]?.exchange_ts ?? Number.NEGATIVE_INFINITY
      )
      if (last > Number.NEGATIVE_INFINITY) {
        entry.lastOut = last
        audience.publish(entry.id, ticks, quotes)
        if (now() - entry.clockToldAt >= CLOCK_EVERY_MS) tellClock(entry)
      }
      if (end) finish(entry, "ended", undefined, true)
    }
    /** Gives back a slice's part of the window. It may wake a run at once, so it comes after all is told. */
    const free = ({ run, watermark, end }: Release) => {
      const entry = runs.get(run)
      if (entry === undefined) return
      const slice = entry.slices.get(watermark)
      entry.slices.delete(watermark)
      window.freeUnsafe(run, slice?.packets ?? 0)
      inFlight.add(window.usedUnsafe())
      if (end) forget(entry)
    }

    let laggedAt = Number.NEGATIVE_INFINITY
    /** Waits while the store is too far behind; a log that does not answer holds nobody back. */
    const holdBack: Effect.Effect<void> = Effect.suspend(() => {
      if (now() - laggedAt < LAG_EVERY_MS) return Effect.void
      return log.lag.pipe(
        Effect.map((lags) =>
          lags.some(({ group, records }) => group === STORE_GROUP && records > settings.REPLAY_STORE_LAG_RECORDS)
        ),
        Effect.catch(() => Effect.succeed(false)),
        Effect.flatMap((behind) => {
          if (behind) return Effect.andThen(Effect.sleep(LAG_WAIT_MS), holdBack)
          laggedAt = now()
          return Effect.void
        })
      )
    })

    /** Tells the pipeline that a run is over before its time, so that it frees the run's state and the window. */
    const goodbye = (entry: Entry): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (!runs.has(entry.runKey) || entry.endSent) return Effect.void
        entry.endSent = true
        reorder.sent(entry.runKey, ++entry.watermark, true)
        return endRun(entry.runKey, entry.watermark, log).pipe(
          Effect.retry({ schedule: Schedule.exponential(50), times: 5 }),
          Effect.catch(() => Effect.sync(() => forget(entry)))
        )
      })

    const runOf = (entry: Entry, past: PastTicks, tokens: ReadonlyArray<number>): Effect.Effect<void> =>
      replay(storedPackets(past, { tokens, from: entry.from, to: entry.to, arraySize: sliceTicks(window) }), {
        run: entry.runKey,
        log,
        window,
        pace: entry.pace,
        holdBack,
        onDue: (packets) => {
          entry.onTheWay += packets
        },
        onSlice: (slice) => {
          const { watermark, end } = slice
          entry.watermark = watermark
          reorder.sent(entry.runKey, watermark, end)
          entry.slices.set(watermark, slice)
          entry.endSent = end
          inFlight.add(window.usedUnsafe())
        }
      }).pipe(
        Effect.onExit((exit) => {
          if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return Effect.void
          return Effect.suspend(() => {
            finish(entry, "failed", reasonOf(exit.cause))
            // An end watermark that failed on its way has not reached every partition.
            entry.endSent = false
            return Effect.forkIn(goodbye(entry), scope)
          })
        }),
        Effect.ignore
      )

    /** Ends a replay now: nothing more goes in, and its clients are told. */
    const stopEntry = (entry: Entry): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (isOver(entry)) return Effect.void
        finish(entry, "ended")
        return Effect.gen(function* () {
          if (entry.fiber !== undefined) yield* Fiber.interrupt(entry.fiber)
          yield* goodbye(entry)
        }).pipe(Effect.forkIn(scope), Effect.asVoid)
      })

    const heartbeat = (entry: Entry): Effect.Effect<void> =>
      Effect.gen(function* () {
        const every = Math.min(HEARTBEAT_MS, Math.max(1, Math.floor(settings.REPLAY_IDLE_MS / 4)))
        while (!isOver(entry)) {
          yield* Effect.sleep(every)
          if (isOver(entry)) return
          if (audience.clients(entry.id) > 0) {
            entry.listenedAt = now()
            if (entry.state === "running" && now() - entry.clockToldAt >= HEARTBEAT_MS) tellClock(entry)
          } else if (!entry.detached && now() - entry.listenedAt >= settings.REPLAY_IDLE_MS) {
            yield* stopEntry(entry)
          }
        }
      })

    const refuse = (parameter: string, message: string) =>
      Effect.fail(new ReplayRefused({ parameter, message: `${parameter}: ${message}` }))

    /** The tokens that a request names, in the order of the merge. */
    const tokensOf = Effect.fnUntraced(function* (request: ReplayRequest, past: PastTicks, from: number, to: number) {
      const { symbols, tokens, all } = request
      const given = [symbols, tokens, all === true ? true : undefined].filter((part) => part !== undefined)
      if (given.length !== 1) {
        return yield* refuse("symbols", `expected one of symbols, tokens and "all":true, got ${given.length} of them`)
      }
      const day = tradingDay(from)
      const found = new Set<number>()
      for (const symbol of symbols ?? []) {
        const ever = instruments.everNamed(symbol)
        const named = ever.filter(({ from: since, through }) => since <= day && day <= through)
        if (ever.length > 0 && named.length === 0) {
          return yield* new UnknownSymbol({
            parameter: "symbols",
            message: `symbols: no instrument was ${showText(symbol)} on ${request.date}: it is ${ever.slice(0, MAX_CHOICES).map(describeMeaning).join(", ")}`
          })
        }
        if (named.length === 0) {
          return yield* new UnknownSymbol({
            parameter: "symbols",
            message: `symbols: no instrument is called ${showText(symbol)}${yield* didYouMean(symbol, instruments)}`
          })
        }
        if (named.length > 1) {
          const names = named
            .map(({ instrument }) => fullSymbol(instrument))
            .slice(0, MAX_CHOICES)
            .join(", ")
          return yield* refuse("symbols", `${showText(symbol)} could be ${names}: say which`)
        }
        found.add(named[0]!.instrument.instrument_token)
      }
      // A token that no instrument has may still have ticks: feeds know new contracts first. Asked once for all.
      const isUnknown = (token: number) => instruments.get(token) === undefined
      const traded = tokens?.some(isUnknown) === true ? new Set(yield* past.tokens(from, to)) : undefined
      for (const token of tokens ?? []) {
        if (isUnknown(token) && traded?.has(token) !== true) {
          return yield* new UnknownSymbol({
            parameter: "tokens",
            message: `tokens: no instrument and no tick of ${request.date} has token ${token}`
          })
        }
        found.add(token)
      }
      if (all === true) {
        for (const token of yield* past.tokens(from, to)) found.add(token)
        if (found.size > MAX_REPLAY_SYMBOLS) {
          return yield* refuse(
            "all",
            `${found.size} instruments have ticks, at most ${MAX_REPLAY_SYMBOLS} can be replayed`
          )
        }
      }
      return [...found].sort((a, b) => a - b)
    })

    const prepare = Effect.fnUntraced(function* (request: ReplayRequest) {
      const past = request.source === undefined ? history : history.of(request.source)
      if (past === undefined) {
        return yield* refuse("source", "there is no archive here: expected store or none, got archive")
      }
      if (request.loop === true) return yield* refuse("loop", "a replay cannot loop yet, got true")
      const { from, to } = rangeOf(request)
      if (to <= from) return yield* refuse("to", `expected a time after ${request.from ?? "00:00"}, got ${request.to}`)
      const tokens = yield* tokensOf(request, past, from, to)
      const total = tokens.length === 0 ? 0 : yield* past.count(tokens, from, to)
      const pace = yield* makePace({ speed: speedNumber(request.speed ?? 1), paused: request.paused === true })
      const id = randomBytes(6).toString("hex")
      const entry: Entry = {
        id,
        runKey: `${id}.1`,
        run: 1,
        from,
        to,
        total,
        detached: request.detached === true,
        isSimulated: instruments.isSimulated(tokens),
        pace,
        state: request.paused === true ? "paused" : "running",
        failure: undefined,
        sent: 0,
        onTheWay: 0,
        lastOut: undefined,
        slices: new Map(),
        watermark: 0,
        endSent: false,
        clockToldAt: Number.NEGATIVE_INFINITY,
        listenedAt: now(),
        fiber: undefined
      }
      const shown = show(entry)
      // Whoever asked may go away; what is listed is also running, and what could not be started is not listed.
      yield* Effect.uninterruptible(
        Effect.gen(function* () {
          entries.set(id, entry)
          runs.set(entry.runKey, entry)
          reorder.open(entry.runKey)
          audience.open(id, tradingDay(from))
          entry.fiber = yield* Effect.forkIn(runOf(entry, past, tokens), scope)
          yield* Effect.forkIn(heartbeat(entry), scope)
        }).pipe(
          Effect.onError(() =>
            Effect.sync(() => {
              entries.delete(id)
              forget(entry)
              audience.close(id)
            })
          )
        )
      )
      return shown
    })

    const start = (
      request: ReplayRequest
    ): Effect.Effect<Replay, ReplayRefused | UnknownSymbol | Overloaded | StoreError> =>
      Effect.suspend((): ReturnType<Replays["Service"]["start"]> => {
        if (active() + starting >= settings.MAX_REPLAYS || runs.size >= settings.MAX_REPLAYS * RUNS_A_REPLAY) {
          return Effect.fail(
            new Overloaded({
              message: `replays: ${settings.MAX_REPLAYS} run already, which is as many as MAX_REPLAYS allows`,
              retryAfterSeconds: RETRY_AFTER_SECONDS
            })
          )
        }
        starting++
        return Effect.ensuring(
          prepare(request),
          Effect.sync(() => {
            starting--
          })
        )
      })

    const find = (id: string): Effect.Effect<Entry, UnknownReplay> =>
      Effect.suspend(() => {
        const entry = entries.get(id)
        return entry === undefined
          ? Effect.fail(new UnknownReplay({ parameter: "id", message: `id: no replay is called ${showText(id)}` }))
          : Effect.succeed(entry)
      })

    const change = (id: string, { state, speed, seek, step }: ReplayChange) =>
      Effect.flatMap(find(id), (entry): Effect.Effect<Replay, ReplayRefused | ReplayOver> => {
        if (seek !== undefined) return refuse("seek", "a replay cannot seek yet")
        if (step !== undefined) return refuse("step", "a replay cannot be stepped yet")
        if (state === undefined && speed === undefined) return refuse("state", "expected state or speed to change")
        if (isOver(entry)) return Effect.fail(new ReplayOver({ message: `replay ${id} has ${entry.state}` }))
        if (state !== undefined) entry.state = state
        // A pace that changes may wake the run at once, up to its end: what is noted here comes before.
        if (state === "paused") entry.pace.pauseUnsafe()
        tellClock(entry)
        if (speed !== undefined) entry.pace.setSpeedUnsafe(speedNumber(speed))
        if (state === "running") entry.pace.resumeUnsafe()
        return Effect.succeed(show(entry))
      })

    // Runs of a server that stops end with it, and a worker elsewhere is told so.
    yield* Effect.addFinalizer(() =>
      Effect.forEach(
        [...runs.values()],
        (entry) =>
          Effect.gen(function* () {
            finish(entry, "ended")
            if (entry.fiber !== undefined) yield* Fiber.interrupt(entry.fiber)
            yield* goodbye(entry)
          }),
        { concurrency: "unbounded", discard: true }
      ).pipe(Effect.interruptible, Effect.timeoutOption(GOODBYE_MS), Effect.asVoid)
    )

    return Replays.of({
      start,
      list: Effect.sync(() => [...entries.values()].reverse().map(show)),
      get: (id) => Effect.map(find(id), show),
      change,
      stop: (id) => Effect.flatMap(find(id), stopEntry),
      isSimulated: (id) => entries.get(id)?.isSimulated === true,
      returned: (partition, items) => {
        const releases = reorder.take(partition, items)
        for (const release of releases) tell(release)
        for (const release of releases) free(release)
      }
    })
  })

/** What a person reads of a failure: its name and one line. */
const reasonOf = (cause: Cause.Cause<LogError | StoreError>): NonNullable<Entry["failure"]> => {
  const { _tag, message } = toldOf(cause)
  return { _tag: showText(_tag), message: showText(message, MAX_FAILURE_CHARS) }
}

const toldOf = (cause: Cause.Cause<LogError | StoreError>): NonNullable<Entry["failure"]> => {
  const error = Cause.squash(cause)
  if (error instanceof LogError) {
    return {
      _tag: error._tag,
      message: `${error.topic}/${error.partition}: ${error.operation} ${error.outcome}: ${error.message}`
    }
  }
  if (error instanceof Error) return { _tag: "_tag" in error ? String(error._tag) : error.name, message: error.message }
  return { _tag: "Unknown", message: String(error) }
}

/** The server's replays, on its store, log, instruments and clients. */
export const layer = (
  settings: ReplaySettings
): Layer.Layer<Replays, never, History | TickLog | Instruments | ReplayAudience> =>
  Layer.effect(Replays, make(settings))
