/**
 * Decides what a client costs that is connected and says nothing: ten thousand of them, plain and over TLS, while one
 * that listens goes on hearing.
 */
import { type ChildProcess, fork } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import WebSocket from "ws"
import { makeAuthority, makeCertificate } from "../support/certificates.ts"
import { Mdp } from "../support/processes.ts"
import { residentMb, type SoakOptions } from "./ground.ts"
import type { Report } from "./report.ts"

const CONNECTIONS = 10_000
const CROWDS = 2
/** What one may take at most, KB. */
const PLAIN_KB = 10
const TLS_KB = 60
const STARTS_WITHIN_MS = 60_000
/** Buffers of handshakes go back by then. */
const REST_S = 10

export const idle = async ({ seconds }: SoakOptions, report: Report): Promise<void> => {
  process.stdout.write(`idle: ${CONNECTIONS} connections, plain and over TLS, ${seconds} s each\n`)
  const folder = mkdtempSync(join(tmpdir(), "mdp-idle-"))
  const authority = makeAuthority(folder)
  const { key, certificate } = makeCertificate(authority, "server")
  try {
    for (const [name, limitKb, settings] of [
      ["plain", PLAIN_KB, {}],
      ["TLS", TLS_KB, { TLS_CERT_FILE: certificate, TLS_KEY_FILE: key }]
    ] as const) {
      const mdp = new Mdp(["demo", "--rate", "100"], {
        PORT: "0",
        MAX_CLIENTS: String(CONNECTIONS + 100),
        CONNECTIONS_PER_ADDRESS: String(CONNECTIONS + 100),
        HTTP_ADDRESS_PERCENT: "100",
        ...settings
      })
      const crowds: Array<ChildProcess> = []
      let listener: WebSocket | undefined
      try {
        const until = Date.now() + STARTS_WITHIN_MS
        let url: string | undefined
        while (url === undefined && !mdp.isOver && Date.now() < until) {
          url = /https?:\/\/127\.0\.0\.1:\d+/.exec(mdp.stdout)?.[0]?.replace(/^http/, "ws")
          await sleep(50)
        }
        if (url === undefined) throw new Error(`demo did not start: ${mdp.stderr}`)
        let heard = 0
        listener = new WebSocket(`${url}/ws`, { rejectUnauthorized: false })
        listener.on("open", () => listener?.send(JSON.stringify({ action: "subscribe", tokens: [9_000_001] })))
        listener.on("message", (data: Buffer) => {
          if (data.includes('"type":"tick"')) heard++
        })
        while (heard === 0 && !mdp.isOver) await sleep(50)
        // What grows by itself in the first seconds is nobody's.
        await sleep(REST_S * 1000)
        const resident = async () => (await residentMb([{ name, mdp, url: url!, isMeantToEnd: false }]))[0]!
        const before = await resident()
        const path = fileURLToPath(new URL("./idleCrowd.ts", import.meta.url))
        const open = await Promise.all(
          Array.from({ length: CROWDS }, () => {
            const crowd = fork(path, [`${url}/ws`, String(CONNECTIONS / CROWDS)])
            crowds.push(crowd)
            return new Promise<number>((resolve, reject) => {
              crowd.once("message", resolve)
              crowd.once("exit", (code) => reject(new Error(`a crowd ended with ${code}`)))
            })
          })
        )
        const count = open.reduce((sum, n) => sum + n, 0)
        await sleep(REST_S * 1000)
        const full = await resident()
        const heardBefore = heard
        await sleep(seconds * 1000)
        const last = await resident()
        const kb = ((full - before) * 1024) / count
        report.check(`${name}: it is spoken to so`, url.startsWith(name === "TLS" ? "wss:" : "ws:"), url)
        report.check(`${name}: all are connected`, count === CONNECTIONS, `${count}`)
        report.check(
          `${name}: memory of one at most ${limitKb} KB`,
          kb <= limitKb,
          `${kb.toFixed(1)} KB (${before.toFixed(0)} MB, ${full.toFixed(0)} MB with all)`
        )
        report.check(`${name}: it does not grow`, last <= full * 1.15, `${last.toFixed(0)} MB after ${seconds} s`)
        report.check(`${name}: who listens goes on hearing`, heard > heardBefore, `${heard - heardBefore} ticks`)
        report.check(`${name}: the server lives`, !mdp.isOver, mdp.isOver ? mdp.stderr.slice(-1000) : "yes")
      } finally {
        listener?.terminate()
        for (const crowd of crowds) crowd.kill("SIGKILL")
        mdp.kill("SIGKILL")
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
