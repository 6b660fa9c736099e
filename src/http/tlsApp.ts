/**
 * Decides how the server speaks TLS: from version 1.2 on and with forward secrecy only, showing whoever connects the
 * certificate that the files hold at the time. One who is connected stays so when it is renewed.
 */
import { Clock, type Duration, Effect, Result, type Scope } from "effect"
import { SettingError } from "../schema/Errors.ts"
import * as metrics from "../streams/metrics.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import {
  ageOf,
  type Certificate,
  checkPair,
  isSamePair,
  type Pair,
  readPair,
  type TlsFiles,
  type TlsSettings,
  tlsFiles
} from "./certificate.ts"
import * as uWS from "./uws.ts"

/** How often the files are looked at: what is renewed is shown within two of these. */
const LOOK = "1 second"
/** Those of TLS 1.2 that have forward secrecy and authenticate what they encrypt; 1.3 has no others. */
const CIPHERS = [
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305"
].join(":")
/** Certificates that connections may have been made under, the newest included; those of the oldest are closed beyond. */
export const MAX_GENERATIONS = 8
/** What an app has to put routes on it. */
const REGISTERING: ReadonlySet<PropertyKey> = new Set([
  "get",
  "post",
  "options",
  "del",
  "patch",
  "put",
  "head",
  "connect",
  "trace",
  "any",
  "filter"
] as const)

/** Of the package, but for these, its types say all: an app's connections handed to others of the same process. */
interface SslApp extends uWS.TemplatedApp {
  readonly getDescriptor: () => number
  readonly addChildAppDescriptor: (descriptor: number) => void
  readonly removeChildAppDescriptor: (descriptor: number) => void
}

/** An app that shows one certificate, and how many are connected to it. */
interface Generation {
  readonly app: SslApp
  connections: number
}

type Put = (generation: Generation) => void

/**
 * Apps with the same routes, one a certificate, behind one port. The port is listened on by an app of its own that hands
 * each connection to the newest: it stays open while a certificate takes the place of another, so that nobody is refused
 * meanwhile (docs/decisions/0026).
 */
class Generations {
  private readonly files: TlsFiles
  private readonly acceptor: SslApp
  /** All that was put on them so far, for those to come. */
  private readonly puts: Array<Put> = []
  /** The newest, and those that somebody is connected to still. */
  private readonly living = new Set<Generation>()
  private newest: Generation

  /** Throws where the library cannot use what the files hold. */
  constructor(files: TlsFiles) {
    this.files = files
    this.acceptor = this.make()
    this.newest = this.begin()
    this.acceptor.addChildAppDescriptor(this.newest.app.getDescriptor())
  }

  /** Shows what the files hold to whoever connects from now on. Throws where the library cannot use it. */
  renew(): void {
    const before = this.newest
    this.newest = this.begin()
    this.acceptor.addChildAppDescriptor(this.newest.app.getDescriptor())
    this.acceptor.removeChildAppDescriptor(before.app.getDescriptor())
    this.settle(before)
    if (this.living.size <= MAX_GENERATIONS) return
    const oldest = [...this.living].find((generation) => generation !== this.newest)
    oldest?.app.close()
  }

  close(): void {
    this.acceptor.close()
    for (const { app } of [...this.living]) app.close()
  }

  /** All of them as one app: what is put on it is on those that are to come, too. */
  facade(): uWS.TemplatedApp {
    const put = (one: Put): uWS.TemplatedApp => {
      this.puts.push(one)
      for (const generation of this.living) one(generation)
      return facade
    }
    const facade: uWS.TemplatedApp = new Proxy<uWS.TemplatedApp>(this.acceptor, {
      get: (target, name: keyof uWS.TemplatedApp) => {
        if (name === "ws") {
          return <Data>(pattern: string, behavior: uWS.WebSocketBehavior<Data>) =>
            put((generation) => generation.app.ws(pattern, this.counted(generation, behavior)))
        }
        if (REGISTERING.has(name)) {
          return (...given: Array<unknown>) =>
            put(({ app }) => (app[name] as (...args: Array<unknown>) => void).apply(app, given))
        }
        if (name === "close") return () => this.close()
        const value: unknown = Reflect.get(target, name)
        return typeof value === "function" ? value.bind(target) : value
      }
    })
    return facade
  }

  private make(): SslApp {
    const { certificate, key } = this.files
    return uWS.SSLApp({ cert_file_name: certificate, key_file_name: key, ssl_ciphers: CIPHERS }) as SslApp
  }

  private begin(): Generation {
    const generation: Generation = { app: this.make(), connections: 0 }
    this.living.add(generation)
    generation.app.filter((_, change) => this.count(generation, change))
    for (const one of this.puts) one(generation)
    return generation
  }

  /** A connection that became a WebSocket is not taken out of the library's own count when it ends. */
  private counted<Data>(generation: Generation, behavior: uWS.WebSocketBehavior<Data>): uWS.WebSocketBehavior<Data> {
    return {
      ...behavior,
      close: (ws, code, message) => {
        this.count(generation, -1)
        behavior.close?.(ws, code, message)
      }
    }
  }

  private count(generation: Generation, change: number): void {
    generation.connections += change
    this.settle(generation)
  }

  private settle(generation: Generation): void {
    if (generation === this.newest || generation.connections > 0) this.living.add(generation)
    else this.living.delete(generation)
  }
}

