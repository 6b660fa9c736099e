/** Decides how a request's head is read, and which heads are refused that the server underneath lets through. */
import type { HttpRequest, HttpResponse } from "uWebSockets.js"
import { showValue } from "../schema/Explain.ts"
import { addressOf, peerOf } from "./clientLog.ts"
import type { RequestOrigin } from "./guard.ts"

/** What is known of a request before its body: all of it copied, as the app's own is gone when its handler returns. */
export interface Head {
  readonly method: string
  readonly path: string
  readonly query: string
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly origin: RequestOrigin
  readonly address: string
  /** Whom its places are counted to. */
  readonly peer: string
  readonly hasBody: boolean
  /** Bytes of the body, where its length was said. */
  readonly length: number | undefined
}

/** Why a head is refused: 400, 426 for no WebSocket, or 501 for what HTTP has and this server has not. */
export interface HeadRefusal {
  readonly status: 400 | 426 | 501
  readonly parameter: string
  readonly message: string
}

/** The headers that the guard asks for, of a request to a native route. */
export const requestOrigin = (req: HttpRequest): RequestOrigin => ({
  host: req.getHeader("host"),
  origin: req.getHeader("origin"),
  secFetchSite: req.getHeader("sec-fetch-site"),
  secFetchMode: req.getHeader("sec-fetch-mode")
})

export const readHead = (res: HttpResponse, req: HttpRequest): Head => {
  const headers: Array<[string, string]> = []
  let length: number | undefined
  let hasBody = false
  req.forEach((name, value) => {
    headers.push([name, value])
    if (name === "content-length") {
      hasBody = true
      length = Number(value)
    } else if (name === "transfer-encoding") hasBody = true
  })
  const address = addressOf(res.getRemoteAddressAsText())
  return {
    method: req.getCaseSensitiveMethod(),
    path: req.getUrl(),
    query: req.getQuery() ?? "",
    headers,
    origin: requestOrigin(req),
    address,
    peer: peerOf(address),
    hasBody,
    length
  }
}

export const header = (head: Head, name: string): string => head.headers.find(([n]) => n === name)?.[1] ?? ""

/**
 * What two readers of the same bytes could take for different requests is none: a length said twice, or not as a
 * number, another transfer coding than chunked, two hosts. The server underneath takes the first of each.
 */
export const headRefusal = (head: Head): HeadRefusal | undefined => {
  let lengths = 0
  let codings = 0
  let hosts = 0
  for (const [name, value] of head.headers) {
    if (name === "content-length") {
      lengths += 1
      if (!/^\d{1,15}$/.test(value)) {
        return { status: 400, parameter: "content-length", message: "content-length: expected a number of bytes" }
      }
    } else if (name === "transfer-encoding") {
      codings += 1
      if (value.toLowerCase() !== "chunked") {
        return { status: 501, parameter: "transfer-encoding", message: "transfer-encoding: expected chunked or none" }
      }
    } else if (name === "host") hosts += 1
  }
  const [parameter, count] = lengths > 1 ? ["content-length", lengths] : ["transfer-encoding", codings]
  if (lengths > 1 || codings > 1) {
    return { status: 400, parameter, message: `${parameter}: expected once, got ${count} times` }
  }
  if (lengths > 0 && codings > 0) {
    const message = "content-length: expected without transfer-encoding, got both"
    return { status: 400, parameter: "content-length", message }
  }
  return hosts > 1 ? { status: 400, parameter: "Host", message: `Host: expected once, got ${hosts} times` } : undefined
}

/** Of these a handshake has one: of two, whoever stands in front may have looked at the other. */
const ONCE = ["sec-websocket-version", "sec-websocket-key"]

/** A handshake of a WebSocket, by RFC 6455: the library asks for a key only, and takes any version. */
export const upgradeRefusal = (head: Head): HeadRefusal | undefined => {
  for (const parameter of ONCE) {
    const count = head.headers.filter(([name]) => name === parameter).length
    if (count > 1) return { status: 400, parameter, message: `${parameter}: expected once, got ${count} times` }
  }
  const version = header(head, "sec-websocket-version")
  if (version !== "13") {
    const message = `sec-websocket-version: expected 13, got ${version === "" ? "nothing" : showValue(version)}`
    return { status: 426, parameter: "sec-websocket-version", message }
  }
  const tokens = (name: string) =>
    header(head, name)
      .toLowerCase()
      .split(",")
      .map((token) => token.trim())
  if (!tokens("upgrade").includes("websocket") || !tokens("connection").includes("upgrade")) {
    const message = "upgrade: expected Upgrade: websocket and Connection: Upgrade"
    return { status: 426, parameter: "upgrade", message }
  }
  // 16 bytes in base64.
  return /^[A-Za-z0-9+/]{22}==$/.test(header(head, "sec-websocket-key"))
    ? undefined
    : { status: 400, parameter: "sec-websocket-key", message: "sec-websocket-key: expected 16 bytes in base64" }
}
