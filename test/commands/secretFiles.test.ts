import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { withSecretFiles } from "../../src/commands/secretFiles.ts"
import { readSettings, SECRETS, settingsTable } from "../../src/schema/Settings.ts"
import { folder, runToEnd } from "../support/processes.ts"

describe("a secret in a file", () => {
  it.live("is what its setting would be, without the line feed that ends it", () =>
    Effect.gen(function* () {
      const place = yield* folder
      for (const name of SECRETS) {
        const path = join(place, name)
        writeFileSync(path, `a secret of ${name}\n`)
        const given = Result.getOrThrow(withSecretFiles({ [`${name}_FILE`]: path, [name]: " ", PORT: "1" }))
        assert.deepInclude(given, { [name]: `a secret of ${name}`, PORT: "1" })
        assert.strictEqual(Result.getOrThrow(readSettings(given))[name], `a secret of ${name}`)
        assert.isTrue(settingsTable.some((setting) => setting.name === `${name}_FILE`))
      }
      assert.deepStrictEqual(Result.getOrThrow(withSecretFiles({ PORT: "1", REDIS_URL_FILE: "" })), {
        PORT: "1",
        REDIS_URL_FILE: ""
      })
    }).pipe(Effect.scoped)
  )

  it.live("is refused in one line that names the setting and not the secret", () =>
    Effect.gen(function* () {
      const place = yield* folder
      const [path, empty] = [join(place, "secret"), join(place, "empty")]
      writeFileSync(path, "s3cret")
      writeFileSync(empty, "\n")
      const cases: ReadonlyArray<readonly [Readonly<Record<string, string>>, string]> = [
        [{ DATABASE_URL_FILE: path, DATABASE_URL: "x" }, "expected without DATABASE_URL, got both"],
        [{ DATABASE_URL_FILE: join(place, "none") }, `cannot read ${join(place, "none")} (ENOENT)`],
        [{ DATABASE_URL_FILE: place }, `cannot read ${place} (EISDIR)`],
        [{ DATABASE_URL_FILE: empty }, `expected a secret, and ${empty} is empty`]
      ]
      for (const [environment, message] of cases) {
        const refused = withSecretFiles(environment)
        assert(Result.isFailure(refused))
        assert.strictEqual(refused.failure.message, `DATABASE_URL_FILE: ${message}`)
      }
      const settings = { KAFKA_BROKERS: "127.0.0.1:1", DATABASE_URL_FILE: path }
      const { code, stderr } = yield* runToEnd(["server"], { ...settings, DATABASE_URL: "s3cret" })
      assert.deepStrictEqual([code, stderr], [1, "mdp: DATABASE_URL_FILE: expected without DATABASE_URL, got both\n"])
    }).pipe(Effect.scoped)
  )
})
