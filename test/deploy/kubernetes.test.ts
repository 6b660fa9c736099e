import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { guardRules } from "../../src/http/guard.ts"
import { HEALTH_PATHS, readNetworks } from "../../src/http/operators.ts"
import { readSettings, settingsTable } from "../../src/schema/Settings.ts"
import { environmentOf, kustomization, manifestFiles, manifests, textOf } from "../support/manifests.ts"

const all = manifests()
const deployments = all.filter(({ kind }) => kind === "Deployment")
const known = new Set(settingsTable.map(({ name }) => name))
/** Read by the client of S3 itself. */
const FOREIGN = new Set(["AWS_SHARED_CREDENTIALS_FILE"])

describe("the manifests of Kubernetes", () => {
  it("are all named once, each of its kind", () => {
    assert.deepStrictEqual([...kustomization().resources].sort(), [...manifestFiles].sort())
    assert.deepStrictEqual(
      all.map(({ apiVersion, kind, metadata }) => `${apiVersion} ${kind} ${metadata.name}`).sort(),
      [
        "apps/v1 Deployment market-server",
        "apps/v1 Deployment market-worker",
        "networking.k8s.io/v1 NetworkPolicy market-server",
        "networking.k8s.io/v1 NetworkPolicy market-worker",
        "v1 ConfigMap market-settings",
        "v1 Service market-server"
      ]
    )
    for (const { spec } of deployments) {
      assert.deepStrictEqual(spec.selector.matchLabels, spec.template.metadata.labels)
      for (const { image } of spec.template.spec.containers) assert.strictEqual(image, kustomization().images[0]?.name)
    }
  })

  it("give settings that there are, and that a start takes", () => {
    for (const { spec } of deployments) {
      for (const container of spec.template.spec.containers) {
        const environment = environmentOf(container, all)
        for (const name of Object.keys(environment)) assert.isTrue(known.has(name) || FOREIGN.has(name), name)
        const settings = Result.getOrThrow(readSettings(environment))
        assert.isTrue(Result.isSuccess(readNetworks(settings.METRICS_ALLOW ?? "")))
        assert.isTrue(Result.isSuccess(guardRules(settings.HOST, settings.ALLOWED_ORIGINS, settings.ALLOWED_HOSTS)))
        // Who may read figures is said, and a server asks for keys: neither is `--insecure`.
        assert.deepStrictEqual([container.args], [[container.name]])
        // A server is reached by the whole cluster: figures name keys, and no address is enough for them.
        const isServer = container.name === "server"
        assert.deepStrictEqual(
          [settings.API_KEYS_FILE !== undefined, settings.METRICS_ALLOW !== undefined],
          [isServer, !isServer]
        )
        assert.isAbove(spec.template.spec.terminationGracePeriodSeconds * 1000, settings.DRAIN_DEADLINE_MS)
      }
    }
  })

  it("hand every file over that a setting names, from a secret that kustomization.yaml says how to make", () => {
    const said = textOf("kubernetes/kustomization.yaml")
    for (const { spec } of deployments) {
      const { containers, volumes } = spec.template.spec
      for (const container of containers) {
        const files = Object.entries(environmentOf(container, all)).filter(([name]) => name.endsWith("_FILE"))
        assert.isAbove(files.length, 1)
        for (const [name, path] of files) {
          const mount = container.volumeMounts.find(({ mountPath }) => path.startsWith(`${mountPath}/`))
          assert.isTrue(mount?.readOnly, name)
          const secret = volumes.find((volume) => volume.name === mount?.name)?.secret?.secretName
          assert.include(said, `create secret ${secret === "market-tls" ? "tls" : "generic"} ${secret} `, name)
          assert.match(
            said,
            new RegExp(`(?:--from-file=|--cert=|--key=)${path.slice(path.lastIndexOf("/") + 1)}\\b`),
            name
          )
        }
      }
    }
  })

  it("probe what is served, on the port that the settings name", () => {
    for (const { spec } of deployments) {
      for (const container of spec.template.spec.containers) {
        const settings = Result.getOrThrow(readSettings(environmentOf(container, all)))
        const port = container.name === "server" ? settings.PORT : settings.METRICS_PORT
        const scheme = container.name === "server" && settings.TLS_CERT_FILE !== undefined ? "HTTPS" : "HTTP"
        const { startupProbe, livenessProbe, readinessProbe } = container
        for (const { httpGet } of [startupProbe, livenessProbe, readinessProbe]) {
          assert.isTrue(HEALTH_PATHS.has(httpGet.path), httpGet.path)
          assert.strictEqual(container.ports.find(({ name }) => name === httpGet.port)?.containerPort, port)
          assert.strictEqual(httpGet.scheme ?? "HTTP", scheme)
        }
        assert.deepStrictEqual([livenessProbe.httpGet.path, readinessProbe.httpGet.path], ["/healthz", "/readyz"])
      }
    }
  })

  it("run as nobody in particular, write nowhere but in what is given, and have bounds", () => {
    for (const { spec } of deployments) {
      const { automountServiceAccountToken, securityContext, containers } = spec.template.spec
      assert.isFalse(automountServiceAccountToken)
      assert.deepInclude(securityContext, {
        runAsNonRoot: true,
        runAsUser: 1000,
        seccompProfile: { type: "RuntimeDefault" }
      })
      for (const { securityContext: own, resources } of containers) {
        assert.deepEqual(own, {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] }
        })
        for (const bound of [resources.requests, resources.limits]) {
          assert.isString(bound.cpu)
          assert.isString(bound.memory)
        }
      }
    }
    // As the image has it.
    assert.match(textOf("Dockerfile"), /^USER 1000:1000$/m)
  })

  it("let nobody reach a worker but Prometheus, and name ports that are there", () => {
    const policies = all.filter(({ kind }) => kind === "NetworkPolicy")
    for (const { metadata, spec } of policies) {
      const pod = deployments.find((one) => one.metadata.name === metadata.name)!.spec.template
      assert.deepStrictEqual(spec.podSelector.matchLabels, pod.metadata.labels)
      const names = pod.spec.containers.flatMap(({ ports }) => ports.map(({ name }) => name))
      for (const { ports } of spec.ingress) for (const { port } of ports) assert.include(names, port)
    }
    const [worker] = policies.filter(({ metadata }) => metadata.name === "market-worker")
    assert.deepStrictEqual(worker?.spec.ingress[0]?.from, [
      {
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "monitoring" } },
        podSelector: { matchLabels: { "app.kubernetes.io/name": "prometheus" } }
      }
    ])
    const service = all.find(({ kind }) => kind === "Service")!
    assert.strictEqual((service.spec.selector as Readonly<Record<string, unknown>>).app, "market-server")
    assert.strictEqual(service.spec.ports[0]?.targetPort, "https")
  })
})
