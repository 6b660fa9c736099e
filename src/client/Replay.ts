/**
 * Decides how a replay is listened to and steered: as the market is, on a connection of its own; it runs once what was
 * subscribed first has been answered, so that nothing of it is missed, and its streams end where it does.
 */
import type { ReplayChange, ReplayStatus, Speed, Step, Time } from "./answers.ts"
import { type MarketDataError, ReplayFailed, RequestFailed } from "./errors.ts"
import { Feed, type FeedOptions } from "./Feed.ts"
import type { RequestOptions } from "./Rest.ts"
import { type Instruments, Source, type SourceOptions } from "./Source.ts"
import type { Subscription } from "./Subscription.ts"

export interface ReplayRoutes {
  readonly get: (id: string, options?: RequestOptions) => Promise<ReplayStatus>
  readonly change: (id: string, change: ReplayChange, options?: RequestOptions) => Promise<ReplayStatus>
  readonly delete: (id: string, options?: RequestOptions) => Promise<void>
}

const NOT_FOUND = 404

export class Replay extends Source {
  readonly id: string
  /** @internal */
  protected override readonly feed: Feed
  readonly #routes: ReplayRoutes
  readonly #named: Instruments | undefined
  /** What is left to do once the first subscription has been answered. */
  #isWaiting: boolean
  readonly #closed: (replay: Replay) => void

  /** @internal */
  constructor(
    status: ReplayStatus,
    options: SourceOptions & {
      readonly feed: FeedOptions
      readonly routes: ReplayRoutes
      readonly named: Instruments | undefined
      /** It was made paused only until somebody listens. */
      readonly runs: boolean
      readonly closed: (replay: Replay) => void
    }
  ) {
    super(options)
    this.id = status.id
    this.#routes = options.routes
    this.#named = options.named
    this.#isWaiting = options.runs
    this.#closed = options.closed
    this.feed = new Feed(options.feed, {
      emit: (event, value) => this.emit(event, value),
      hears: (event) => this.hears(event),
      beforeResume: () => this.#look(),
      over: (state) => void this.#over(state)
    })
    this.feed.restart(status.id, status.run)
  }

  /** @internal */
  protected override get named(): Instruments | undefined {
    return this.#named
  }

  /** @internal */
  protected override listened(subscription: Subscription): void {
    if (!this.#isWaiting) return
    void subscription.accepted.then(async (answers) => {
      if (!this.#isWaiting || !answers.some(({ accepted }) => accepted)) return
      try {
        await this.resume()
      } catch (error) {
        this.#finish(error as MarketDataError)
      }
    })
  }

  pause(options?: RequestOptions): Promise<ReplayStatus> {
    this.#isWaiting = false
    return this.#routes.change(this.id, { state: "paused" }, options)
  }

  resume(options?: RequestOptions): Promise<ReplayStatus> {
    this.#isWaiting = false
    return this.#routes.change(this.id, { state: "running" }, options)
  }

  speed(speed: Speed, options?: RequestOptions): Promise<ReplayStatus> {
    return this.#routes.change(this.id, { speed }, options)
  }

  /**
   * Begins anew at a time, or a time of its day in IST such as `09:20`, with the first tick there: epochs and positions
   * count from it, and `run` tells so. Paused, it stays so.
   */
  seek(to: Time, options?: RequestOptions): Promise<ReplayStatus> {
    return this.#routes.change(this.id, { seek: to }, options)
  }

  /**
   * Goes on at once by so many ticks, or to the end of so many bars that have ticks (the one under way is the first), and
   * is paused there, also where it ran. One that takes long is answered while it is still `running`.
   */
  step(step: Step, options?: RequestOptions): Promise<ReplayStatus> {
    this.#isWaiting = false
    return this.#routes.change(this.id, { step }, options)
  }

  status(options?: RequestOptions): Promise<ReplayStatus> {
    return this.#routes.get(this.id, options)
  }

  /** Ends the replay; its streams end once what waits in them is taken. */
  async close(options?: RequestOptions): Promise<void> {
    this.#finish(undefined)
    try {
      await this.#routes.delete(this.id, options)
    } catch (error) {
      // It has gone by itself.
      if (!(error instanceof RequestFailed && error.status === NOT_FOUND)) throw error
    }
  }

  /** Stops listening; the replay itself goes on. @internal */
  leave(error: MarketDataError): void {
    this.feed.close(error)
  }

  /** After a reconnect: whether the replay is still there, and in which run. */
  async #look(): Promise<boolean> {
    try {
      const { state, run } = await this.status()
      this.feed.restart(this.id, run)
      if (state === "running" || state === "paused") return true
      this.#finish(new ReplayFailed(this.id, "it ended while the connection was lost"))
    } catch (error) {
      const isGone = error instanceof RequestFailed && error.status === NOT_FOUND
      this.#finish(isGone ? new ReplayFailed(this.id, "this server does not know it") : (error as MarketDataError))
    }
    return false
  }

  async #over(state: string): Promise<void> {
    if (state === "ended") {
      this.#finish(undefined)
      return
    }
    const reason = await this.status().then(
      ({ failure }) => (failure === undefined ? state : `${failure._tag}: ${failure.message}`),
      () => state
    )
    this.#finish(new ReplayFailed(this.id, reason))
  }

  #finish(error: MarketDataError | undefined): void {
    if (error === undefined) this.feed.finish()
    else this.feed.fail(error)
    this.#closed(this)
  }
}
