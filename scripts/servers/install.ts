/**
 * Decides where the servers for development and tests come from, and at which versions: Kafka from Maven Central, the S3
 * gateway from the Go module proxy, what the Python client is tested with from PyPI, and the broker's own three clients from
 * where those of their languages are, all into a cache folder; Redis and PostgreSQL from the system's packages.
 */
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  copyFileSync,
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

const KITE_SOURCES = fileURLToPath(new URL("../../test/clients/kite/", import.meta.url))
const KITE_PINS = [
  "python/requirements.txt",
  "javascript/package.json",
  "javascript/package-lock.json",
  "go/go.mod",
  "go/go.sum",
  "go/main.go"
]
const KITE_HASH = KITE_PINS.reduce(
  (hash, file) => hash.update(readFileSync(join(KITE_SOURCES, file))),
  createHash("sha256")
)
  .digest("hex")
  .slice(0, 12)
/** The clients of Kite Connect, unchanged, of which each language has its own: another folder for other versions. */
const KITE_CLIENTS = join(CACHE, `kite-clients-${KITE_HASH}`)
/** A Python and the folder of a package.json that have them, and a program that is made with the third. */
export const KITE_PYTHON = join(KITE_CLIENTS, "python", "bin", "python")
export const KITE_MODULES = join(KITE_CLIENTS, "javascript", "package.json")
export const KITE_GO = join(KITE_CLIENTS, "go", "kiteclient")

export const serviceNames = ["kafka", "redis", "postgres", "s3"] as const
export type ServiceName = (typeof serviceNames)[number]
/** A browser, Python and the broker's clients are no services, but tests want them as well. */
export const installable = [...serviceNames, "chromium", "python", "kite"] as const
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
    case "kite":
      return existsSync(KITE_CLIENTS) ? "" : "the clients of Kite Connect"
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

const pythonOf = (who: string): void => {
  if (pythonMinor() >= PYTHON_MINIMUM) return
  const otherwise = `${who} Python 3.${PYTHON_MINIMUM} or newer: install it, then run this again`
  apt(["python3", "python3-venv"], otherwise)
}

/**
 * A Python with the packages of a list. It may be moved whole: it finds them from where it is. The scripts beside it do not:
 * run them with `-m`.
 */
const virtual = (folder: string, requirements: string): void => {
  run("python3", ["-m", "venv", folder])
  const packages = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", requirements]
  run(join(folder, "bin", "python"), ["-m", "pip", "install", "-q", "--disable-pip-version-check", ...packages])
}

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
  kite: () => {
    if (!onPath("go"))
      throw new Error("Kite's client for Go is built with it: install Go 1.24 or newer, then run this again")
    pythonOf("the clients of Kite Connect need")
    if (existsSync(KITE_CLIENTS)) return
    intoCache(KITE_CLIENTS, (half) => {
      virtual(join(half, "python"), join(KITE_SOURCES, "python", "requirements.txt"))
      const modules = join(half, "javascript")
      mkdirSync(modules)
      for (const file of ["package.json", "package-lock.json"]) {
        copyFileSync(join(KITE_SOURCES, "javascript", file), join(modules, file))
      }
      run("npm", ["ci", "--prefix", modules, "--ignore-scripts", "--no-audit", "--no-fund"])
      run("go", ["build", "-C", join(KITE_SOURCES, "go"), "-trimpath", "-o", join(half, "go", "kiteclient"), "."])
    })
  },
  python: () => {
    pythonOf("the Python client needs")
    if (existsSync(PYTHON)) return
    intoCache(join(PYTHON, "..", ".."), (half) => virtual(half, PYTHON_REQUIREMENTS))
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
