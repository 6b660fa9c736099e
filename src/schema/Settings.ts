/** Decides every setting of the platform: its name in the environment, what it may be, and its default. One place. */
import { Result, Schema, SchemaGetter } from "effect"
import { SettingError } from "./Errors.ts"
import { explain } from "./Explain.ts"
import { KiteDays, KiteReplay } from "./kite/asked.ts"

const fromText = <A extends Schema.Constraint & { readonly Encoded: number }>(target: A) =>
  Schema.String.pipe(
    Schema.check(Schema.makeFilter((text: string) => /^-?\d+(\.\d+)?$/.test(text) || "Expected a number")),
    Schema.decodeTo(target, {
      decode: SchemaGetter.transform((text: string) => Number(text)),
      encode: SchemaGetter.transform((n: number) => String(n))
    })
  )

const whole = (minimum: number, maximum: number) =>
  fromText(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum }))))

interface Setting<S> {
  readonly schema: S
  /** As it would be written in the environment; `undefined`: unset. */
  readonly default: string | undefined
  readonly description: string
}

const setting = <S>(schema: S, fallback: string | undefined, description: string): Setting<S> => ({
  schema,
  default: fallback,
  description
})

/** Settings that hold a secret: each may be in a file that NAME_FILE names instead. */
export const SECRETS = ["DATABASE_URL", "REDIS_URL", "KAFKA_SASL_PASSWORD", "API_KEY", "KITE_API_KEY"] as const

const secretFile = (name: (typeof SECRETS)[number]) =>
  setting(Schema.String, undefined, `file that holds ${name}, instead of it`)

