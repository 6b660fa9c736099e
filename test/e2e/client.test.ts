import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { type Client, connect, type Message, ReplayFailed, RuleViolated, type Stream } from "../../src/client/index.ts"
import { LONG_MS } from "../support/guards.ts"
import { LossyProxy } from "../support/LossyProxy.ts"
import { folder, runToEnd, start, startInstance } from "../support/processes.ts"
import { freePort, isInstalled, ownKafka, ownPostgres, ownRedis } from "../support/services.ts"

const isMissing = !(["kafka", "redis", "postgres"] as const).map(isInstalled).every((is) => is)
const tokens = [101, 102, 103, 104, 105]

/** What an application makes of a stream of everything: an account of its own, held to the rule by other means. */
class Application {
  readonly client: Client
  /** `token/epoch/position` of each tick, and of each position that was told as missed. */
  readonly got = new Set<string>()
  readonly missed = new Set<string>()
  readonly first = new Map<number, readonly [epoch: number, position: number]>()
  readonly last = new Map<number, readonly [epoch: number, position: number]>()
  epochs = 0
  resumed = 0
  readonly errors: Array<Error> = []
  broken: unknown
  private readonly stream: Stream<Message>

  constructor(url: string, wanted: ReadonlyArray<number>) {
    this.client = connect({ url, reconnect: { minMs: 20, maxMs: 200 } })
    this.client.on("error", (error) => this.errors.push(error))
    this.client.on("connected", ({ resumed }) => {
      if (resumed) this.resumed++
    })
    this.stream = this.client.messages(wanted)
    void this.run().catch((error) => {
      this.broken = error
    })
  }

  get accepted() {
    return this.stream.accepted
  }

  private async run(): Promise<void> {
    for await (const message of this.stream) {
      if (message.type === "epoch") {
        const { instrument_token: token, from, to } = message
        assert.isAbove(to[0], from[0])
        assert.strictEqual(to[1], 0)
        this.last.set(token, to)
        this.epochs++
      } else if (message.type === "tick") {
        this.take(message.instrument_token, message.epoch, message.position, message.position, this.got)
      } else if (message.type === "missed") {
        assert.isNotNull(message.from)
        this.take(message.instrument_token, message.epoch, message.from!, message.to!, this.missed)
      }
    }
  }

  private take(token: number, epoch: number, from: number, to: number, into: Set<string>): void {
    const last = this.last.get(token)
    if (last === undefined) this.first.set(token, [epoch, from])
    else assert.deepStrictEqual([epoch, from], [last[0], last[1] + 1], `instrument ${token}`)
    this.last.set(token, [epoch, to])
    for (let position = from; position <= to; position++) {
      const key = `${token}/${epoch}/${position}`
      assert.isFalse(this.got.has(key) || this.missed.has(key), `${key} came twice`)
      into.add(key)
    }
  }

  /** Waits until it has seen so much; fails where the account is broken. */
  until(is: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => (this.broken === undefined ? Effect.succeed(is()) : Effect.die(this.broken))).pipe(
      Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("20 millis") }),
      Effect.asVoid
    )
  }

  /** Waits until the store has a number of every instrument, and the application all that the store has. */
  untilCaughtUp(number: number): Effect.Effect<void> {
    return Effect.promise(() => this.client.quotes(tokens)).pipe(
      Effect.repeat({
        until: (quotes) =>
          quotes.every(({ instrument_token: token, last }) => {
            const [epoch, position] = this.last.get(token) ?? [0, 0]
            return last !== null && last.sequence_id >= number && epoch === last.epoch && position === last.position
          }),
        schedule: Schedule.spaced("50 millis")
      }),
      Effect.asVoid
    )
  }

  /** Everything that the store has from the first tick on was given to the application, or told as missed. */
  async settle(): Promise<number> {
    let settled = 0
    for (const [token, [epoch, position]] of this.first) {
      for await (const tick of this.client.history.ticks(token)) {
        const isBefore = tick.epoch! < epoch || (tick.epoch === epoch && tick.position! < position)
        if (isBefore) continue
        const key = `${token}/${tick.epoch}/${tick.position}`
        assert.isTrue(this.got.has(key) || this.missed.has(key), `${key} was published, and not told`)
        settled++
      }
    }
    return settled
  }
}

