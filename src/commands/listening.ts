/**
 * Decides what a server says of where it listens: where this machine reaches it, and, where it listens on every address,
 * by which names others are answered.
 */
import { networkInterfaces } from "node:os"
import type { GuardRules } from "../http/guard.ts"
import { isEveryAddress, isLoopbackHost } from "../http/listen.ts"

/** What others may call this machine by: the first address of it that is not loopback's. */
const ownAddress = (): string | undefined =>
  Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address

/** `url` is where this machine reaches it. */
export const listening = (
  url: string,
  host: string,
  { hosts }: Pick<GuardRules, "hosts">,
  own: string | undefined = ownAddress()
): string => {
  if (!isEveryAddress(host)) return `listening on ${url}`
  const names = [...hosts].filter((name) => !isLoopbackHost(name))
  const told =
    names.length > 0
      ? ` as ${names.join(", ")}`
      : `: others are answered once ALLOWED_HOSTS names what they call it by${own === undefined ? "" : `, such as ${own}`}`
  return `listening on ${url}, and on every address of this machine (HOST=${host})${told}`
}
