import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { openPage } from "../support/browser.ts"
import { LONG_MS } from "../support/guards.ts"
import { withinOneDay } from "../support/oneDay.ts"
import { startInstance } from "../support/processes.ts"
import { isInstalled } from "../support/services.ts"

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
      yield* Effect.promise(() => withinOneDay(120_000))
      const { url } = yield* startInstance(["demo", "--symbols", "3", "--rate", "300"])
      const page = yield* openPage(url)
      yield* Effect.promise(async () => {
        const says = async (pattern: RegExp) => {
          await page.until(`${pattern}.test(${SHOWN}.join("; "))`)
          return page.evaluate(SHOWN) as Promise<ReadonlyArray<string>>
        }
        const submit = (date: string, speed: string) =>
          page.evaluate(
            `document.querySelector("#replay-date").value = ${date}; document.querySelector("#replay-speed").value = "${speed}"; document.querySelector("#replay-form").requestSubmit()`
          )
        await page.until(`document.querySelectorAll("#watchlist tr").length === 3`)
        const today = await page.evaluate(`document.querySelector("#replay-date").value`)
        await submit(`"2020-01-01"`, "1")
        await page.until(`${PROBLEM} !== ""`)
        // Whether any of today is stored by now the message says itself.
        assert.match(
          (await page.evaluate(PROBLEM)) as string,
          /^date: no tick and no quote of these instruments is stored of 2020-01-01(; days there are: .*|, nor of any other day)$/
        )

        // Until today's are stored it is refused too.
        while (!(await page.evaluate(`${ITEM} !== null`))) {
          await submit(JSON.stringify(today), "1")
          await page.until(`!document.querySelector("#replay-start").disabled`)
        }
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
        await says(/; at .*; (?!2 of )[\d,]+ of /)

        // A day of now has a few seconds only: what comes after them ends it.
        if ((await page.evaluate(`${ITEM}.querySelector(".replay-steering").hidden`)) === false) {
          await page.evaluate(
            `(() => { const speed = ${ITEM}.querySelector("select"); speed.value = "inf"; speed.dispatchEvent(new Event("change")) })()`
          )
          await page.evaluate(press("Resume"))
        }
        await says(/^ended; /)
        assert.strictEqual(await page.evaluate(`${ITEM}.querySelector(".replay-steering").hidden`), true)
      })
    }).pipe(Effect.scoped)
  )
})
