/**
 * Decides the life of one connection to Kite's ticker: what it asks for, when it is taken for dead though it is up, and
 * when it is tried again, always asking for the same; and how it passes to the next access token.
 */
import { Clock, Effect, Fiber, Latch, Random } from "effect"
import type { FeedError } from "../../schema/Errors.ts"
import { describeKiteText, modeText, readKiteText, subscribeText } from "../../schema/kite/messages.ts"
import { decodeFrame, type KiteFrame, type KiteMode } from "../../schema/kite/packets.ts"
import { type Segment, segmentOfToken, sessionAt } from "../../schema/Sessions.ts"
import { type Backoff, waitOf } from "./backoff.ts"
import type { Inbox } from "./Inbox.ts"
import type { Origin } from "./KiteRecords.ts"
import type { Secrets } from "./secrets.ts"
import { openSocket, type Socket, type SocketEnd } from "./socket.ts"

/** Instruments that one message names. */
const ASKED_AT_ONCE = 1000
/** Texts of one connection that are told; the rest are counted. */
const MAX_TOLD_TEXTS = 20
/** Failures that the wait is reckoned by at least, where a server says that it is not the moment. */
const AT_LEAST: Readonly<Record<number, number>> = { 1008: 4, 1011: 2, 1012: 2, 1013: 4 }
const REFUSED_FAILURES = 5
/** The wait for data doubles up to this while nothing new comes: few instruments, seldom traded. */
const MOST_SILENCE_MS = 900_000
const CLOSING_MS = 1000
/** Tries to stand beside the connection before, where the key has no more. */
const TRIES_FOR_ROOM = 3

export interface ConnectionTimes extends Backoff {
  /** The longest that a handshake may take. */
  readonly handshakeMs: number
  /** Without a byte for so long a connection is dead: a server says every second that it is there. */
  readonly aliveMs: number
  /** Without news for so long, while an instrument trades, a connection is tried anew. */
  readonly silenceMs: number
  /** A connection that stood so long is no failure when it ends. */
  readonly stableMs: number
  /** So long the connection of the next token stands beside the one that it replaces: nothing is under way then. */
  readonly overlapMs: number
}

export const CONNECTION_TIMES: ConnectionTimes = {
  minMs: 250,
  maxMs: 10_000,
  handshakeMs: 10_000,
  aliveMs: 5_000,
  silenceMs: 60_000,
  stableMs: 10_000,
  overlapMs: 5_000
}

export interface ConnectionCounts {
  connected: number
  /** Handshakes that were refused or came to nothing. */
  failed: number
  /** Connections that ended, by why. */
  ended: Record<"closed" | "lost" | "dead" | "silent" | "broken", number>
  heartbeats: number
  frames: number
  /** Packets of lengths that no kind has; frames that do not add up; texts that are none. */
  unknownPackets: number
  brokenFrames: number
  texts: number
}

export const noConnections = (): ConnectionCounts => ({
  connected: 0,
  failed: 0,
  ended: { closed: 0, lost: 0, dead: 0, silent: 0, broken: 0 },
  heartbeats: 0,
  frames: 0,
  unknownPackets: 0,
  brokenFrames: 0,
  texts: 0
})

export interface ConnectionOptions {
  /** How it is called in lines, such as `connection 2 of 3`. */
  readonly name: string
  readonly wsRoot: string
  readonly secrets: Secrets
  readonly tokens: ReadonlyArray<number>
  readonly mode: KiteMode
  readonly times: ConnectionTimes
  readonly inbox: Inbox
  readonly counts: ConnectionCounts
  /** Takes in a frame; answers whether it said anything new. */
  readonly onFrame: (frame: KiteFrame, receivedTs: number, origin: Origin) => boolean
  readonly onSay: (level: "info" | "warn", text: string) => void
  /** Told when it is up and has asked for its instruments, and when it is no more. */
  readonly onUp: (isUp: boolean) => void
}

type End =
  | SocketEnd
  | { readonly kind: "dead" | "silent"; readonly forMs: number }
  | { readonly kind: "broken"; readonly reason: string }

interface Lived {
  readonly end: End
  readonly wasUp: boolean
  readonly forMs: number
  readonly hadNews: boolean
}

