/** API keys as people meet them: `mdp keys`, and a running instance that is given their file. */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { folder, type Mdp, runToEnd, startInstance } from "../support/processes.ts"
import { connect } from "../support/webSocketServer.ts"

const SECRET = /mdp_[0-9a-f]{8}_[A-Za-z0-9_-]+/

/** Everything that was printed but keys where they are made. */
const printed: Array<string> = []
const kept = (mdp: Mdp, isMaking = false): Mdp => {
  printed.push(mdp.stderr, ...(isMaking ? [] : [mdp.stdout]))
  return mdp
}

const mdp = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  Effect.map(runToEnd(args, environment), (ended) => kept(ended))

/** The key itself. */
const add = (file: string, name: string, ...flags: ReadonlyArray<string>) =>
  Effect.map(runToEnd(["keys", "add", name, ...flags], { API_KEYS_FILE: file }), (ended) => {
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.match(ended.stdout, new RegExp(`^${SECRET.source}\n$`))
    kept(ended, true)
    return ended.stdout.trimEnd()
  })

const oneLine = (text: string): string => {
  assert.match(text, /^[^\n]+\n$/)
  return text.trimEnd()
}

describe("mdp keys", () => {
  it.live("makes a key, printed once and alone, shows all that is known of it but that, and ends it", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "keys.json")
      const run = (...args: ReadonlyArray<string>) => mdp(["keys", ...args], { API_KEYS_FILE: file })
      const desk = yield* add(file, "desk")
      yield* add(
        file,
        "bot@desk",
        "--scopes",
        "replay,read",
        "--instruments",
        "738561,NSE:NIFTY 50,NFO:*",
        "--expires",
        "30d"
      )
      yield* add(file, "year", "--expires", "2099-12-31")
      assert.strictEqual(statSync(file).mode & 0o777, 0o600)
      const content = readFileSync(file, "utf8")
      assert.notInclude(content, desk.slice(13))

      const listed = yield* run("list")
      const rows = listed.stdout.trimEnd().split("\n")
      assert.match(rows[0]!, /^NAME +ID +STATE +SCOPES +INSTRUMENTS +CREATED +EXPIRES$/)
      assert.match(rows[1]!, /^desk +[0-9a-f]{8} +live +read +all +\S+Z +never$/)
      assert.match(rows[2]!, /^bot@desk +[0-9a-f]{8} +live +read,replay +738561,NSE:NIFTY 50,NFO:\* /)
      // The last day as it is in India.
      assert.match(rows[3]!, / 2099-12-31T18:30Z$/)
      const json = yield* run("list", "--json")
      const all = JSON.parse(json.stdout) as ReadonlyArray<Record<string, unknown>>
      assert.deepInclude(all[1]!, {
        name: "bot@desk",
        state: "live",
        scopes: ["read", "replay"],
        instruments: ["738561", "NSE:NIFTY 50", "NFO:*"],
        revoked: null
      })
      for (const { stdout } of [listed, json]) assert.notMatch(stdout, /[0-9a-f]{64}|hash/)

      const again = yield* run("add", "desk")
      assert.deepStrictEqual(
        [again.code, again.stdout, oneLine(again.stderr)],
        [1, "", "mdp: a key that holds is called desk already: another name, or mdp keys revoke desk"]
      )
      const revoked = yield* run("revoke", "desk")
      assert.strictEqual(revoked.code, 0)
      assert.match(revoked.stderr, / message=audit user=\S+ action=key_revoke key=desk id=[0-9a-f]{8} file=/)
      assert.match((yield* run("list")).stdout, /\ndesk +[0-9a-f]{8} +revoked /)
      assert.match(oneLine((yield* run("revoke", "desk")).stderr), /^mdp: key desk was revoked 20\S+Z already$/)
      assert.match(oneLine((yield* run("revoke", "nobody")).stderr), /^mdp: no key is called nobody/)
      // The name is free again; where lines are JSON, the audit's have its fields, and the key stands alone all the same.
      yield* add(file, "desk")
      const asJson = yield* mdp(["keys", "revoke", "desk"], { API_KEYS_FILE: file, LOG_FORMAT: "json" })
      assert.deepInclude(JSON.parse(oneLine(asJson.stderr)), {
        level: "info",
        message: "audit",
        action: "key_revoke",
        key: "desk"
      })
    }).pipe(Effect.scoped)
  )

  it.live("exits 2 for a wrong name or flag, 1 without a file or with one that it cannot use, and makes nothing", () =>
    Effect.gen(function* () {
      const within = yield* folder
      const file = join(within, "keys.json")
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
        [["add"], /Missing required argument/],
        [["add", "a b"], /argument <NAME>: "a b"/],
        [["add", "x".repeat(65)], /argument <NAME>/],
        [["add", "x", "--scopes", "admin"], /--scopes: "admin"\. Expected some of read, write, replay/],
        [["add", "x", "--scopes", ""], /--scopes/],
        [["add", "x", "--instruments", "nse:INFY"], /--instruments: "nse:INFY"\. Expected a token, EXCHANGE:SYMBOL/],
        [["add", "x", "--expires", "2020-01-01"], /--expires: "2020-01-01"\. Expected a duration such as 30d/],
        [["add", "x", "--expires", "0s"], /--expires/],
        [["add", "x", "--key", "y"], /Unrecognized flag: --key/],
        [["revoke"], /Missing required argument/],
        [["remove", "x"], /Unknown subcommand/]
      ]
      const each = Effect.fnUntraced(function* ([args, line]: (typeof wrong)[number]) {
        const { code, stderr, stdout } = yield* mdp(["keys", ...args], { API_KEYS_FILE: file })
        assert.deepStrictEqual([code, stdout], [2, ""], args.join(" "))
        assert.match(oneLine(stderr), line)
      })
      yield* Effect.forEach(wrong, each, { concurrency: 3 })
      assert.isFalse(existsSync(file))
      for (const args of [["add", "y"], ["list"], ["revoke", "y"]]) {
        const { code, stderr } = yield* mdp(["keys", ...args])
        assert.strictEqual(code, 1)
        assert.match(oneLine(stderr), /^mdp: API_KEYS_FILE: required by mdp keys/)
      }
      const broken = join(within, "broken.json")
      writeFileSync(broken, "{", { mode: 0o600 })
      for (const args of [["add", "y"], ["list"], ["revoke", "y"]]) {
        const { code, stderr } = yield* mdp(["keys", ...args], { API_KEYS_FILE: broken })
        assert.strictEqual(code, 1)
        assert.include(oneLine(stderr), `API_KEYS_FILE: ${broken}: expected JSON`)
      }
      assert.strictEqual(readFileSync(broken, "utf8"), "{")
    }).pipe(Effect.scoped)
  )
})

const HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"

const statusOf = (url: string, key?: string) =>
  Effect.promise(async () => {
    const answer = await fetch(url, key === undefined ? {} : { headers: { authorization: `Bearer ${key}` } })
    await answer.arrayBuffer()
    return answer.status
  })

const until = (status: number, asked: Effect.Effect<number>) =>
  Effect.repeat(asked, { until: (now) => now === status, schedule: Schedule.spaced("50 millis") })

describe("an instance that is given a file of keys", () => {
  it.live("does not start with one that it cannot use: one line, exit 1", () =>
    Effect.gen(function* () {
      const within = yield* folder
      const broken = join(within, "broken.json")
      writeFileSync(broken, '{"version":1,"keys":[{"name":"x"}]}', { mode: 0o600 })
      const none = join(within, "none.json")
      const isMissing = `mdp: API_KEYS_FILE: ${none} is not there; mdp keys add makes it`
      const isBroken = `mdp: API_KEYS_FILE: ${broken}: keys.0.id: expected 8 hexadecimal digits, got nothing`
      for (const [command, file, line] of [
        ["demo", none, isMissing],
        ["server", none, isMissing],
        ["run", broken, isBroken]
      ] as const) {
        const { code, stderr, stdout } = yield* mdp([command], {
          API_KEYS_FILE: file,
          PORT: "0",
          DATA_DIR: join(within, "data")
        })
        assert.deepStrictEqual([code, stdout, oneLine(stderr)], [1, "", line], command)
      }
      assert.isFalse(existsSync(join(within, "data")))
    }).pipe(Effect.scoped)
  )

  it.live(
    "listens for others without --insecure, takes keys that come and go without a restart, and is spoken to by API_KEY",
    () =>
      Effect.gen(function* () {
        const within = yield* folder
        const file = join(within, "keys.json")
        const first = yield* add(file, "first")
        const {
          mdp: instance,
          url,
          ws
        } = yield* startInstance(["run"], {
          API_KEYS_FILE: file,
          HOST: "0.0.0.0",
          DATA_DIR: join(within, "data"),
          MDP_DEBUG: "1"
        })
        assert.strictEqual(yield* statusOf(`${url}/metrics`), 401)
        assert.strictEqual(yield* statusOf(`${url}/metrics`, first), 200)

        const desk = yield* add(file, "desk", "--scopes", "read,write,replay")
        yield* until(200, statusOf(`${url}/api/v1/replays`, desk))
        const instruments = join(within, "instruments.csv")
        writeFileSync(instruments, `${HEADER}\n11,1,NEW,NEW,0,,0,0.05,1,EQ,NSE,NSE\n`)
        const ticks = join(within, "ticks.csv")
        writeFileSync(ticks, "exchange_ts,price\n2026-01-16T09:15:00+05:30,100\n2026-01-16T09:16:00+05:30,101\n")
        const commands: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
          [["instruments", "import", instruments], /^added 1, /],
          [["feed", "file", ticks, "--set", "instrument_token=11"], /rows read 2, sent 2/],
          [["feed", "sim", "--symbols", "2", "--rate", "100", "--duration", "1s"], /./],
          [["replay", "--symbols", "NSE:NEW", "--date", "2026-01-16", "--speed", "inf"], /ended: 2 of 2 ticks/],
          [["dlq", "list"], /^$/],
          [["dlq", "retry", "--all"], /^0 sent again/]
        ]
        for (const [args, said] of commands) {
          const by = (key: string | undefined) =>
            mdp([...args, "--url", url], { MDP_DEBUG: "1", ...(key === undefined ? {} : { API_KEY: key }) })
          const done = yield* by(desk)
          assert.strictEqual(done.code, 0, `${args.join(" ")}: ${done.stderr}`)
          assert.match(done.stdout, said)
          if (args[0] !== "feed" && args[1] !== "list") continue
          const without = yield* by(undefined)
          assert.strictEqual(without.code, 1, args.join(" "))
          assert.match(
            without.stderr,
            /answered 401: Authorization: expected Bearer and an API key, got nothing \(API_KEY\)/
          )
          const none = yield* by("hunter2\u0007")
          assert.strictEqual(none.code, 1)
          assert.match(none.stderr, /^mdp: API_KEY: expected a key as mdp keys add prints it/)
          assert.notInclude(none.stderr, "hunter2")
        }

        const listening = yield* connect(ws, { headers: { authorization: `Bearer ${desk}` } })
        assert.strictEqual((yield* mdp(["keys", "revoke", "desk"], { API_KEYS_FILE: file })).code, 0)
        yield* listening.until(({ closed }) => closed !== undefined)
        assert.deepStrictEqual(listening.closed, { code: 1008, reason: "the API key was revoked" })
        yield* until(401, statusOf(`${url}/api/v1/replays`, desk))
        assert.strictEqual(yield* statusOf(`${url}/metrics`, first), 200)

        // A key in a place where none belongs: it is refused, and no line of the log has it.
        for (const path of [`/${first}`, `/api/v1/quotes?tokens=${first}`, `/api/v1/instruments/${first}`]) {
          yield* statusOf(`${url}${path}`)
          yield* statusOf(`${url}${path}`, first)
          yield* statusOf(`${url}${path}`, `${first}x`)
        }
        writeFileSync(file, `{"version":1,"keys":[{"name":"${first}"}]}`)
        yield* Effect.repeat(
          Effect.promise(async () => (await fetch(`${url}/readyz`)).json() as Promise<{ degraded: Array<string> }>),
          { until: ({ degraded }) => degraded.includes("keys"), schedule: Schedule.spaced("50 millis") }
        )
        assert.strictEqual(yield* statusOf(`${url}/metrics`, first), 200)

        instance.kill("SIGTERM")
        yield* instance.ended
        kept(instance)
        assert.match(instance.stderr, /message=audit key=desk address=127\.0\.0\.1 action=instruments_import added=1/)
        assert.match(instance.stderr, /message=audit key=desk address=127\.0\.0\.1 action=ingest requests=1 ticks=2/)
        assert.match(instance.stderr, /message=audit key=desk address=127\.0\.0\.1 action=replay_start /)
        assert.match(instance.stderr, /message=audit action=keys_read ended=desk/)
        assert.match(instance.stderr, /client 127\.0\.0\.1 unauthorized: /)
        for (const text of printed) assert.notMatch(text, SECRET)
        for (const text of printed) assert.notInclude(text, first.slice(13))
      }).pipe(Effect.scoped),
    300_000
  )
})
