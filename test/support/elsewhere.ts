/**
 * Decides how a test calls from another address than loopback's: by this machine's own on a network, and from a network
 * namespace of its own, where the machine lets it.
 */
import { spawn, spawnSync } from "node:child_process"
import { networkInterfaces } from "node:os"
import { Effect, type Scope } from "effect"

/** An IPv4 address of this machine that is not loopback's: who calls it calls from it. */
export const ownAddress: string | undefined = Object.values(networkInterfaces())
  .flat()
  .find((found) => found !== undefined && !found.internal && found.family === "IPv4")?.address

const ip = (...args: ReadonlyArray<string>): boolean => spawnSync("ip", args).status === 0

const probe = `mdp-probe-${process.pid}`
/** Needs Linux, iproute2 and root. */
export const hasNamespaces = process.platform === "linux" && ip("netns", "add", probe) && ip("netns", "del", probe)

export interface Elsewhere {
  /** Where this machine is reached from there. */
  readonly host: string
  /** The address that calls from there come from. */
  readonly address: string
  /** What a program prints that runs there; Node's own source. */
  readonly run: (program: string) => Effect.Effect<string>
}

let made = 0

/** Another network namespace, joined to this one by a pair of its own. */
export const namespace: Effect.Effect<Elsewhere, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    made += 1
    const name = `mdp-${process.pid}-${made}`
    const [outer, inner] = [`mo${process.pid % 100_000}x${made}`, `mi${process.pid % 100_000}x${made}`]
    // Of those that RFC 2544 keeps for tests of networks.
    const net = `198.18.${process.pid % 256}`
    const [host, address] = [`${net}.${made * 4 + 1}`, `${net}.${made * 4 + 2}`]
    const steps: ReadonlyArray<ReadonlyArray<string>> = [
      ["netns", "add", name],
      ["link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name],
      ["addr", "add", `${host}/30`, "dev", outer],
      ["link", "set", outer, "up"],
      ["-n", name, "addr", "add", `${address}/30`, "dev", inner],
      ["-n", name, "link", "set", inner, "up"],
      ["-n", name, "link", "set", "lo", "up"]
    ]
    for (const step of steps) if (!ip(...step)) throw new Error(`ip ${step.join(" ")} failed`)
    return { name, outer, host, address }
  }),
  ({ name, outer }) =>
    Effect.sync(() => {
      ip("link", "del", outer)
      ip("netns", "del", name)
    })
).pipe(
  Effect.map(({ name, host, address }) => ({
    host,
    address,
    run: (program) =>
      Effect.callback<string>((resume) => {
        const args = ["netns", "exec", name, process.execPath, "--input-type=module", "-e", program]
        const child = spawn("ip", args, { stdio: ["ignore", "pipe", "inherit"] })
        let text = ""
        child.stdout.on("data", (part) => {
          text += String(part)
        })
        child.on("close", () => resume(Effect.succeed(text)))
        return Effect.sync(() => child.kill("SIGKILL"))
      })
  }))
)

/** A program that asks `urls` in turn and prints the status of each answer, with what Host it is called by, as JSON. */
export const statuses = (urls: ReadonlyArray<string>, host?: string): string => `
import { request } from "node:http"
const found = []
for (const url of ${JSON.stringify(urls)}) {
  found.push(await new Promise((resolve) => {
    const headers = ${JSON.stringify(host === undefined ? {} : { host })}
    request(url, { headers, agent: false }, (answer) => { answer.resume(); resolve(answer.statusCode) })
      .on("error", (error) => resolve(error.code)).end()
  }))
}
console.log(JSON.stringify(found))
`
