/** Decides how a port is listened on: by this process alone, or not at all. */
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import { Effect } from "effect"
import { SettingError, StartError } from "../schema/Errors.ts"
import { showValue } from "../schema/Explain.ts"
import * as uWS from "./uws.ts"

/** `LIBUS_LISTEN_EXCLUSIVE_PORT`, which the package exports but does not declare. */
const LISTEN_EXCLUSIVE_PORT = 1

/** `[::1]` for `::1`. */
export const urlHost = (host: string): string => (host.includes(":") && !host.startsWith("[") ? `[${host}]` : host)

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/

/** Whether only this machine reaches what listens there. */
export const isLoopbackHost = (host: string): boolean => LOOPBACK.test(host)

/** Whether what listens there is reached by every address of this machine. */
export const isEveryAddress = (host: string): boolean => host === "0.0.0.0" || host === "::" || host === "[::]"

/** Where this machine reaches what listens on `host`, as in a URL. */
export const reachableHost = (host: string): string => (isEveryAddress(host) ? "127.0.0.1" : urlHost(host))

/** Fails where a host is no address, and a name that has none. */
export const checkResolves = (host: string, setting: string): Effect.Effect<void, SettingError> =>
  isIP(host.replace(/^\[(.*)\]$/, "$1")) !== 0
    ? Effect.void
    : Effect.tryPromise({
        try: () => lookup(host),
        catch: (cause) => {
          const what = `${showValue(host)} cannot be resolved (${(cause as NodeJS.ErrnoException).code})`
          const message = `${setting}: ${what}: expected an address of this machine, or a name that has one`
          return new SettingError({ setting, message })
        }
      })

/** `port` 0 picks a free one; `setting`: the settings that said where, for the refusal. */
export const listen = (
  app: uWS.TemplatedApp,
  host: string,
  port: number,
  setting: string
): Effect.Effect<uWS.us_listen_socket, StartError> =>
  Effect.callback((resume) => {
    // Exclusive: otherwise two processes could share the port, each getting some of the connections. The types of
    // the package leave out the form of `listen` that takes both an address and an option.
    const listenOn = app.listen.bind(app) as unknown as (
      host: string,
      port: number,
      options: number,
      done: (socket: uWS.us_listen_socket | false) => void
    ) => void
    listenOn(host, port, LISTEN_EXCLUSIVE_PORT, (socket) => {
      if (socket !== false) return resume(Effect.succeed(socket))
      const where = `${urlHost(host)}:${port}`
      const message = `${setting}: cannot listen on ${where}: the port is in use, or the address is not this machine's`
      resume(Effect.fail(new StartError({ message })))
    })
  })

export const portOf = (socket: uWS.us_listen_socket): number =>
  uWS.us_socket_local_port(socket as unknown as uWS.us_socket)
