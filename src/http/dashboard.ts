/** Decides how the dashboard's page is served: the files of its folder, known at start, under a strict policy. */
import { readdirSync, readFileSync } from "node:fs"
import { extname } from "node:path"
import { HttpServerResponse } from "effect/http"

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2"
}

/** Scripts and styles from its own files only, requests to its own server only, in no one's frame. */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join("; ")

export interface DashboardFile {
  readonly path: `/${string}`
  readonly response: HttpServerResponse.HttpServerResponse
}

/** Beside this module, in the sources and in the built package alike. */
const FOLDER = new URL("./dashboard/", import.meta.url)

/** Every file of the folder that a page may have: `index.html` at `/`, the others by their name. */
export const dashboardFiles = (folder: URL = FOLDER): ReadonlyArray<DashboardFile> => {
  const files: Array<DashboardFile> = []
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const type = TYPES[extname(entry.name)]
    if (!entry.isFile() || type === undefined) continue
    files.push({
      path: entry.name === "index.html" ? "/" : `/${entry.name}`,
      response: HttpServerResponse.uint8Array(readFileSync(new URL(entry.name, folder)), {
        contentType: type,
        headers: {
          "cache-control": "no-cache",
          "content-security-policy": CONTENT_SECURITY_POLICY,
          "referrer-policy": "no-referrer"
        }
      })
    })
  }
  return files
}
