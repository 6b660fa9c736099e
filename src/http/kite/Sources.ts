/**
 * Decides which market somebody's `api_key` leads to: the live one, a replay that was started elsewhere, or a day that is
 * replayed for whoever names it: begun with the first subscription, standing still while no ticker listens, and anew
 * where it is over, or was left, and somebody starts.
 */
import { Effect, Semaphore } from "effect"
import { shiftToToday } from "../../schema/kite/asked.ts"
import { tradingDay } from "../../schema/Tick.ts"
import type { Channel } from "../../streams/fanOut/Channel.ts"
import type { Hub } from "../../streams/fanOut/Hub.ts"
import type { Replay, ReplayRequest, Replays } from "../../streams/replay/Replays.ts"
import { type KiteRefusal, refused, storeRefusal, tooMany } from "./answers.ts"
import { Market } from "./Market.ts"
import type { Visitor } from "./Visitors.ts"

/** Replays that are over and can still be asked of. */
const MAX_OVER = 8

/** A day whose last ticker has gone for so long is over: who lost his connection is back sooner. */
const LEFT_MICROS = 10_000_000

/** A market as somebody asks of it. */
export interface Source {
  readonly market: Market
  /** The trading day that is replayed, since 1970; undefined: live. */
  readonly day: number | undefined
  /** Whether an instrument is in it: what a replay is not of stands still in it, and is not told. */
  readonly holds: (token: number) => boolean
  /** The market's time in microseconds: of a replay how far it has come. */
  readonly now: () => number
  /** Added to every stamp that is told, and taken from those that are asked for. */
  readonly shift: () => number
  /** A ticker is there. */
  readonly enter: () => void
  /** It has gone, and a day stands still where it was the last. */
  readonly leave: () => Effect.Effect<void>
  /** Somebody listens: a replay that waits for it begins, or goes on. */
  readonly begin: Effect.Effect<void>
}

export interface Started {
  readonly date: string
  readonly id: string
  readonly speed: Replay["speed"]
}

export interface SourcesOptions {
  readonly hub: Hub
  readonly replays: Replays["Service"]
  readonly shifts: boolean
  /** Epoch microseconds. */
  readonly now: () => number
  /** Somebody has had a day replayed. */
  readonly started: (visitor: Visitor, started: Started) => void
}

/** The replay of a day. */
interface Day {
  readonly id: string
  /** It stands still until somebody subscribes. */
  isWaiting: boolean
  /** When its last ticker went; undefined while one is there, and before the first. */
  leftAt: number | undefined
}

/**
 * What somebody comes for: to listen, to start, as a bot does by asking for the instruments, or to ask. A client that has
 * lost its connection comes back to listen alone.
 */
export type Coming = "connects" | "starts" | "asks"

const isOver = (replay: Replay | undefined): boolean => replay?.state === "ended" || replay?.state === "failed"

export class Sources {
  private readonly options: SourcesOptions
  private readonly markets = new Map<string, Market>()
  /** The replays of days, by how they were asked for. */
  private readonly days = new Map<string, Day>()
  private readonly starting = Semaphore.makeUnsafe(1)

  constructor(options: SourcesOptions) {
    this.options = options
    options.hub.follow((channel) => this.follow(channel))
  }

  private follow(channel: Channel): Market {
    const market = new Market(channel)
    this.markets.set(channel.key, market)
    const over = [...this.markets.values()].filter(({ isOver }) => isOver)
    for (const { key } of over.slice(0, Math.max(0, over.length - MAX_OVER))) this.forget(key)
    return market
  }

  /** Nothing can be asked of a replay any more: who names its day has another begin. */
  private forget(key: string): void {
    this.markets.delete(key)
    for (const [text, { id }] of this.days) if (id === key) this.days.delete(text)
  }

  private sourceOf(market: Market, replay?: Replay): Source {
    const { now, replays, shifts } = this.options
    const enter = () => {
      market.channel.guests++
    }
    const leave = () => {
      market.channel.guests--
      return Effect.void
    }
    if (replay === undefined) {
      return { market, day: undefined, holds: () => true, now, shift: () => 0, enter, leave, begin: Effect.void }
    }
    const { from, id } = replay
    const day = tradingDay(from)
    const played = [...this.days.values()].find((one) => one.id === id)
    return {
      market,
      day,
      holds: replays.holds(id),
      now: () =>
        Effect.runSync(
          Effect.match(replays.get(id), {
            onFailure: () => market.newest ?? from,
            onSuccess: ({ clock }) => clock ?? from
          })
        ),
      shift: () => (shifts ? shiftToToday(day, now()) : 0),
      enter: () => {
        enter()
        if (played !== undefined) played.leftAt = undefined
      },
      leave: () => {
        leave()
        return played === undefined ? Effect.void : this.left(market, played)
      },
      begin: Effect.suspend(() => {
        if (played?.isWaiting !== true) return Effect.void
        played.isWaiting = false
        return Effect.ignore(replays.change(id, { state: "running" }))
      })
    }
  }

