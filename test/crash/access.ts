/** Decides how an S3 server's settings name a bucket to look into. */
import type { S3Access } from "../support/services.ts"

export const s3Access = (settings: Readonly<Record<string, string>>): S3Access => ({
  endpoint: settings.S3_ENDPOINT!,
  bucket: settings.S3_BUCKET!,
  region: settings.S3_REGION!,
  accessKeyId: settings.AWS_ACCESS_KEY_ID!,
  secretAccessKey: settings.AWS_SECRET_ACCESS_KEY!
})
