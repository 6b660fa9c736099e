/** Decides how a real PostgreSQL runs here: its own cluster in a folder, by a user that is not root, with a password. */
import { spawnSync } from "node:child_process"
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import pg from "pg"
import { postgresBinaries } from "./install.ts"
import { secretIn } from "./redis.ts"
import { Server, type ServerOptions } from "./Server.ts"

interface User {
  readonly uid: number
  readonly gid: number
}

const numberOf = (flag: string, user: string): number | undefined => {
  const { status, stdout } = spawnSync("id", [flag, user], { encoding: "utf8" })
  return status === 0 ? Number(stdout) : undefined
}

/** PostgreSQL refuses to be run by root: then `postgres`, or `nobody`. */
const runsAs = (): User | undefined => {
  if (process.getuid?.() !== 0) return undefined
  for (const user of ["postgres", "nobody"]) {
    const uid = numberOf("-u", user)
    const gid = numberOf("-g", user)
    if (uid !== undefined && gid !== undefined) return { uid, gid }
  }
  throw new Error("PostgreSQL does not run as root, and there is no user postgres or nobody: run this as another user")
}

export interface PostgresOptions extends ServerOptions {
  /** Server settings besides its own, such as `{ fsync: "off" }`. */
  readonly configuration?: Readonly<Record<string, string>>
}

export class PostgresServer extends Server {
  readonly name = "PostgreSQL"
  protected readonly data = ["data"]
  /** Ends sessions rather than wait for them. */
  protected override readonly stopSignal = "SIGINT"
  readonly #configuration: Readonly<Record<string, string>>

  constructor(options: PostgresOptions) {
    super(options)
    this.#configuration = options.configuration ?? {}
  }

  url(database = "market"): string {
    return `postgresql://market:${secretIn(this.folder)}@127.0.0.1:${this.port}/${database}`
  }

  settings(): Readonly<Record<string, string>> {
    return { DATABASE_URL: this.url() }
  }

  /** A new empty database; answers its URL. */
  async createDatabase(name: string): Promise<string> {
    const client = new pg.Client({ connectionString: this.url("postgres") })
    await client.connect()
    try {
      await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`)
    } finally {
      await client.end()
    }
    return this.url(name)
  }

  override async start(): Promise<void> {
    await super.start()
    const client = new pg.Client({ connectionString: this.url("postgres") })
    await client.connect()
    const { rowCount } = await client.query("SELECT FROM pg_database WHERE datname = 'market'")
    await client.end()
    if (rowCount === 0) await this.createDatabase("market")
  }

  protected async prepare(): Promise<void> {
    const data = join(this.folder, "data")
    if (existsSync(join(data, "PG_VERSION")) && existsSync(join(data, "global", "pg_control"))) return
    const user = runsAs()
    rmSync(data, { recursive: true, force: true })
    mkdirSync(data, { mode: 0o700 })
    const password = join(this.folder, "password")
    writeFileSync(password, secretIn(this.folder), { mode: 0o600 })
    chmodSync(this.folder, 0o755)
    if (user !== undefined) for (const path of [data, password]) chownSync(path, user.uid, user.gid)
    const made = spawnSync(
      join(postgresBinaries(), "initdb"),
      [
        ...["-D", data, "-U", "market", "--pwfile", password],
        ...["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
      ],
      { encoding: "utf8", cwd: "/", ...user }
    )
    rmSync(password)
    if (made.status === 0) return
    rmSync(data, { recursive: true, force: true })
    const reason = made.stderr || made.error?.message
    const hint = user === undefined ? "" : ` (run as user ${user.uid}: can it reach the folder?)`
    throw new Error(`PostgreSQL's folder ${data} could not be made${hint}: ${reason}`)
  }

  protected spawned() {
    const settings = {
      listen_addresses: "127.0.0.1",
      port: String(this.port),
      unix_socket_directories: "",
      // Else times differ between machines.
      timezone: "UTC",
      ...this.#configuration
    }
    return {
      command: join(postgresBinaries(), "postgres"),
      args: [
        "-D",
        join(this.folder, "data"),
        ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])
      ],
      ...runsAs()
    }
  }

  protected async answers(): Promise<boolean> {
    const client = new pg.Client({ connectionString: this.url("postgres"), connectionTimeoutMillis: 2000 })
    client.on("error", () => {})
    await client.connect()
    await client.end()
    return true
  }
}