/** Settings that may be left unset and have no default. */
const optional = {
  DATABASE_URL: setting(Schema.String, undefined, "PostgreSQL or TimescaleDB; unset: embedded in DATA_DIR"),
  DATABASE_URL_FILE: secretFile("DATABASE_URL"),
  REDIS_URL: setting(
    Schema.String,
    undefined,
    "Redis 5 or newer, redis:// or rediss://; unset: claims, rings and checkpoints embedded"
  ),
  REDIS_URL_FILE: secretFile("REDIS_URL"),
  REDIS_TLS_CA_FILE: setting(
    Schema.String,
    undefined,
    "PEM of the certificates trusted for a rediss:// server; unset: the system's"
  ),
  REDIS_TLS_CERT_FILE: setting(
    Schema.String,
    undefined,
    "PEM of the certificate shown to a rediss:// server that asks for one"
  ),
  REDIS_TLS_KEY_FILE: setting(Schema.String, undefined, "PEM of the key of REDIS_TLS_CERT_FILE"),
  DATA_DIR: setting(
    Schema.String,
    undefined,
    "folder of the embedded database and archive; demo keeps nothing unless set"
  ),
  KAFKA_BROKERS: setting(Schema.String, undefined, "Kafka, host:port, comma-separated; unset: the log is embedded"),
  KAFKA_SASL_MECHANISM: setting(
    Schema.Literals(["plain", "scram-sha-256", "scram-sha-512"]),
    undefined,
    "how to authenticate to Kafka: plain, scram-sha-256 or scram-sha-512; unset: not at all"
  ),
  KAFKA_SASL_USERNAME: setting(Schema.String, undefined, "user name for Kafka"),
  KAFKA_SASL_PASSWORD: setting(Schema.String, undefined, "password for Kafka; never shown"),
  KAFKA_SASL_PASSWORD_FILE: secretFile("KAFKA_SASL_PASSWORD"),
  KAFKA_TLS_CA_FILE: setting(
    Schema.String,
    undefined,
    "PEM of the certificates trusted for Kafka; unset: the system's"
  ),
  S3_BUCKET: setting(Schema.String, undefined, "bucket of the archive; unset: files in DATA_DIR"),
  S3_ENDPOINT: setting(Schema.String, undefined, "S3 server, http:// or https://; unset: AWS"),
  S3_REGION: setting(
    Schema.String,
    undefined,
    "region of the bucket; unset: AWS_REGION, and us-east-1 at an S3_ENDPOINT"
  ),
  S3_FORCE_PATH_STYLE: setting(
    Schema.Literals(["true", "false"]),
    undefined,
    "whether the bucket is in the path rather than the host's name; unset: true at an S3_ENDPOINT"
  ),
  ALLOWED_ORIGINS: setting(Schema.String, undefined, "web origins let in besides the server's own, comma-separated"),
  API_KEYS_FILE: setting(
    Schema.String,
    undefined,
    "file of the API keys that mdp keys writes; once it is set nobody is let in without a key, and a public HOST is allowed"
  ),
  API_KEY: setting(
    Schema.String,
    undefined,
    "key by which this command speaks to an instance (feed, replay, instruments import, dlq); never shown"
  ),
  API_KEY_FILE: secretFile("API_KEY"),
  KITE_API_KEY: setting(Schema.String, undefined, "the broker's key of mdp feed kite; never shown"),
  KITE_API_KEY_FILE: secretFile("KITE_API_KEY"),
  KITE_ACCESS_TOKEN: setting(
    Schema.String,
    undefined,
    "the day's access token of mdp feed kite, which then ends with it; never shown"
  ),
  KITE_ACCESS_TOKEN_FILE: setting(
    Schema.String,
    undefined,
    "file that holds KITE_ACCESS_TOKEN, instead of it: each day's new token is taken as soon as it is there, and waited for once the old one has ended"
  ),
  ALLOWED_HOSTS: setting(
    Schema.String,
    undefined,
    "names and addresses that the server or worker is called by (Host) besides loopback's and HOST, comma-separated"
  ),
  METRICS_ALLOW: setting(
    Schema.String,
    undefined,
    "addresses and networks that may read a worker's /metrics besides loopback, comma-separated, such as 10.0.0.0/8; " +
      "on a server, where it is set, only they (without a key) and who has a key may read /metrics and /topology"
  ),
  KITE_PORT: setting(
    whole(0, 65_535),
    undefined,
    "port of the Kite Connect 3 gateway of server, run and demo, on HOST; unset: none; 0 picks a free one"
  ),
  KITE_REPLAY: setting(
    KiteReplay,
    undefined,
    "trading day that the gateway replays to whose api_key names none, and how fast, such as 2026-01-15@60; it begins " +
      "with the first subscription; unset: the live market"
  ),
  TLS_CERT_FILE: setting(
    Schema.String,
    undefined,
    "PEM of the certificate that the server shows, those that signed it after it; with TLS_KEY_FILE: https and wss"
  ),
  TLS_KEY_FILE: setting(
    Schema.String,
    undefined,
    "PEM of the key of TLS_CERT_FILE; both files are looked at every second, and a new pair needs no restart"
  )
} as const

