/** Decides from which addresses an operator's figures may be read: those of loopback, and those that METRICS_ALLOW names. */
import { BlockList, isIP, isIPv6 } from "node:net"
import { Result } from "effect"
import { SettingError } from "../schema/Errors.ts"
import { showValue } from "../schema/Explain.ts"

/** Whether the process is alive and ready: a kubelet calls from an address that nobody knows beforehand. */
export const HEALTH_PATHS: ReadonlySet<string> = new Set(["/healthz", "/readyz"])

/** Whether an address, IPv4 or IPv6 as text, is one of some. */
export type Addresses = (address: string) => boolean

const among =
  (list: BlockList): Addresses =>
  (address) =>
    list.check(address, isIPv6(address) ? "ipv6" : "ipv4")

const loopback = new BlockList()
loopback.addSubnet("127.0.0.0", 8, "ipv4")
loopback.addAddress("::1", "ipv6")
export const isLoopback: Addresses = among(loopback)

const PREFIX = /^(?:0|[1-9]\d{0,2})$/

/** Reads METRICS_ALLOW: addresses and networks, IPv4 and IPv6, such as `10.0.0.0/8, fd00::/8, 192.168.1.5`. */
export const readNetworks = (text: string): Result.Result<Addresses, SettingError> => {
  const list = new BlockList()
  for (const entry of text.split(",").map((part) => part.trim())) {
    if (entry === "") continue
    const [address = "", prefix, ...more] = entry.split("/")
    const version = address.includes("%") ? 0 : isIP(address)
    const longest = version === 6 ? 128 : 32
    const length = prefix === undefined ? longest : PREFIX.test(prefix) ? Number(prefix) : Number.NaN
    if (version === 0 || more.length > 0 || !(length <= longest)) {
      const message = `METRICS_ALLOW: expected addresses and networks such as 10.0.0.0/8, comma-separated, got ${showValue(entry)}`
      return Result.fail(new SettingError({ setting: "METRICS_ALLOW", message }))
    }
    list.addSubnet(address, length, version === 6 ? "ipv6" : "ipv4")
  }
  return Result.succeed(among(list))
}

/** Those that METRICS_ALLOW names; `undefined` where it is unset. */
export const namedReaders = (allowed: string | undefined): Result.Result<Addresses | undefined, SettingError> =>
  allowed === undefined ? Result.succeed(undefined) : readNetworks(allowed)

/** The answer to who may not. */
export const figuresRefused = (address: string, path: string) => ({
  status: 403,
  reason: "address",
  body: {
    _tag: "Forbidden",
    message: `address: ${address} may not ask for ${showValue(path)}; METRICS_ALLOW says who may`,
    parameter: "address"
  }
})
