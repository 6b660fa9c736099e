import { copyFileSync, readFileSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { request as secureRequest } from "node:https"
import { connect as connectPlain, type Socket } from "node:net"
import { join } from "node:path"
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Result, Schedule } from "effect"
import WebSocket from "ws"
import { portOf } from "../../src/http/listen.ts"
import { type Mount, Server } from "../../src/http/Server.ts"
import { MAX_GENERATIONS, openApp } from "../../src/http/tlsApp.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import {
  type Authority,
  type Certificate,
  type CertificateOptions,
  hasOpenssl,
  makeAuthority,
  makeCertificate
} from "../support/certificates.ts"
import { folder } from "../support/processes.ts"
import { memoryStore, Rows, storedTick } from "./memoryStore.ts"
import { type Answer, ask, type Serving, serve } from "./serving.ts"

/** What a server is told of its certificate, and how a test puts others there. */
const pair = Effect.gen(function* () {
  const place = yield* folder
  const authority = makeAuthority(place)
  const ca = readFileSync(authority.certificate, "utf8")
  const [TLS_CERT_FILE, TLS_KEY_FILE] = [join(place, "tls.crt"), join(place, "tls.key")]
  const put = ({ certificate, key }: Certificate) => {
    copyFileSync(key, TLS_KEY_FILE)
    copyFileSync(certificate, TLS_CERT_FILE)
  }
  const make = (name: string, options: CertificateOptions = {}) => makeCertificate(authority, name, options)
  return { authority, ca, put, make, files: { TLS_CERT_FILE, TLS_KEY_FILE } }
})

const lines: Array<string> = []
const logger = Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))])

const secure = (given: Partial<Serving> & { readonly first?: CertificateOptions } = {}) =>
  Effect.gen(function* () {
    const { first, ...serving } = given
    const { ca, put, make, files } = yield* pair
    put(make("first", first))
    const served = yield* serve({
      store: memoryStore(new Rows()),
      ...serving,
      settings: { ...files, ...serving.settings }
    }).pipe(Effect.provide(logger))
    const get = (path: string) => ask(served.port, path, { ca })
    return { ...served, ca, put, make, files, get }
  })

interface Client {
  readonly socket: TLSSocket
  /** Whose certificate was shown. */
  readonly shown: string
}

