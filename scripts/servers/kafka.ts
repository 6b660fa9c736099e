/** Decides how a real Kafka runs here: one node, broker and controller at once (KRaft), from the jars in the cache. */
import { spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { KAFKA_JARS } from "./install.ts"
import { freePort, Server, type ServerOptions } from "./Server.ts"

/** Asks for no topic, only for who is there: a list of brokers that are up. Metadata, version 1. */
const METADATA = Buffer.from([0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0])

export interface KafkaServerOptions extends ServerOptions {
  /** Told to clients instead of its own: that of a proxy in front of it. */
  readonly advertisedPort?: number | undefined
  /** One more listener: TLS, and users who say who they are. */
  readonly secure?: SecureListener | undefined
}

export interface SecureListener {
  /** PEM, as text. */
  readonly key: string
  readonly certificate: string
  /** The one user, with the same password by every mechanism. */
  readonly username: string
  readonly password: string
}

/** A value of several lines in a file of properties. */
const inline = (text: string): string => text.trim().replaceAll("\n", "\\n")

const SCRAM = ["SCRAM-SHA-256", "SCRAM-SHA-512"]

const secureConfiguration = ({ key, certificate, username, password }: SecureListener) => {
  const listener = "listener.name.sasl_ssl"
  const module = "org.apache.kafka.common.security"
  const plain = `${module}.plain.PlainLoginModule required user_${username}="${password}";`
  return {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
    [`${listener}.ssl.keystore.type`]: "PEM",
    [`${listener}.ssl.keystore.key`]: inline(key),
    [`${listener}.ssl.keystore.certificate.chain`]: inline(certificate),
    [`${listener}.sasl.enabled.mechanisms`]: ["PLAIN", ...SCRAM].join(","),
    [`${listener}.plain.sasl.jaas.config`]: plain,
    ...Object.fromEntries(
      SCRAM.map((mechanism) => [
        `${listener}.${mechanism.toLowerCase()}.sasl.jaas.config`,
        `${module}.scram.ScramLoginModule required;`
      ])
    )
  }
}

export class KafkaServer extends Server {
  readonly name = "Kafka"
  protected readonly data = ["data"]
  readonly #advertisedPort: number | undefined
  readonly #secure: SecureListener | undefined
  #controllerPort: number | undefined
  #securePort: number | undefined

  constructor(options: KafkaServerOptions) {
    super(options)
    this.#advertisedPort = options.advertisedPort
    this.#secure = options.secure
  }

  /** Where the secure listener is. */
  get secureBrokers(): string {
    if (this.#securePort === undefined) throw new Error("Kafka has no secure listener")
    return `127.0.0.1:${this.#securePort}`
  }

  settings(): Readonly<Record<string, string>> {
    return { KAFKA_BROKERS: `127.0.0.1:${this.port}` }
  }

  protected async prepare(): Promise<void> {
    this.#controllerPort ??= await freePort()
    const secure = this.#secure
    if (secure !== undefined) this.#securePort ??= await freePort()
    const also = secure === undefined ? "" : `,SASL_SSL://127.0.0.1:${this.#securePort}`
    const data = join(this.folder, "data")
    const configuration = {
      "process.roles": "broker,controller",
      "node.id": 1,
      "controller.quorum.voters": `1@127.0.0.1:${this.#controllerPort}`,
      listeners: `PLAINTEXT://127.0.0.1:${this.port},CONTROLLER://127.0.0.1:${this.#controllerPort}${also}`,
      "advertised.listeners": `PLAINTEXT://127.0.0.1:${this.#advertisedPort ?? this.port}${also}`,
      ...(secure === undefined ? {} : secureConfiguration(secure)),
      "controller.listener.names": "CONTROLLER",
      "log.dirs": data,
      "auto.create.topics.enable": false,
      "num.partitions": 12,
      // One broker holds one copy of everything.
      "default.replication.factor": 1,
      "offsets.topic.replication.factor": 1,
      "offsets.topic.num.partitions": 4,
      "transaction.state.log.replication.factor": 1,
      "transaction.state.log.min.isr": 1,
      "transaction.state.log.num.partitions": 4,
      "share.coordinator.state.topic.replication.factor": 1,
      "share.coordinator.state.topic.min.isr": 1,
      // A group is ready when its first member is.
      "group.initial.rebalance.delay.ms": 0,
      // Clients here may ask for short sessions.
      "group.min.session.timeout.ms": 1000
    }
    const file = join(this.folder, "server.properties")
    writeFileSync(
      file,
      `${Object.entries(configuration)
        .map((entry) => entry.join("="))
        .join("\n")}\n`
    )
    if (existsSync(join(data, "meta.properties"))) return
    // A format that was cut short is begun again.
    rmSync(data, { recursive: true, force: true })
    mkdirSync(data)
    const id = randomBytes(16)
    // One that begins with a dash would be read as a flag.
    id[0]! &= 0x7f
    const cluster = id.toString("base64url")
    const format = spawnSync(
      "java",
      [
        "-XX:TieredStopAtLevel=1",
        "-cp",
        join(KAFKA_JARS, "*"),
        "kafka.tools.StorageTool",
        "format",
        "-t",
        cluster,
        "-c",
        file,
        ...(secure === undefined
          ? []
          : SCRAM.flatMap((mechanism) => [
              "--add-scram",
              `${mechanism}=[name=${secure.username},password=${secure.password}]`
            ]))
      ],
      { encoding: "utf8" }
    )
    if (format.status !== 0)
      throw new Error(`Kafka's folder could not be made: ${format.stderr || format.error?.message}`)
  }

  protected spawned() {
    return {
      command: "java",
      args: [
        "-Xms256m",
        "-Xmx1g",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        join(KAFKA_JARS, "*"),
        "kafka.Kafka",
        join(this.folder, "server.properties")
      ]
    }
  }

  protected answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.port, "127.0.0.1")
      let answer = Buffer.alloc(0)
      const done = (is: boolean) => {
        socket.destroy()
        resolve(is)
      }
      socket.setTimeout(2000, () => done(false))
      socket.on("error", () => done(false))
      socket.on("close", () => done(false))
      socket.on("data", (chunk) => {
        answer = Buffer.concat([answer, chunk])
        // Length, correlation id, number of brokers.
        if (answer.length >= 12) done(answer.readInt32BE(8) > 0)
      })
      socket.write(METADATA)
    })
  }
}
