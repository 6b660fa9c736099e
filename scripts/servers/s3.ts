/** Decides how a real S3 server runs here: versitygw on a folder, which honours `If-None-Match`; its buckets are folders. */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { S3_GATEWAY } from "./install.ts"
import { secretIn } from "./redis.ts"
import { Server } from "./Server.ts"

const ACCESS_KEY = "market"
const REGION = "us-east-1"

export class S3Server extends Server {
  readonly name = "S3"
  protected readonly data = ["data", "sidecar"]

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`
  }

  settings(bucket = "market"): Readonly<Record<string, string>> {
    return {
      S3_ENDPOINT: this.endpoint,
      S3_BUCKET: bucket,
      S3_REGION: REGION,
      AWS_ACCESS_KEY_ID: ACCESS_KEY,
      AWS_SECRET_ACCESS_KEY: secretIn(this.folder)
    }
  }

  createBucket(name: string): void {
    mkdirSync(join(this.folder, "data", name), { recursive: true })
  }

  protected async prepare(): Promise<void> {
    this.createBucket("market")
    mkdirSync(join(this.folder, "sidecar"), { recursive: true })
  }

  protected spawned() {
    return {
      command: S3_GATEWAY,
      args: [
        ...["--port", `127.0.0.1:${this.port}`, "--region", REGION, "--quiet", "--keep-alive", "posix"],
        // What it knows of objects beside them: not every file system keeps extended attributes.
        ...["--sidecar", join(this.folder, "sidecar"), join(this.folder, "data")]
      ],
      env: { ROOT_ACCESS_KEY: ACCESS_KEY, ROOT_SECRET_KEY: secretIn(this.folder) }
    }
  }

  protected async answers(): Promise<boolean> {
    // Without credentials it refuses: that is an answer.
    const answer = await fetch(this.endpoint, { signal: AbortSignal.timeout(2000) })
    await answer.body?.cancel()
    return answer.status < 500
  }
}
