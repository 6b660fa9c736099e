import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Command } from "effect/cli"
import { outcomeOf, program } from "../../src/commands/cli.ts"
import { parseDuration } from "../../src/commands/durations.ts"
import { feed } from "../../src/commands/feed.ts"
import { type RawTick, readRawTick } from "../../src/schema/RawTick.ts"
import { runToEnd, startCli } from "./spawnCli.ts"

/** An instance that takes what feeds send. */
let server: Server
let url: string
let paths: Array<string>
let ticks: Array<RawTick>
let instruments: string
let folder: string
/** What it waits for before it answers. */
let held: Promise<unknown>
/** Why it rejects the first tick of every request; undefined: it takes them all. */
let rejects: string | undefined

beforeEach(async () => {
  held = Promise.resolve()
  rejects = undefined
  paths = []
  ticks = []
  instruments = ""
  folder = mkdtempSync(join(tmpdir(), "mdp-feed-"))
  server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString()
      if (request.method === "GET") {
        // What it knows of the instrument that is asked for, on the day of the rows.
        const token = /^\/api\/v1\/instruments\/(\d+)\?as_of=2026-01-15$/.exec(request.url ?? "")?.[1]
        if (token !== "9") response.statusCode = 404
        response.end(JSON.stringify(token === "9" ? { instrument_token: 9, tick_size: 0.05 } : { message: "none" }))
        return
      }
      paths.push(`${request.method} ${request.url} ${request.headers["content-type"]}`)
      if (request.url === "/api/v1/instruments") {
        instruments = body
        response.end(JSON.stringify({ added: 1, changed: 0, expired: 0, rejected: [] }))
      } else {
        const lines = body.trimEnd().split("\n")
        for (const line of lines) ticks.push(readRawTick(JSON.parse(line)) as RawTick)
        const rejected = rejects === undefined ? [] : [{ line: 1, reason: rejects }]
        const answer = { accepted: lines.length - rejected.length, rejected }
        void held.then(() => response.end(JSON.stringify(answer)))
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})

afterEach(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  rmSync(folder, { recursive: true })
})

const mdp = Command.make("mdp").pipe(Command.withSubcommands([feed]))

/** How a command line ends, without a process of its own. */
const outcome = async (args: ReadonlyArray<string>) =>
  outcomeOf(await Effect.runPromise(Effect.exit(program(mdp, args, "0"))), "mdp")

interface LedgerLine {
  readonly instrument_token: number
  readonly sequence_id: number
  readonly reached: ReadonlyArray<string>
}

/** Holds the ledger against what the instance took. */
const settle = (path: string) => {
  const lines = readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as LedgerLine)
  const id = (t: { readonly instrument_token: number; readonly sequence_id: number | undefined }) =>
    `${t.instrument_token} ${t.sequence_id}`
  for (const name of ["dma", "snapshot"]) {
    assert.deepStrictEqual(
      new Set(lines.filter((line) => line.reached.includes(name)).map(id)),
      new Set(ticks.filter((tick) => tick.feed === name).map(id))
    )
  }
  return lines
}

describe("mdp feed sim", () => {
  it("registers its instruments, plays for its duration and settles its ledger", async () => {
    const ledger = join(folder, "ledger.ndjson")
    const args = ["--symbols", "20", "--rate", "3000", "--duration", "700ms", "--loss", "0.1"]
    const { code, stderr, stdout } = await runToEnd(["feed", "sim", ...args, "--ledger", ledger, "--url", url])
    assert.deepStrictEqual([code, stderr], [0, ""])
    assert.strictEqual(paths[0], "POST /api/v1/instruments text/csv")
    assert.isTrue(paths.slice(1).every((path) => path === "POST /api/v1/ingest application/x-ndjson"))
    assert.strictEqual(instruments.trimEnd().split("\n").length, 21)
    const lines = settle(ledger)
    assert.match(stdout, new RegExp(`^${lines.length} ticks in [\\d.]+ s, \\d+/s\ndma sent \\d+ \\(lost \\d+, `))
  })

  it("stopped, closes its market and exits 0", async () => {
    const ledger = join(folder, "ledger.ndjson")
    const started = startCli(["feed", "sim", "--loss", "0.1", "--seed", "7", "--ledger", ledger], {
      PORT: new URL(url).port
    })
    // How many ticks a time brings depends on the machine; among so many some reach neither feed.
    while (ticks.length < 3000) await new Promise((resolve) => setTimeout(resolve, 5))
    started.process.kill("SIGTERM")
    const { code, stderr, stdout } = await started.ended
    assert.deepStrictEqual([code, stderr], [0, ""])
    const lines = settle(ledger)
    assert.match(stdout, new RegExp(`^${lines.length} ticks in `))
    for (const own of Map.groupBy(lines, (line) => line.instrument_token).values()) {
      assert.include(own.reduce((a, b) => (a.sequence_id > b.sequence_id ? a : b)).reached, "dma")
    }
    assert.isAbove(lines.filter((line) => line.reached.length === 0).length, 0)
  })

  const wrong = [
    ["--rate", "-5"],
    ["--symbols", "0"],
    ["--loss", "1.5"],
    ["--loss", "0.9", "--duplicate", "0.9"],
    ["--delay", "3"],
    ["--duration", "0s"],
    ["--snapshot-interval", "1us"],
    ["--snapshot-sequence", "some"],
    ["--seed", "-1"],
    ["--url", "nowhere"]
  ]
  it.each(wrong)("refuses %s %s with 2, naming the flag", async (...args) => {
    const { code, line } = await outcome(["feed", "sim", ...args])
    assert.strictEqual(code, 2)
    assert.include(line, args[0]!)
  })

  it("says in one line that nothing is running, and exits 1", async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    const { code, stderr } = await runToEnd(["feed", "sim", "--url", url])
    server.listen(0)
    assert.deepStrictEqual(
      [code, stderr],
      [1, `mdp: no running instance answers at ${url}/api/v1/instruments: ECONNREFUSED\n`]
    )
  })
})

