/**
 * Decides how a Kite server behaves that the simulator plays: who is let in, what a connection gets and when, its limits,
 * and the faults that it was asked to have. On loopback only; its data are made up.
 */
import { createHash } from "node:crypto"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import type { Duplex } from "node:stream"
import { Effect, Result, type Scope } from "effect"
import { type WebSocket, WebSocketServer } from "ws"
import { StartError } from "../../schema/Errors.ts"
import { fullSymbol } from "../../schema/Instrument.ts"
import { instrumentsCsv } from "../../schema/kite/instrumentsCsv.ts"
import {
  DEFAULT_KITE_MODE,
  errorText,
  KITE_ERRORS,
  type KiteErrorName,
  kiteFailure,
  kiteSuccess,
  MAX_KITE_CONNECTIONS,
  MAX_KITE_INSTRUMENTS,
  MAX_KITE_TEXT_CHARS,
  readKiteRequest,
  TOO_MANY_REQUESTS
} from "../../schema/kite/messages.ts"
import { decodeFrame, HEARTBEAT, joinPackets, type KiteMode, type KitePacket } from "../../schema/kite/packets.ts"
import { guard, guardRules } from "../guard.ts"
import { MAX_HEAD_BYTES } from "../headLimit.ts"
import { type Fault, readFault } from "./faults.ts"
import type { KiteBoard } from "./KiteBoard.ts"
import { ltpAnswer, ohlcAnswer, quoteAnswer } from "./restAnswers.ts"

const HOST = "127.0.0.1"
/** The application and its user, whom everybody may be: there is nothing to protect. */
export const API_KEY = "simulated"
export const API_SECRET = "simulated"
const HEARTBEAT_MS = 1000
/** A connection that reads slower gets the newest of each instrument once it has read this much. */
const MOST_UNREAD_BYTES = 4 * 1024 * 1024
const MAX_BODY_BYTES = 64 * 1024
const MAX_QUOTES = 500
const MAX_PRICES = 1000
/** Lengths that no packet has, for `strange`. */
const STRANGE_LENGTHS = [4, 12, 45, 164, 200]

const BASE = "http://simulated"
const NO_TARGET = "path: expected one such as /quote, got no address"
const WRONG_TOKEN = "Incorrect `api_key` or `access_token`."

/** A frame of ticks that went out whole, and what became of it. */
export interface SettledFrame {
  /** Connections are counted from 1. */
  readonly connection: number
  /** Whether the client said that it had read it; where it did not, it may have all the same. */
  readonly isRead: boolean
  readonly packets: ReadonlyArray<KitePacket>
}

class Connection {
  readonly ws: WebSocket
  readonly socket: Socket
  readonly apiKey: string
  readonly number: number
  /** Frames that the client has not yet said it has read, oldest first, by the number of the ping behind each. */
  readonly unread: Array<{ readonly ping: number; readonly packets: ReadonlyArray<KitePacket> }> = []
  readonly modes = new Map<number, KiteMode>()
  /** Instruments that have changed since it was last sent to. */
  readonly changed = new Set<number>()
  isGone = false

  constructor(ws: WebSocket, socket: Socket, apiKey: string, number: number) {
    this.ws = ws
    this.socket = socket
    this.apiKey = apiKey
    this.number = number
  }
}

export interface KiteServerOptions {
  /** 0 picks a free one. */
  readonly port: number
  readonly heartbeatMs?: number
  /** Told of each frame of ticks that goes out whole: what a client that is connected gets. */
  readonly onSent?: (packets: ReadonlyArray<KitePacket>) => void
  /** Told of the same once it is known whether the client has read it: a ping behind each frame asks. */
  readonly onSettled?: (frame: SettledFrame) => void
  /** Told of each fault that was asked for. */
  readonly onFault?: (fault: Fault) => void
}

export interface KiteServerFigures {
  readonly connections: number
  readonly subscriptions: number
  /** Handshakes that were let in, and those that were not, by status. */
  readonly accepted: number
  readonly refused: Readonly<Record<number, number>>
  readonly frames: number
  readonly packets: number
  /** Requests of a client that were none. */
  readonly badRequests: number
}

export interface KiteServer {
  readonly port: number
  readonly accessToken: () => string
  readonly isResting: () => boolean
  /** Says that these instruments have another packet than before. */
  readonly changed: (tokens: ReadonlyArray<number>) => void
  readonly fault: (fault: Fault) => void
  readonly figures: () => KiteServerFigures
}