const unusable = ({ certificate }: TlsFiles): SettingError =>
  new SettingError({
    setting: "TLS_CERT_FILE",
    message: `TLS_CERT_FILE: the certificate in ${certificate} cannot be used: expected a key that is RSA, Ed25519, or ECDSA on P-256, P-384 or P-521`
  })

/** Fails where the settings do not name a certificate and key that can be shown. */
export const checkTls = (settings: TlsSettings): Effect.Effect<void, SettingError> =>
  Effect.gen(function* () {
    const files = yield* Effect.fromResult(tlsFiles(settings))
    if (files !== undefined) yield* Effect.fromResult(checkPair(files, yield* readPair(files)))
  })

const AGES = ["not yet valid", "expires soon", "expired"] as const

/** Keeps `generations` at what the files hold, and tells of it. `shown`: what they show now. */
const follow = (files: TlsFiles, generations: Generations, shown: Pair, certificate: Certificate) =>
  Effect.gen(function* () {
    const readiness = yield* Readiness
    const context = yield* Effect.context<never>()
    const left = metrics.bind(metrics.tlsExpires, {}, context)
    const taken = metrics.bind(metrics.tlsRenewals, { outcome: "taken" }, context)
    const refused = metrics.bind(metrics.tlsRenewals, { outcome: "refused" }, context)
    taken.add(0)
    refused.add(0)
    let now = { pair: shown, certificate }
    let wrong: { readonly pair: Pair | undefined; readonly message: string } | undefined
    let told: string | undefined
    let age: ReturnType<typeof ageOf>

    /** Takes what the files hold where it is another; answers what is wrong with it. */
    const take = Effect.gen(function* () {
      const read = yield* Effect.result(readPair(files))
      if (Result.isFailure(read)) return { pair: undefined, message: read.failure.message }
      const pair = read.success
      if (isSamePair(pair, now.pair)) return undefined
      if (wrong?.pair !== undefined && isSamePair(pair, wrong.pair)) return wrong
      const checked = checkPair(files, pair)
      if (Result.isFailure(checked)) return { pair, message: checked.failure.message }
      // Asked anew at each look, as time decides it.
      const outOfTime = worseThan(files, checked.success, now.certificate, yield* Clock.currentTimeMillis)
      if (outOfTime !== undefined) return { pair: undefined, message: outOfTime }
      try {
        generations.renew()
      } catch {
        return { pair, message: unusable(files).message }
      }
      now = { pair, certificate: checked.success }
      taken.add(1)
      const { name, until } = now.certificate
      yield* Effect.logInfo(`tls: a new certificate is shown from now on: ${name}, until ${dateOf(until)}`)
      return undefined
    })

    /** Of what is wrong at one look only nothing is said: a pair is written one file after the other. */
    const tellOf = (found: typeof wrong) =>
      Effect.gen(function* () {
        const lasts = found !== undefined && wrong !== undefined
        wrong = found
        yield* readiness.degrade(RENEWAL_FAILED, lasts)
        if (found === undefined) told = undefined
        if (!lasts || found.message === told) return
        if (told === undefined) refused.add(1)
        told = found.message
        yield* Effect.logError(`tls: what was shown before is shown on: ${found.message}`)
      })

    const tellAge = Effect.gen(function* () {
      const millis = yield* Clock.currentTimeMillis
      const { name, from, until } = now.certificate
      left.add((until - millis) / 1000)
      const before = age
      age = ageOf(now.certificate, millis)
      if (age === before) return
      for (const one of AGES) yield* readiness.degrade(`tls: certificate ${one}`, one === age)
      if (age === undefined) return
      const when = age === "not yet valid" ? `not valid before ${dateOf(from)}` : `valid until ${dateOf(until)}`
      yield* Effect.logWarning(`tls: the certificate ${age === "expires soon" ? age : `is ${age}`}: ${name}, ${when}`)
    })

    return Effect.gen(function* () {
      yield* tellOf(yield* take)
      yield* tellAge
    })
  })

/** Why one that is out of its time does not take the place of one that is in it; `undefined` where it may. */
const worseThan = (files: TlsFiles, next: Certificate, shown: Certificate, millis: number): string | undefined => {
  if (millis < shown.from || millis >= shown.until) return undefined
  const what = `the certificate in ${files.certificate} (${next.name})`
  if (millis >= next.until) return `TLS_CERT_FILE: ${what} has expired, it was valid until ${dateOf(next.until)}`
  return millis < next.from ? `TLS_CERT_FILE: ${what} is not valid before ${dateOf(next.from)}` : undefined
}

const RENEWAL_FAILED = "tls: renewal failed"
const dateOf = (millis: number): string => new Date(millis).toISOString()

/**
 * The app that a server puts its routes on: over TLS where the settings name a certificate, which is followed for as
 * long as the scope.
 */
export const openApp = (
  settings: TlsSettings,
  every: Duration.Input = LOOK
): Effect.Effect<uWS.TemplatedApp, SettingError, Readiness | Scope.Scope> =>
  Effect.gen(function* () {
    const files = yield* Effect.fromResult(tlsFiles(settings))
    if (files === undefined) return uWS.App()
    const pair = yield* readPair(files)
    const certificate = yield* Effect.fromResult(checkPair(files, pair))
    const generations = yield* Effect.try({ try: () => new Generations(files), catch: () => unusable(files) })
    const look = yield* follow(files, generations, pair, certificate)
    yield* look
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(every), look)))
    return generations.facade()
  })
