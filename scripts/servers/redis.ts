/** Decides how a real Redis runs here: every write in its file before it is answered, a password, many databases. */
import { randomBytes } from "node:crypto"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { Server } from "./Server.ts"

export const REDIS_DATABASES = 1024

/** Kept in the folder, so that a restart has the same. */
export const secretIn = (folder: string): string => {
  const file = join(folder, "secret")
  if (!existsSync(file)) writeFileSync(file, randomBytes(12).toString("hex"), { mode: 0o600 })
  return readFileSync(file, "utf8")
}

export class RedisServer extends Server {
  readonly name = "Redis"
  protected readonly data = ["data"]

  /** Each number up to `REDIS_DATABASES` is a database of its own. */
  url(database = 0): string {
    return `redis://default:${secretIn(this.folder)}@127.0.0.1:${this.port}/${database}`
  }

  settings(): Readonly<Record<string, string>> {
    return { REDIS_URL: this.url() }
  }

  protected async prepare(): Promise<void> {
    const { mkdir, writeFile } = await import("node:fs/promises")
    await mkdir(join(this.folder, "data"), { recursive: true })
    const configuration = [
      "bind 127.0.0.1",
      `port ${this.port}`,
      `dir "${join(this.folder, "data")}"`,
      `requirepass ${secretIn(this.folder)}`,
      `databases ${REDIS_DATABASES}`,
      'save ""',
      "appendonly yes",
      "appendfsync everysec",
      "daemonize no"
    ]
    await writeFile(join(this.folder, "redis.conf"), `${configuration.join("\n")}\n`, { mode: 0o600 })
  }

  protected spawned() {
    return { command: "redis-server", args: [join(this.folder, "redis.conf")] }
  }

  protected answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.port, "127.0.0.1")
      let answer = ""
      const done = (is: boolean) => {
        socket.destroy()
        resolve(is)
      }
      socket.setTimeout(1000, () => done(false))
      socket.on("error", () => done(false))
      socket.on("close", () => done(false))
      socket.on("data", (chunk) => {
        answer += chunk.toString()
        if (answer.includes("PONG")) done(true)
        // While it still reads its file it answers LOADING.
        else if (answer.includes("-LOADING")) done(false)
      })
      socket.write(`AUTH ${secretIn(this.folder)}\r\nPING\r\n`)
    })
  }
}
