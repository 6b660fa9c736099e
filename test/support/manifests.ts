/** Decides how tests read what is deployed: the manifests of Kubernetes and the file of compose, as data. */
import { readdirSync, readFileSync } from "node:fs"
import { parseAllDocuments } from "yaml"

const deploy = new URL("../../deploy/", import.meta.url)

export const textOf = (name: string): string => readFileSync(new URL(name, deploy), "utf8")

/** Every document of a file; fails where it is no YAML, or says something twice. */
export const documentsOf = (name: string): ReadonlyArray<unknown> =>
  // `<<` in compose is YAML 1.1's, and so are the octal numbers of Kubernetes.
  [...parseAllDocuments(textOf(name), { merge: true, version: "1.1", uniqueKeys: true })].map((document) => {
    const [wrong] = [...document.errors, ...document.warnings]
    if (wrong !== undefined) throw new Error(`${name}: ${wrong.message}`)
    return document.toJS() as unknown
  })

export interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string; readonly scheme?: "HTTP" | "HTTPS" }
}

export interface Container {
  readonly name: string
  readonly image: string
  readonly args: ReadonlyArray<string>
  readonly envFrom: ReadonlyArray<{ readonly configMapRef: { readonly name: string } }>
  readonly env: ReadonlyArray<{ readonly name: string; readonly value: string }>
  readonly ports: ReadonlyArray<{ readonly name: string; readonly containerPort: number }>
  readonly startupProbe: Probe
  readonly livenessProbe: Probe
  readonly readinessProbe: Probe
  readonly resources: Readonly<Record<"requests" | "limits", Readonly<Record<"cpu" | "memory", string>>>>
  readonly securityContext: Readonly<Record<string, unknown>>
  readonly volumeMounts: ReadonlyArray<{
    readonly name: string
    readonly mountPath: string
    readonly readOnly?: boolean
  }>
}

export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> }
  readonly data?: Readonly<Record<string, string>>
  readonly spec: {
    readonly selector: { readonly matchLabels: Readonly<Record<string, string>> } & Readonly<Record<string, unknown>>
    readonly podSelector: { readonly matchLabels: Readonly<Record<string, string>> }
    readonly ports: ReadonlyArray<{ readonly targetPort: string }>
    readonly ingress: ReadonlyArray<{
      readonly from: ReadonlyArray<unknown>
      readonly ports: ReadonlyArray<{ readonly port: string }>
    }>
    readonly template: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> }
      readonly spec: {
        readonly automountServiceAccountToken: boolean
        readonly terminationGracePeriodSeconds: number
        readonly securityContext: Readonly<Record<string, unknown>>
        readonly containers: ReadonlyArray<Container>
        readonly volumes: ReadonlyArray<{ readonly name: string; readonly secret?: { readonly secretName: string } }>
      }
    }
  }
}

const KUSTOMIZATION = "kustomization.yaml"

export const kustomization = () =>
  documentsOf(`kubernetes/${KUSTOMIZATION}`)[0] as {
    readonly resources: ReadonlyArray<string>
    readonly images: ReadonlyArray<{ readonly name: string }>
  }

export const manifestFiles = readdirSync(new URL("kubernetes/", deploy)).filter((name) => name !== KUSTOMIZATION)
export const manifests = (): ReadonlyArray<Manifest> =>
  manifestFiles.flatMap((name) => documentsOf(`kubernetes/${name}`) as ReadonlyArray<Manifest>)

/** The environment that a container gets, from its manifest and the maps that it names. */
export const environmentOf = (
  container: Container,
  all: ReadonlyArray<Manifest>
): Readonly<Record<string, string>> => ({
  ...Object.assign(
    {},
    ...container.envFrom.map(
      ({ configMapRef }) =>
        all.find(({ kind, metadata }) => kind === "ConfigMap" && metadata.name === configMapRef.name)?.data
    )
  ),
  ...Object.fromEntries(container.env.map(({ name, value }) => [name, value]))
})

export interface ComposeService {
  readonly image?: string
  readonly build?: unknown
  readonly command?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: ReadonlyArray<string>
  readonly read_only?: boolean
  readonly cap_drop?: ReadonlyArray<string>
  readonly networks?: { readonly default: { readonly ipv4_address: string } }
  readonly healthcheck?: { readonly test: ReadonlyArray<string> }
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
}

export const compose = () =>
  documentsOf("compose.yaml")[0] as {
    readonly services: Readonly<Record<string, ComposeService>>
    readonly networks: {
      readonly default: { readonly ipam: { readonly config: ReadonlyArray<{ readonly gateway: string }> } }
    }
    readonly volumes: Readonly<Record<string, unknown>>
  }
