/** Decides how a test gets certificates for TLS: an authority of its own, made by openssl, good for a day or two. */
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs"
import { join } from "node:path"

/** Where services are required, so is openssl. */
export const hasOpenssl = spawnSync("openssl", ["version"]).status === 0
if (!hasOpenssl && process.env.SERVICES === "required") {
  throw new Error("SERVICES=required, but openssl is not installed")
}

/** Paths of PEM files. */
export interface Certificate {
  readonly key: string
  readonly certificate: string
}

export interface Authority extends Certificate {
  readonly folder: string
}

const openssl = (...args: ReadonlyArray<string>): void => {
  const { status, stderr } = spawnSync("openssl", args, { encoding: "utf8" })
  if (status !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`)
}

const NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split(" ")

/** An authority in a new folder below `folder`. */
export const makeAuthority = (folder: string): Authority => {
  mkdirSync(folder, { recursive: true })
  const mine = mkdtempSync(join(folder, "authority-"))
  const [key, certificate] = [join(mine, "ca-key.pem"), join(mine, "ca.pem")]
  const words = ["-x509", ...NEW_KEY, "-days", "2", "-subj", "/CN=test authority"]
  openssl("req", ...words, "-keyout", key, "-out", certificate)
  return { folder: mine, key, certificate }
}

export interface CertificateOptions {
  /** The curve of its key, as openssl names it. */
  readonly curve?: string
  /** From when until when it is good, `YYYYMMDDhhmmssZ`; two days from now on unless given. */
  readonly life?: readonly [from: string, until: string]
}

/** A certificate for `name`, as a server on 127.0.0.1 and as a client. */
export const makeCertificate = (
  authority: Authority,
  name: string,
  { curve = "prime256v1", life }: CertificateOptions = {}
): Certificate => {
  const [key, request, certificate, extensions] = ["key.pem", "csr", "crt.pem", "ext"].map((end) =>
    join(authority.folder, `${name}-${end}`)
  ) as [string, string, string, string]
  const newKey = ["-newkey", "ec", "-pkeyopt", `ec_paramgen_curve:${curve}`, "-nodes"]
  openssl("req", "-new", ...newKey, "-subj", `/CN=${name}`, "-keyout", key, "-out", request)
  writeFileSync(extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
  if (life === undefined) {
    const signing = ["-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", request, ...signing, "-extfile", extensions, "-out", certificate)
    return { key, certificate }
  }
  // The only one of its commands that takes dates; it wants a register of what it signed.
  const register = mkdtempSync(join(authority.folder, "register-"))
  const [config, index] = [join(register, "config"), join(register, "index")]
  writeFileSync(index, "")
  writeFileSync(
    config,
    `[ca]\ndefault_ca=it\n[it]\ndatabase=${index}\nnew_certs_dir=${register}\nrand_serial=yes\ndefault_md=sha256\n` +
      "policy=any\n[any]\ncommonName=supplied\n"
  )
  const signing = [
    "-cert",
    authority.certificate,
    "-keyfile",
    authority.key,
    "-startdate",
    life[0],
    "-enddate",
    life[1]
  ]
  const files = ["-in", request, "-extfile", extensions, "-out", certificate, "-notext"]
  openssl("ca", "-batch", "-config", config, ...signing, ...files)
  return { key, certificate }
}
