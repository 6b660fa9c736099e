/**
 * Decides how long a feed of Kite's ticker is without ticks, by what befell it: from the fault, or from the end of one that
 * lasts, until it has read the first frame of ticks again. A real process on a server that is played here.
 */
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Exit, Scope } from "effect"
import type { Fault } from "../../src/http/kiteSim/faults.ts"
import { KiteBoard } from "../../src/http/kiteSim/KiteBoard.ts"
import { API_KEY, type KiteServer, serveKite } from "../../src/http/kiteSim/KiteServer.ts"
import { CONNECTION_TIMES } from "../../src/layers/kite/connection.ts"
import { defaultSimulation } from "../../src/schema/Simulation.ts"
import { Mdp } from "../support/processes.ts"
import type { SoakOptions } from "./ground.ts"
import { seconds as inSeconds, type Report } from "./report.ts"

const SYMBOLS = 3000
const ROUNDS = 3
const BEAT_MS = 10
const LOOK_MS = 5
/** A connection that stood so long begins with the shortest wait. */
const CALM_MS = CONNECTION_TIMES.stableMs + 500
/** What the handshake, all instruments and a full machine take besides what is waited. */
const BESIDES_MS = 2000

interface Befalls {
  readonly name: string
  /** Plays it; done once what lasts is over. Answers from when on the feed could be back, ms. */
  readonly play: () => Promise<number>
  /** It is back at the latest so long after. */
  readonly withinMs: number
  readonly rounds?: number
}

