/**
 * Decides how the archive is kept in an S3 bucket: every object put with `If-None-Match: *`, so that what is there is never
 * changed and a put whose reply was lost is found done; every call bounded in time and number.
 *
 * At start it proves what it relies on: that the bucket can be listed, written and read, and that the server honours
 * `If-None-Match`, without which two writers of a range could each believe to be the first.
 */
import { setTimeout as sleep } from "node:timers/promises"
import type { S3Client, S3ServiceException } from "@aws-sdk/client-s3"
import { Effect, Layer, Redacted, type Scope } from "effect"
import { ArchiveError, StartError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import { Archive } from "../../streams/ports/Archive.ts"
import type { Listed, ObjectStore } from "./objectStore.ts"
import * as ParquetArchive from "./ParquetArchive.ts"

export interface S3Options {
  readonly bucket: string
  /** `http://host:port` or `https://…`; `undefined`: AWS. */
  readonly endpoint?: string | undefined
  /** `undefined`: as AWS's own tools find it, or `us-east-1` at another endpoint. */
  readonly region?: string | undefined
  /** Whether the bucket is in the path rather than in the host's name; `undefined`: at an endpoint of one's own. */
  readonly forcePathStyle?: boolean | undefined
  /** `undefined`: as AWS's own tools find them (environment, profile, role). */
  readonly credentials?:
    | { readonly accessKeyId: string; readonly secretAccessKey: Redacted.Redacted<string> }
    | undefined
  /** Longest wait for one answer, besides what its bytes take. */
  readonly timeoutMs?: number | undefined
  /** Nothing is written, so nothing that writers rely on is proved at start. */
  readonly readsOnly?: boolean | undefined
  /** Attempts at start before it is given up. */
  readonly startAttempts?: number | undefined
}

/** The options that the settings ask for; `undefined`: they name no S3. */
export const optionsOf = (
  settings: Pick<Settings, "S3_BUCKET" | "S3_ENDPOINT" | "S3_REGION" | "S3_FORCE_PATH_STYLE" | "S3_TIMEOUT_MS">
): S3Options | undefined =>
  settings.S3_BUCKET === undefined && settings.S3_ENDPOINT === undefined
    ? undefined
    : {
        bucket: settings.S3_BUCKET ?? "",
        endpoint: settings.S3_ENDPOINT,
        region: settings.S3_REGION,
        forcePathStyle:
          settings.S3_FORCE_PATH_STYLE === undefined ? undefined : settings.S3_FORCE_PATH_STYLE === "true",
        timeoutMs: settings.S3_TIMEOUT_MS
      }

const DEFAULT_TIMEOUT_MS = 10_000
const CONNECT_TIMEOUT_MS = 5000
/** A slower line than this counts as dead. */
const SLOWEST_BYTES_PER_MS = 256
const CONNECTIONS = 16

/** Attempts of one call, 0.2, 0.4 … s apart, each up to twice that; whoever asks may go on asking. */
const ATTEMPTS = 4
const FIRST_WAIT_MS = 200

/** Attempts at start wait 0.5, 1, 2 and 4 seconds in between. */
const START_ATTEMPTS = 5
const START_WAIT_MS = 500

/** Put at the first start, and found there ever after. */
const PROOF_KEY = "manifests/.if-none-match"

const isException = (cause: unknown): cause is S3ServiceException =>
  cause instanceof Error && "$metadata" in cause && "$fault" in cause

const statusOf = (cause: unknown): number | undefined =>
  isException(cause) ? cause.$metadata.httpStatusCode : undefined

/** What a person reads: the error's own name and message hold no secret, its other fields may. */
const messageOf = (cause: unknown): string => {
  const said = cause instanceof AggregateError ? cause.errors[0] : cause
  if (!(said instanceof Error)) return String(said)
  const code = "code" in said && typeof said.code === "string" ? said.code : undefined
  const name = isException(said) && !/^(Error|Unknown|UnknownError)$/.test(said.name) ? said.name : code
  const message = said.message === "" || said.message === "UnknownError" ? "" : said.message
  const status = statusOf(said)
  const text = name === undefined || message.includes(name) ? message : message === "" ? name : `${name}: ${message}`
  return (text || (status === undefined ? "no reason given" : `HTTP ${status}`)).replaceAll(/\s+/g, " ")
}

/** Whether asking again may help: everything but a request that was understood and refused. */
const isTransient = (cause: unknown): boolean => {
  if (isException(cause)) {
    const status = cause.$metadata.httpStatusCode
    if (cause.name === "RequestTimeTooSkewed" || status === undefined) return true
    // 409: another conditional put of the key was under way; this one has to be done again.
    return status >= 500 || [408, 409, 425, 429].includes(status)
  }
  return !(cause instanceof Error) || !/^(CredentialsProviderError|TokenProviderError)$/.test(cause.name)
}

/** Runs a call until it answers or its time is over, also where what it waits for heeds no signal. */
const within = async <A>(ms: number, outer: AbortSignal, run: (signal: AbortSignal) => Promise<A>): Promise<A> => {
  const controller = new AbortController()
  const { promise: ended, reject } = Promise.withResolvers<never>()
  const end = (reason: unknown) => {
    reject(reason)
    controller.abort(reason)
  }
  const onOuter = () => end(outer.reason)
  const timer = setTimeout(() => end(new Error(`no answer within ${ms} ms`)), ms)
  outer.addEventListener("abort", onOuter)
  try {
    const running = run(controller.signal)
    running.catch(() => {})
    return await Promise.race([running, ended])
  } finally {
    clearTimeout(timer)
    outer.removeEventListener("abort", onOuter)
    ended.catch(() => {})
  }
}

/** Asks until it is done, is refused, or has been asked often enough. */
const attempts = async <A>(signal: AbortSignal, run: () => Promise<A>): Promise<A> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await run()
    } catch (cause) {
      if (signal.aborted || attempt >= ATTEMPTS || !isTransient(cause)) throw cause
    }
    await sleep(FIRST_WAIT_MS * 2 ** (attempt - 1) * (1 + Math.random()), undefined, { signal })
  }
}