const application = (url: string, wanted: ReadonlyArray<number>) =>
  Effect.acquireRelease(
    Effect.sync(() => new Application(url, wanted)),
    ({ client }) => Effect.sync(() => client.close())
  )

/** Sends numbers one after another until it is stopped; what nobody took is sent again. Answers the last that was taken. */
const feeding = (url: string) => {
  let number = 1
  const forever = Effect.gen(function* () {
    const lines = tokens.map((instrument_token) => {
      const exchange_ts = Date.now() * 1000
      return JSON.stringify({
        instrument_token,
        exchange_ts,
        price: 100 + (number % 50),
        volume: 1,
        sequence_id: number
      })
    })
    const isTaken = yield* Effect.promise(() =>
      fetch(`${url}/api/v1/ingest`, {
        method: "POST",
        headers: { "content-type": "application/x-ndjson" },
        body: lines.join("\n")
      }).then(
        ({ status }) => status === 200,
        () => false
      )
    )
    if (isTaken) number++
    yield* Effect.sleep(5)
  }).pipe(Effect.forever)
  return Effect.map(Effect.forkScoped(forever), (fiber) => ({
    stop: Effect.map(Fiber.interrupt(fiber), () => number - 1)
  }))
}

// Long: an instance is fed, and its day replayed.
describe("a client's replay", { timeout: LONG_MS }, () => {
  it.live("is told from its first tick to its last, steered meanwhile, and ends its streams with its end", () =>
    Effect.gen(function* () {
      const { url } = yield* startInstance(["demo", "--symbols", "5", "--rate", "500"])
      const app = yield* application(url, tokens)
      const { client } = app
      yield* Effect.promise(async () => {
        const { instrument_token: token } = await client.instruments.find("SIM:RELIANCE")
        const date = new Date(Date.now() + 19_800_000).toISOString().slice(0, 10)
        for (let count = 0; count < 200; ) {
          count = 0
          for await (const _ of client.history.ticks(token)) count++
        }

        const replay = await client.replay({ symbols: ["SIM:RELIANCE"], date, speed: 1 })
        const clocks: Array<string> = []
        replay.on("clock", ({ state }) => clocks.push(state))
        const bars = replay.candles(undefined, "1m")
        const positions: Array<number> = []
        for await (const tick of replay.ticks()) {
          positions.push(tick.position)
          if (positions.length !== 20) continue
          assert.strictEqual((await replay.pause()).state, "paused")
          assert.strictEqual((await replay.speed("inf")).speed, "inf")
          assert.strictEqual((await replay.resume()).state, "running")
        }
        const { state, total, sent } = await replay.status()
        assert.deepStrictEqual([state, sent], ["ended", total])
        assert.deepStrictEqual(
          positions,
          Array.from({ length: total }, (_, i) => i + 1)
        )
        assert.includeMembers(clocks, ["running", "paused", "ended"])
        let revisions = 0
        for await (const bar of bars) revisions = bar.revision
        assert.isAbove(revisions, 0)

        // One that is to begin paused does, and what is left is ended.
        const paused = await client.replay({ tokens: [token], date, speed: "inf", paused: true })
        const ticks = paused.ticks()
        await ticks.accepted
        assert.strictEqual((await paused.status()).state, "paused")
        await paused.resume()
        assert.strictEqual((await ticks.next()).value?.position, 1)
        await paused.close()
        // What waits may still be taken.
        for await (const _ of ticks);
        assert.strictEqual((await paused.status()).state, "ended")

        // Stepped it goes exactly so far, and sought it begins anew there.
        const steered = await client.replay({ tokens: [token], date, paused: true })
        const runs: Array<number> = []
        steered.on("run", ({ run }) => runs.push(run))
        const stream = steered.ticks()
        await stream.accepted
        const stepped = await steered.step({ ticks: 5 })
        assert.deepStrictEqual([stepped.state, stepped.sent], ["paused", 5])
        const five: Array<number> = []
        while (five.length < 5) five.push((await stream.next()).value!.exchange_ts)
        assert.strictEqual(stepped.clock, five[4])
        const sought = await steered.seek(five[2]!)
        assert.deepStrictEqual([sought.state, sought.run, sought.clock, sought.sent], ["paused", 2, five[2], 0])
        assert.isAbove((await steered.step({ bars: 1, interval: "1m" })).sent, 0)
        const first = (await stream.next()).value!
        assert.deepStrictEqual([first.exchange_ts, first.position, runs], [five[2], 1, [2]])
        await steered.close()
        assert.strictEqual((await client.replays.list()).length, 3)
      })
      assert.deepStrictEqual(app.errors, [])
    }).pipe(Effect.scoped)
  )

  it.live("fails by name where its server is gone with it", () =>
    Effect.gen(function* () {
      const PORT = String(yield* Effect.promise(() => freePort()))
      const first = yield* startInstance(["demo", "--symbols", "1", "--rate", "100"], { PORT })
      const app = yield* application(first.url, tokens)
      const ticks = yield* Effect.promise(async () => {
        const date = new Date(Date.now() + 19_800_000).toISOString().slice(0, 10)
        for (let count = 0; count < 20; ) {
          count = 0
          for await (const _ of app.client.history.ticks("SIM:RELIANCE")) count++
        }
        const replay = await app.client.replay({ symbols: ["SIM:RELIANCE"], date, paused: true })
        const stream = replay.ticks()
        await stream.accepted
        return stream
      })
      first.mdp.kill("SIGKILL")
      yield* first.mdp.ended
      yield* startInstance(["demo", "--symbols", "1", "--rate", "100"], { PORT })
      const error = yield* Effect.flip(Effect.tryPromise({ try: () => ticks.next(), catch: (why) => why as Error }))
      assert.instanceOf(error, ReplayFailed)
      assert.match(error.message, /^replay \w+: this server does not know it$/)
    }).pipe(Effect.scoped)
  )
})

