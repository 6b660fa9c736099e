/** Decides how a test gets an S3 bucket that holds nothing, and looks into it past the archive. */
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client
} from "@aws-sdk/client-s3"
import { Effect, Redacted, type Scope } from "effect"
import type { S3Options } from "../../src/layers/archive/S3.ts"
import type { S3Access } from "./services.ts"

export const optionsFor = ({ endpoint, bucket, region, accessKeyId, secretAccessKey }: S3Access): S3Options => ({
  endpoint,
  bucket,
  region,
  credentials: { accessKeyId, secretAccessKey: Redacted.make(secretAccessKey) }
})

/** A plain client, which knows nothing of the archive. */
export const clientFor = (access: S3Access): S3Client =>
  new S3Client({
    endpoint: access.endpoint,
    region: access.region,
    forcePathStyle: true,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    credentials: { accessKeyId: access.accessKeyId, secretAccessKey: access.secretAccessKey }
  })

export const keysIn = async (access: S3Access, client = clientFor(access)): Promise<ReadonlyArray<string>> => {
  const keys: Array<string> = []
  let ContinuationToken: string | undefined
  do {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: access.bucket, ...(ContinuationToken ? { ContinuationToken } : {}) })
    )
    for (const { Key } of page.Contents ?? []) keys.push(Key!)
    ContinuationToken = page.NextContinuationToken
  } while (ContinuationToken !== undefined)
  return keys.sort()
}

export const objectIn = async (access: S3Access, key: string): Promise<Uint8Array> => {
  const { Body } = await clientFor(access).send(new GetObjectCommand({ Bucket: access.bucket, Key: key }))
  return await Body!.transformToByteArray()
}

export const putInto = async (access: S3Access, key: string, body: string | Uint8Array): Promise<void> => {
  await clientFor(access).send(new PutObjectCommand({ Bucket: access.bucket, Key: key, Body: body }))
}

/** Empties the bucket; what a test leaves in it the next one finds gone. */
export const emptyBucket = (access: S3Access): Effect.Effect<S3Options, never, Scope.Scope> =>
  Effect.promise(async () => {
    const client = clientFor(access)
    const keys = await keysIn(access, client)
    for (let i = 0; i < keys.length; i += 1000) {
      const Objects = keys.slice(i, i + 1000).map((Key) => ({ Key }))
      await client.send(new DeleteObjectsCommand({ Bucket: access.bucket, Delete: { Objects } }))
    }
    client.destroy()
    return optionsFor(access)
  })
