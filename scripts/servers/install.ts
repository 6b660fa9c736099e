/**
 * Decides where the servers for development and tests come from, and at which versions: Kafka from Maven Central, the S3
 * gateway from the Go module proxy, what the Python client is tested with from PyPI, all into a cache folder; Redis and
 * PostgreSQL from the system's packages.
 */
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { homedir } from "node:os"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"

const KAFKA_VERSION = "4.1.1"
/** What lets Kafka's log be seen. */
const SLF4J_VERSION = "1.7.36"
const S3_GATEWAY_VERSION = "v1.8.0"
const JAVA_MINIMUM = 17
const POSTGRES_MINIMUM = 14
const PYTHON_MINIMUM = 10

const given = process.env.MDP_SERVICES_CACHE
const CACHE = given || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "market-data-platform")
export const KAFKA_JARS = join(CACHE, `kafka-${KAFKA_VERSION}`)
export const S3_GATEWAY = join(CACHE, `versitygw-${S3_GATEWAY_VERSION}`, "versitygw")

const PYTHON_REQUIREMENTS = fileURLToPath(new URL("../../clients/python/requirements-dev.txt", import.meta.url))
const PYTHON_HASH = createHash("sha256").update(readFileSync(PYTHON_REQUIREMENTS)).digest("hex").slice(0, 12)
/** A Python that has what the client of its own is tested with: another one for each list of that. */
export const PYTHON = join(CACHE, `python-${PYTHON_HASH}`, "bin", "python")

export const serviceNames = ["kafka", "redis", "postgres", "s3"] as const
export type ServiceName = (typeof serviceNames)[number]
/** A browser and Python are no services, but tests want them as well. */
export const installable = [...serviceNames, "chromium", "python"] as const
export type Installable = (typeof installable)[number]

const onPath = (command: string): boolean =>
  (process.env.PATH ?? "").split(delimiter).some((folder) => folder !== "" && existsSync(join(folder, command)))

/** Debian keeps them off the PATH, one folder a version. */
export const postgresBinaries = (): string => {
  const folder = "/usr/lib/postgresql"
  const versions = existsSync(folder)
    ? readdirSync(folder)
        .map(Number)
        .filter((v) => v >= POSTGRES_MINIMUM)
    : []
  for (const version of versions.sort((a, b) => b - a)) {
    const binaries = join(folder, String(version), "bin")
    if (existsSync(join(binaries, "initdb")) && existsSync(join(binaries, "postgres"))) return binaries
  }
  const found = (process.env.PATH ?? "").split(delimiter).find((at) => at !== "" && existsSync(join(at, "initdb")))
  return found ?? ""
}