// Long: an instance and the commands for its keys are real processes.
describe("a client of a server that has keys", { timeout: LONG_MS }, () => {
  it.live("is let in by its key, goes on with the next where one is revoked, and is told where there is none", () =>
    Effect.gen(function* () {
      const API_KEYS_FILE = join(yield* folder, "keys.json")
      const keys = (...args: ReadonlyArray<string>) =>
        Effect.map(runToEnd(["keys", ...args], { API_KEYS_FILE }), ({ stdout }) => stdout.trim())
      const first = yield* keys("add", "first", "--instruments", "SIM:RELIANCE")
      const second = yield* keys("add", "second", "--instruments", "SIM:RELIANCE")
      const { url } = yield* startInstance(["demo", "--symbols", "5", "--rate", "200"], { API_KEYS_FILE })
      const given = [first, second]
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => connect({ url, key: () => given.shift() ?? second, reconnect: { minMs: 20, maxMs: 200 } })),
        (made) => Effect.sync(() => made.close())
      )
      const names: Array<string | undefined> = []
      client.on("connected", ({ authorized }) => names.push(authorized?.key))
      const ticks = client.ticks("SIM:RELIANCE")
      const next = Effect.promise(() => ticks.next())
      assert.strictEqual((yield* next).done, false)
      // What the key does not have is refused by name.
      const other = yield* Effect.flip(Effect.tryPromise(() => client.ticks("SIM:TCS").next()))
      assert.include(String(other.cause), "SubscriptionRefused: SIM:TCS: not subscribed: forbidden")

      yield* keys("revoke", "first")
      let position = 0
      for (let count = 0; names.length < 2 || count < 20; count++) {
        const { value } = yield* next
        if (position > 0) assert.strictEqual(value?.position, position + 1)
        position = value!.position
      }
      assert.deepStrictEqual(names, ["first", "second"])

      yield* keys("revoke", "second")
      const over = yield* Effect.flip(
        Effect.tryPromise(async () => {
          for await (const _ of ticks);
        })
      )
      assert.include(String(over.cause), "Unauthorized: key: refused: ")
      const nobody = yield* Effect.acquireRelease(
        Effect.sync(() => connect({ url })),
        (made) => Effect.sync(() => made.close())
      )
      const missing = yield* Effect.flip(Effect.tryPromise(() => nobody.ticks("SIM:RELIANCE").next()))
      assert.include(String(missing.cause), "Unauthorized: key: refused: ")
      const rest = yield* Effect.flip(Effect.tryPromise(() => nobody.quotes([9_000_001])))
      assert.strictEqual((rest.cause as { readonly status?: number }).status, 401)
    }).pipe(Effect.scoped)
  )
})

