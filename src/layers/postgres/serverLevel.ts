/**
 * Decides which of three layouts a database gets, by what its server has: TimescaleDB Community's hypertable and
 * continuous aggregates, the hypertable alone of its Apache edition, or plain PostgreSQL. A database keeps the layout
 * that it was set up with; a server that can no longer carry it is refused.
 */
import type pg from "pg"
import { StartError } from "../../schema/Errors.ts"

export type Level = "community" | "apache" | "plain"

export interface ServerFound {
  /** `server_version_num`, such as 150020. */
  readonly number: number
  readonly version: string
  /** The extension made in this database, and its licence: undefined where its library is not loaded. */
  readonly timescale: { readonly version: string; readonly license: string | undefined } | undefined
  /** The version that could be made in this database. */
  readonly available: string | undefined
}

const OLDEST_SERVER = 140_000
/** The first with `force` in refresh_continuous_aggregate and with the columnstore's present names. */
const OLDEST_TIMESCALE = [2, 18] as const

const FIND = `
  SELECT current_setting('server_version_num')::integer AS number,
         split_part(current_setting('server_version'), ' ', 1) AS version,
         (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescale,
         (SELECT setting FROM pg_settings WHERE name = 'timescaledb.license') AS license,
         (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb') AS available`

interface FoundRow {
  readonly number: number
  readonly version: string
  readonly timescale: string | null
  readonly license: string | null
  readonly available: string | null
}

export const findServer = async (client: Pick<pg.ClientBase, "query">): Promise<ServerFound> => {
  const { number, version, timescale, license, available } = (await client.query<FoundRow>(FIND)).rows[0]!
  return {
    number,
    version,
    timescale: timescale === null ? undefined : { version: timescale, license: license || undefined },
    available: available ?? undefined
  }
}

const isTooOld = (version: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map((part) => Number.parseInt(part, 10))
  return major < OLDEST_TIMESCALE[0] || (major === OLDEST_TIMESCALE[0] && minor < OLDEST_TIMESCALE[1])
}

/** Whether the extension is not in the database and may be made in it. */
export const couldHaveTimescale = ({ timescale, available }: ServerFound): boolean =>
  timescale === undefined && available !== undefined && !isTooOld(available)

const refused = (message: string): never => {
  throw new StartError({ message })
}

const LAYOUT: Record<Level, string> = {
  community: "a hypertable, bars as continuous aggregates, columnstore after 3 days",
  apache: "a hypertable, bars in a table",
  plain: "a partition a day, bars in a table"
}

interface Offer {
  readonly level: Level
  /** Why it is not more, where the server has something of TimescaleDB. */
  readonly because?: string
}

const offered = ({ timescale, available }: ServerFound): Offer => {
  const oldest = OLDEST_TIMESCALE.join(".")
  if (timescale === undefined) {
    if (available === undefined) return { level: "plain" }
    return {
      level: "plain",
      because: `TimescaleDB ${available} is available but could not be created in this database (CREATE EXTENSION timescaledb), and is not used`
    }
  }
  const { version, license } = timescale
  if (isTooOld(version)) {
    return { level: "plain", because: `TimescaleDB ${version} is older than ${oldest}, and is not used` }
  }
  if (license === "timescale") return { level: "community" }
  return {
    level: "apache",
    because: `timescaledb.license is ${license ?? "unknown"}: no continuous aggregates, no columnstore`
  }
}

const nameOf = ({ version, timescale }: ServerFound): string => {
  if (timescale === undefined) return `PostgreSQL ${version}`
  const edition = timescale.license === "timescale" ? "Community" : "Apache"
  return `TimescaleDB ${timescale.version} ${edition} on PostgreSQL ${version}`
}

export interface Chosen {
  readonly level: Level
  /** What was found and what follows, in one line. */
  readonly says: string
}

/** Refuses a server on which nothing can be done: a statement that changes the schema may end the connection there. */
export const checkServer = (found: ServerFound): void => {
  const { timescale } = found
  if (found.number < OLDEST_SERVER) {
    refused(`DATABASE_URL: PostgreSQL 14 or later is needed, this is ${found.version}`)
  }
  if (timescale !== undefined && timescale.license === undefined) {
    refused(
      `DATABASE_URL: the database has the extension TimescaleDB ${timescale.version}, but the server does not load it (shared_preload_libraries)`
    )
  }
}

/** The layout for a database, or of one that was set up before. */
export const chooseLevel = (found: ServerFound, setUpAs: Level | undefined): Chosen => {
  checkServer(found)
  const { level, because } = offered(found)
  const name = nameOf(found)
  if (setUpAs === undefined || setUpAs === level) {
    const line = `${name}: ${LAYOUT[level]}`
    return { level, says: because === undefined ? line : `${line}; ${because}` }
  }
  // A hypertable is one under either licence; what only Community has must stay there.
  if (setUpAs === "plain" || (setUpAs === "apache" && level === "community")) {
    return {
      level: setUpAs,
      says: `${name}: ${LAYOUT[setUpAs]}, as the database was set up; on this server a new one would have ${LAYOUT[level]}`
    }
  }
  return refused(
    `DATABASE_URL: the database was set up with ${LAYOUT[setUpAs]}, which this server (${name}) cannot go on with${because === undefined ? "" : `: ${because}`}`
  )
}
