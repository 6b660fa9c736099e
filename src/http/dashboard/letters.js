// Decides how dead letters are read and sent again from the page: the newest of them, foreign text as text only, cut.
import { dayAndMinute, element, foreign, quantity } from "./format.js"
import { ask, send } from "./rest.js"

const EVERY_MS = 10_000
const SHOWN = 20
const REASON_CHARS = 300
const VALUE_CHARS = 2_000
/** Requests that one press of the button makes at most; each sends a bounded number. */
const MAX_REQUESTS = 1_000

export class Letters {
  constructor(parts) {
    this.parts = parts
    this.rows = new Map()
    this.asked = 0
    this.isSending = false
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault()
      void this.look()
    })
    parts.retry.addEventListener("click", () => void this.retryAll())
    void this.again()
  }

  get reason() {
    return this.parts.reason.value.trim()
  }

  async again() {
    await this.look()
    // The page's key may not read them: asked again and again it would only be refused.
    if (this.isForbidden) return
    const next = () => setTimeout(() => this.again(), EVERY_MS)
    if (document.hidden) document.addEventListener("visibilitychange", next, { once: true })
    else next()
  }

  async look() {
    const asked = ++this.asked
    const { reason } = this
    const query = new URLSearchParams({ order: "newest", limit: String(SHOWN), ...(reason === "" ? {} : { reason }) })
    try {
      const { letters, total } = await ask(`/api/v1/dlq?${query}`)
      if (asked !== this.asked) return
      this.show(letters, total)
      this.problem(undefined)
    } catch (error) {
      this.isForbidden = error.status === 403
      if (asked === this.asked) this.problem(error.message)
    }
  }

  show(letters, total) {
    const { parts } = this
    const rows = new Map()
    for (const letter of letters) {
      const key = `${letter.partition}/${letter.offset}`
      rows.set(key, this.rows.get(key) ?? this.row(letter))
    }
    this.rows = rows
    // What is read stays open, and where it is.
    const wanted = [...rows.values()]
    if (wanted.length !== parts.list.children.length || wanted.some((row, i) => row !== parts.list.children[i])) {
      parts.list.replaceChildren(...wanted)
    }
    parts.total.textContent = total === 0 ? "" : quantity(total)
    parts.retry.disabled = this.isSending || total === 0
    parts.retry.textContent = this.reason === "" ? "Send all again" : "Send these again"
    parts.empty.hidden = letters.length > 0
    parts.empty.textContent =
      total === 0
        ? "No dead letters: everything that came could go on."
        : "None of the newest has such a reason; sending again looks through all."
  }

  row(letter) {
    const { partition, offset, at, from, value, base64, bytes } = letter
    const body = typeof value === "string" ? value : base64 === undefined ? "(no value)" : `base64: ${base64}`
    const retry = element("button", "", "Send again")
    retry.type = "button"
    retry.addEventListener("click", () => void this.retry({ partition, offset }, retry))
    const origin =
      from.partition === null ? "" : `${foreign(from.topic ?? "raw_ticks", 60)} ${from.partition} at ${from.offset}`
    return element(
      "li",
      "",
      element("p", "letter-reason", foreign(letter.reason ?? "no reason given", REASON_CHARS)),
      element(
        "div",
        "replay-line",
        element("span", "muted", `${dayAndMinute(at)}${origin === "" ? "" : ` · ${origin}`}`),
        retry
      ),
      element(
        "details",
        "",
        element("summary", "muted", `${quantity(bytes)} bytes`),
        element("pre", "letter-value", foreign(body, VALUE_CHARS))
      )
    )
  }

  async retryAll() {
    const { reason } = this
    const which = reason === "" ? "all dead letters" : `every dead letter whose reason has “${foreign(reason, 80)}”`
    if (!confirm(`Send ${which} through the pipeline again? What is still wrong comes back.`)) return
    await this.retry(reason === "" ? { all: true } : { reason }, this.parts.retry)
  }

  async retry(wanted, button) {
    button.disabled = true
    this.isSending = true
    const done = { sent: 0, cut: 0, batches: 0 }
    try {
      let cursor
      for (let request = 0; request < MAX_REQUESTS; request++) {
        const report = await send("POST", "/api/v1/dlq/retry", cursor === undefined ? wanted : { ...wanted, cursor })
        for (const name of Object.keys(done)) done[name] += report[name]
        this.parts.note.textContent = reportOf(done, report.next_cursor === null)
        if (report.next_cursor === null) break
        cursor = report.next_cursor
      }
      this.problem(undefined)
    } catch (error) {
      this.problem(error.message)
    } finally {
      this.isSending = false
      button.disabled = false
    }
    await this.look()
  }

  problem(text) {
    this.parts.problem.textContent = text ?? ""
    this.parts.problem.hidden = text === undefined
  }
}

const reportOf = ({ sent, cut, batches }, isDone) =>
  [
    `${quantity(sent)} sent again${isDone ? "" : " so far"}; they stay listed until retention takes them`,
    cut > 0 ? `${quantity(cut)} kept: only their beginning is there` : "",
    batches > 0 ? `${quantity(batches)} kept: batches that nobody can read` : ""
  ]
    .filter(Boolean)
    .join(" · ")
