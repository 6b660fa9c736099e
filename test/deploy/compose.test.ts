import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import * as Access from "../../src/http/access.ts"
import * as Operator from "../../src/http/Operator.ts"
import { readNetworks } from "../../src/http/operators.ts"
import { readSettings, settingsTable } from "../../src/schema/Settings.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { memoryStore, Rows } from "../http/memoryStore.ts"
import { operatorSettings, serve } from "../http/serving.ts"
import { compose, documentsOf } from "../support/manifests.ts"

const { services, networks, volumes } = compose()
const known = new Set(settingsTable.map(({ name }) => name))
const FOREIGN = new Set(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
const ours = Object.entries(services).filter(([, { build }]) => build !== undefined)

describe("compose.yaml", () => {
  it("asks every service whether it is well, and starts each once those that it needs are", () => {
    for (const [name, { healthcheck, depends_on = {} }] of Object.entries(services)) {
      assert.isNotEmpty(healthcheck?.test, name)
      for (const [needed, { condition }] of Object.entries(depends_on)) {
        assert.isDefined(services[needed], `${name} needs ${needed}`)
        assert.strictEqual(condition, "service_healthy", `${name} needs ${needed}`)
      }
    }
    assert.sameMembers(Object.keys(services.worker!.depends_on!), ["kafka", "redis", "timescaledb", "s3"])
    assert.sameMembers(Object.keys(services.prometheus!.depends_on!), ["worker", "server"])
  })

  it("gives settings that there are, and that a start takes", () => {
    assert.deepStrictEqual(ours.map(([name]) => name).sort(), ["server", "worker"])
    for (const [name, { environment = {}, command }] of ours) {
      for (const setting of Object.keys(environment)) assert.isTrue(known.has(setting) || FOREIGN.has(setting), setting)
      assert.isTrue(Result.isSuccess(readSettings(environment)), name)
      assert.strictEqual(command?.[0], name)
    }
  })

  it("publishes on loopback only, and runs what is ours without root, capabilities and a file system to write to", () => {
    for (const { ports = [] } of Object.values(services)) {
      for (const port of ports) assert.match(port, /^127\.0\.0\.1:/)
    }
    for (const [name, { read_only, cap_drop }] of ours) {
      assert.deepStrictEqual([read_only, cap_drop], [true, ["ALL"]], name)
    }
    assert.isNotEmpty(Object.keys(volumes))
  })

  it("lets Prometheus read every replica's figures by its address, and of a worker nobody else", () => {
    const [prometheus] = documentsOf("prometheus.yml") as ReadonlyArray<{
      readonly scrape_configs: ReadonlyArray<{
        readonly job_name: string
        readonly metrics_path?: string
        readonly dns_sd_configs: ReadonlyArray<{
          readonly names: ReadonlyArray<string>
          readonly port: number
          readonly type: string
        }>
      }>
    }>
    const { ipv4_address: address } = services.prometheus!.networks!.default
    const { gateway } = networks.default.ipam.config[0]!
    for (const [name, { environment = {} }] of ours) {
      const settings = Result.getOrThrow(readSettings(environment))
      const [{ names, port, type }] = prometheus!.scrape_configs.find(({ job_name }) => job_name === name)!
        .dns_sd_configs as [{ names: ReadonlyArray<string>; port: number; type: string }]
      assert.deepStrictEqual([names, type], [[name], "A"])
      assert.strictEqual(port, name === "server" ? settings.PORT : settings.METRICS_PORT)
      assert.strictEqual(name === "server" ? settings.HOST : settings.METRICS_HOST, "0.0.0.0")
      const mayRead = Result.getOrThrow(readNetworks(settings.METRICS_ALLOW!))
      assert.deepStrictEqual(
        [mayRead(address), mayRead(gateway), mayRead("172.30.79.4")],
        [true, name === "server", false]
      )
    }
  })
})

describe("the image's check of health", () => {
  const script = fileURLToPath(new URL("../../deploy/healthcheck.js", import.meta.url))
  const status = (environment: Readonly<Record<string, string>>, ...args: ReadonlyArray<string>) =>
    Effect.callback<number | null>((resume) => {
      const child = spawn(process.execPath, [script, ...args], {
        env: { PORT: "1", METRICS_PORT: "1", ...environment }
      })
      child.on("close", (code) => resume(Effect.succeed(code)))
    })

  it.live("asks a worker and a server what they listen on, and is met where they are well", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(new Rows()) })
      assert.strictEqual(yield* status({ PORT: String(port) }), 0)
      assert.strictEqual(yield* status({ PORT: String(port), HOST: "0.0.0.0" }, "/readyz"), 0)
      assert.strictEqual(yield* status({ PORT: String(port), TLS_CERT_FILE: "x" }), 1)
      assert.strictEqual(yield* status({}), 1)
      const own = Layer.provideMerge(Operator.layer(operatorSettings), Layer.merge(Readiness.layer, Access.layerOpen))
      const worker = yield* Layer.build(own)
      const METRICS_PORT = String(Context.get(worker, Operator.Operator).port)
      assert.strictEqual(yield* status({ METRICS_PORT, METRICS_HOST: "::" }, "/readyz"), 0)
      yield* Context.get(worker, Readiness).condition("log caught up")
      assert.strictEqual(yield* status({ METRICS_PORT }, "/readyz"), 1)
      assert.strictEqual(yield* status({ METRICS_PORT }), 0)
    }).pipe(Effect.scoped)
  )
})
