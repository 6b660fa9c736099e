/**
 * Decides how a server runs its replays: reads the past, puts runs into the log within the shared window, takes what
 * comes back, tells the clients, and ends what nobody listens to.
 */
import { randomBytes } from "node:crypto"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Layer, Schedule, Scope } from "effect"
import { BAR_ORIGIN_MICROS } from "../../schema/Candle.ts"
import { LogError, Overloaded, type StoreError } from "../../schema/Errors.ts"
import { showText } from "../../schema/Explain.ts"
import { fullSymbol } from "../../schema/Instrument.ts"
import { describeMeaning } from "../../schema/Meaning.ts"
import { barOpen } from "../../schema/Sessions.ts"
import type { Settings } from "../../schema/Settings.ts"
import { IST_OFFSET_MICROS, tradingDate, tradingDay, tradingDayStart } from "../../schema/Tick.ts"
import { TickLog } from "../../streams/log/TickLog.ts"
import * as metrics from "../../streams/metrics.ts"
import { History, type PastTicks } from "../../streams/ports/History.ts"
import { didYouMean, Instruments } from "../../streams/ports/Instruments.ts"
import { makePace, type Pace } from "../../streams/replay/pace.ts"
import { ReplayAudience } from "../../streams/replay/ReplayAudience.ts"
import {
  MAX_REPLAY_SYMBOLS,
  NothingStored,
  type Replay,
  type ReplayChange,
  ReplayOver,
  ReplayRefused,
  type ReplayRequest,
  type ReplayState,
  Replays,
  type Speed,
  type Step,
  StepsWaiting,
  UnknownReplay,
  UnknownSymbol
} from "../../streams/replay/Replays.ts"
import { type Release, WatermarkReorder } from "../../streams/replay/reorderByWatermark.ts"
import {
  endRun,
  makeWindow,
  type Packet,
  replay,
  type Slice,
  sliceTicks,
  storedPackets
} from "../../streams/replay/replay.ts"
import { stepBars, stepTicks } from "../../streams/replay/steps.ts"

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
/** Steps of one replay that wait for those before them. */
const MAX_STEPS = 100
/** Days named where nothing is stored of the one that was asked for. */
const MAX_DAYS_NAMED = 10
/** The answer to a step waits for it up to here; whoever steps further hears the rest on the stream. */
const STEP_WAIT_MS = 2000
/** What others said of a failure is told up to here. */
const MAX_FAILURE_CHARS = 500
const MICROS_PER_SECOND = 1_000_000
const MICROS_PER_MINUTE = 60_000_000
const MICROS_PER_DAY = 86_400_000_000

/** One replay, from its start until it drops off the list. */
interface Entry {
  readonly id: string
  readonly from: number
  readonly to: number
  readonly total: number
  readonly tokens: ReadonlyArray<number>
  readonly past: PastTicks
  readonly detached: boolean
  readonly isSimulated: boolean
  readonly holds: (token: number) => boolean
  /** What bars are aligned on. */
  readonly barOpen: number
  /** The one that its clients hear. */
  run: Run
  /** The run before has yet to leave the pipeline: until then nothing of this one goes in. */
  isTurning: boolean
  state: ReplayState
  failure: { readonly _tag: string; readonly message: string } | undefined
  /** Ticks of the run out of the pipeline. */
  sent: number
  /** Done once no step is under way. */
  stepping: Deferred.Deferred<void> | undefined
  clockToldAt: number
  listenedAt: number
}

/** One run of a replay, from its beginning until its end has come out of the pipeline. */
interface Run {
  readonly entry: Entry
  readonly key: string
  readonly number: number
  readonly from: number
  readonly pace: Pace<Packet>
  /** Ticks and quotes on the way out of the pipeline. */
  onTheWay: number
  /** exchange_ts of the last that came out; before that, the time that was sought. */
  lastOut: number | undefined
  /** Those that have not come out, by watermark. */
  readonly slices: Map<number, Slice>
  /** The last that went in; 0 while the log has nothing of this run. */
  watermark: number
  /** The end watermark went in: the pipeline will free the run by itself. */
  endSent: boolean
  readonly left: Deferred.Deferred<void>
  fiber: Fiber.Fiber<void> | undefined
}

