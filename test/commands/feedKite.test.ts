import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Command } from "effect/cli"
import { outcomeOf, program } from "../../src/commands/cli.ts"
import { feed } from "../../src/commands/feed.ts"
import { type RawRecord, readRawRecord } from "../../src/schema/RawTick.ts"
import { type Ended, runToEnd, type Started, startCli } from "./spawnCli.ts"

/** An instance that takes what feeds send. */
let server: Server
let url: string
let records: Array<RawRecord>
let instruments: string
/** Whether it takes nothing any more, and how often it was asked since. */
let isAway: boolean
let turnedAway: number
let folder: string
let running: Array<Started>

beforeEach(async () => {
  records = []
  instruments = ""
  isAway = false
  turnedAway = 0
  running = []
  folder = mkdtempSync(join(tmpdir(), "mdp-feed-kite-"))
  server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString()
      if (isAway) {
        turnedAway += 1
        request.socket.destroy()
        return
      }
      if (request.url === "/api/v1/instruments") {
        instruments = body
        response.end(JSON.stringify({ added: 1, changed: 0, expired: 0, rejected: [] }))
      } else if (request.url?.startsWith("/api/v1/instruments/search") === true) {
        const found = { instrument_token: 9_000_001, tradingsymbol: "RELIANCE", exchange: "SIM" }
        response.end(JSON.stringify({ instruments: [found] }))
      } else {
        const lines = body.trimEnd().split("\n")
        for (const line of lines) {
          const read = readRawRecord(JSON.parse(line))
          if (typeof read === "string") throw new Error(read)
          records.push(read)
        }
        response.end(JSON.stringify({ accepted: lines.length, rejected: [] }))
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})

afterEach(async () => {
  for (const { process } of running) process.kill("SIGKILL")
  await Promise.all(running.map(({ ended }) => ended))
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  rmSync(folder, { recursive: true })
})

const KEYS = { KITE_API_KEY: "simulated", KITE_ACCESS_TOKEN: "simulated-1", KITE_ACCESS_TOKEN_FILE: "" }

const mdp = Command.make("mdp").pipe(Command.withSubcommands([feed]))

/** How a command line ends in an environment, without a process of its own. */
const outcome = async (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) => {
  const before = { ...process.env }
  Object.assign(process.env, environment)
  try {
    return outcomeOf(await Effect.runPromise(Effect.exit(program(mdp, args, "0"))), "mdp")
  } finally {
    process.env = before
  }
}

/** A process that is gone when the test is. */
const start = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}): Started => {
  const started = startCli(args, environment)
  running.push(started)
  return started
}

/** What the ledger of a simulated Kite has of a packet. */
interface Sent {
  readonly read: boolean
  readonly mode: string
  readonly instrument_token: number
  readonly price: number
  readonly day_volume: number
}

/** A simulated Kite as a process of its own, and where it is. */
const servedKite = async (...more: ReadonlyArray<string>) => {
  const started = start(["feed", "sim", "--serve", "kite", "--port", "0", "--symbols", "30", ...more])
  let said = ""
  started.process.stdout!.on("data", (text: string) => {
    said += text
  })
  await started.says("one of stall")
  const [, port] = /REST {5}http:\/\/127\.0\.0\.1:(\d+)/.exec(said)!
  const place = `127.0.0.1:${port}`
  return { started, roots: ["--root", `http://${place}`, "--ws-root", `ws://${place}`], place, said: () => said }
}

const came = async (count: number) => {
  while (records.length < count) await new Promise((resolve) => setTimeout(resolve, 5))
}

const stopped = async (started: Started): Promise<Ended> => {
  started.process.kill("SIGTERM")
  return started.ended
}