/** Who cannot is told why. */
const client = (port: number, ca: string, options: ConnectionOptions = {}) =>
  Effect.acquireRelease(
    Effect.callback<Client, NodeJS.ErrnoException>((resume) => {
      const socket = connect({ host: "127.0.0.1", port, ca, ...options }, () =>
        resume(Effect.succeed({ socket, shown: String(socket.getPeerCertificate().subject.CN) }))
      )
      socket.on("error", (error) => resume(Effect.fail(error)))
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const closed = (socket: Socket) =>
  Effect.callback<void>((resume) => {
    if (socket.closed) return resume(Effect.void)
    socket.on("error", () => undefined).on("close", () => resume(Effect.void))
  })

const socketTo = (port: number, ca: string) =>
  Effect.acquireRelease(
    Effect.callback<WebSocket, Error>((resume) => {
      const ws = new WebSocket(`wss://127.0.0.1:${port}/ws`, { ca })
      ws.on("open", () => resume(Effect.succeed(ws))).on("error", (error) => resume(Effect.fail(error)))
    }),
    (ws) => Effect.sync(() => ws.terminate())
  )

const echoed = (ws: WebSocket, text: string) =>
  Effect.callback<string>((resume) => {
    ws.once("message", (data: Buffer) => resume(Effect.succeed(data.toString("utf8"))))
    ws.send(text)
  })

/** `/ws` that says again what it hears. */
const echo: Mount = (app) => {
  app.ws("/ws", { message: (ws, text) => void ws.send(text) })
  return undefined
}

const until = <A, E, R>(look: Effect.Effect<A, E, R>, isThere: (found: A) => boolean) =>
  look.pipe(Effect.repeat({ until: isThere, schedule: Schedule.spaced("20 millis") }))

const figure = ({ text }: Answer, name: string): number => {
  const found = text.split("\n").find((line) => line.startsWith(name))
  return Number(found?.slice(found.lastIndexOf(" ") + 1))
}

const degraded = ({ json }: Answer) => (json as { readonly degraded: ReadonlyArray<string> }).degraded

describe.skipIf(!hasOpenssl)("the server over TLS", () => {
  it.live("answers https and wss, and says so in its address", () =>
    Effect.gen(function* () {
      const { port, ca, get, context } = yield* secure({ mounts: [echo] })
      assert.strictEqual(Context.get(context, Server).url, `https://127.0.0.1:${port}`)
      assert.deepStrictEqual((yield* get("/healthz")).json, { status: "ok" })
      assert.strictEqual(yield* echoed(yield* socketTo(port, ca), "over TLS"), "over TLS")
      const expires = figure(yield* get("/metrics"), "topology_tls_expires_seconds")
      assert.isAbove(expires, 86_400)
      assert.isBelow(expires, 3 * 86_400)
    }).pipe(Effect.scoped)
  )

  it.live("speaks versions from 1.2 on, and of 1.2 only what has forward secrecy", () =>
    Effect.gen(function* () {
      const { port, ca } = yield* secure()
      for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
        const { socket } = yield* client(port, ca, { minVersion: version, maxVersion: version })
        assert.strictEqual(socket.getProtocol(), version)
        assert.match(socket.getCipher().name, /GCM|CHACHA20/)
      }
      const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT:@SECLEVEL=0" } as const
      const refused = yield* Effect.flip(client(port, ca, old))
      assert.strictEqual(refused.code, "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION")
      for (const ciphers of ["ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256", "AES128-SHA"]) {
        yield* Effect.flip(client(port, ca, { maxVersion: "TLSv1.2", ciphers }))
      }
    }).pipe(Effect.scoped)
  )

  it.live("hands over long answers to the byte, to whoever stops reading in their midst too", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      for (let i = 1; i <= 60_000; i++) rows.ticks.push(storedTick({ sequence_id: i, position: i }))
      const { port, ca } = yield* secure({ store: memoryStore(rows) })
      const path = "/api/v1/historical/ticks?instrument_token=7"
      const text = yield* Effect.callback<string, Error>((resume) => {
        const sent = secureRequest({ host: "127.0.0.1", port, ca, path, headers: { accept: "text/csv" } }, (answer) => {
          const parts: Array<Buffer> = []
          answer.pause()
          answer.on("data", (part: Buffer) => void parts.push(part))
          answer.on("end", () => resume(Effect.succeed(Buffer.concat(parts).toString("latin1"))))
          // Until the sockets between them are full: nothing more comes.
          let before = -1
          const look = setInterval(() => {
            const { bytesRead } = answer.socket
            if (bytesRead === before) {
              clearInterval(look)
              answer.resume()
            }
            before = bytesRead
          }, 300)
        })
        sent.on("error", (error) => resume(Effect.fail(error)))
        sent.end()
      })
      const [head, ...body] = text.trimEnd().split("\n")
      const column = head!.split(",").indexOf("sequence_id")
      assert.isAbove(text.length, 4_000_000)
      assert.deepStrictEqual(
        body.map((line) => Number(line.split(",")[column])),
        rows.ticks.map(({ sequence_id }) => sequence_id)
      )
    }).pipe(Effect.scoped)
  )

  it.live("ends the connection of whoever speaks plain HTTP, and what a handler throws costs its own connection", () =>
    Effect.gen(function* () {
      const failing: Mount = (app) => {
        app.get("/throws", () => {
          throw new Error("a handler that fails")
        })
        return undefined
      }
      const { port, get } = yield* secure({ mounts: [failing] })
      const plain = yield* Effect.callback<string | undefined>((resume) => {
        const sent = request({ host: "127.0.0.1", port, path: "/healthz" }, () => resume(Effect.succeed(undefined)))
        sent.on("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code)))
        sent.end()
      })
      assert.isDefined(plain)
      assert.strictEqual((yield* Effect.exit(get("/throws")))._tag, "Failure")
      assert.strictEqual((yield* get("/healthz")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("bounds connections as it does without TLS, also those that have not come to shake hands", () =>
    Effect.gen(function* () {
      const { port, get } = yield* secure({ bounds: { connections: 2 } })
      const silent = [connectPlain(port, "127.0.0.1"), connectPlain(port, "127.0.0.1")]
      const counted = (n: number) => until(Effect.exit(get("/healthz")), ({ _tag }) => (_tag === "Success") === n < 2)
      yield* counted(2)
      for (const socket of silent) socket.destroy()
      yield* counted(0)
    }).pipe(Effect.scoped)
  )

  it.live("ends two hundred half handshakes, stalled and dribbled, and serves a good client beside them", () =>
    Effect.gen(function* () {
      const { port, ca, get } = yield* secure({ mounts: [echo] })
      const good = yield* socketTo(port, ca)
      // The begin of a handshake's first record, of which the rest does not come, or comes byte by byte.
      const begin = Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03])
      const half = Array.from({ length: 200 }, () => connectPlain(port, "127.0.0.1"))
      for (const socket of half) socket.write(begin)
      const dribble = setInterval(() => {
        for (const socket of half.slice(100)) if (!socket.destroyed) socket.write(Buffer.from([0]))
      }, 500)
      const ended = Effect.all(half.map(closed), { concurrency: "unbounded", discard: true })
      let answers = 0
      const served = Effect.gen(function* () {
        assert.strictEqual(yield* echoed(good, "still here"), "still here")
        assert.strictEqual((yield* get("/healthz")).status, 200)
        answers += 1
      }).pipe(Effect.andThen(Effect.sleep("100 millis")), Effect.forever)
      yield* Effect.raceFirst(ended, served).pipe(Effect.ensuring(Effect.sync(() => clearInterval(dribble))))
      assert.isAbove(answers, 10)
    }).pipe(Effect.scoped)
  )

  it.live("shows a renewed certificate to whoever connects, while who is connected stays and nobody is refused", () =>
    Effect.gen(function* () {
      let mounted = 0
      const counted: Mount = (app, mounting) => {
        mounted += 1
        return echo(app, mounting)
      }
      const { port, ca, put, make, get } = yield* secure({ mounts: [counted] })
      const [kept, other] = [yield* client(port, ca), yield* socketTo(port, ca)]
      assert.strictEqual(kept.shown, "first")
      const names = { named: { servername: "localhost" }, unnamed: { servername: "" } }
      const shown = (options: ConnectionOptions) =>
        Effect.scoped(Effect.map(client(port, ca, options), ({ shown }) => shown))
      let connects = 0
      const connecting = Effect.forever(Effect.tap(shown(names.unnamed), () => Effect.sync(() => connects++)))
      const renewing = Effect.gen(function* () {
        for (const name of ["second", "third"]) {
          put(make(name))
          for (const options of Object.values(names)) yield* until(shown(options), (found) => found === name)
        }
      })
      // Whoever is refused ends the race with why.
      yield* Effect.raceFirst(connecting, renewing)
      assert.isAbove(connects, 10)
      assert.strictEqual(yield* echoed(other, "as before"), "as before")
      assert.strictEqual(yield* echoed(yield* socketTo(port, ca), "anew"), "anew")
      const answered = Effect.callback<string>((resume) => {
        kept.socket.once("data", (data: Buffer) => resume(Effect.succeed(data.toString("latin1"))))
        kept.socket.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      })
      assert.match(yield* answered, /^HTTP\/1\.1 200 /)
      assert.strictEqual(mounted, 1)
      assert.strictEqual(figure(yield* get("/metrics"), 'topology_tls_renewals_total{outcome="taken"'), 2)
      assert.include(lines.join("\n"), "tls: a new certificate is shown from now on: third, until 20")
    }).pipe(Effect.scoped)
  )

  it.live("keeps the pair that it has where the files hold none that can be shown, and says so until they do", () =>
    Effect.gen(function* () {
      const { port, ca, put, make, files, get } = yield* secure()
      const [second, third] = [make("second"), make("third")]
      lines.length = 0
      put({ certificate: second.certificate, key: third.key })
      yield* until(get("/readyz"), (answer) => degraded(answer).includes("tls: renewal failed"))
      assert.strictEqual((yield* get("/readyz")).status, 200)
      assert.strictEqual((yield* client(port, ca)).shown, "first")
      const said = `tls: what was shown before is shown on: TLS_KEY_FILE: the key in ${files.TLS_KEY_FILE} is not that of the certificate in ${files.TLS_CERT_FILE}`
      assert.lengthOf(lines, 1)
      assert.isTrue(lines[0]!.startsWith(said), lines[0])
      writeFileSync(files.TLS_CERT_FILE, "no certificate")
      yield* until(
        Effect.sync(() => lines.length),
        (n) => n > 1
      )
      assert.include(lines[1], `expected a PEM certificate, those that signed it after it, and ${files.TLS_CERT_FILE}`)
      // One attempt, whatever it is that is wrong with it.
      assert.strictEqual(figure(yield* get("/metrics"), 'topology_tls_renewals_total{outcome="refused"'), 1)
      put(third)
      yield* until(get("/readyz"), (answer) => degraded(answer).length === 0)
      yield* until(Effect.scoped(client(port, ca)), ({ shown }) => shown === "third")
    }).pipe(Effect.scoped)
  )

  it.live("keeps a certificate that is valid where that of the files has expired, or is not valid yet", () =>
    Effect.gen(function* () {
      const { port, ca, put, make, files, get } = yield* secure()
      lines.length = 0
      const cases = [
        ["past", ["20200101000000Z", "20210101000000Z"], "has expired, it was valid until 2021-01-01T00:00:00.000Z"],
        ["future", ["20900101000000Z", "20910101000000Z"], "is not valid before 2090-01-01T00:00:00.000Z"]
      ] as const
      for (const [i, [name, life, why]] of cases.entries()) {
        put(make(name, { life }))
        yield* until(
          Effect.sync(() => lines.length),
          (n) => n > i
        )
        assert.strictEqual(
          lines[i],
          `tls: what was shown before is shown on: TLS_CERT_FILE: the certificate in ${files.TLS_CERT_FILE} (${name}) ${why}`
        )
        assert.deepStrictEqual(degraded(yield* get("/readyz")), ["tls: renewal failed"])
        assert.strictEqual((yield* client(port, ca)).shown, "first")
      }
      put(make("second"))
      yield* until(Effect.scoped(client(port, ca)), ({ shown }) => shown === "second")
      yield* until(get("/readyz"), (answer) => degraded(answer).length === 0)
    }).pipe(Effect.scoped)
  )

  it.live("serves with a certificate that has expired, and names it", () =>
    Effect.gen(function* () {
      lines.length = 0
      const { port, get } = yield* secure({ first: { life: ["20200101000000Z", "20210101000000Z"] } })
      assert.deepStrictEqual(lines, ["tls: the certificate is expired: first, valid until 2021-01-01T00:00:00.000Z"])
      const untrusted = yield* Effect.exit(get("/readyz"))
      assert.strictEqual(untrusted._tag, "Failure")
      const { socket } = yield* client(port, "", { rejectUnauthorized: false })
      const answer = yield* Effect.callback<string>((resume) => {
        socket.once("data", (data: Buffer) => resume(Effect.succeed(data.toString("latin1"))))
        socket.write("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      })
      assert.include(answer, '"degraded":["tls: certificate expired"]')
    }).pipe(Effect.scoped)
  )

  it.live("ends those of the oldest certificate where too many were renewed under them", () =>
    Effect.gen(function* () {
      const { ca, put, make, files } = yield* pair
      put(make("pair-0"))
      const { port } = yield* Effect.gen(function* () {
        const app = yield* openApp(files, "20 millis")
        app.any("/*", (res) => void res.end("here"))
        const port = yield* Effect.callback<number>((resume) => {
          app.listen("127.0.0.1", 0, (socket) => resume(Effect.succeed(socket === false ? 0 : portOf(socket))))
        })
        yield* Effect.addFinalizer(() => Effect.sync(() => app.close()))
        return { port }
      }).pipe(Effect.provide(Layer.merge(Readiness.layer, logger)))
      const clients: Array<Client> = [yield* client(port, ca)]
      // What asks once a second keeps its connection from the library's end of silent ones.
      const asking = setInterval(() => {
        for (const { socket } of clients) {
          if (!socket.destroyed) socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        }
      }, 1000)
      yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(asking)))
      for (let i = 1; i < MAX_GENERATIONS; i++) {
        put(make(`pair-${i}`))
        const next = yield* until(client(port, ca), ({ shown }) => shown === `pair-${i}`)
        clients.push(next)
      }
      assert.isFalse(clients.some(({ socket }) => socket.destroyed))
      put(make("pair-last"))
      yield* closed(clients[0]!.socket)
      assert.isFalse(clients.slice(1).some(({ socket }) => socket.destroyed))
    }).pipe(Effect.scoped)
  )
})

describe.skipIf(!hasOpenssl)("TLS_CERT_FILE and TLS_KEY_FILE", () => {
  const refusal = (files: { readonly TLS_CERT_FILE?: string; readonly TLS_KEY_FILE?: string }) =>
    openApp({ TLS_CERT_FILE: undefined, TLS_KEY_FILE: undefined, ...files }).pipe(
      Effect.provide(Readiness.layer),
      Effect.scoped,
      Effect.result,
      Effect.map((result) => (Result.isFailure(result) ? result.failure.message : "taken"))
    )

  it.live("are refused in one line that names the setting and the file", () =>
    Effect.gen(function* () {
      const { authority, make } = yield* pair
      const place = (authority satisfies Authority).folder
      const [good, other] = [make("good"), make("other")]
      const odd = make("odd", { curve: "secp256k1" })
      const broken = join(place, "broken.pem")
      writeFileSync(broken, "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n")
      const locked = join(place, "locked.pem")
      writeFileSync(locked, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nbm8=\n-----END ENCRYPTED PRIVATE KEY-----\n")
      const cases: ReadonlyArray<readonly [certificate: string | undefined, key: string | undefined, said: string]> = [
        [good.certificate, good.key, "taken"],
        [undefined, undefined, "taken"],
        [good.certificate, undefined, "TLS_KEY_FILE: required with TLS_CERT_FILE"],
        [undefined, good.key, "TLS_CERT_FILE: required with TLS_KEY_FILE"],
        [join(place, "none"), good.key, `TLS_CERT_FILE: cannot read ${join(place, "none")} (ENOENT)`],
        [place, good.key, `TLS_CERT_FILE: expected a file, and ${place} is none`],
        [broken, good.key, `TLS_CERT_FILE: certificate 1 in ${broken} cannot be read`],
        [
          good.key,
          good.key,
          `TLS_CERT_FILE: expected a PEM certificate, those that signed it after it, and ${good.key} has none`
        ],
        [
          good.certificate,
          good.certificate,
          `TLS_KEY_FILE: expected a PEM private key, and ${good.certificate} has none that can be read`
        ],
        [
          good.certificate,
          locked,
          `TLS_KEY_FILE: the key in ${locked} is encrypted: expected one without a passphrase`
        ],
        [
          good.certificate,
          other.key,
          `TLS_KEY_FILE: the key in ${other.key} is not that of the certificate in ${good.certificate} (good)`
        ],
        [
          odd.certificate,
          odd.key,
          `TLS_CERT_FILE: the certificate in ${odd.certificate} cannot be used: expected a key that is RSA, Ed25519, or ECDSA on P-256, P-384 or P-521`
        ]
      ]
      for (const [certificate, key, said] of cases) {
        const files = {
          ...(certificate === undefined ? {} : { TLS_CERT_FILE: certificate }),
          ...(key === undefined ? {} : { TLS_KEY_FILE: key })
        }
        assert.strictEqual(yield* refusal(files), said)
      }
    }).pipe(Effect.scoped)
  )
})