export const kite = async ({ rate, seconds }: SoakOptions, report: Report): Promise<void> => {
  process.stdout.write(`kite: ${SYMBOLS} instruments, ${rate} ticks/s, ${ROUNDS} times each\n`)
  const folder = mkdtempSync(join(tmpdir(), "mdp-kite-"))
  const file = join(folder, "token")
  const sink = createServer((request, response) => {
    let lines = 0
    request.on("data", (part: Buffer) => {
      for (const byte of part) if (byte === 10) lines += 1
    })
    request.on("end", () => response.end(JSON.stringify({ accepted: lines, rejected: [] })))
  })
  await new Promise<void>((resolve) => sink.listen(0, "127.0.0.1", resolve))
  const scope = await Effect.runPromise(Scope.make())
  const board = new KiteBoard({ ...defaultSimulation, symbols: SYMBOLS, rate })
  /** When the feed had read the last frame, and the connection that it came on. */
  let readAt = 0
  let readOn = 0
  /** When the first on that connection was. */
  let firstAt = 0
  const server: KiteServer = await Effect.runPromise(
    serveKite(board, {
      port: 0,
      onSettled: ({ connection, isRead }) => {
        if (!isRead || connection < readOn) return
        if (connection > readOn) firstAt = performance.now()
        readOn = connection
        readAt = performance.now()
      }
    }).pipe(Effect.provideService(Scope.Scope, scope))
  )
  const begunAt = Date.now()
  const beat = setInterval(() => {
    const until = (Date.now() - begunAt) * 1000
    do server.changed(board.advance(until, begunAt * 1000, 4000))
    while (board.time < until)
  }, BEAT_MS)
  writeFileSync(file, server.accessToken())
  const place = `127.0.0.1:${server.port}`
  const to = ["--url", `http://127.0.0.1:${(sink.address() as AddressInfo).port}`]
  const tokens = board.instruments.map(({ instrument_token }) => instrument_token)
  writeFileSync(join(folder, "list"), tokens.join("\n"))
  const feed = new Mdp(
    ["feed", "kite", "--file", join(folder, "list"), "--root", `http://${place}`, "--ws-root", `ws://${place}`, ...to],
    { KITE_API_KEY: API_KEY, KITE_ACCESS_TOKEN_FILE: file }
  )
  const until = async (holds: () => boolean) => {
    while (!holds()) {
      if (feed.isOver) throw new Error(`the feed ended with ${feed.code}: ${feed.stderr}`)
      await sleep(LOOK_MS)
    }
  }
  const isUp = () => server.figures().connections === 1 && server.figures().subscriptions === SYMBOLS
  const play = (...faults: ReadonlyArray<Fault>) => {
    const at = performance.now()
    for (const fault of faults) server.fault(fault)
    return at
  }
  const once =
    (...faults: ReadonlyArray<Fault>) =>
    async () =>
      play(...faults)
  const renew = async () => {
    const checksum = createHash("sha256").update(`${API_KEY}r${API_KEY}`).digest("hex")
    const body = new URLSearchParams({ api_key: API_KEY, request_token: "r", checksum })
    await (await fetch(`http://${place}/session/token`, { method: "POST", body })).text()
    writeFileSync(file, server.accessToken())
    return performance.now()
  }
  /** A fault that lasts until the feed gives the connection up. */
  const given = (fault: Fault) => async () => {
    const at = play(fault)
    await until(() => server.figures().connections === 0)
    server.fault({ fault: "none" })
    return at
  }
  const { aliveMs, maxMs, silenceMs } = CONNECTION_TIMES
  const FIRST = 250 + BESIDES_MS
  const all: ReadonlyArray<Befalls> = [
    { name: "reset within a frame", play: once({ fault: "reset" }), withinMs: FIRST },
    { name: "frame cut", play: once({ fault: "cut" }), withinMs: FIRST },
    { name: "closed 1000", play: once({ fault: "close", code: 1000 }), withinMs: FIRST },
    { name: "closed 1012", play: once({ fault: "close", code: 1012 }), withinMs: 500 + BESIDES_MS },
    { name: "closed 1013", play: once({ fault: "close", code: 1013 }), withinMs: 2000 + BESIDES_MS },
    {
      name: `down ${seconds} s, from its return`,
      play: async () => {
        const at = play({ fault: "down", ms: seconds * 1000 })
        await sleep(seconds * 1000)
        return at + seconds * 1000
      },
      withinMs: maxMs + BESIDES_MS
    },
    {
      name: "answers 1 s late",
      play: once({ fault: "late", by: 1000, ms: 3000 }, { fault: "reset" }),
      withinMs: 1000 + FIRST
    },
    {
      name: "refused three times",
      play: once({ fault: "refuse", status: 503, handshakes: 3 }, { fault: "reset" }),
      withinMs: 250 + 500 + 1000 + 2000 + BESIDES_MS
    },
    { name: "half open", play: once({ fault: "half-open" }), withinMs: aliveMs + 1000 + FIRST },
    { name: "stalled", play: given({ fault: "stall" }), withinMs: aliveMs + 1000 + FIRST },
    {
      name: "token ended, from the next",
      play: async () => {
        play({ fault: "expire" })
        await until(() => server.figures().connections === 0)
        await sleep(2000)
        return renew()
      },
      withinMs: 1000 + BESIDES_MS
    },
    { name: "signs of life alone", play: given({ fault: "mute" }), withinMs: silenceMs + 1000 + FIRST, rounds: 1 }
  ]
  try {
    await until(() => isUp() && readAt > 0)
    const rows: Array<ReadonlyArray<string>> = [["", "least", "most"]]
    for (const { name, play: befall, rounds = ROUNDS, withinMs } of all) {
      const took: Array<number> = []
      for (let round = 0; round < rounds; round++) {
        await sleep(CALM_MS)
        const before = readOn
        const from = await befall()
        await until(() => readOn > before)
        took.push(Math.max(0, firstAt - from))
        await until(isUp)
      }
      rows.push([name, inSeconds(Math.min(...took)), inSeconds(Math.max(...took))])
      report.check(
        `${name}: ticks again within ${inSeconds(withinMs)}`,
        Math.max(...took) <= withinMs,
        took.map(inSeconds).join(", ")
      )
    }
    // The next token while the connection stands: the longest time between two frames, old or new.
    await sleep(CALM_MS)
    let longest = 0
    let last = readAt
    const looking = setInterval(() => {
      if (readAt === last) return
      longest = Math.max(longest, readAt - last)
      last = readAt
    }, 1)
    const { accepted } = server.figures()
    await renew()
    await until(() => server.figures().accepted > accepted && server.figures().connections === 1)
    clearInterval(looking)
    rows.push(["next token, connection up: between frames", "", inSeconds(longest)])
    report.check("the next token, connection up: no time without ticks", longest < 1000, inSeconds(longest))
    report.table(rows)
    feed.kill("SIGTERM")
    while (!feed.isOver) await sleep(LOOK_MS)
    report.check("the feed ended in order", feed.code === 0, `exit ${feed.code}`)
    process.stdout.write(feed.stdout.replaceAll(/^/gm, "    "))
  } finally {
    feed.kill("SIGKILL")
    clearInterval(beat)
    await Effect.runPromise(Scope.close(scope, Exit.void))
    sink.closeAllConnections()
    sink.close()
    rmSync(folder, { recursive: true, force: true })
  }
}