/** Where it is, as a person may see it. */
const placeOf = ({ endpoint, bucket }: S3Options): string =>
  endpoint === undefined ? `S3_BUCKET ${bucket}` : `S3_BUCKET ${bucket} at S3_ENDPOINT ${new URL(endpoint).origin}`

const checkOptions = ({ endpoint, bucket }: S3Options): StartError | undefined => {
  if (bucket === "") return new StartError({ message: "S3_BUCKET: is missing, though S3_ENDPOINT is set" })
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(bucket)) {
    return new StartError({ message: `S3_BUCKET: expected a bucket's name, got ${bucket}` })
  }
  if (endpoint === undefined) return undefined
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  // What was given may hold a password: it is not repeated.
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
    return new StartError({ message: "S3_ENDPOINT: expected http://host:port or https://host:port, without a user" })
  }
  return undefined
}

/** Why a start failed, with the setting to look at. */
const startMessage = (options: S3Options, cause: unknown): string => {
  const place = placeOf(options)
  const name = cause instanceof Error ? cause.name : ""
  const status = statusOf(cause)
  const reason = messageOf(cause)
  if (name === "NoSuchBucket" || (status === 404 && name === "NotFound")) {
    return `${place}: there is no such bucket; it is not made by itself`
  }
  if (name === "CredentialsProviderError") {
    return `${place}: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another source of credentials, are missing`
  }
  if (name !== "AccessDenied" && (status === 401 || status === 403 || /^(Invalid|Expired)Token/.test(name))) {
    return `${place}: the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) were refused: ${reason}`
  }
  if (/region is missing/i.test(reason)) return `${place}: S3_REGION is missing`
  return `${place}: ${reason}`
}

const makeClient = (options: S3Options, sdk: typeof import("@aws-sdk/client-s3")): S3Client => {
  const { endpoint, credentials, timeoutMs = DEFAULT_TIMEOUT_MS } = options
  const isOwn = endpoint !== undefined
  const region = options.region ?? (isOwn ? (process.env.AWS_REGION ?? "us-east-1") : undefined)
  // Newer checksums are AWS's own: other servers may refuse a request that carries them.
  const checksums = isOwn ? "WHEN_REQUIRED" : "WHEN_SUPPORTED"
  return new sdk.S3Client({
    ...(isOwn ? { endpoint } : {}),
    ...(region === undefined ? {} : { region }),
    ...(credentials === undefined
      ? {}
      : {
          credentials: {
            accessKeyId: credentials.accessKeyId,
            secretAccessKey: Redacted.value(credentials.secretAccessKey)
          }
        }),
    forcePathStyle: options.forcePathStyle ?? isOwn,
    requestChecksumCalculation: checksums,
    responseChecksumValidation: checksums,
    // Attempts are counted here, one kind for all.
    maxAttempts: 1,
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: timeoutMs,
      httpAgent: { keepAlive: true, maxSockets: CONNECTIONS },
      httpsAgent: { keepAlive: true, maxSockets: CONNECTIONS }
    }
  })
}

