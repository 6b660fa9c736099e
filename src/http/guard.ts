/**
 * Decides which web requests are let in at all, by their Host and Origin: a foreign page, or a name that was pointed
 * at this machine, must not reach the platform, also not on loopback.
 */
import { isIP } from "node:net"
import { Result } from "effect"
import { SettingError } from "../schema/Errors.ts"
import { hideKeys } from "../schema/keyText.ts"

/** The headers that tell where a request comes from; empty where it did not send one. */
export interface RequestOrigin {
  readonly host: string
  readonly origin: string
  readonly secFetchSite: string
  readonly secFetchMode: string
}

export interface GuardRules {
  /** Host names that may stand in a Host header, lower case. */
  readonly hosts: ReadonlySet<string>
  /** Web origins let in besides the server's own, such as `https://charts.example.com`. */
  readonly origins: ReadonlySet<string>
}

/**
 * Answers why a request is refused, or `undefined` where it may pass. `isOperators`: it asks for what an operator asks,
 * as a kubelet and a Prometheus do by the address that they found.
 */
export type Guard = (request: RequestOrigin, isOperators?: boolean) => GuardRefusal | undefined
export interface GuardRefusal {
  readonly parameter: "Host" | "Origin"
  readonly message: string
}

const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]
/** Addresses that mean every interface: nobody calls the server by them. */
const WILDCARD = new Set(["0.0.0.0", "::", "[::]"])

const HOST = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::(\d{1,5}))?$/

const NAME = /^[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?$/

/** The host name of a Host header, without port and trailing dot; `undefined` where it is none. */
const hostName = (header: string): string | undefined => HOST.exec(header.toLowerCase())?.[1]

const entries = (list: string | undefined): ReadonlyArray<string> =>
  (list ?? "")
    .split(",")
    .map((text) => text.trim())
    .filter((text) => text !== "")

const bare = (name: string): string => name.replace(/^\[(.*)\]$/, "$1")
/** As it stands in a Host header. */
const asHost = (name: string): string =>
  (name.includes(":") && !name.startsWith("[") ? `[${name}]` : name).toLowerCase()
const isAddress = (name: string): boolean => isIP(bare(name)) !== 0

/** Reads HOST, `ALLOWED_ORIGINS` and `ALLOWED_HOSTS` into the rules. */
export const guardRules = (
  host: string,
  allowedOrigins: string | undefined,
  allowedHosts?: string
): Result.Result<GuardRules, SettingError> => {
  const hosts = new Set(LOOPBACK)
  const origins = new Set<string>()
  if (!WILDCARD.has(host)) hosts.add(asHost(host))
  for (const entry of entries(allowedHosts)) {
    const name = asHost(entry).replace(/\.$/, "")
    // A name without its port: exact, and no pattern.
    if (!isAddress(name) && !NAME.test(name)) {
      return Result.fail(
        new SettingError({
          setting: "ALLOWED_HOSTS",
          message: `ALLOWED_HOSTS: expected names such as market.example.com, comma-separated, without port, got ${JSON.stringify(entry)}`
        })
      )
    }
    hosts.add(name)
  }
  for (const entry of entries(allowedOrigins)) {
    const url = URL.canParse(entry) ? new URL(entry) : undefined
    if (
      url === undefined ||
      (url.protocol !== "http:" && url.protocol !== "https:") ||
      (entry.toLowerCase() !== url.origin && entry.toLowerCase() !== `${url.origin}/`)
    ) {
      return Result.fail(
        new SettingError({
          setting: "ALLOWED_ORIGINS",
          message: `ALLOWED_ORIGINS: expected origins such as https://charts.example.com, comma-separated, got ${JSON.stringify(entry)}`
        })
      )
    }
    origins.add(url.origin)
    hosts.add(url.hostname)
  }
  return Result.succeed({ hosts, origins })
}

/** Tells whether a page of another origin may read answers: what CORS headers are for. */
export const isAllowedOrigin = (rules: GuardRules, origin: string): boolean => rules.origins.has(origin)

/**
 * A Host must be a name this server goes by; for what operators ask it may be any address, since a page that has a name
 * of its own pointed at this machine has that name in the Host. An Origin, where there is one, must be the server's own
 * (the Host that was asked for) or an allowed one. A browser that says it asks for another site's page, other than by
 * following a link, is refused also where it sends no Origin, as it does for images and scripts.
 */
export const guard =
  (rules: GuardRules): Guard =>
  ({ host, origin, secFetchSite, secFetchMode }, isOperators = false) => {
    const name = hostName(host)
    if (name === undefined || !(rules.hosts.has(name) || (isOperators && isAddress(name)))) {
      return {
        parameter: "Host",
        message: `Host: ${show(host)} is not a name of this server; HOST, ALLOWED_HOSTS and ALLOWED_ORIGINS say which are`
      }
    }
    if (origin !== "") {
      const own = host.toLowerCase()
      const lower = origin.toLowerCase()
      if (lower === `http://${own}` || lower === `https://${own}` || rules.origins.has(lower)) return undefined
      return { parameter: "Origin", message: `Origin: ${show(origin)} is not allowed; ALLOWED_ORIGINS says which are` }
    }
    if ((secFetchSite === "cross-site" || secFetchSite === "same-site") && secFetchMode !== "navigate") {
      return { parameter: "Origin", message: `Origin: a page of another site (${secFetchSite}) is not allowed` }
    }
    return undefined
  }

const show = (value: string): string => JSON.stringify(hideKeys(value.length > 80 ? `${value.slice(0, 80)}…` : value))