const CODES: Readonly<Record<number, string>> = {
  1000: "it is done",
  1001: "it goes away",
  1002: "it did not understand",
  1003: "it did not take what was sent",
  1005: "without a reason",
  1006: "the connection is lost",
  1008: "it does not allow this",
  1009: "a message was too large",
  1011: "it failed",
  1012: "it starts again",
  1013: "it is overloaded"
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

const describe = (end: End, hide: (text: string) => string): string => {
  switch (end.kind) {
    case "refused": {
      const what =
        end.status === 429 ? "too many connections of this key, which may have 3" : "the connection was refused"
      return `${what} (${end.status}${end.reason === "" ? "" : `: ${hide(end.reason)}`})`
    }
    case "failed":
      return hide(end.reason)
    case "closed":
      return `Kite closed it: ${CODES[end.code] ?? "for a reason of its own"} (${end.code}${end.reason === "" ? "" : `: ${hide(end.reason)}`})`
    case "dead":
      return `nothing came for ${seconds(end.forMs)}, not even a sign of life`
    case "silent":
      return `nothing new came for ${seconds(end.forMs)}, though instruments trade`
    case "broken":
      return `a frame does not add up: ${end.reason}`
  }
}

/** Whether a segment has traded for so long without a break. */
const tradesFor = (segment: Segment, nowMs: number, ms: number): boolean => {
  if (segment === "SIM") return true
  const session = sessionAt(segment, nowMs * 1000)
  return session?.phase === "CONTINUOUS" && session.from <= (nowMs - ms) * 1000
}

/** One connection from its handshake to its end. */
const live = (
  options: ConnectionOptions,
  url: string,
  segments: ReadonlyArray<Segment>,
  silenceMs: number,
  origin: Origin
): Effect.Effect<Lived> =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.callback<Lived>((resume) => {
      const { counts, inbox, mode, onFrame, onSay, onUp, secrets, times, tokens } = options
      const now = () => clock.currentTimeMillisUnsafe()
      const begunAt = now()
      let upAt = 0
      let aliveAt = begunAt
      let newsAt = begunAt
      let hadNews = false
      let isOver = false
      let toldTexts = 0
      let leave: () => void = () => undefined
      let watch: NodeJS.Timeout | undefined

      const finish = (end: End) => {
        if (isOver) return
        isOver = true
        clearInterval(watch)
        leave()
        if (upAt > 0) onUp(false)
        resume(Effect.succeed({ end, wasUp: upAt > 0, forMs: now() - (upAt > 0 ? upAt : begunAt), hadNews }))
      }
      const giveUp = (end: End) => {
        finish(end)
        socket.drop()
      }
      const text = (line: string) => {
        counts.texts += 1
        const read = readKiteText(line, secrets.conceal)
        if (toldTexts >= MAX_TOLD_TEXTS) return
        const told = typeof read === "string" ? read : describeKiteText(read, secrets.conceal)
        // Orders are the account's own affair.
        if (typeof read !== "string" && read.type !== "error" && read.type !== "message") return
        toldTexts += 1
        onSay(
          typeof read !== "string" && read.type === "message" ? "info" : "warn",
          `${options.name}: Kite says ${secrets.hide(told)}`
        )
      }

      const socket: Socket = openSocket(url, times.handshakeMs, {
        onOpen: () => {
          if (isOver) return
          const at = now()
          upAt = at
          aliveAt = at
          newsAt = at
          counts.connected += 1
          leave = inbox.join({
            pause: () => socket.pause(),
            resume: () => {
              // What it was silent for was our doing.
              aliveAt = now()
              newsAt = aliveAt
              socket.resume()
            }
          })
          for (let from = 0; from < tokens.length; from += ASKED_AT_ONCE) {
            const some = tokens.slice(from, from + ASKED_AT_ONCE)
            socket.send(subscribeText(some))
            socket.send(modeText(mode, some))
          }
          onUp(true)
        },
        onFrame: (bytes) => {
          if (isOver) return
          aliveAt = now()
          const frame = decodeFrame(bytes)
          if (frame === undefined) {
            counts.heartbeats += 1
            return
          }
          counts.frames += 1
          const broken = frame.skipped.find(({ reason }) => reason === "broken")
          if (broken !== undefined) {
            // What it said is not to be had but by asking anew: the server then sends the newest of each instrument.
            counts.brokenFrames += 1
            giveUp({ kind: "broken", reason: broken.message })
            return
          }
          counts.unknownPackets += frame.skipped.length
          if (onFrame(frame, aliveAt * 1000, origin)) {
            hadNews = true
            newsAt = aliveAt
          }
        },
        onText: (line) => {
          if (isOver) return
          aliveAt = now()
          text(line)
        },
        onEnd: finish
      })

      watch = setInterval(
        () => {
          const at = now()
          if (upAt === 0) {
            // A server may answer byte by byte and never be done.
            if (at - begunAt >= 2 * times.handshakeMs) giveUp({ kind: "failed", reason: "the handshake took too long" })
          } else if (!inbox.isPaused) {
            if (at - aliveAt >= times.aliveMs) giveUp({ kind: "dead", forMs: at - aliveAt })
            else if (at - newsAt >= silenceMs && segments.some((segment) => tradesFor(segment, at, silenceMs))) {
              giveUp({ kind: "silent", forMs: at - newsAt })
            }
          }
        },
        Math.max(10, Math.min(1000, times.aliveMs / 4, silenceMs / 4))
      )

      return Effect.sync(() => {
        isOver = true
        clearInterval(watch)
        leave()
        if (upAt > 0) onUp(false)
        socket.close()
        setTimeout(() => socket.drop(), CLOSING_MS).unref()
      })
    })
  )

