import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { connect } from "../../src/client/index.ts"
import { openPage } from "../support/browser.ts"
import { LONG_MS } from "../support/guards.ts"
import { startInstance } from "../support/processes.ts"
import { isInstalled } from "../support/services.ts"

const TOKEN = 9_000_001
const DATE = "2026-01-15"
/** 09:15:00 of it in India. */
const OPEN = 1_768_448_700_000_000
const TICKS = 600

/** A tick a second: ten minutes, which nobody needs to pause within. */
const lines = Array.from({ length: TICKS }, (_, i) =>
  JSON.stringify({
    instrument_token: TOKEN,
    exchange_ts: OPEN + i * 1_000_000,
    price: 100 + i / 20,
    volume: 1,
    sequence_id: 1 + i
  })
).join("\n")

const ITEM = `document.querySelector("#replay-list li")`
/** What a replay's entry says: its state, where it stands and how far it has come. */
const SHOWN = `[...${ITEM}.querySelectorAll(".replay-line span")].map(({ textContent }) => textContent)`
const PROBLEM = `document.querySelector("#replay-problem").textContent`
const press = (label: string) =>
  `[...${ITEM}.querySelectorAll("button")].find(({ textContent }) => textContent === ${JSON.stringify(label)}).click()`

// Long: the platform and the browser are real processes.
describe.skipIf(!isInstalled("chromium"))("the page", { timeout: LONG_MS }, () => {
  it.live("starts a replay, steps by ticks and bars, seeks, changes its speed and says what it cannot have", () =>
    Effect.gen(function* () {
      const { url } = yield* startInstance(["demo", "--symbols", "3", "--rate", "10"])
      const client = connect({ url })
      yield* Effect.addFinalizer(() => Effect.sync(() => client.close()))
      const page = yield* openPage(url)
      yield* Effect.promise(async () => {
        const headers = { "content-type": "application/x-ndjson" }
        const answer = await fetch(`${url}/api/v1/ingest`, { method: "POST", headers, body: new Blob([lines]) })
        assert.strictEqual(answer.status, 200)
        for (let stored = 0; stored < TICKS; ) {
          stored = 0
          for await (const _ of client.history.ticks(TOKEN, { from: OPEN, to: OPEN + TICKS * 1_000_000 })) stored++
        }
        const says = async (pattern: RegExp) => {
          await page.until(`${pattern}.test(${SHOWN}.join("; "))`)
          return page.evaluate(SHOWN) as Promise<ReadonlyArray<string>>
        }
        const submit = (date: string, speed: string) =>
          page.evaluate(
            `document.querySelector("#replay-date").value = "${date}"; document.querySelector("#replay-speed").value = "${speed}"; document.querySelector("#replay-form").requestSubmit()`
          )
        await page.until(`document.querySelectorAll("#watchlist tr").length === 3`)
        await submit("2020-01-01", "1")
        await page.until(`${PROBLEM} !== ""`)
        // The days of now are there too, as far as they are stored.
        assert.match(
          (await page.evaluate(PROBLEM)) as string,
          /^date: no tick and no quote of these instruments is stored of 2020-01-01; days there are, of whichever instruments: .*2026-01-15$/
        )
        await submit(DATE, "1")
        await says(/^running; at /)
        assert.strictEqual(await page.evaluate(PROBLEM), "")
        await page.evaluate(press("Pause"))
        await says(/^paused; at /)

        await page.evaluate(`${ITEM}.querySelector("input").focus()`)
        // It begins where the replay stands.
        const stands = (await page.evaluate(`${ITEM}.querySelector("input").value`)) as string
        assert.include((await says(/^paused; at /))[1], stands)
        await page.evaluate(press("Go to"))
        await says(/^paused; at .*; 0 of /)
        await page.evaluate(press("Next tick"))
        await says(/^paused; at .*; 1 of /)
        await page.evaluate(press("Next tick"))
        await says(/^paused; at .*; 2 of /)
        await page.evaluate(press("Next bar"))
        await says(/^paused; at .*; (?!2 of )\d+ of /)

        await page.evaluate(
          `(() => { const speed = ${ITEM}.querySelector("select"); speed.value = "inf"; speed.dispatchEvent(new Event("change")) })()`
        )
        await page.evaluate(press("Resume"))
        await says(/^ended; /)
        assert.strictEqual(await page.evaluate(`${ITEM}.querySelector(".replay-steering").hidden`), true)
      })
    }).pipe(Effect.scoped)
  )
})