const defaulted = {
  HOST: setting(Schema.NonEmptyString, "127.0.0.1", "address to listen on"),
  PORT: setting(whole(0, 65_535), "8080", "port of REST, WebSocket and dashboard; 0 picks a free one"),
  METRICS_HOST: setting(
    Schema.NonEmptyString,
    "127.0.0.1",
    "address that a worker's /metrics, /healthz and /readyz listen on; one that others reach needs METRICS_ALLOW or API_KEYS_FILE"
  ),
  METRICS_PORT: setting(
    whole(0, 65_535),
    "9464",
    "port of a worker's /metrics, /healthz and /readyz; 0 picks a free one"
  ),
  LOG_FORMAT: setting(
    Schema.Literals(["text", "json"]),
    "text",
    "how lines of the log look: text, or json (an object a line, with time, level, message and fields)"
  ),
  PARTITIONS: setting(
    whole(1, 1024),
    "12",
    "partitions of every topic of the embedded log, and of topics made in Kafka"
  ),
  KAFKA_ENGINE: setting(
    Schema.Literals(["platformatic", "kafkajs"]),
    "platformatic",
    "client library for Kafka: platformatic or kafkajs"
  ),
  KAFKA_TLS: setting(Schema.Literals(["true", "false"]), "false", "whether Kafka is spoken to over TLS"),
  KAFKA_REPLICATION_FACTOR: setting(
    fromText(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: -1, maximum: 32 })))),
    "-1",
    "replicas of topics made in Kafka; -1: the brokers' default"
  ),
  KAFKA_START_TIMEOUT_MS: setting(whole(100, 600_000), "30000", "how long a start waits for Kafka before it gives up"),
  KAFKA_CONNECT_TIMEOUT_MS: setting(whole(100, 120_000), "5000", "longest time a connection to a broker may take"),
  KAFKA_REQUEST_TIMEOUT_MS: setting(whole(100, 300_000), "10000", "longest time a broker may take to answer"),
  KAFKA_DELIVERY_TIMEOUT_MS: setting(
    whole(100, 600_000),
    "30000",
    "longest time an append may take, sent again included; then its outcome is unknown"
  ),
  KAFKA_SESSION_TIMEOUT_MS: setting(
    whole(1000, 300_000),
    "8000",
    "a worker silent for this long loses its partitions to others"
  ),
  KAFKA_HEARTBEAT_MS: setting(whole(100, 60_000), "1000", "how often a worker says that it is alive"),
  KAFKA_FETCH_BYTES: setting(
    whole(1024, 67_108_864),
    "524288",
    "bytes of one partition asked for at a time, twice that held, 131072 at most by sinks while ticks are live; " +
      "a larger batch comes whole"
  ),
  KAFKA_FETCH_WAIT_MS: setting(whole(1, 30_000), "500", "how long a broker waits for records at a partition's end"),
  KAFKA_FETCH_CONNECTIONS: setting(
    whole(1, 64),
    "3",
    "connections to each broker for the fetches of one group, which share the first"
  ),
  KAFKA_READ_BATCH_RECORDS: setting(
    whole(1, 1_000_000),
    "2000",
    "records handed to a reader at a time, 250 at most to sinks while ticks are live"
  ),
  KAFKA_MAX_RECORD_BYTES: setting(
    // From Kafka's own default on: a cut dead letter goes in.
    whole(1_048_576, 67_108_864),
    "8388608",
    "largest record, and largest batch sent; topics made in Kafka take it"
  ),
  KAFKA_METADATA_MS: setting(whole(100, 600_000), "5000", "how often it is looked at whether topics were recreated"),
  ON_LOST_OFFSETS: setting(
    Schema.Literals(["fail", "continue"]),
    "fail",
    "where retention has removed records that a group had yet to take, counted either way: fail (the partition stops, " +
      "the others go on) or continue (from where the log starts)"
  ),
  GAP_HOLD_MS: setting(
    whole(0, 3_600_000),
    "5000",
    "how long a gap stays open for the other feed or a late tick, in record time"
  ),
  MAX_SEQUENCE_JUMP: setting(
    whole(1, 1_000_000_000),
    "1000000",
    "a contiguous jump above this goes to the DLQ; the third number of a connection that goes on from it opens a session"
  ),
  ZERO_PRICE: setting(
    Schema.Literals(["drop", "keep"]),
    "drop",
    "price 0 of a snapshot feed: drop (there is no price yet: counted, not published) or keep (it is one)"
  ),
  DMA_SILENCE_MS: setting(
    whole(0, 3_600_000),
    "3000",
    "DMA silence after which a snapshot without sequence passes, in record time"
  ),
  MAX_FUTURE_SKEW_MS: setting(whole(0, 3_600_000), "5000", "how far ahead of record time an exchange_ts may be"),
  PROCESS_INSTRUMENTS: setting(
    whole(16, 10_000_000),
    "20000",
    "instruments whose day a partition holds, in memory and in its kept state; full: those silent longest are forgotten, " +
      "and begin a new epoch when they come back"
  ),
  SNAPSHOT_MS: setting(whole(10, 3_600_000), "3000", "how often the state of a partition is kept"),
  LOG_CAPACITY_RECORDS: setting(
    whole(100, 10_000_000),
    "20000",
    "records a partition of the embedded log holds; full: block"
  ),
  LOG_CAPACITY_BYTES: setting(
    whole(1_048_576, 68_719_476_736),
    "16777216",
    "bytes of them, what a record takes in memory beside its own included; full: block"
  ),
  LOG_RETAINED_RECORDS: setting(
    whole(0, 10_000_000),
    "1000",
    "records a partition of the embedded log keeps after every reader has passed them"
  ),
  LOG_RETAINED_BYTES: setting(whole(0, 68_719_476_736), "1048576", "bytes of them"),
  DLQ_CAPACITY_RECORDS: setting(
    whole(1, 10_000_000),
    "10000",
    "records a partition of the embedded DLQ holds; full: drop-oldest"
  ),
  DLQ_CAPACITY_BYTES: setting(
    // A cut dead letter always goes in.
    whole(1_048_576, 68_719_476_736),
    "8388608",
    "bytes of them; full: drop-oldest"
  ),
  PROCESS_BATCH_RECORDS: setting(whole(1, 100_000), "2000", "records a stage handles at a time"),
  STORE_BATCH_TICKS: setting(whole(1, 100_000), "5000", "ticks the store writes in one transaction at most"),
  STORE_FLUSH_MS: setting(whole(1, 60_000), "100", "longest wait before a smaller batch is written to the store"),
  STORE_DAYS: setting(
    whole(0, 18_000),
    "0",
    "days before today whose ticks the store keeps; older ones are dropped once the archive was read back and holds them, their bars stay; 0: all are kept"
  ),
  STORE_DEPTH: setting(
    Schema.Literals(["true", "false"]),
    "false",
    "whether the store keeps all levels of a quote's book; false: the best of each side, as columns"
  ),
  CANDLE_REFRESH_MS: setting(whole(10, 600_000), "1000", "how often ended bars marked dirty are recomputed"),
  ARCHIVE_BATCH_TICKS: setting(
    whole(1, 10_000_000),
    "100000",
    "ticks of a range at most, a quote as five; a partition keeps up to twice as many in memory, 95 bytes each"
  ),
  ARCHIVE_FLUSH_MS: setting(whole(10, 86_400_000), "300000", "longest wait before a smaller archive object is written"),
  S3_TIMEOUT_MS: setting(
    whole(100, 600_000),
    "10000",
    "longest wait for one answer of S3, besides what its bytes take"
  ),
  REDIS_TIMEOUT_MS: setting(whole(100, 60_000), "2000", "longest wait for one answer of Redis"),
  CLAIM_DAYS: setting(whole(1, 366), "4", "days a claim is kept in Redis after its neighbours were last touched"),
  STATE_DAYS: setting(whole(1, 366), "14", "days a partition's state is kept in Redis after it was last saved"),
  RING_DAYS: setting(whole(1, 366), "7", "days an instrument's ring is kept in Redis after its last tick"),
  RING_TICKS: setting(whole(1, 100_000), "1000", "newest ticks kept for each instrument; full: drop-oldest"),
  HUB_TICKS: setting(
    whole(100, 100_000_000),
    "300000",
    "newest ticks a server keeps in memory of all instruments; full: drop-oldest, half of every ring"
  ),
  HUB_INSTRUMENTS: setting(
    whole(10, 10_000_000),
    "100000",
    "instruments a server remembers the newest ticks and place of; full: those silent longest go"
  ),
  HUB_QUOTES: setting(
    whole(10, 10_000_000),
    "50000",
    "newest quotes a server keeps in memory, one an instrument; full: those of instruments silent longest go"
  ),
  HUB_BARS: setting(
    whole(10, 10_000_000),
    "100000",
    "newest one-minute bars a server keeps in memory of all instruments; full: drop-oldest, half of those of each"
  ),
  CANDLE_MS: setting(whole(0, 60_000), "100", "live bars that change are told to clients at most this often"),
  MAX_CLIENTS: setting(whole(1, 1_000_000), "10000", "WebSocket clients at a time; more are refused with 503"),
  CONNECTIONS_PER_ADDRESS: setting(
    whole(1, 1_000_000),
    "1000",
    "WebSocket clients of one IPv4 address or IPv6 /64 network; more are refused with 429"
  ),
  CONNECTIONS_PER_KEY: setting(
    whole(1, 1_000_000),
    "1000",
    "WebSocket clients of one API key; more are refused with 429, or closed with 1013"
  ),
  MAX_KEYLESS_CLIENTS: setting(
    whole(4, 100_000),
    "256",
    "WebSocket clients that have yet to show their API key, a quarter of them of one address; full: the oldest is closed"
  ),
  AUTH_TIMEOUT_MS: setting(
    whole(100, 600_000),
    "5000",
    "how long a WebSocket client that brought no API key in its header may take to show one"
  ),
  CLIENT_CAPACITY: setting(
    whole(1, 1_000_000),
    "1000",
    "ticks queued for one client unless it asks otherwise; full: as its policy says"
  ),
  CLIENT_PAUSE_MS: setting(
    whole(1, 900_000),
    "300000",
    "how long a client with policy pause may be behind before it is closed with 4001"
  ),
  MAX_CLIENT_CAPACITY: setting(whole(1, 10_000_000), "100000", "largest queue a client may ask for"),
  MAX_CLIENT_TOKENS: setting(whole(1, 10_000_000), "10000", "instruments one client may subscribe to"),
  MAX_SUBSCRIPTIONS: setting(
    whole(1, 100_000_000),
    "1000000",
    "instruments that all clients together subscribe to; more are refused by name"
  ),
  CLIENTS_TICKS: setting(
    whole(100, 100_000_000),
    "2000000",
    "ticks queued for all clients together; full: evict, from the longest queues"
  ),
  CLIENTS_BYTES: setting(
    whole(1_048_576, 1_099_511_627_776),
    "268435456",
    "bytes of messages, answers and unsent frames of all clients together; full: who holds most is closed with 1013"
  ),
  CLIENT_BUFFER_BYTES: setting(
    whole(1024, 1_073_741_824),
    "65536",
    "bytes that wait in a client's socket before its queue fills"
  ),
  CLIENT_FLIGHT_BYTES: setting(
    whole(1024, 1_073_741_824),
    "262144",
    "bytes that a client may leave unread for half a second, in kernels and networks too, before its queue fills: what " +
      "a slow one reads is as old as it takes it to read so many"
  ),
  HTTP_REQUESTS: setting(
    whole(1, 100_000),
    "256",
    "requests answered at a time, besides operators' and streams; more are refused with 503"
  ),
  HTTP_BODIES: setting(whole(1, 100_000), "128", "bodies of requests received at a time; more are refused with 503"),
  HTTP_STREAMS: setting(whole(1, 100_000), "32", "answers streamed at a time; more are refused with 503"),
  HTTP_ADDRESS_PERCENT: setting(
    whole(1, 100),
    "50",
    "how much of the connections, requests, bodies and streams one address may have (IPv6: its /64), in percent; " +
      "more are refused with 429; 100 behind a proxy"
  ),
  REQUESTS_PER_KEY: setting(
    whole(1, 1_000_000),
    "200",
    "requests a second of one API key, twice as many at once; more are refused with 429"
  ),
  INGEST_WAIT_MS: setting(whole(1, 600_000), "5000", "how long an ingest waits for a full log before it answers 429"),
  REPLAY_WINDOW_TICKS: setting(
    whole(1, 1_000_000),
    "4000",
    "replayed ticks between raw_ticks and their watermark, all replays together"
  ),
  REPLAY_STORE_LAG_RECORDS: setting(
    whole(1, 1_000_000_000),
    "10000",
    "records the store may be behind in a partition before replays wait for it"
  ),
  REPLAY_IDLE_MS: setting(
    whole(100, 86_400_000),
    "600000",
    "a replay ends this long after its last client left, unless detached"
  ),
  MAX_REPLAYS: setting(whole(1, 1000), "8", "replays at a time; more are refused with 429"),
  KITE_SHIFT: setting(
    Schema.Literals(["true", "false"]),
    "false",
    "whether the gateway tells the stamps of a replayed day, and when contracts expire, as if it were today"
  ),
  KITE_CONNECTIONS: setting(
    whole(1, 1_000_000),
    "3",
    "WebSockets of one api_key to the gateway, of one API key where they are asked for; more are refused with 429"
  ),
  KITE_INSTRUMENTS: setting(
    whole(1, 1_000_000),
    "3000",
    "instruments that one WebSocket to the gateway subscribes to; more are refused by a text error, the others flow"
  ),
  KITE_QUOTE_INSTRUMENTS: setting(
    whole(1, 5_000),
    "500",
    "instruments of one /quote of the gateway; a request's head has room for 64 KiB, some 1,500 by name and 5,000 by token"
  ),
  KITE_LTP_INSTRUMENTS: setting(whole(1, 5_000), "1000", "instruments of one /quote/ohlc or /quote/ltp of the gateway"),
  KITE_QUOTE_RATE: setting(
    whole(1, 100_000),
    "1",
    "quotes a second that one api_key may ask the gateway for; more: 429"
  ),
  KITE_HISTORICAL_RATE: setting(whole(1, 100_000), "3", "the same of candles"),
  KITE_REQUEST_RATE: setting(whole(1, 100_000), "10", "the same of everything else"),
  KITE_HISTORICAL_DAYS: setting(
    KiteDays,
    "minute=60,3minute=100,5minute=100,10minute=100,15minute=200,30minute=200,60minute=400,day=2000",
    "days of candles that one request to the gateway may span, by interval"
  ),
  DRAIN_DEADLINE_MS: setting(whole(100, 600_000), "10000", "longest time a stop may take to drain and commit")
} as const