const countEnd = (counts: ConnectionCounts, { end, wasUp }: Lived): void => {
  if (!wasUp) counts.failed += 1
  else if (end.kind === "failed" || end.kind === "refused" || (end.kind === "closed" && end.code === 1006)) {
    counts.ended.lost += 1
  } else counts.ended[end.kind] += 1
}

const urlOf = (root: string, apiKey: string, token: string): string => {
  const url = new URL(root)
  url.searchParams.set("api_key", apiKey)
  url.searchParams.set("access_token", token)
  return url.href
}

/** Connects, and connects again, for as long as Kite lets it in; fails where it does not and nothing will change that. */
export const keepConnected = (options: ConnectionOptions): Effect.Effect<never, FeedError> =>
  Effect.gen(function* () {
    const { counts, name, onSay, secrets, times, tokens, wsRoot } = options
    const random = yield* Random.Random
    const segments = [...new Set(tokens.map(segmentOfToken))]
    let failures = 0
    let silenceMs = times.silenceMs
    let told: string | undefined
    let awaySince: number | undefined
    const clock = yield* Clock.Clock
    const now = () => clock.currentTimeMillisUnsafe()
    const onUp = (isUp: boolean) => {
      options.onUp(isUp)
      if (!isUp || awaySince === undefined) return
      onSay("info", `${name} is back after ${seconds(now() - awaySince)}`)
      awaySince = undefined
      told = undefined
    }
    let number = 0
    const nextOrigin = (isBeside: boolean): Origin => {
      number += 1
      return { number, isBeside }
    }
    const life = (token: string, origin: Origin, tell: (isUp: boolean) => void) =>
      live({ ...options, onUp: tell }, urlOf(wsRoot, secrets.apiKey, token), segments, silenceMs, origin)

    /**
     * Lives on a token, and on the next as soon as there is one: the connection that it opens stands beside the one
     * before it for a while, so that nothing falls between them. Answers how the last ended, or nothing where it was let
     * go for want of room.
     */
    const liveOn = (first: string) =>
      Effect.gen(function* () {
        let token = first
        let tries = 0
        let origin = nextOrigin(false)
        let standing = yield* Effect.forkScoped(life(token, origin, onUp))
        for (;;) {
          const next = yield* Effect.raceFirst(Fiber.join(standing), secrets.another(token))
          if (typeof next !== "string") return { token, lived: next }
          const isUp = Latch.makeUnsafe(false)
          const beside = nextOrigin(true)
          const newer = yield* Effect.forkScoped(
            life(next, beside, (is) => {
              if (is) isUp.openUnsafe()
              onUp(is)
            })
          )
          const stands = Effect.as(Effect.andThen(isUp.await, Effect.sleep(times.overlapMs)), undefined)
          const failed = yield* Effect.raceFirst(Fiber.join(newer), stands)
          if (failed === undefined) {
            yield* Fiber.interrupt(standing)
            onSay("info", `${name} goes on with the new access token`)
            standing = newer
            origin = beside
            token = next
            tries = 0
            continue
          }
          countEnd(counts, failed)
          origin.number = nextOrigin(false).number
          const status = failed.end.kind === "refused" ? failed.end.status : undefined
          if (status === 403) {
            yield* secrets.refuse(next)
            continue
          }
          tries += 1
          if (status === 429 && tries >= TRIES_FOR_ROOM) return undefined
          // Another that passes to its next token has two for so long.
          const waitMs =
            status === 429
              ? times.overlapMs * (1 + random.nextDoubleUnsafe())
              : waitOf(tries, times, () => random.nextDoubleUnsafe())
          // Nobody waits once what stood has ended.
          yield* Effect.raceFirst(Fiber.await(standing), Effect.sleep(waitMs))
        }
      }).pipe(Effect.scoped)

    for (;;) {
      const lasted = yield* liveOn(yield* secrets.token)
      awaySince ??= now()
      if (lasted === undefined) continue
      const { lived, token } = lasted
      const { end, forMs, hadNews, wasUp } = lived
      countEnd(counts, lived)
      if (end.kind === "silent") silenceMs = Math.min(MOST_SILENCE_MS, hadNews ? times.silenceMs : 2 * silenceMs)
      else if (hadNews) silenceMs = times.silenceMs
      failures = wasUp && forMs >= times.stableMs ? 1 : failures + 1
      if (end.kind === "refused" && end.status === 403) {
        yield* secrets.refuse(token)
        continue
      }
      if (end.kind === "refused" && end.status < 500) failures = Math.max(failures, REFUSED_FAILURES)
      if (end.kind === "closed") failures = Math.max(failures, AT_LEAST[end.code] ?? 1)
      const waitMs = waitOf(failures, times, () => random.nextDoubleUnsafe())
      const why = describe(end, secrets.hide)
      if (why !== told) onSay("warn", `${name}: ${why}; again in ${seconds(waitMs)}`)
      told = why
      yield* Effect.sleep(waitMs)
    }
  })
