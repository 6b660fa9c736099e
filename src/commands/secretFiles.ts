/**
 * Decides how a setting that holds a secret comes from a file that NAME_FILE names, as containers are given secrets: in
 * an environment it is seen by whoever may look at the process, and is handed on to its children.
 */
import { readFileSync } from "node:fs"
import { Result } from "effect"
import { SettingError } from "../schema/Errors.ts"
import { SECRETS } from "../schema/Settings.ts"

type Environment = Readonly<Record<string, string | undefined>>

const textOf = (environment: Environment, name: string): string => environment[name]?.trim() ?? ""

/** The environment with what its files hold; the line feed that ends a file is not of it. */
export const withSecretFiles = (environment: Environment): Result.Result<Environment, SettingError> => {
  const read: Record<string, string> = {}
  for (const name of SECRETS) {
    const setting = `${name}_FILE`
    const path = textOf(environment, setting)
    if (path === "") continue
    const refuse = (message: string) => Result.fail(new SettingError({ setting, message: `${setting}: ${message}` }))
    if (textOf(environment, name) !== "") return refuse(`expected without ${name}, got both`)
    try {
      read[name] = readFileSync(path, "utf8").trim()
    } catch (cause) {
      return refuse(`cannot read ${path} (${(cause as NodeJS.ErrnoException).code})`)
    }
    if (read[name] === "") return refuse(`expected a secret, and ${path} is empty`)
  }
  return Result.succeed({ ...environment, ...read })
}
