/**
 * Decides how PostgreSQL is spoken to: how many connections and for how long, which failures may pass, what a
 * transaction is, and how rows come back.
 */
import { Effect, Redacted, Schedule, type Scope } from "effect"
import pg from "pg"
import { StartError, StoreError } from "../../schema/Errors.ts"
import { micros, seconds } from "./rows.ts"

export interface Connection {
  /** `postgres://user:password@host:port/database`. */
  readonly url: string | Redacted.Redacted<string>
  /** True for PGlite behind its socket: one session serves every connection, so there must be one only. */
  readonly embedded: boolean
}

/** Connections to a server: one writes, one refreshes bars, one drops old days; the others are for those who read. */
const POOL_CONNECTIONS = 8
const STATEMENT_TIMEOUT_MS = 30_000
const LOCK_TIMEOUT_MS = 10_000
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
/** A server that does not answer at all; PGlite knows none of the timeouts above, so this is its only one. */
const QUERY_TIMEOUT_MS = 40_000
/** How long a query waits for a free connection, or for one to be made. */
const CONNECT_TIMEOUT_MS = 10_000
const EMBEDDED_CONNECT_TIMEOUT_MS = 60_000
const END_TIMEOUT_MS = 5_000

/** Attempts at start wait 0.5, 1, 2 and 4 seconds in between. */
const START_RETRIES = 4

/** A transaction with ticks that did not reach its COMMIT by then is undone. */
const COMMIT_WITHIN_SECONDS = 45
/**
 * By then such a transaction is taken to be seen, or never to be. What looks at ticks without waiting for the writers
 * counts on it: the refresh of bars, and the drop of old days. No timeout ends a COMMIT that has begun: one that waits
 * longer than this for a disk or a synchronous standby may leave bars without its ticks, until their minutes are marked.
 */
export const TRANSACTION_LIMIT_SECONDS = 90

/** Advisory locks of this program; its first key is ours, the second says what is locked. */
const LOCK_SPACE = 0x6d6470
const LOCKS = { schema: 1, days: 2, candles: 3, instruments: 4 } as const
export const advisory = (lock: keyof typeof LOCKS): string => `${LOCK_SPACE}, ${LOCKS[lock]}`

// --- errors -----------------------------------------------------------------------------------------------------

export const stateOf = (cause: unknown): string | undefined =>
  cause instanceof pg.DatabaseError && typeof cause.code === "string" ? cause.code : undefined

export const UNIQUE_VIOLATION = "23505"
/** "no partition of relation found for row" */
export const NO_PARTITION = "23514"
export const LOCK_NOT_AVAILABLE = "55P03"
const STARTING_UP = "57P03"
const TOO_MANY_CONNECTIONS = "53300"

/** A number that its column has no room for fails before it is sent. */
const isUnsendable = (cause: unknown): boolean => cause instanceof RangeError || cause instanceof TypeError

/**
 * Classes of SQLSTATE that say what was sent is wrong, its data or a constraint on them. A name that is not there, a
 * right that is missing or a limit are the database's to put right, and may be by the next time.
 */
const LASTING = /^(22|23)/

const storeError = (operation: string, cause: unknown): StoreError => {
  const state = stateOf(cause)
  const message = cause instanceof Error ? cause.message : String(cause)
  return new StoreError({
    operation,
    message: state === undefined ? message : `${message} (${state})`,
    transient: state === undefined ? !isUnsendable(cause) : !LASTING.test(state)
  })
}

export const ask = <A>(operation: string, run: () => Promise<A>): Effect.Effect<A, StoreError> =>
  Effect.tryPromise({ try: run, catch: (cause) => storeError(operation, cause) }).pipe(
    Effect.withSpan(`TickStore.${operation}`)
  )

// --- connections ------------------------------------------------------------------------------------------------

const wrongUrl = () => new StartError({ message: "DATABASE_URL: expected postgres://user:password@host:port/database" })

/** What may be shown of a connection URL: host, port and database. */
const serverName = (url: string): string | undefined => {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    return undefined
  }
  if (parsed.protocol !== "postgres:" && parsed.protocol !== "postgresql:") return undefined
  const host = parsed.hostname || parsed.searchParams.get("host") || "localhost"
  return `${host}:${parsed.port || "5432"}${parsed.pathname === "/" ? "" : parsed.pathname}`
}

const ignore = (): void => {}