  /** A ticker has left a day: after the last one it stands still, so that nothing of it is missed. */
  private left(market: Market, day: Day): Effect.Effect<void> {
    const { now, replays } = this.options
    return Effect.gen(function* () {
      if (market.channel.guests > 0) return
      day.leftAt = now()
      const { state } = yield* replays.get(day.id)
      // One that somebody has paused is his to go on with.
      if (state !== "running" || market.channel.guests > 0) return
      day.isWaiting = true
      yield* replays.change(day.id, { state: "paused" })
    }).pipe(Effect.ignore)
  }

  /** A day that is over begins anew for who connects, one that was left for who starts, and after a while for whoever comes. */
  readonly of = (visitor: Visitor, how: Coming = "asks"): Effect.Effect<Source, KiteRefusal> => {
    const { wish } = visitor
    if (wish.kind === "live") return Effect.succeed(this.sourceOf(this.markets.get(this.options.hub.live.key)!))
    return wish.kind === "replay"
      ? this.ofReplay(wish.id)
      : this.starting.withPermits(1)(this.ofDay(visitor, wish.text, wish.day, how))
  }

  private ofReplay(id: string): Effect.Effect<Source, KiteRefusal> {
    const none = refused("TokenException", `api_key: no replay is called ${id} here, or it is over long ago`)
    return Effect.matchEffect(this.options.replays.get(id), {
      onFailure: () => Effect.fail(none),
      onSuccess: (replay) => {
        const market = this.markets.get(id)
        return market === undefined ? Effect.fail(none) : Effect.succeed(this.sourceOf(market, replay))
      }
    })
  }

  /** Where as many replays run as may, the oldest day that waits and would begin anew anyway makes room. */
  private startDay(request: ReplayRequest): ReturnType<Replays["Service"]["start"]> {
    const { now, replays } = this.options
    return Effect.catchTag(replays.start(request), "Overloaded", (error) => {
      const isIdle = ({ id, isWaiting, leftAt }: Day) =>
        isWaiting &&
        this.markets.get(id)?.channel.guests === 0 &&
        (leftAt === undefined || now() - leftAt >= LEFT_MICROS)
      const idle = [...this.days].find(([, day]) => isIdle(day))
      if (idle === undefined) return Effect.fail(error)
      const [text, { id }] = idle
      this.days.delete(text)
      return Effect.andThen(Effect.ignore(replays.stop(id)), this.startDay(request))
    })
  }

  private ofDay(
    visitor: Visitor,
    text: string,
    { date, speed }: { readonly date: string; readonly speed: Replay["speed"] },
    how: Coming
  ): Effect.Effect<Source, KiteRefusal> {
    const { now, replays, started } = this.options
    return Effect.gen({ self: this }, function* () {
      const known = this.days.get(text)
      if (known !== undefined) {
        const replay = yield* Effect.orElseSucceed(replays.get(known.id), () => undefined)
        const market = this.markets.get(known.id)
        const isLeft = known.leftAt !== undefined && (how === "starts" || now() - known.leftAt >= LEFT_MICROS)
        const isDone = isLeft || (how === "connects" && isOver(replay))
        if (replay !== undefined && market !== undefined && !isDone) return this.sourceOf(market, replay)
      }
      if (visitor.key?.isRestricted === true) {
        const { name } = visitor.key
        const message = `api_key: key "${name}" is for some instruments, and a day is replayed with all: expected replay: and the id of a replay`
        return yield* refused("PermissionException", message)
      }
      if (known !== undefined) {
        this.days.delete(text)
        yield* Effect.ignore(replays.stop(known.id))
      }
      const replay = yield* this.startDay({ all: true, date, speed, paused: true }).pipe(
        Effect.catchTags({
          ReplayRefused: ({ message }) => Effect.fail(refused("InputException", `api_key: ${message}`)),
          UnknownSymbol: ({ message }) => Effect.fail(refused("InputException", `api_key: ${message}`)),
          NothingStored: ({ message }) => Effect.fail(refused("InputException", `api_key: ${message}`)),
          Overloaded: ({ message }) => Effect.fail(tooMany(message)),
          StoreError: (error) => Effect.fail(storeRefusal(error))
        })
      )
      this.days.set(text, { id: replay.id, isWaiting: true, leftAt: undefined })
      started(visitor, { id: replay.id, date, speed })
      return this.sourceOf(this.markets.get(replay.id)!, replay)
    })
  }
}