/** Every packet and every record is in one place of the account. */
const assertAccount = (stdout: string): void => {
  const packets =
    /(\d+) packets in \d+ frames: (\d+) recorded, (\d+) unchanged, (\d+) outdated, (\d+) not asked for, (\d+) of another mode, (\d+) without a time, (\d+) ahead of the clock/.exec(
      stdout
    )!
  const [received, ...places] = packets.slice(1).map(Number)
  assert.strictEqual(
    received,
    places.reduce((sum, n) => sum + n, 0)
  )
  const [made, sent, waiting] = /(\d+) records: (\d+) sent, (\d+) waiting/.exec(stdout)!.slice(1).map(Number)
  assert.deepStrictEqual([sent, waiting, records.length], [made, 0, made])
}

describe("mdp feed kite", () => {
  it("feeds what a Kite server says, fetches and registers its instruments, and settles its account when stopped", async () => {
    const ledger = join(folder, "ledger.ndjson")
    const kite = await servedKite("--ledger", ledger)
    const fed = start(["feed", "kite", "--exchange", "SIM", "--url", url, ...kite.roots], KEYS)
    await came(300)
    const { code, stderr, stdout } = await stopped(fed)
    assert.deepStrictEqual([code, stderr], [0, ""])
    assert.strictEqual(instruments.split("\n").length, 31)
    assertAccount(stdout)
    assert.isTrue(records.some(({ quote, tick }) => quote !== undefined && tick !== undefined))
    assert.isTrue(records.every(({ quote, tick }) => (tick ?? quote)!.feed === "snapshot"))
    assert.notInclude(stdout, "simulated-1")

    // What the server's ledger says was read is there, and what is there was sent.
    assert.strictEqual((await stopped(kite.started)).code, 0)
    const lines = readFileSync(ledger, "utf8").trimEnd().split("\n")
    const sent = lines.map((line) => JSON.parse(line) as Sent).filter(({ mode }) => mode === "full")
    const named = (token: number, price: number, day_volume: number) => `${token} ${price} ${day_volume}`
    const had = new Set(
      records.flatMap(({ tick }) =>
        tick === undefined ? [] : [named(tick.instrument_token, tick.price, Math.max(0, tick.day_volume))]
      )
    )
    const names = (packets: ReadonlyArray<Sent>) =>
      packets.map(({ day_volume, instrument_token, price }) => named(instrument_token, price, day_volume))
    assert.isAbove(sent.filter(({ read }) => read).length, 0)
    assert.deepStrictEqual(
      names(sent.filter(({ read }) => read)).filter((name) => !had.has(name)),
      []
    )
    const all = new Set(names(sent))
    assert.deepStrictEqual(
      [...had].filter((name) => !all.has(name)),
      []
    )
  })

  it("takes symbols, a list and tokens, known to the platform, the broker or a file", async () => {
    const kite = await servedKite()
    const list = join(folder, "list.txt")
    writeFileSync(list, "SIM:INFY # one\n9000005\n99999\n")
    const fed = start(["feed", "kite", "--symbols", "sim:reliance", "--file", list, "--url", url, ...kite.roots], KEYS)
    await came(10)
    const { code, stderr } = await stopped(fed)
    assert.deepStrictEqual([code, stderr], [0, "no instrument of SIM has token 99999: asked for all the same\n"])
    const tokens = new Set(records.map(({ quote, tick }) => (tick ?? quote)!.instrument_token))
    assert.isTrue(
      [...tokens].every((token) => [9_000_001, 9_000_004, 9_000_005].includes(token)),
      [...tokens].join()
    )
    assert.strictEqual(instruments.split("\n").length, 4)

    records.length = 0
    const known = ["feed", "kite", "--symbols", "SIM:RELIANCE", "--instruments", "platform", "--mode", "quote"]
    const other = start([...known, "--url", url, ...kite.roots], KEYS)
    await came(3)
    const ended = await stopped(other)
    assert.strictEqual(ended.code, 0)
    assert.match(ended.stderr, /^packets of mode quote have no time: /)
    assert.deepStrictEqual(
      [...new Set(records.map(({ quote, tick }) => (tick ?? quote)!.instrument_token))],
      [9_000_001]
    )
  })

  it("takes the next token of its file when the server ends the one it had", async () => {
    const kite = await servedKite()
    const file = join(folder, "token")
    writeFileSync(file, "simulated-1\n")
    const environment = { ...KEYS, KITE_ACCESS_TOKEN: "", KITE_ACCESS_TOKEN_FILE: file }
    const fed = start(["feed", "kite", "--exchange", "SIM", "--url", url, ...kite.roots], environment)
    let said = ""
    fed.process.stderr!.on("data", (text: string) => {
      said += text
    })
    await came(1)
    await fetch(`http://${kite.place}/sim/faults`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: `{"fault":"expire"}`
    })
    while (!said.includes("it is waited for")) await new Promise((resolve) => setTimeout(resolve, 5))
    const { createHash } = await import("node:crypto")
    const response = await fetch(`http://${kite.place}/session/token`, {
      method: "POST",
      body: new URLSearchParams({
        api_key: "simulated",
        request_token: "r",
        checksum: createHash("sha256").update("simulatedrsimulated").digest("hex")
      })
    })
    const { data } = (await response.json()) as { readonly data: { readonly access_token: string } }
    const before = records.length
    writeFileSync(file, data.access_token)
    await came(before + 100)
    const { code, stderr, stdout } = await stopped(fed)
    assert.strictEqual(code, 0)
    assertAccount(stdout)
    assert.match(
      stderr,
      /Kite refuses the API key or the access token \(403\): it ends each morning at about 6:00 IST;/
    )
    assert.strictEqual(stderr.match(/Kite refuses/g)!.length, 1)
    assert.match(stderr, /the connection is back after \d+\.\d s/)
    assert.notMatch(stderr + stdout, /simulated-[12]/)
  })

  it("ends with 1 and one line where the token of its environment is refused, which is not in it", async () => {
    const kite = await servedKite()
    const { code, stderr, stdout } = await runToEnd(
      ["feed", "kite", "--symbols", "9000001", "--url", url, ...kite.roots],
      {
        ...KEYS,
        KITE_ACCESS_TOKEN: "a-wrong-token"
      }
    )
    assert.strictEqual(code, 1)
    assert.match(
      stderr,
      /^mdp: Kite refuses the API key or the access token \(403\): .* KITE_ACCESS_TOKEN and start again\n$/
    )
    assert.notInclude(stderr + stdout, "a-wrong-token")
  })

  it("ends within DRAIN_DEADLINE_MS, with 1 and one line, where the log is away when it is stopped", async () => {
    const kite = await servedKite()
    const args = ["feed", "kite", "--exchange", "SIM", "--url", url, ...kite.roots]
    const fed = start(args, { ...KEYS, DRAIN_DEADLINE_MS: "700" })
    let said = ""
    fed.process.stderr!.on("data", (text: string) => {
      said += text
    })
    await came(100)
    isAway = true
    while (!said.includes("waiting for")) await new Promise((resolve) => setTimeout(resolve, 5))
    const before = said
    fed.process.kill("SIGINT")
    const { code, stderr } = await fed.ended
    assert.deepStrictEqual(
      [code, stderr.slice(before.length)],
      [1, "mdp: not drained within 700 ms (DRAIN_DEADLINE_MS)\n"]
    )
    assert.match(before, /^waiting for http:.*\n$/)
  })

  it("sends what had come before it was stopped once the log is back", async () => {
    const kite = await servedKite()
    const fed = start(["feed", "kite", "--exchange", "SIM", "--url", url, ...kite.roots], {
      ...KEYS,
      DRAIN_DEADLINE_MS: "60000"
    })
    await came(100)
    isAway = true
    while (turnedAway === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    fed.process.kill("SIGINT")
    // Sent again after the stop: what follows is not what it had asked before.
    const asked = turnedAway
    while (turnedAway === asked) await new Promise((resolve) => setTimeout(resolve, 5))
    isAway = false
    const { code, stdout } = await fed.ended
    assert.strictEqual(code, 0)
    assertAccount(stdout)
  })

  const wrong: ReadonlyArray<
    readonly [args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>, code: number, line: RegExp]
  > = [
    [[], {}, 2, /--symbols, --file or --exchange: expected an instrument at least/],
    [["--symbols", "INFY"], {}, 2, /--symbols: expected a symbol with its exchange such as NSE:INFY, .*got "INFY"/],
    [["--symbols", "1", "--mode", "all"], {}, 2, /mode/],
    [["--symbols", "1", "--root", "nowhere"], {}, 2, /--root.*nowhere/],
    [
      ["--symbols", "1", "--ws-root", "ws://example.com"],
      {},
      2,
      /--ws-root.*wss:\/\/, since key and token would be read/
    ],
    [["--symbols", "1"], { KITE_API_KEY: "" }, 1, /^mdp: KITE_API_KEY: required/],
    [["--symbols", "1"], { KITE_ACCESS_TOKEN: "" }, 1, /^mdp: KITE_ACCESS_TOKEN_FILE: required, or KITE_ACCESS_TOKEN/],
    [
      ["--symbols", "1"],
      { KITE_ACCESS_TOKEN_FILE: "/t" },
      1,
      /^mdp: KITE_ACCESS_TOKEN_FILE: expected without KITE_ACCESS_TOKEN/
    ],
    [["--file", "/nowhere/list"], {}, 1, /--file: cannot read \/nowhere\/list \(ENOENT\)/],
    [["--symbols", "NSE:A", "--instruments", "/nowhere/i.csv"], {}, 1, /--instruments: cannot read .* \(ENOENT\)/]
  ]
  it("refuses what is wrong in one line, by name", async () => {
    for (const [args, environment, code, line] of wrong) {
      const ended = await outcome(["feed", "kite", ...args, "--url", url], { ...KEYS, ...environment })
      assert.strictEqual(ended.code, code, `${args.join(" ")}: ${ended.line}`)
      assert.match(ended.line!, line)
      assert.notMatch(ended.line!, /simulated-1|\n/)
    }
  })

  it("refuses more instruments than a key may have, with the numbers", async () => {
    const list = join(folder, "list.txt")
    writeFileSync(list, Array.from({ length: 9001 }, (_, i) => i + 1).join("\n"))
    const { code, line } = await outcome(["feed", "kite", "--file", list, "--url", url], KEYS)
    assert.strictEqual(code, 2)
    assert.match(line!, /9001 instruments are more than the 9000 that one key may have: 3 connections of 3000/)
  })
})

describe("mdp feed sim --serve kite", () => {
  it("plays the faults of its command line, and ends with its duration", async () => {
    const args = ["--serve", "kite", "--port", "0", "--symbols", "5", "--duration", "300ms", "--fault", "reset@100ms"]
    const { code, stderr, stdout } = await runToEnd(["feed", "sim", ...args])
    assert.deepStrictEqual([code, stderr], [0, 'fault: {"fault":"reset"}\n'])
    assert.match(stdout, /A simulated Kite: 5 instruments of exchange SIM/)
  })

  for (const [args, line] of [
    [["--fault", "reset"], /--fault: goes with --serve kite/],
    [["--port", "1"], /--port: goes with --serve kite/],
    [["--serve", "kite", "--fault", "rest@soon"], /--fault.*expected a time such as 20s after @/],
    [["--serve", "kite", "--fault", "boom"], /unknown fault boom/],
    [["--serve", "upstox"], /serve/]
  ] as const) {
    it(`refuses ${args.join(" ")}`, async () => {
      const ended = await outcome(["feed", "sim", ...args])
      assert.strictEqual(ended.code, 2)
      assert.match(ended.line!, line)
    })
  }
})
