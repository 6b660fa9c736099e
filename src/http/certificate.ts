/**
 * Decides which files may be the server's certificate and key: readable PEM, that belong together and that the library
 * can use; and what is said of a certificate that has expired, or soon will have.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto"
import { readFile, stat } from "node:fs/promises"
import { Effect, Result } from "effect"
import { SettingError } from "../schema/Errors.ts"
import { showText } from "../schema/Explain.ts"
import type { Settings } from "../schema/Settings.ts"

export type TlsSettings = Pick<Settings, "TLS_CERT_FILE" | "TLS_KEY_FILE">

/** Paths of PEM files. */
export interface TlsFiles {
  readonly certificate: string
  readonly key: string
}

/** What the files held when they were read. */
export interface Pair {
  readonly certificate: Buffer
  readonly key: Buffer
}

/** What is known of a certificate: whose it is, and from when until when it is good, in epoch milliseconds. */
export interface Certificate {
  readonly name: string
  readonly from: number
  readonly until: number
}

/** A chain of certificates and a key take a few KiB. */
const MAX_FILE_BYTES = 1024 * 1024
/** A certificate is said to expire soon in the last tenth of its life, in the last week at most. */
const SOON_SHARE = 0.1
const SOON_MS = 7 * 86_400_000
const BLOCK = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[^-]*-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g
const ENCRYPTED = /-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m

const refusal = (setting: keyof TlsSettings, message: string): SettingError =>
  new SettingError({ setting, message: `${setting}: ${message}` })

/** The files that the settings name; `undefined` where there is to be no TLS. */
export const tlsFiles = (settings: TlsSettings): Result.Result<TlsFiles | undefined, SettingError> => {
  const { TLS_CERT_FILE: certificate, TLS_KEY_FILE: key } = settings
  if (certificate === undefined && key === undefined) return Result.succeed(undefined)
  if (certificate === undefined) return Result.fail(refusal("TLS_CERT_FILE", "required with TLS_KEY_FILE"))
  if (key === undefined) return Result.fail(refusal("TLS_KEY_FILE", "required with TLS_CERT_FILE"))
  return Result.succeed({ certificate, key })
}

const read = (setting: keyof TlsSettings, path: string): Effect.Effect<Buffer, SettingError> =>
  Effect.tryPromise({
    try: async () => {
      const found = await stat(path)
      // What can be read only once, as a pipe, the library could not read after this.
      if (!found.isFile()) throw refusal(setting, `expected a file, and ${path} is none`)
      if (found.size > MAX_FILE_BYTES) throw refusal(setting, `expected PEM, and ${path} has ${found.size} bytes`)
      return await readFile(path)
    },
    catch: (cause) =>
      cause instanceof SettingError
        ? cause
        : refusal(setting, `cannot read ${path} (${(cause as NodeJS.ErrnoException).code})`)
  })

/** What the files hold just now. */
export const readPair = (files: TlsFiles): Effect.Effect<Pair, SettingError> =>
  Effect.all({ certificate: read("TLS_CERT_FILE", files.certificate), key: read("TLS_KEY_FILE", files.key) })

export const isSamePair = (a: Pair, b: Pair): boolean => a.certificate.equals(b.certificate) && a.key.equals(b.key)

/** What a certificate is called in a line: its subject's name, else the first that it is good for. */
const nameOf = ({ subject, subjectAltName }: X509Certificate): string => {
  const name = /^CN=(.*)$/m.exec(subject ?? "")?.[1] ?? subjectAltName?.split(", ")[0]?.replace(/^[^:]*:/, "")
  return showText(name ?? "of no name")
}

/** What the certificate is, or why it cannot be shown with the key. */
export const checkPair = (files: TlsFiles, pair: Pair): Result.Result<Certificate, SettingError> => {
  const blocks = pair.certificate.toString("latin1").match(BLOCK) ?? []
  if (blocks.length === 0) {
    const message = `expected a PEM certificate, those that signed it after it, and ${files.certificate} has none`
    return Result.fail(refusal("TLS_CERT_FILE", message))
  }
  const chain: Array<X509Certificate> = []
  for (const [i, block] of blocks.entries()) {
    try {
      chain.push(new X509Certificate(block))
    } catch {
      return Result.fail(refusal("TLS_CERT_FILE", `certificate ${i + 1} in ${files.certificate} cannot be read`))
    }
  }
  const own = chain[0]!
  if (ENCRYPTED.test(pair.key.toString("latin1"))) {
    const message = `the key in ${files.key} is encrypted: expected one without a passphrase`
    return Result.fail(refusal("TLS_KEY_FILE", message))
  }
  let key: KeyObject
  try {
    key = createPrivateKey(pair.key)
  } catch {
    return Result.fail(
      refusal("TLS_KEY_FILE", `expected a PEM private key, and ${files.key} has none that can be read`)
    )
  }
  if (!own.checkPrivateKey(key)) {
    const message = `the key in ${files.key} is not that of the certificate in ${files.certificate} (${nameOf(own)})`
    return Result.fail(refusal("TLS_KEY_FILE", message))
  }
  return Result.succeed({
    name: nameOf(own),
    from: own.validFromDate.getTime(),
    until: own.validToDate.getTime()
  })
}

/** What to say of the certificate's time; `undefined` where there is nothing to say. `now` in epoch milliseconds. */
export const ageOf = (
  { from, until }: Certificate,
  now: number
): "not yet valid" | "expires soon" | "expired" | undefined => {
  if (now < from) return "not yet valid"
  if (now >= until) return "expired"
  return until - now < Math.min(SOON_MS, (until - from) * SOON_SHARE) ? "expires soon" : undefined
}