const speedNumber = (speed: Speed): number => (speed === "inf" ? Number.POSITIVE_INFINITY : speed)
const isOver = (entry: Entry): boolean => entry.state === "ended" || entry.state === "failed"

/** `HH:MM` in minutes. */
const minutes = (text: string): number => Number(text.slice(0, 2)) * 60 + Number(text.slice(3))

/** What `seek` says, in epoch microseconds: `HH:MM[:SS]` is of the replay's day. */
const soughtTime = (seek: NonNullable<ReplayChange["seek"]>, day: number): number => {
  if (typeof seek === "number") return seek
  const seconds = seek.length > 5 ? Number(seek.slice(6)) : 0
  return tradingDayStart(day) + minutes(seek.slice(0, 5)) * MICROS_PER_MINUTE + seconds * MICROS_PER_SECOND
}

/** A time as a message names it: with India's offset. */
const showTime = (micros: number): string => {
  const text = new Date((micros + IST_OFFSET_MICROS) / 1000).toISOString()
  return `${text.slice(0, 19)}${fractionOf(micros)}+05:30`
}
const fractionOf = (micros: number): string => {
  const rest = micros % MICROS_PER_SECOND
  return rest === 0 ? "" : `.${String(rest).padStart(6, "0")}`
}

/** The half-open range of a trading day that is asked for, in epoch microseconds. */
const rangeOf = (request: ReplayRequest): { readonly from: number; readonly to: number } => {
  const midnight = Date.parse(`${request.date}T00:00:00Z`) * 1000 - IST_OFFSET_MICROS
  return {
    from: request.from === undefined ? midnight : midnight + minutes(request.from) * MICROS_PER_MINUTE,
    to: request.to === undefined ? midnight + MICROS_PER_DAY : midnight + minutes(request.to) * MICROS_PER_MINUTE
  }
}