describe("mdp feed file", () => {
  it("feeds a file and counts its rows", async () => {
    const file = join(folder, "ticks.csv")
    writeFileSync(file, "2026-01-15 09:15:00,10.5\n2026-01-15 09:15:01,oops\n2026-01-15 09:15:02,10.6\n")
    const how = ["--no-header", "--map", "exchange_ts=1,price=2", "--set", "instrument_token=7,volume=0,feed=snapshot"]
    const args = ["feed", "file", file, ...how, "--tz", "Asia/Kolkata", "--url", url]
    const failed = await runToEnd(args)
    assert.strictEqual(failed.code, 1)
    assert.strictEqual(
      failed.stderr,
      'mdp: ticks.csv line 2, column 2 (price): expected a number between -1000000000 and 1000000000, got "oops"; nothing of ticks.csv went in\n'
    )
    assert.strictEqual(failed.stdout, "rows read 3, sent 0, skipped 0\n")
    const skipped = await runToEnd([...args, "--on-error", "skip"])
    assert.deepStrictEqual(skipped, {
      code: 0,
      stdout: "rows read 3, sent 2, skipped 1\n",
      stderr:
        'skipped ticks.csv line 2, column 2 (price): expected a number between -1000000000 and 1000000000, got "oops"\n' +
        "skipped: 1 × price: expected a number between -1000000000 and 1000000000\n"
    })
    assert.strictEqual(ticks.length, 2)
  })

  it("holds prices to the tick size that the instance has, or rounds them, or takes another", async () => {
    const file = join(folder, "fine.csv")
    writeFileSync(file, "exchange_ts,price\n2026-01-15 09:15:00,10.05\n2026-01-15 09:15:01,10.07\n")
    const args = ["feed", "file", file, "--set", "instrument_token=9", "--tz", "Asia/Kolkata", "--url", url]
    const failed = await runToEnd(args)
    assert.deepStrictEqual(
      [failed.code, failed.stderr],
      [
        1,
        "mdp: fine.csv line 3, column 2 (price): expected a multiple of the tick size 0.05 (--round, or --tick-size for another), got 10.07; nothing of fine.csv went in\n"
      ]
    )
    const rounded = await runToEnd([...args, "--round"])
    assert.deepStrictEqual([rounded.code, rounded.stderr], [0, "prices rounded to their tick size: 1 (--round)\n"])
    assert.strictEqual((await runToEnd([...args, "--tick-size", "0.01"])).code, 0)
    assert.deepStrictEqual(
      ticks.map(({ price }) => price),
      [10.05, 10.05, 10.05, 10.07]
    )
  })

  it("shows the first rows as they are understood, and sends nothing", async () => {
    const file = join(folder, "gdfl.csv")
    const header = "Ticker,Date,Time,LTP,BuyPrice,BuyQty,SellPrice,SellQty,LTQ,OpenInterest"
    const rows = ["17443,17425.25,200,17430.85,200,1700,10274450", "17443,17425.25,250,0,0,0,10274450"]
    writeFileSync(file, [header, ...rows.map((row) => `NIFTY-I.NFO,03/01/2022,09:15:00,${row}`), ""].join("\n"))
    const shown = await runToEnd(["feed", "file", file, "--preset", "gdfl", "--dry-run", "--url", url])
    assert.deepStrictEqual([shown.code, shown.stderr, paths.length], [0, "", 0])
    assert.strictEqual(
      shown.stdout,
      [
        "columns: symbol from Ticker, date from Date, time from Time, price from LTP, bid_price from BuyPrice, bid_quantity from BuyQty, ask_price from SellPrice, ask_quantity from SellQty, volume from LTQ, oi from OpenInterest",
        "line  instrument   exchange_ts              price  volume  feed  sequence_id  bid             ask                   oi",
        "   2  NIFTY-I.NFO  2022-01-03 09:15:00 IST  17443    1700  dma                17425.25 × 200  17430.85 × 200  10274450",
        "   3  NIFTY-I.NFO  2022-01-03 09:15:00 IST                 dma                17425.25 × 250  none            10274450",
        "nothing was sent (--dry-run)",
        ""
      ].join("\n")
    )
    writeFileSync(file, `${header}\nNIFTY-I.NFO,32/01/2022,09:15:00,17443,1,2,3,4,5,6\n`)
    const bad = await runToEnd(["feed", "file", file, "--preset", "gdfl", "--dry-run"])
    assert.strictEqual(bad.code, 1)
    assert.include(bad.stderr, "gdfl.csv line 2, column 2 (date): expected a date that exists")
    assert.include(bad.stderr, "1 of the first 1 rows of gdfl.csv are bad")
  })

  it("shows quotes of any depth, and what else they say", async () => {
    const file = join(folder, "deep.csv")
    const header = "exchange_ts,bid_price,bid_quantity,bid_price_2,bid_quantity_2,last_trade_ts,average_price"
    writeFileSync(file, `${header}\n2026-01-15 09:15:01,9.5,5,9,6,2026-01-15 09:15:00.5,9.75\n`)
    const how = ["--set", "instrument_token=7", "--map", "bid_price=bid_price", "--tz", "Asia/Kolkata", "--dry-run"]
    const shown = await runToEnd(["feed", "file", file, ...how])
    assert.deepStrictEqual(shown.stdout.split("\n").slice(1, 3), [
      "line  instrument  exchange_ts              price  volume  feed  sequence_id  bid          average_price  last_trade_ts",
      "   2           7  2026-01-15 09:15:01 IST                 dma                9.5 × 5 + 1           9.75  2026-01-15 09:15:00.5 IST"
    ])
  })

  it("counts quotes, beside ticks and alone", async () => {
    const file = join(folder, "book.csv")
    const header = "exchange_ts,price,BuyPrice,BuyQty"
    writeFileSync(
      file,
      `${header}\n2026-01-15 09:15:01,10,9.5,5\n2026-01-15 09:15:02,,9.5,6\n2026-01-15 09:15:03,10,,\n`
    )
    const how = ["--set", "instrument_token=7", "--map", "bid_price=BuyPrice,bid_quantity=BuyQty", "--url", url]
    const { code, stdout } = await runToEnd(["feed", "file", file, ...how, "--tz", "Asia/Kolkata"])
    assert.deepStrictEqual([code, stdout], [0, "rows read 3, sent 3, quotes 2, skipped 0\n"])
  })

  it("has an example of each shape in its help", async () => {
    const { stdout } = await runToEnd(["feed", "file", "--help"])
    for (const text of [
      "--preset gdfl",
      "--bars 1m",
      "--dates dmy",
      "--unit ms",
      "--dry-run",
      "date=1,time=2",
      "bid_price=BuyPrice"
    ]) {
      assert.include(stdout, text)
    }
  })

  it("goes on where the instance was away for a while, and says that it waited", async () => {
    const file = join(folder, "ticks.ndjson")
    const row = (i: number) => `{"instrument_token":1,"exchange_ts":${1_768_448_700_000_000 + i},"price":5}\n`
    writeFileSync(file, Array.from({ length: 12_000 }, (_, i) => row(i)).join(""))
    let cut = 0
    server.prependListener("request", (request, response) => {
      if (paths.length === 1 && cut++ < 2) response.socket?.resetAndDestroy()
      void request
    })
    const { code, stderr, stdout } = await runToEnd(["feed", "file", file, "--url", url])
    assert.deepStrictEqual([code, stdout], [0, "rows read 12000, sent 12000, skipped 0\n"])
    assert.match(stderr, new RegExp(`^waiting for ${url}: \\w+, 60 s more at most\n$`))
    assert.strictEqual(new Set(ticks.map((t) => t.exchange_ts)).size, 12_000)
  })

  it("says in one line how many ticks the instance rejected, and why", async () => {
    rejects = "exchange_ts: 16.0 s ahead of the server's clock\u001b[2J"
    const args = ["feed", "file", "-", "--url", url]
    const row = '{"instrument_token":1,"exchange_ts":1768448700000000,"price":5}\n'
    const failed = await runToEnd(args, {}, row + row)
    const said = "1 tick rejected: exchange_ts: 16.0 s ahead of the server's clock\\u001b[2J\n"
    assert.deepStrictEqual([failed.code, failed.stderr], [1, `mdp: ${url} took 1 of 2 ticks; ${said}`])
    const skipped = await runToEnd([...args, "--on-error", "skip"], {}, row + row)
    assert.deepStrictEqual(skipped, { code: 0, stdout: "rows read 2, sent 1, skipped 1\n", stderr: said })
    const nothing = await runToEnd([...args, "--on-error", "skip"], {}, row)
    assert.deepStrictEqual([nothing.code, nothing.stdout], [1, "rows read 1, sent 0, skipped 1\n"])
    assert.include(nothing.stderr, "nothing of standard input went in")
  })

  it("feeds standard input as it comes", async () => {
    const started = startCli(["feed", "file", "-"], { PORT: new URL(url).port })
    const row = (i: number) => `{"instrument_token":1,"exchange_ts":${1_768_448_700_000_000 + i},"price":5}\n`
    started.process.stdin?.write(row(0) + row(1))
    while (ticks.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    started.process.stdin?.end(row(2))
    assert.deepStrictEqual(await started.ended, { code: 0, stdout: "rows read 3, sent 3, skipped 0\n", stderr: "" })
    assert.deepStrictEqual(
      ticks.map((t) => t.connection),
      ["stdin-dma", "stdin-dma", "stdin-dma"]
    )
  })

  it("stopped while it waits for standard input, exits 0 and counts what is still being answered", async () => {
    const { promise, resolve: answer } = Promise.withResolvers<void>()
    held = promise
    const started = startCli(["feed", "file", "-", "--url", url])
    started.process.stdin?.write('{"instrument_token":1,"exchange_ts":1768448700000000,"price":5}\n')
    while (ticks.length < 1) await new Promise((resolve) => setTimeout(resolve, 5))
    started.process.kill("SIGTERM")
    // Long enough for the signal to be met first; the outcome is the same where it is not.
    setTimeout(answer, 500)
    assert.deepStrictEqual(await started.ended, { code: 0, stdout: "rows read 1, sent 1, skipped 0\n", stderr: "" })
  })

  const wrong = [
    [],
    ["x.csv", "--format", "xml"],
    ["x.csv", "--map", "prize=1"],
    ["x.csv", "--map", "price"],
    ["x.csv", "--set", "price=abc"],
    ["x.csv", "--set", "oi=-1"],
    ["x.csv", "--map", "bid_price_6=1"],
    ["x.csv", "--no-header", "--map", "exchange_ts=1,price=2,bid_quantity=3", "--set", "instrument_token=7"],
    ["x.csv", "--untraded", "never"],
    ["x.csv", "--no-header", "--map", "price=2"],
    ["x.csv", "--tz", "Asia/Nowhere"],
    ["x.csv", "--on-error", "ignore"]
  ]
  for (const args of wrong) {
    it(`refuses with 2: ${["feed", "file", ...args].join(" ")}`, async () => {
      const { code, line } = await outcome(["feed", "file", ...args])
      assert.strictEqual(code, 2)
      assert.match(line ?? "", /^[^\n]+$/)
    })
  }

  const real = join(import.meta.dirname, "../../../shared/data/nifty50-2022-08-10.csv")
  it.skipIf(!existsSync(real))("feeds a real day whole (skipped without ../shared/data)", async () => {
    const how = ["--no-header", "--map", "exchange_ts=1,price=2"]
    const set = ["--set", "instrument_token=256265,volume=0,feed=snapshot", "--tz", "Asia/Kolkata"]
    const { code, stdout } = await runToEnd(["feed", "file", real, ...how, ...set, "--url", url])
    const rows = readFileSync(real, "utf8").trimEnd().split("\n").length
    assert.deepStrictEqual([code, stdout], [0, `rows read ${rows}, sent ${rows}, skipped 0\n`])
    assert.strictEqual(ticks.length, rows)
  })
})

describe("a duration", () => {
  it("is a number with its unit", () => {
    assert.deepStrictEqual(
      ["250us", "20ms", "1.5s", "2m", "1h", "1d"].map(parseDuration),
      [0.25, 20, 1500, 120_000, 3_600_000, 86_400_000]
    )
    for (const text of ["", "5", "s", "-1s", "1 s", "1w", "1e3ms"]) assert.isUndefined(parseDuration(text))
  })
})
