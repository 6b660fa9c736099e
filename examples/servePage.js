// Serves the pages with live candles, and the client beside them as it is: node examples/servePage.js [PORT]
// The one of chart.html takes its charts from the package `lightweight-charts`, where that is installed.
// The platform lets the page's origin in by ALLOWED_ORIGINS=http://127.0.0.1:8090.
// @ts-check
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { stripTypeScriptTypes } from "node:module"
import { fileURLToPath } from "node:url"

const [port = "8090"] = process.argv.slice(2)
const page = new URL("page/", import.meta.url)
const client = new URL("./", import.meta.resolve("market-data-platform/client"))
const isSource = import.meta.resolve("market-data-platform/client").endsWith(".ts")
/** Of the package, with all that it needs. */
const CHARTS = "lightweight-charts.standalone.production.mjs"
/** @type {Record<string, string>} */
const types = { html: "text/html", mjs: "text/javascript", js: "text/javascript", ts: "text/javascript" }

const server = createServer(async (request, response) => {
  const [path = "/"] = (request.url ?? "/").split("?")
  const name = /^\/(client\/)?([A-Za-z]+\.(?:html|js|ts))?$/.exec(path)
  try {
    if (name === null) throw new Error("no such file")
    const [, ofClient, file = "index.html"] = name
    const isIndex = ofClient !== undefined && file === "index.js" && isSource
    const isCharts = ofClient === undefined && file === "charts.js"
    const of = isCharts ? import.meta.resolve("lightweight-charts") : ofClient === undefined ? page : client
    const url = new URL(isCharts ? CHARTS : isIndex ? "index.ts" : file, of)
    const text = await readFile(fileURLToPath(url), "utf8")
    const type = types[url.pathname.split(".").at(-1) ?? ""] ?? "text/plain"
    response.writeHead(200, { "content-type": `${type}; charset=utf-8` })
    // In a checkout the client is TypeScript.
    response.end(url.pathname.endsWith(".ts") ? stripTypeScriptTypes(text) : text)
  } catch {
    response.writeHead(404).end("nothing is here\n")
  }
})
server.listen(Number(port), "127.0.0.1", () => {
  const address = server.address()
  console.log(`http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : port}`)
})
