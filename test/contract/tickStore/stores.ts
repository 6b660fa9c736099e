/**
 * Decides on which databases the store's suite runs, each new and empty for every file: PGlite, and the server that
 * `databaseUrl` gives. A case may ask what is under the store, for what its port does not say.
 */
import { describe, layer, type Vitest } from "@effect/vitest"
import { Context, Effect, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"
import pg from "pg"
import { createTimescale } from "../../../src/layers/postgres/migrations.ts"
import * as Pglite from "../../../src/layers/postgres/Pglite.ts"
import { chooseLevel, findServer, type Level } from "../../../src/layers/postgres/serverLevel.ts"
import * as Timescale from "../../../src/layers/postgres/Timescale.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { databaseUrl } from "../../support/services.ts"

/** The database under the store. */
export class Database extends Context.Service<Database, { readonly url: string; readonly embedded: boolean }>()(
  "test/Database"
) {}

const embedded = Layer.effect(
  Database,
  // A thread of its own keeps real time.
  Effect.map(TestClock.withLive(Pglite.start({ dataDir: undefined })), ({ url }) => ({ url, embedded: true }))
)

const DROP_EVERYTHING = `
DO $$ DECLARE made record; BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
    FOR made IN
      EXECUTE 'SELECT format(''%I.%I'', view_schema, view_name) AS name FROM timescaledb_information.continuous_aggregates'
    LOOP
      EXECUTE format('DROP MATERIALIZED VIEW IF EXISTS %s CASCADE', made.name);
    END LOOP;
  END IF;
  FOR made IN
    SELECT quote_ident(c.relname) AS name, c.relkind FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c')
      AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP %s IF EXISTS %s CASCADE', CASE made.relkind
      WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, made.name);
  END LOOP;
  FOR made IN
    SELECT p.oid::regprocedure::text AS name FROM pg_proc p
    WHERE p.pronamespace = current_schema()::regnamespace
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', made.name);
  END LOOP;
END $$`

const server = (url: string) =>
  Layer.effect(
    Database,
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: url })
      await client.connect()
      await client.query(DROP_EVERYTHING)
      await client.end()
      return { url, embedded: false }
    })
  )

interface Subject {
  readonly name: string
  readonly level: Level
  readonly database: typeof embedded
}

/** The real server, by what it is: the layout that a new database has on it, which this one then is. */
const serverSubject = async (url: string): Promise<Subject> => {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  await pool.query(DROP_EVERYTHING)
  await createTimescale(pool)
  const client = await pool.connect()
  const { level, says } = chooseLevel(await findServer(client), undefined)
  client.release()
  await pool.end()
  return { name: says.slice(0, says.indexOf(":")), level, database: server(url) }
}

const real = await databaseUrl()
const subjects: ReadonlyArray<Subject> = [
  { name: "PGlite", level: "plain", database: embedded },
  ...(real === undefined ? [] : [await serverSubject(real)])
]

/** A part of the suite, on every database there is. */
export const onEachStore = (
  part: string,
  cases: (it: Vitest.MethodsNonLive<TickStore | Database>, subject: Subject) => void,
  options: Pick<Timescale.StoreOptions, "keepDays" | "depth"> = {}
): void => {
  for (const subject of subjects) {
    const store = Layer.effect(
      TickStore,
      Effect.flatMap(Database, (database) => TestClock.withLive(Timescale.make({ ...database, ...options })))
    )
    layer(store.pipe(Layer.provideMerge(subject.database)))(`TickStore on ${subject.name}`, (it) => {
      describe(part, () => cases(it, subject))
    })
  }
}

/** Statements on a connection of their own, one after the other; rows of the last. */
export const sql = (...texts: ReadonlyArray<string>) =>
  Effect.flatMap(Database, ({ url }) =>
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: url })
      await client.connect()
      let rows: ReadonlyArray<Readonly<Record<string, unknown>>> = []
      for (const text of texts) rows = (await client.query<Record<string, unknown>>(text)).rows
      await client.end()
      return rows
    })
  )

/** Someone else's transaction, which holds what this statement takes for as long as the scope is open. */
export const holding = (statement: string): Effect.Effect<pg.Client, never, Database | Scope.Scope> =>
  Effect.flatMap(Database, ({ url }) =>
    Effect.acquireRelease(
      Effect.promise(async () => {
        const client = new pg.Client({ connectionString: url })
        await client.connect()
        await client.query(`BEGIN; ${statement}`)
        return client
      }),
      (client) => Effect.promise(() => client.end())
    )
  )
