// Decides whether a container is healthy: what its process listens on has to answer. `node healthcheck.js [/readyz]`,
// with the settings of the process: a server's port (PORT, HOST), or a worker's own (METRICS_PORT, METRICS_HOST).
import { request as plain } from "node:http"
import { request as secure } from "node:https"

const WITHIN_MS = 3000
const path = process.argv[2] ?? "/healthz"

/** An empty setting counts as unset, and who listens everywhere does so on loopback. */
const setting = (name, fallback) => process.env[name]?.trim() || fallback
const hostOf = (name) => {
  const host = setting(name, "127.0.0.1")
  return host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host
}

const answers = (request, host, port) =>
  new Promise((resolve) => {
    // It asks itself: whose certificate is shown need not be looked at.
    const options = { host, port, path, timeout: WITHIN_MS, rejectUnauthorized: false, headers: { host: "localhost" } }
    const asked = request(options, (answer) => {
      answer.resume()
      resolve(answer.statusCode === 200)
    })
    asked.on("error", () => resolve(false))
    asked.on("timeout", () => asked.destroy())
    asked.end()
  })

const server = setting("TLS_CERT_FILE", "") === "" ? plain : secure
const answered = await Promise.all([
  answers(server, hostOf("HOST"), setting("PORT", "8080")),
  answers(plain, hostOf("METRICS_HOST"), setting("METRICS_PORT", "9464"))
])
process.exit(answered.includes(true) ? 0 : 1)