// Long: real processes are killed and started again and again.
describe("a client of a server that is killed", { timeout: LONG_MS }, () => {
  it.live("goes on where it was, through new epochs, and is told of all that was published", () =>
    Effect.gen(function* () {
      const dir = yield* folder
      const port = String(yield* Effect.promise(() => freePort()))
      const environment = { DATA_DIR: join(dir, "data"), PORT: port }
      let instance = yield* startInstance(["run"], environment)
      const app = yield* application(instance.url, tokens)
      yield* Effect.promise(() => app.accepted)
      const feed = yield* feeding(instance.url)
      for (let kill = 1; kill <= 3; kill++) {
        const seen = app.got.size
        yield* app.until(() => app.got.size >= seen + 500)
        instance.mdp.kill("SIGKILL")
        yield* instance.mdp.ended
        instance = yield* startInstance(["run"], environment)
        yield* app.until(() => app.resumed === kill)
      }
      const seen = app.got.size
      yield* app.until(() => app.got.size >= seen + 500)
      yield* app.untilCaughtUp(yield* feed.stop)
      assert.isAbove(yield* Effect.promise(() => app.settle()), 1500)
      // The embedded state is lost with its process, so each kill begins a new epoch of each instrument.
      assert.isAtLeast(app.epochs, 3 * tokens.length)
      assert.deepStrictEqual(app.errors, [])
    }).pipe(Effect.scoped)
  )
})

describe.skipIf(isMissing)(
  "a client of two servers on real services, one of which is killed now and then",
  { timeout: LONG_MS },
  () => {
    it.live("goes on at the other exactly where it was: nothing missed, nothing twice", () =>
      Effect.gen(function* () {
        const kafka = yield* ownKafka
        const redis = yield* ownRedis
        const postgres = yield* ownPostgres()
        const settings = { ...kafka.settings(), ...redis.settings(), ...postgres.settings(), PARTITIONS: "2" }
        const serving = Effect.gen(function* () {
          const { mdp, port, url } = yield* startInstance(["server"], settings)
          return { mdp, port: Number(port), url }
        })
        yield* start(["worker"], { ...settings, METRICS_PORT: "0" })
        const servers = [yield* serving, yield* serving]
        // What a deployment has in front of its servers.
        let at = 0
        const balancer = new LossyProxy(() => servers[at]!.port)
        yield* Effect.acquireRelease(
          Effect.promise(() => balancer.listen()),
          () => Effect.sync(() => balancer.close())
        )
        const app = yield* application(`http://127.0.0.1:${balancer.port}`, tokens)
        yield* Effect.promise(() => app.accepted)
        const feed = yield* feeding(`http://127.0.0.1:${balancer.port}`)
        for (let kill = 1; kill <= 3; kill++) {
          const seen = app.got.size
          yield* app.until(() => app.got.size >= seen + 500)
          const gone = at
          servers[gone]!.mdp.kill("SIGKILL")
          yield* servers[gone]!.mdp.ended
          at = 1 - gone
          yield* app.until(() => app.resumed === kill)
          servers[gone] = yield* serving
        }
        const seen = app.got.size
        yield* app.until(() => app.got.size >= seen + 500)
        yield* app.untilCaughtUp(yield* feed.stop)
        assert.isAbove(yield* Effect.promise(() => app.settle()), 1500)
        assert.strictEqual(app.epochs, 0)
        assert.strictEqual(app.missed.size, 0)
        assert.deepStrictEqual(
          app.errors.filter((error) => error instanceof RuleViolated),
          []
        )
      }).pipe(Effect.scoped)
    )
  }
)