// A plan kept for any parameters would lock every partition there is; planning for the day at hand is cheap.
// A batch of late ticks may meet more rows of a columnstore chunk than TimescaleDB takes out of it by default.
const SESSION = `
  SELECT set_config('plan_cache_mode', 'force_custom_plan', false);
  SELECT set_config(name, '0', false) FROM pg_settings
  WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'`

const makePool = (url: string, embedded: boolean): pg.Pool => {
  const pool = new pg.Pool({
    connectionString: url,
    max: embedded ? 1 : POOL_CONNECTIONS,
    connectionTimeoutMillis: embedded ? EMBEDDED_CONNECT_TIMEOUT_MS : CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    lock_timeout: LOCK_TIMEOUT_MS,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS,
    keepAlive: true,
    application_name: "market-data-platform",
    onConnect: async (client) => {
      // A connection that dies while it is out reports to the query under way; without a listener it ends the process.
      client.on("error", ignore)
      // PGlite's one session outlives its connections: a new one starts clean.
      if (embedded) await client.query("DISCARD ALL")
      await client.query(SESSION)
    }
  })
  pool.on("error", ignore)
  return pool
}

const endPool = (pool: pg.Pool): Effect.Effect<void> =>
  Effect.promise(() => {
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, END_TIMEOUT_MS)
    return Promise.race([pool.end().catch(ignore), late]).finally(() => clearTimeout(timer))
  })

/** A pool that has reached its server, closed with the scope. */
export const connect = (options: Connection): Effect.Effect<pg.Pool, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const url = Redacted.isRedacted(options.url) ? Redacted.value(options.url) : options.url
    const server = serverName(url)
    if (server === undefined) return yield* wrongUrl()
    const pool = yield* Effect.acquireRelease(
      Effect.try({ try: () => makePool(url, options.embedded), catch: wrongUrl }),
      endPool
    )
    yield* Effect.tryPromise({ try: () => pool.query("SELECT 1"), catch: (cause) => cause }).pipe(
      Effect.retry({
        times: START_RETRIES,
        schedule: Schedule.exponential("500 millis"),
        while: (cause) => {
          const state = stateOf(cause)
          return state === undefined || state === STARTING_UP || state === TOO_MANY_CONNECTIONS
        }
      }),
      Effect.mapError((cause) => {
        const said = cause instanceof AggregateError ? cause.errors[0] : cause
        const reason = said instanceof Error ? said.message : String(said)
        return new StartError({ message: `DATABASE_URL: cannot use PostgreSQL at ${server}: ${reason}` })
      })
    )
    return pool
  })

// --- transactions -----------------------------------------------------------------------------------------------

const within = async <A>(
  pool: pg.Pool,
  begin: string,
  work: (client: pg.PoolClient, begun: unknown) => Promise<A>,
  commit: string
): Promise<A> => {
  const client = await pool.connect()
  try {
    const answer = await work(client, await client.query(begin))
    await client.query(commit)
    client.release()
    return answer
  } catch (cause) {
    // The server answered, so the connection is sound once the transaction is rolled back.
    if (stateOf(cause) === undefined) client.release(true)
    else
      await client.query("ROLLBACK").then(
        () => client.release(),
        () => client.release(true)
      )
    throw cause
  }
}

/** Everything in `work` or nothing of it. A connection in doubt is closed, which undoes what it had under way. */
export const transaction = <A>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<A>): Promise<A> =>
  within(pool, "BEGIN", work, "COMMIT")

/** What the store takes begins here: days before it are dropped (`days.ts`). */
const BEGIN_TICKS = `BEGIN; SELECT ${seconds("ticks_from")} AS seconds FROM store_state`
const COMMIT_TICKS = `SELECT assert_began_within(INTERVAL '${COMMIT_WITHIN_SECONDS} seconds'); COMMIT`

/** A transaction that is undone unless it comes to its end in time, told from when on the store takes ticks. */
export const tickTransaction = <A>(
  pool: pg.Pool,
  work: (client: pg.PoolClient, ticksFrom: number) => Promise<A>
): Promise<A> =>
  within(
    pool,
    BEGIN_TICKS,
    (client, begun) => {
      // Several statements in one text are answered one by one.
      const [, state] = begun as ReadonlyArray<pg.QueryResult<{ readonly seconds: number }>>
      return work(client, micros(state!.rows[0]!.seconds))
    },
    COMMIT_TICKS
  )