const javaVersion = (): number => {
  const { stderr } = spawnSync("java", ["-version"], { encoding: "utf8" })
  return Number(/version "(\d+)/.exec(stderr ?? "")?.[1] ?? 0)
}

const pythonMinor = (): number => {
  const { stdout } = spawnSync("python3", ["--version"], { encoding: "utf8" })
  return Number(/Python 3\.(\d+)/.exec(stdout ?? "")?.[1] ?? 0)
}

/** The browser that there is; empty: none. */
export const chromium = (): string => ["chromium", "google-chrome", "chromium-browser"].find(onPath) ?? ""

/** What a service lacks to be started; empty: nothing. Quick: it is asked before every test run. */
export const missing = (service: Installable): string => {
  switch (service) {
    case "chromium":
      return chromium() === "" ? "chromium" : ""
    case "kafka":
      if (!onPath("java")) return `Java ${JAVA_MINIMUM}`
      return existsSync(KAFKA_JARS) ? "" : `Kafka ${KAFKA_VERSION}`
    case "python":
      return existsSync(PYTHON) ? "" : "pytest, mypy and ruff of Python"
    case "redis":
      return onPath("redis-server") ? "" : "redis-server"
    case "postgres":
      return postgresBinaries() === "" ? `PostgreSQL ${POSTGRES_MINIMUM} or newer` : ""
    case "s3":
      return existsSync(S3_GATEWAY) ? "" : `versitygw ${S3_GATEWAY_VERSION}`
  }
}

const run = (
  command: string,
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {}
): void => {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, ...environment },
    maxBuffer: 1 << 26
  })
  if (status === 0) return
  const said = `${stdout ?? ""}${stderr ?? ""}`.trim().split("\n").slice(-15).join("\n")
  throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? said}`)
}

let isAptUpdated = false

/** Debian's packages, none of whose services is started. */
const apt = (packages: ReadonlyArray<string>, otherwise: string): void => {
  if (process.getuid?.() !== 0 || !onPath("apt-get")) throw new Error(otherwise)
  const environment = { DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" }
  // Asked by every package before it starts its service; only there while packages are installed.
  const policy = "/usr/sbin/policy-rc.d"
  const isOurs = !existsSync(policy)
  if (isOurs) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 })
  try {
    if (!isAptUpdated) run("apt-get", ["update", "-q"], environment)
    isAptUpdated = true
    run("apt-get", ["install", "-q", "-y", "--no-install-recommends", ...packages], environment)
  } finally {
    if (isOurs) rmSync(policy, { force: true })
  }
}

/** Makes a folder of the cache whole or not at all, whoever else makes it at the same time. */
const intoCache = (folder: string, make: (half: string) => void): void => {
  mkdirSync(CACHE, { recursive: true })
  const half = mkdtempSync(join(CACHE, "half-"))
  try {
    make(half)
    if (!existsSync(folder)) renameSync(half, folder)
  } finally {
    rmSync(half, { recursive: true, force: true })
  }
}

const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>market-data-platform</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>${SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
`

/** How each service is installed where it is missing. */
const installers: Readonly<Record<Installable, () => void>> = {
  chromium: () => apt(["chromium"], "Chromium: install the package chromium, then run this again"),
  kafka: () => {
    if (javaVersion() < JAVA_MINIMUM) {
      apt(["openjdk-17-jre-headless"], `Kafka needs Java ${JAVA_MINIMUM} or newer: install a JRE, then run this again`)
    }
    if (existsSync(KAFKA_JARS)) return
    if (!onPath("mvn")) apt(["maven"], "Kafka is fetched with Maven: install mvn, then run this again")
    intoCache(KAFKA_JARS, (half) => {
      const pom = join(half, "pom.xml")
      writeFileSync(pom, POM)
      const target = ["-DincludeScope=runtime", `-DoutputDirectory=${half}`]
      run("mvn", ["-q", "-B", "-f", pom, "dependency:copy-dependencies", ...target])
    })
  },
  python: () => {
    if (pythonMinor() < PYTHON_MINIMUM) {
      apt(
        ["python3", "python3-venv"],
        `the Python client needs Python 3.${PYTHON_MINIMUM} or newer: install it, then run this again`
      )
    }
    if (existsSync(PYTHON)) return
    // Moved whole: its Python finds its packages from where it is. The scripts beside it do not: run them with `-m`.
    intoCache(join(PYTHON, "..", ".."), (half) => {
      run("python3", ["-m", "venv", half])
      const packages = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", PYTHON_REQUIREMENTS]
      run(join(half, "bin", "python"), ["-m", "pip", "install", "-q", "--disable-pip-version-check", ...packages])
    })
  },
  redis: () => apt(["redis-server"], "Redis: install the package redis-server (or redis), then run this again"),
  postgres: () =>
    apt(["postgresql-15"], "PostgreSQL: install the package postgresql-15 or a newer one, then run this again"),
  s3: () => {
    if (!onPath("go")) throw new Error("the S3 gateway is built with Go: install Go 1.24 or newer, then run this again")
    intoCache(join(S3_GATEWAY, ".."), (half) =>
      run("go", ["install", `github.com/versity/versitygw/cmd/versitygw@${S3_GATEWAY_VERSION}`], { GOBIN: half })
    )
  }
}

/** Installs what a service lacks; it takes seconds, the S3 gateway minutes. */
export const install = (service: Installable): void => {
  if (missing(service) !== "") installers[service]()
}