type Defaulted = { readonly [K in keyof typeof defaulted]: (typeof defaulted)[K]["schema"]["Type"] }
type Optional = { readonly [K in keyof typeof optional]: (typeof optional)[K]["schema"]["Type"] | undefined }
export type Settings = Defaulted & Optional
export type SettingName = keyof Settings

/** Every setting with its default and description, for `--help` and the documentation. */
export const settingsTable: ReadonlyArray<{
  readonly name: string
  readonly default: string | undefined
  readonly description: string
}> = Object.entries({ ...optional, ...defaulted }).map(([name, s]) => ({
  name,
  default: s.default,
  description: s.description
}))

/**
 * Reads the settings from an environment; an empty value counts as unset. Fails with the first wrong setting, named,
 * with the value that came (the settings that hold a secret, such as DATABASE_URL and API_KEY, are any text and so never shown).
 */
export const readSettings = (
  environment: Readonly<Record<string, string | undefined>>
): Result.Result<Settings, SettingError> => {
  const settings: Record<string, unknown> = {}
  for (const [name, s] of Object.entries({ ...optional, ...defaulted })) {
    const given = environment[name]
    const text = given === undefined || given.trim() === "" ? s.default : given.trim()
    if (text === undefined) {
      settings[name] = undefined
      continue
    }
    const decoded = Schema.decodeUnknownResult(s.schema)(text)
    if (Result.isFailure(decoded)) {
      const { message } = explain(decoded.failure.issue, text)
      return Result.fail(new SettingError({ setting: name, message: message.replace(/^input:/, `${name}:`) }))
    }
    settings[name] = decoded.success
  }
  return Result.succeed(settings as unknown as Settings)
}