/** Of `all` also an instrument is that had no tick in the range: it was there that day. */
const holdsOf = ({ all }: ReplayRequest, tokens: ReadonlyArray<number>): Entry["holds"] => {
  if (all === true) return () => true
  const named = new Set(tokens)
  return (token) => named.has(token)
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
    const runs = new Map<string, Run>()
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
      const { lastOut, onTheWay, pace } = entry.run
      if (onTheWay > 0 || isOver(entry)) return lastOut
      const position = pace.positionUnsafe()
      if (position === undefined || (lastOut !== undefined && lastOut > position)) return lastOut
      // While the store is silent the market's time runs on, but not out of what is replayed.
      return Math.min(position, entry.to)
    }
    const tellClock = (entry: Entry, isWhole = false) => {
      entry.clockToldAt = now()
      audience.clock(entry.id, { run: entry.run.number, ts: clockOf(entry) ?? null, state: entry.state, isWhole })
    }
    const show = (entry: Entry): Replay => {
      const speed = entry.run.pace.speedUnsafe()
      return {
        id: entry.id,
        state: entry.state,
        speed: speed === Number.POSITIVE_INFINITY ? "inf" : speed,
        clock: clockOf(entry) ?? null,
        run: entry.run.number,
        from: entry.from,
        to: entry.to,
        sent: entry.sent,
        // More may have come of a day under way since it was counted.
        total: Math.max(entry.total, entry.sent),
        ...(entry.failure === undefined ? {} : { failure: entry.failure })
      }
    }

    /** The run is gone from the pipeline, or nothing of it will come out any more. */
    const forget = (run: Run) => {
      runs.delete(run.key)
      reorder.close(run.key)
      window.dropUnsafe(run.key)
      inFlight.add(window.usedUnsafe())
      Deferred.doneUnsafe(run.left, Effect.void)
    }
    /** No step is under way any more: who waits for one is answered. */
    const endSteps = (entry: Entry) => {
      const { stepping } = entry
      entry.stepping = undefined
      if (stepping !== undefined) Deferred.doneUnsafe(stepping, Effect.void)
    }
    const finish = (entry: Entry, state: "ended" | "failed", failure?: Entry["failure"], isWhole = false) => {
      if (isOver(entry)) return
      entry.state = state
      entry.failure = failure
      endSteps(entry)
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
    /** The market stands still after a step once all of it has come out. */
    const standStill = (run: Run) => {
      const { entry } = run
      if (entry.run !== run || entry.stepping === undefined || run.onTheWay > 0 || run.pace.stepsUnsafe() > 0) return
      entry.state = "paused"
      tellClock(entry)
      endSteps(entry)
    }

    /** Hands a slice to the clients and counts it; of a run that another has followed nothing is told. */
    const tell = ({ run: key, watermark, end, ticks, quotes }: Release) => {
      const run = runs.get(key)
      if (run === undefined) return
      const { entry } = run
      const slice = run.slices.get(watermark)
      run.onTheWay -= slice?.packets ?? 0
      if (isOver(entry) || entry.run !== run) return
      entry.sent += slice?.ticks ?? 0
      const last = Math.max(
        ticks[ticks.length - 1]?.exchange_ts ?? Number.NEGATIVE_INFINITY,
        quotes[quotes.length - 1]?.exchange_ts ?? Number.NEGATIVE_INFINITY
      )
      if (last > Number.NEGATIVE_INFINITY) {
        run.lastOut = last
        audience.publish(entry.id, ticks, quotes)
        if (now() - entry.clockToldAt >= CLOCK_EVERY_MS) tellClock(entry)
      }
      if (end) finish(entry, "ended", undefined, true)
      else standStill(run)
    }
    /** Gives back a slice's part of the window. It may wake a run at once, so it comes after all is told. */
    const free = ({ run: key, watermark, end }: Release) => {
      const run = runs.get(key)
      if (run === undefined) return
      const slice = run.slices.get(watermark)
      run.slices.delete(watermark)
      window.freeUnsafe(key, slice?.packets ?? 0)
      inFlight.add(window.usedUnsafe())
      if (end) forget(run)
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
    const goodbye = (run: Run): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (!runs.has(run.key) || run.endSent) return Effect.void
        if (run.watermark === 0) {
          forget(run)
          return Effect.void
        }
        run.endSent = true
        reorder.sent(run.key, ++run.watermark, true)
        return endRun(run.key, run.watermark, log).pipe(
          Effect.retry({ schedule: Schedule.exponential(50), times: 5 }),
          Effect.catch(() => Effect.sync(() => forget(run)))
        )
      })
    /** Nothing more of a run goes in. */
    const leave = (run: Run): Effect.Effect<void> =>
      Effect.andThen(run.fiber === undefined ? Effect.void : Fiber.interrupt(run.fiber), goodbye(run))

    const play = (run: Run): Effect.Effect<void> => {
      const { entry } = run
      const { past, to, tokens } = entry
      return replay(storedPackets(past, { tokens, from: run.from, to, arraySize: sliceTicks(window) }), {
        run: run.key,
        log,
        window,
        pace: run.pace,
        holdBack,
        onDue: (packets) => {
          run.onTheWay += packets
        },
        onSlice: (slice) => {
          const { watermark, end } = slice
          run.watermark = watermark
          reorder.sent(run.key, watermark, end)
          run.slices.set(watermark, slice)
          run.endSent = end
          inFlight.add(window.usedUnsafe())
        }
      }).pipe(
        Effect.onExit((exit) => {
          if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return Effect.void
          return Effect.suspend(() => {
            if (entry.run === run) finish(entry, "failed", reasonOf(exit.cause))
            // An end watermark that failed on its way has not reached every partition.
            run.endSent = false
            return Effect.forkIn(goodbye(run), scope)
          })
        }),
        Effect.ignore
      )
    }
    const begin = (run: Run): Effect.Effect<void> =>
      Effect.map(Effect.forkIn(play(run), scope), (fiber) => {
        run.fiber = fiber
      })

    /** Another run of a replay, from a time on: from here on its clients hear this one. */
    const makeRun = (entry: Entry, number: number, from: number, pace: Pace<Packet>): Run => {
      const key = `${entry.id}.${number}`
      const run: Run = {
        entry,
        key,
        number,
        from,
        pace,
        onTheWay: 0,
        lastOut: number === 1 ? undefined : from,
        slices: new Map(),
        watermark: 0,
        endSent: false,
        left: Deferred.makeUnsafe(),
        fiber: undefined
      }
      runs.set(key, run)
      reorder.open(key)
      return run
    }

    /** Ends a replay now: nothing more goes in, and its clients are told. */
    const stopEntry = (entry: Entry): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (isOver(entry)) return Effect.void
        finish(entry, "ended")
        return Effect.asVoid(Effect.forkIn(leave(entry.run), scope))
      })

    /** The pace of a run, as its replay has it from here on. */
    const paceOf = (entry: () => Entry, speed: number, paused: boolean): Effect.Effect<Pace<Packet>> =>
      Effect.gen(function* () {
        const pace: Pace<Packet> = yield* makePace<Packet>({
          speed,
          paused,
          onStepped: () => {
            const { run } = entry()
            if (run.pace === pace) standStill(run)
          }
        })
        return pace
      })

    /**
     * Goes to a time: a run begins anew there. What of the run before is in the pipeline leaves it first, so that of a
     * replay two runs at most are there, however often it seeks; of those that have not begun the last one does.
     */
    const seekTo = (entry: Entry, to: number, { state, speed }: ReplayChange): Effect.Effect<void, ReplayOver> =>
      Effect.gen(function* () {
        const pace = yield* paceOf(() => entry, 1, true)
        yield* Effect.uninterruptible(
          Effect.suspend(() => {
            if (isOver(entry)) return Effect.fail(over(entry))
            const last = entry.run
            // Whoever steps has paused.
            const isStill =
              state === undefined ? entry.state === "paused" || entry.stepping !== undefined : state === "paused"
            pace.setSpeedUnsafe(speed === undefined ? last.pace.speedUnsafe() : speedNumber(speed))
            if (!isStill) pace.resumeUnsafe()
            entry.run = makeRun(entry, last.number + 1, to, pace)
            entry.state = isStill ? "paused" : "running"
            entry.sent = 0
            audience.open(entry.id, tradingDay(entry.from))
            tellClock(entry)
            endSteps(entry)
            if (entry.isTurning) {
              forget(last)
              return Effect.void
            }
            entry.isTurning = true
            return leave(last).pipe(
              Effect.andThen(Deferred.await(last.left)),
              Effect.andThen(
                Effect.suspend(() => {
                  entry.isTurning = false
                  return isOver(entry) ? Effect.void : begin(entry.run)
                })
              ),
              Effect.forkIn(scope),
              Effect.asVoid
            )
          })
        )
      })

    /** Lets so much out at once, and answers once that is done or it takes long. */
    const stepOn = (entry: Entry, step: Step): Effect.Effect<void, StepsWaiting> =>
      Effect.suspend(() => {
        const { pace } = entry.run
        if (pace.stepsUnsafe() >= MAX_STEPS) {
          return Effect.fail(
            new StepsWaiting({ message: `step: ${MAX_STEPS} steps of replay ${entry.id} wait already` })
          )
        }
        const { bars, interval, ticks } = step
        entry.state = "running"
        entry.stepping ??= Deferred.makeUnsafe()
        const done = Deferred.await(entry.stepping)
        pace.stepUnsafe(ticks === undefined ? stepBars(bars!, interval!, entry.barOpen) : stepTicks(ticks))
        return Effect.raceFirst(done, Effect.sleep(STEP_WAIT_MS))
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

    /** Every token that has ticks or quotes in [from, to). */
    const tokensIn = (past: PastTicks, from: number, to: number): Effect.Effect<ReadonlySet<number>, StoreError> =>
      Effect.zipWith(
        past.tokens(from, to),
        past.quoteTokens(from, to),
        (traded, quoted) => new Set([...traded, ...quoted])
      )

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
      // A token that no instrument has may still have ticks or quotes: feeds know new contracts first. Asked once for all.
      const isUnknown = (token: number) => instruments.get(token) === undefined
      const present = tokens?.some(isUnknown) === true ? yield* tokensIn(past, from, to) : undefined
      for (const token of tokens ?? []) {
        if (isUnknown(token) && present?.has(token) !== true) {
          return yield* new UnknownSymbol({
            parameter: "tokens",
            message: `tokens: no instrument and no tick or quote of ${request.date} has token ${token}`
          })
        }
        found.add(token)
      }
      if (all === true) {
        for (const token of yield* tokensIn(past, from, to)) found.add(token)
        if (found.size > MAX_REPLAY_SYMBOLS) {
          return yield* refuse(
            "all",
            `${found.size} instruments have ticks or quotes, at most ${MAX_REPLAY_SYMBOLS} can be replayed`
          )
        }
      }
      return [...found].sort((a, b) => a - b)
    })

    /** As all of them open; where they differ, as the exchange does. */
    const barOpenOf = (tokens: ReadonlyArray<number>, day: number): number => {
      const opens = new Set<number>()
      for (const token of tokens) {
        const segment = instruments.segment(token, day)
        if (segment !== undefined) opens.add(barOpen(segment))
      }
      return opens.size === 1 ? [...opens][0]! : BAR_ORIGIN_MICROS
    }

    /** Why there is nothing to replay, and what there is. */
    const nothingStored = Effect.fnUntraced(function* (request: ReplayRequest, past: PastTicks) {
      const { all, date, from: since, source, to: until } = request
      const days = yield* past.newestDays(MAX_DAYS_NAMED + 1)
      const where = source === undefined ? "stored" : `in the ${source}`
      const of = all === true ? "" : " of these instruments"
      const part = since === undefined && until === undefined ? "" : ` from ${since ?? "00:00"} to ${until ?? "24:00"}`
      const named = days.slice(0, MAX_DAYS_NAMED).map(tradingDate).join(", ")
      const rest = days.length > MAX_DAYS_NAMED ? ", and older ones" : ""
      const whose = all === true ? "" : ", of whichever instruments"
      const hint = days.length === 0 ? ", nor of any other day" : `; days there are${whose}: ${named}${rest}`
      return new NothingStored({
        parameter: "date",
        message: `date: no tick and no quote${of} is ${where} of ${date}${part}${hint}`
      })
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
      if (total === 0) {
        // Those of `all` have one or the other.
        const quoted = request.all === true ? tokens : yield* past.quoteTokens(from, to)
        const has = new Set(quoted)
        if (!tokens.some((token) => has.has(token))) return yield* yield* nothingStored(request, past)
      }
      const paused = request.paused === true
      const pace: Pace<Packet> = yield* paceOf(() => entry, speedNumber(request.speed ?? 1), paused)
      const id = randomBytes(6).toString("hex")
      const entry: Entry = {
        id,
        from,
        to,
        total,
        tokens,
        past,
        detached: request.detached === true,
        isSimulated: instruments.isSimulated(tokens),
        holds: holdsOf(request, tokens),
        barOpen: barOpenOf(tokens, tradingDay(from)),
        // Made below, with the entry that it is of.
        run: undefined as never,
        isTurning: false,
        state: paused ? "paused" : "running",
        failure: undefined,
        sent: 0,
        stepping: undefined,
        clockToldAt: Number.NEGATIVE_INFINITY,
        listenedAt: now()
      }
      entry.run = makeRun(entry, 1, from, pace)
      const shown = show(entry)
      // Whoever asked may go away; what is listed is also running, and what could not be started is not listed.
      yield* Effect.uninterruptible(
        Effect.gen(function* () {
          entries.set(id, entry)
          audience.open(id, tradingDay(from))
          yield* begin(entry.run)
          yield* Effect.forkIn(heartbeat(entry), scope)
        }).pipe(
          Effect.onError(() =>
            Effect.sync(() => {
              entries.delete(id)
              forget(entry.run)
              audience.close(id)
            })
          )
        )
      )
      return shown
    })

    const start = (
      request: ReplayRequest
    ): Effect.Effect<Replay, ReplayRefused | UnknownSymbol | NothingStored | Overloaded | StoreError> =>
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

    const over = ({ id, state }: Entry) => new ReplayOver({ message: `replay ${id} has ${state}` })

    const change = (id: string, asked: ReplayChange): ReturnType<Replays["Service"]["change"]> =>
      Effect.gen(function* () {
        const entry = yield* find(id)
        const { state, speed, seek, step } = asked
        if (state === undefined && speed === undefined && seek === undefined && step === undefined) {
          return yield* refuse("state", "expected state, speed, seek or step")
        }
        if (step !== undefined) yield* refuseStep(asked, step)
        if (isOver(entry)) return yield* over(entry)
        if (step !== undefined) yield* stepOn(entry, step)
        else if (seek !== undefined) {
          const to = soughtTime(seek, tradingDay(entry.from))
          if (to < entry.from || to >= entry.to) {
            const range = `from ${showTime(entry.from)} to before ${showTime(entry.to)}`
            const got = typeof seek === "string" ? seek : showTime(seek)
            return yield* refuse("seek", `expected a time of the replay, ${range}, got ${got}`)
          }
          yield* seekTo(entry, to, asked)
        } else {
          const { pace } = entry.run
          if (state !== undefined) entry.state = state
          // A pace that changes may wake the run at once, up to its end: what is noted here comes before.
          if (state === "paused") pace.pauseUnsafe()
          tellClock(entry)
          if (state !== undefined) endSteps(entry)
          if (speed !== undefined) pace.setSpeedUnsafe(speedNumber(speed))
          if (state === "running") pace.resumeUnsafe()
        }
        return show(entry)
      })

    /** A step that says what is not one. */
    const refuseStep = ({ state, speed, seek }: ReplayChange, { bars, interval, ticks }: Step) => {
      const beside = [
        state === undefined ? "" : "state",
        speed === undefined ? "" : "speed",
        seek === undefined ? "" : "seek"
      ]
      const others = beside.filter((name) => name !== "")
      if (others.length > 0) return refuse("step", `expected nothing beside it, got ${others.join(" and ")}`)
      if ((ticks === undefined) === (bars === undefined)) {
        return refuse("step", `expected one of ticks and bars, got ${ticks === undefined ? "neither" : "both"}`)
      }
      if ((bars === undefined) === (interval === undefined)) return Effect.void
      return refuse(
        "step",
        bars === undefined
          ? `expected ticks without an interval, got ${interval}`
          : 'expected bars with their interval, such as "1m", got none'
      )
    }

    // Runs of a server that stops end with it, and a worker elsewhere is told so.
    yield* Effect.addFinalizer(() =>
      Effect.forEach(
        [...runs.values()],
        (run) =>
          Effect.suspend(() => {
            finish(run.entry, "ended")
            return leave(run)
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
      holds: (id) => entries.get(id)?.holds ?? (() => false),
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