const open = (options: S3Options): Effect.Effect<ObjectStore, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const { bucket, timeoutMs = DEFAULT_TIMEOUT_MS, startAttempts = START_ATTEMPTS } = options
    const wrong = checkOptions(options)
    if (wrong !== undefined) return yield* wrong
    // Only who uses it loads it.
    const sdk = yield* Effect.promise(() => import("@aws-sdk/client-s3"))
    const client = yield* Effect.acquireRelease(
      Effect.sync(() => makeClient(options, sdk)),
      (made) => Effect.sync(() => made.destroy())
    )
    const place = placeOf(options)
    const timeFor = (bytes: number): number => timeoutMs + Math.ceil(bytes / SLOWEST_BYTES_PER_MS)

    const put = async (Key: string, Body: Uint8Array, signal: AbortSignal): Promise<boolean> => {
      try {
        const command = new sdk.PutObjectCommand({
          Bucket: bucket,
          Key,
          Body,
          ContentLength: Body.length,
          ContentType: Key.endsWith(".parquet") ? "application/vnd.apache.parquet" : "application/json",
          IfNoneMatch: "*"
        })
        await within(timeFor(Body.length), signal, (abortSignal) => client.send(command, { abortSignal }))
        return true
      } catch (cause) {
        // There is one: another writer's, or this one's own, put by an attempt whose reply was lost.
        if (statusOf(cause) === 412) return false
        throw cause
      }
    }

    /** The bytes of an object, or `[from, to)` of them. */
    const fetchBytes = async (
      Key: string,
      range: readonly [from: number, to: number] | undefined,
      signal: AbortSignal
    ): Promise<Uint8Array<ArrayBuffer>> => {
      const Range = range === undefined ? {} : { Range: `bytes=${range[0]}-${range[1] - 1}` }
      const expected = range === undefined ? undefined : range[1] - range[0]
      const bytes = await within(timeFor(expected ?? 0), signal, async (abortSignal) => {
        const { Body } = await client.send(new sdk.GetObjectCommand({ Bucket: bucket, Key, ...Range }), { abortSignal })
        if (Body === undefined) throw new Error(`${Key}: an answer without a body`)
        const giveUp = () => "destroy" in Body && Body.destroy()
        abortSignal.addEventListener("abort", giveUp, { once: true })
        return await Body.transformToByteArray()
      })
      if (expected !== undefined && bytes.length !== expected) {
        throw new Error(`${Key}: asked for ${expected} bytes, got ${bytes.length}`)
      }
      // They are handed to another thread: nothing else may lie in their buffer.
      return new Uint8Array(bytes)
    }

    const get = async (key: string, signal: AbortSignal): Promise<Uint8Array | undefined> => {
      try {
        return await fetchBytes(key, undefined, signal)
      } catch (cause) {
        if (isException(cause) && cause.name === "NoSuchKey") return undefined
        throw cause
      }
    }

    const remove = async (Key: string, signal: AbortSignal): Promise<void> => {
      const command = new sdk.DeleteObjectCommand({ Bucket: bucket, Key })
      try {
        await within(timeoutMs, signal, (abortSignal) => client.send(command, { abortSignal }))
      } catch (cause) {
        // Some servers say so of an object that another has just removed.
        if (statusOf(cause) !== 404) throw cause
      }
    }

    const sizeOf = async (Key: string, signal: AbortSignal): Promise<number | undefined> => {
      try {
        const command = new sdk.HeadObjectCommand({ Bucket: bucket, Key })
        const { ContentLength } = await within(timeoutMs, signal, (abortSignal) =>
          client.send(command, { abortSignal })
        )
        if (ContentLength === undefined) throw new Error(`${Key}: an answer without a length`)
        return ContentLength
      } catch (cause) {
        if (statusOf(cause) === 404) return undefined
        throw cause
      }
    }

    const page = (Prefix: string, ContinuationToken: string | undefined, signal: AbortSignal) =>
      within(timeoutMs, signal, (abortSignal) =>
        client.send(
          new sdk.ListObjectsV2Command({
            Bucket: bucket,
            Prefix,
            Delimiter: "/",
            ...(ContinuationToken === undefined ? {} : { ContinuationToken })
          }),
          { abortSignal }
        )
      )

    type Page = Awaited<ReturnType<typeof page>>
    const allPages = async (prefix: string, signal: AbortSignal): Promise<ReadonlyArray<Page>> => {
      const pages: Array<Page> = []
      let token: string | undefined
      do {
        const found: Page = await attempts(signal, () => page(prefix, token, signal))
        pages.push(found)
        token = found.IsTruncated === true ? found.NextContinuationToken : undefined
      } while (token !== undefined)
      return pages
    }

    const list = async (prefix: string, signal: AbortSignal): Promise<ReadonlyArray<Listed>> => {
      const listed: Array<Listed> = []
      for (const { Contents = [] } of await allPages(prefix, signal)) {
        for (const { Key, Size } of Contents) {
          if (Key === undefined || Size === undefined) continue
          listed.push({ name: Key.slice(prefix.length), source: { kind: "object", key: Key, size: Size } })
        }
      }
      return listed
    }

    const foldersIn = async (prefix: string, signal: AbortSignal): Promise<ReadonlyArray<string>> =>
      (await allPages(prefix, signal)).flatMap(({ CommonPrefixes = [] }) =>
        CommonPrefixes.flatMap(({ Prefix }) => (Prefix === undefined ? [] : [Prefix.slice(prefix.length, -1)]))
      )

    const ask = <A>(operation: string, run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, ArchiveError> =>
      Effect.tryPromise({
        try: (signal) => run(signal),
        catch: (cause) => new ArchiveError({ operation, message: `${place}: ${messageOf(cause)}` })
      })

    /** The same of one object, which may be there no longer. */
    const askOf = <A>(
      name: string,
      operation: string,
      run: (signal: AbortSignal) => Promise<A>
    ): Effect.Effect<A, ArchiveError> =>
      Effect.tryPromise({
        try: (signal) => run(signal),
        catch: (cause) => {
          const reason = messageOf(cause)
          const isGone = isException(cause) && cause.name === "NoSuchKey"
          return new ArchiveError({
            operation,
            message: `${place}: ${reason}`,
            ...(isGone ? { object: { name, is: "gone", reason } } : {})
          })
        }
      })

    const prove = async (signal: AbortSignal): Promise<void> => {
      await page("ticks/", undefined, signal)
      if (options.readsOnly === true) return
      const proof = new TextEncoder().encode("{}\n")
      // The first put of all is the first to make it; one more shows that it is not made again.
      if (!(await put(PROOF_KEY, proof, signal)) || !(await put(PROOF_KEY, proof, signal))) {
        await get(PROOF_KEY, signal)
        return
      }
      throw new StartError({
        message: `${place}: the server ignores If-None-Match, without which an object could be overwritten`
      })
    }

    const proveInTime = async (signal: AbortSignal): Promise<void> => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await prove(signal)
        } catch (cause) {
          if (cause instanceof StartError || signal.aborted) throw cause
          if (attempt >= startAttempts || !isTransient(cause)) {
            const tried = attempt > 1 ? ` (${attempt} attempts)` : ""
            throw new StartError({ message: `${startMessage(options, cause)}${tried}` })
          }
        }
        await sleep(START_WAIT_MS * 2 ** (attempt - 1), undefined, { signal })
      }
    }

    yield* Effect.tryPromise({
      try: proveInTime,
      catch: (cause) =>
        cause instanceof StartError ? cause : new StartError({ message: startMessage(options, cause) })
    })

    return {
      putNew: (key, bytes) => ask("write", (signal) => attempts(signal, () => put(key, bytes, signal))),
      remove: (key) => ask("write", (signal) => attempts(signal, () => remove(key, signal))),
      sizeOf: (key) => ask("read", (signal) => attempts(signal, () => sizeOf(key, signal))),
      get: (key) => ask("read", (signal) => attempts(signal, () => get(key, signal))),
      list: (prefix) => ask("read", (signal) => list(prefix, signal)),
      folders: (prefix) => ask("read", (signal) => foldersIn(prefix, signal)),
      readRange: (key, from, to) =>
        askOf(key, "read", (signal) => attempts(signal, () => fetchBytes(key, [from, to], signal)))
    }
  })

/** The archive in a bucket. */
export const layer = (
  options: S3Options,
  parquet?: Partial<ParquetArchive.ParquetOptions>
): Layer.Layer<Archive, StartError> =>
  Layer.effect(
    Archive,
    Effect.flatMap(open(options), (store) => ParquetArchive.make(store, parquet))
  )