/** What a request asks for; undefined where that is no address, as `//` is none. */
const targetOf = ({ url = "/" }: IncomingMessage): URL | undefined =>
  /^[/\\]{2}/.test(url) || !URL.canParse(url, BASE) ? undefined : new URL(url, BASE)

/** Whether something lasts: until a moment, until it is ended, or no more. */
const until = (ms: number | undefined): number => (ms === undefined ? Number.POSITIVE_INFINITY : Date.now() + ms)

const listening = (server: Server, port: number): Effect.Effect<number, StartError> =>
  Effect.callback((resume) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      resume(
        Effect.fail(
          new StartError({ message: `--port: cannot listen on ${HOST}:${port}: ${error.code ?? error.message}` })
        )
      )
    )
    server.listen(port, HOST, () => resume(Effect.succeed((server.address() as AddressInfo).port)))
  })

/** Serves what the board shows until the scope ends. */
export const serveKite = (
  board: KiteBoard,
  options: KiteServerOptions
): Effect.Effect<KiteServer, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const connections = new Set<Connection>()
    const figures = { accepted: 0, refused: {} as Record<number, number>, frames: 0, packets: 0, badRequests: 0 }
    const byName = new Map(board.instruments.map((one) => [fullSymbol(one), one.instrument_token]))
    const rules = Result.getOrThrow(guardRules(HOST, undefined))
    const admits = guard(rules)

    let issued = 1
    let isExpired = false
    const accessToken = () => `simulated-${issued}`
    let stalledUntil = 0
    let mutedUntil = 0
    let restingUntil = 0
    let downUntil = 0
    let lateUntil = 0
    let lateBy = 0
    let cuts = 0
    let strange = 0
    let refusals = 0
    let refusalStatus = 503
    const lateMs = () => (Date.now() < lateUntil ? lateBy : 0)

    const isLetIn = (apiKey: string | null, token: string | null): boolean =>
      apiKey === API_KEY && token === accessToken() && !isExpired

    // ---- the ticker

    /** A frame of strange packets before the good ones: of unknown lengths, and of an instrument nobody asked for. */
    const withStrange = (packets: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> => {
      const odd = STRANGE_LENGTHS.map((length) => {
        const packet = new Uint8Array(2 + length).fill(7)
        new DataView(packet.buffer).setUint16(0, length)
        return packet
      })
      const foreign = new Uint8Array(10)
      new DataView(foreign.buffer).setUint16(0, 8)
      new DataView(foreign.buffer).setUint32(2, 256_265)
      return [...odd, foreign, ...packets]
    }

    const sendPackets = (connection: Connection, packets: ReadonlyArray<Uint8Array>): void => {
      if (packets.length === 0 || connection.isGone) return
      const frame = joinPackets(strange > 0 ? withStrange(packets) : packets)
      if (strange > 0) strange -= 1
      if (cuts > 0) {
        cuts -= 1
        connection.ws.send(frame.subarray(0, frame.byteLength - 3))
        return
      }
      figures.frames += 1
      figures.packets += packets.length
      connection.ws.send(frame)
      if (options.onSent === undefined && options.onSettled === undefined) return
      const told = decodeFrame(joinPackets(packets))!.packets
      options.onSent?.(told)
      if (options.onSettled === undefined) return
      connection.unread.push({ ping: figures.frames, packets: told })
      connection.ws.ping(String(figures.frames))
    }

    /** Frames up to a ping that was answered, or all that nobody will answer any more. */
    const settle = (connection: Connection, isRead: boolean, ping = Number.POSITIVE_INFINITY): void => {
      const { number, unread } = connection
      while (unread.length > 0 && unread[0]!.ping <= ping) {
        options.onSettled?.({ connection: number, isRead, packets: unread.shift()!.packets })
      }
    }

    const packetsOf = (connection: Connection, tokens: Iterable<number>): ReadonlyArray<Uint8Array> => {
      const packets: Array<Uint8Array> = []
      for (const token of tokens) {
        const mode = connection.modes.get(token)
        const bytes = mode === undefined ? undefined : board.bytes(token, mode)
        if (bytes !== undefined) packets.push(bytes)
      }
      return packets
    }

    const isSilent = () => Date.now() < stalledUntil || Date.now() < mutedUntil

    const flush = (connection: Connection): void => {
      if (connection.changed.size === 0 || isSilent() || connection.ws.bufferedAmount > MOST_UNREAD_BYTES) return
      const packets = packetsOf(connection, connection.changed)
      connection.changed.clear()
      sendPackets(connection, packets)
    }

    const changed = (tokens: ReadonlyArray<number>): void => {
      for (const connection of connections) {
        for (const token of tokens) if (connection.modes.has(token)) connection.changed.add(token)
        flush(connection)
      }
    }

    const asked = (connection: Connection, text: string): void => {
      const request = readKiteRequest(text)
      if (typeof request === "string") {
        figures.badRequests += 1
        connection.ws.send(errorText(request))
        return
      }
      const { modes } = connection
      if (request.a === "unsubscribe") {
        for (const token of request.tokens) {
          modes.delete(token)
          connection.changed.delete(token)
        }
        return
      }
      const told: Array<number> = []
      let over = 0
      for (const token of request.tokens) {
        if (!board.has(token)) continue
        const before = modes.get(token)
        if (request.a === "mode") {
          if (before === undefined) continue
          modes.set(token, request.mode)
        } else if (before === undefined) {
          if (modes.size >= MAX_KITE_INSTRUMENTS) {
            over += 1
            continue
          }
          modes.set(token, DEFAULT_KITE_MODE)
        }
        told.push(token)
      }
      if (over > 0) {
        connection.ws.send(
          errorText(`${over} instruments are over the ${MAX_KITE_INSTRUMENTS} of one connection; the others are sent`)
        )
      }
      // The last known packet at once, whatever else happens.
      for (const token of told) connection.changed.add(token)
      flush(connection)
    }

    const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_KITE_TEXT_CHARS })
    const accept = (ws: WebSocket, request: IncomingMessage, apiKey: string): void => {
      figures.accepted += 1
      const connection = new Connection(ws, request.socket, apiKey, figures.accepted)
      connections.add(connection)
      ws.on("pong", (data) => settle(connection, true, Number(String(data))))
      ws.on("message", (data, isBinary) => {
        if (!isBinary && !connection.isGone) asked(connection, String(data))
      })
      ws.on("error", () => undefined)
      ws.on("close", () => {
        connections.delete(connection)
        settle(connection, false)
      })
    }

    const refuseUpgrade = (socket: Duplex, status: number, body: string): void => {
      figures.refused[status] = (figures.refused[status] ?? 0) + 1
      socket.end(
        `HTTP/1.1 ${status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
      )
    }

    /** Why a handshake is not let in. */
    const handshakeProblem = (
      request: IncomingMessage,
      url: URL | undefined
    ): readonly [status: number, name: KiteErrorName, message: string] | undefined => {
      const foreign = refusalOf(request)
      if (foreign !== undefined) return [403, "PermissionException", foreign]
      if (url === undefined) return [KITE_ERRORS.InputException, "InputException", NO_TARGET]
      const apiKey = url.searchParams.get("api_key")
      if (refusals > 0) {
        refusals -= 1
        return [refusalStatus, "NetworkException", "the ticker is not to be had"]
      }
      if (!isLetIn(apiKey, url.searchParams.get("access_token"))) {
        return [403, "TokenException", WRONG_TOKEN]
      }
      return [...connections].filter((one) => one.apiKey === apiKey).length < MAX_KITE_CONNECTIONS
        ? undefined
        : [TOO_MANY_REQUESTS.code, TOO_MANY_REQUESTS.name, "Too many connections"]
    }

    const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
      const url = targetOf(request)
      const problem = handshakeProblem(request, url)
      if (problem === undefined) {
        sockets.handleUpgrade(request, socket, head, (ws) => accept(ws, request, url!.searchParams.get("api_key")!))
        return
      }
      const [status, name, message] = problem
      refuseUpgrade(socket, status, kiteFailure(name, message))
    }

    // ---- REST

    const refusalOf = ({ headers }: IncomingMessage): string | undefined =>
      admits({
        host: headers.host ?? "",
        origin: headers.origin ?? "",
        secFetchSite: String(headers["sec-fetch-site"] ?? ""),
        secFetchMode: String(headers["sec-fetch-mode"] ?? "")
      })?.message

    const answer = (response: ServerResponse, status: number, body: string, type = "application/json"): void => {
      setTimeout(() => {
        response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(body) }).end(body)
      }, lateMs())
    }
    const fail = (response: ServerResponse, name: KiteErrorName, message: string): void =>
      answer(response, KITE_ERRORS[name], kiteFailure(name, message))

    const quotes = (response: ServerResponse, url: URL, most: number, of: (packet: KitePacket) => unknown): void => {
      const names = url.searchParams.getAll("i")
      if (names.length > most) {
        fail(response, "InputException", `Too many tokens requested. Max permitted is ${most}.`)
        return
      }
      const data: Record<string, unknown> = {}
      for (const name of names) {
        const token = byName.get(name)
        const packet = token === undefined ? undefined : board.packet(token)
        if (packet !== undefined) data[name] = of(packet)
      }
      answer(response, 200, kiteSuccess(JSON.stringify(data)))
    }

    const newToken = (response: ServerResponse, body: string): void => {
      const form = new URLSearchParams(body)
      const requestToken = form.get("request_token") ?? ""
      const checksum = createHash("sha256").update(`${API_KEY}${requestToken}${API_SECRET}`).digest("hex")
      if (form.get("api_key") !== API_KEY || requestToken === "" || form.get("checksum") !== checksum) {
        fail(response, "TokenException", "Token is invalid or has expired.")
        return
      }
      // A new session ends the one before.
      issued += 1
      isExpired = false
      const login = new Date(Date.now() + 19_800_000).toISOString().slice(0, 19).replace("T", " ")
      answer(
        response,
        200,
        kiteSuccess(
          JSON.stringify({
            user_id: "SIM001",
            user_type: "individual",
            user_name: "Simulated",
            broker: "SIM",
            exchanges: ["SIM"],
            api_key: API_KEY,
            access_token: accessToken(),
            public_token: "",
            login_time: login
          })
        )
      )
    }

    const control = (request: IncomingMessage, response: ServerResponse, body: string): void => {
      if (request.method === "GET") {
        answer(response, 200, kiteSuccess(JSON.stringify({ ...figuresNow(), access_token: accessToken() })))
        return
      }
      if (!/^application\/json\b/.test(request.headers["content-type"] ?? "")) {
        fail(response, "InputException", "content-type: expected application/json")
        return
      }
      let value: unknown
      try {
        value = JSON.parse(body)
      } catch {
        value = undefined
      }
      const read = readFault(value)
      if (typeof read === "string") {
        fail(response, "InputException", read)
        return
      }
      play(read)
      answer(response, 200, kiteSuccess(JSON.stringify(read)))
    }

    const route = (request: IncomingMessage, response: ServerResponse, body: string): void => {
      const foreign = refusalOf(request)
      if (foreign !== undefined) {
        fail(response, "PermissionException", foreign)
        return
      }
      const url = targetOf(request)
      if (url === undefined) {
        fail(response, "InputException", NO_TARGET)
        return
      }
      const what = `${request.method} ${url.pathname}`
      if (url.pathname === "/sim/faults") {
        control(request, response, body)
        return
      }
      if (what === "POST /session/token") {
        newToken(response, body)
        return
      }
      const [, apiKey, token] = /^token ([^:]*):(.*)$/.exec(request.headers.authorization ?? "") ?? []
      if (!isLetIn(apiKey ?? null, token ?? null)) {
        fail(response, "TokenException", WRONG_TOKEN)
        return
      }
      const exchange = /^\/instruments(?:\/([A-Za-z0-9]{1,10}))?$/.exec(url.pathname)
      if (request.method === "GET" && exchange !== null) {
        const named = exchange[1]?.toUpperCase()
        const listed = board.instruments.filter((one) => named === undefined || one.exchange === named)
        const csv = instrumentsCsv(listed, (token) => board.packet(token)?.lastPrice ?? 0)
        answer(response, 200, csv, "text/csv")
        return
      }
      switch (what) {
        case "GET /quote":
          quotes(response, url, MAX_QUOTES, quoteAnswer)
          return
        case "GET /quote/ohlc":
          quotes(response, url, MAX_PRICES, ohlcAnswer)
          return
        case "GET /quote/ltp":
          quotes(response, url, MAX_PRICES, ltpAnswer)
          return
        case "GET /user/profile":
          answer(
            response,
            200,
            kiteSuccess(
              JSON.stringify({
                user_id: "SIM001",
                user_type: "individual",
                user_name: "Simulated",
                user_shortname: "Simulated",
                email: "simulated@example.com",
                broker: "SIM",
                exchanges: ["SIM"],
                products: [],
                order_types: []
              })
            )
          )
          return
        default:
          fail(response, "GeneralException", "Route not found")
      }
    }

    // ---- faults

    const breakAll = (): void => {
      for (const { socket } of connections) {
        // The first bytes of a frame that never comes.
        socket.write(Uint8Array.of(0x82, 0x7e, 0x10))
        socket.resetAndDestroy()
      }
    }

    const play = (fault: Fault): void => {
      options.onFault?.(fault)
      switch (fault.fault) {
        case "stall":
          stalledUntil = until(fault.ms)
          break
        case "mute":
          mutedUntil = until(fault.ms)
          break
        case "rest":
          restingUntil = until(fault.ms)
          break
        case "late":
          lateUntil = until(fault.ms)
          lateBy = fault.by
          break
        case "cut":
          cuts += fault.frames ?? 1
          break
        case "strange":
          strange += fault.frames ?? 1
          break
        case "refuse":
          refusals = fault.handshakes ?? 1
          refusalStatus = fault.status
          break
        case "half-open":
          for (const connection of connections) {
            connection.isGone = true
            connection.socket.pause()
            // It no longer counts for its key: the server has forgotten it.
            connections.delete(connection)
            settle(connection, false)
          }
          break
        case "reset":
          breakAll()
          break
        case "down":
          downUntil = until(fault.ms)
          breakAll()
          break
        case "close":
          for (const { ws } of connections) ws.close(fault.code, fault.reason ?? "")
          break
        case "error":
          for (const { ws } of connections) ws.send(errorText(fault.message))
          break
        case "expire":
          isExpired = true
          for (const { ws } of connections) ws.close(1000, "session ended")
          break
        case "lapse":
          isExpired = true
          break
        case "none":
          stalledUntil = 0
          mutedUntil = 0
          restingUntil = 0
          lateUntil = 0
          cuts = 0
          strange = 0
          refusals = 0
          for (const connection of connections) flush(connection)
      }
    }

    const figuresNow = (): KiteServerFigures => ({
      ...figures,
      connections: connections.size,
      subscriptions: [...connections].reduce((sum, { modes }) => sum + modes.size, 0)
    })

    const server = createServer({ maxHeaderSize: MAX_HEAD_BYTES }, (request, response) => {
      const parts: Array<Uint8Array> = []
      let bytes = 0
      request.on("data", (part: Uint8Array) => {
        bytes += part.byteLength
        if (bytes <= MAX_BODY_BYTES) parts.push(part)
      })
      request.on("end", () => {
        if (bytes <= MAX_BODY_BYTES) route(request, response, Buffer.concat(parts).toString("utf8"))
        else fail(response, "InputException", `body: expected at most ${MAX_BODY_BYTES} bytes, got ${bytes}`)
      })
      request.on("error", () => undefined)
    })
    server.on("upgrade", (request: IncomingMessage, socket, head) => {
      socket.on("error", () => undefined)
      setTimeout(() => upgrade(request, socket, head), lateMs())
    })
    server.on("clientError", (_error, socket) => socket.destroy())
    const port = yield* listening(server, options.port)
    const open = new Set<Socket>()
    server.on("connection", (socket) => {
      if (Date.now() < downUntil) {
        socket.resetAndDestroy()
        return
      }
      open.add(socket)
      socket.on("close", () => open.delete(socket))
    })
    const beat = setInterval(() => {
      if (Date.now() < stalledUntil) return
      for (const connection of connections) {
        connection.ws.send(HEARTBEAT)
        flush(connection)
      }
    }, options.heartbeatMs ?? HEARTBEAT_MS)
    yield* Effect.addFinalizer(() =>
      Effect.callback<void>((resume) => {
        clearInterval(beat)
        for (const connection of connections) {
          connection.ws.close(1001, "the server stops")
          settle(connection, false)
        }
        server.close(() => resume(Effect.void))
        for (const socket of open) socket.destroySoon()
      })
    )

    return {
      port,
      accessToken,
      isResting: () => Date.now() < restingUntil,
      changed,
      fault: play,
      figures: figuresNow
    }
  })
