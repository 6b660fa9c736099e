// Decides how an instrument is found by typing: symbol, name or token, by keyboard or pointer.
import { element } from "./format.js"
import { ask } from "./rest.js"

const WAIT_MS = 120
const SHOWN = 20
const MAX_TOKEN = 2_147_483_647

export class Search {
  constructor(input, list, choose) {
    this.input = input
    this.list = list
    this.choose = choose
    this.found = []
    this.at = -1
    this.asked = 0
    input.addEventListener("input", () => {
      clearTimeout(this.timer)
      this.timer = setTimeout(() => void this.look(), WAIT_MS)
    })
    input.addEventListener("focus", () => void this.look())
    input.addEventListener("blur", () => setTimeout(() => this.hide(), 150))
    input.addEventListener("keydown", (event) => this.key(event))
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "")) return
      event.preventDefault()
      input.focus()
    })
  }

  async look() {
    const query = this.input.value.trim()
    const asked = ++this.asked
    const params = new URLSearchParams({
      limit: String(SHOWN),
      ...(query === "" ? {} : { query: query.slice(0, 100) })
    })
    try {
      const { instruments } = await ask(`/api/v1/instruments/search?${params}`)
      if (asked !== this.asked || document.activeElement !== this.input) return
      const found = instruments.map((instrument) => ({ token: instrument.instrument_token, instrument }))
      // Feeds know new contracts first: a bare token can be watched, too.
      const token = /^\d{1,10}$/.test(query) ? Number(query) : 0
      if (token > 0 && token <= MAX_TOKEN && !found.some((one) => one.token === token)) found.push({ token })
      this.show(found, found.length === 0 ? "Nothing found" : undefined)
    } catch (error) {
      if (asked === this.asked) this.show([], `Search: ${error.message}`)
    }
  }

  show(found, note) {
    this.found = found
    this.at = found.length > 0 ? 0 : -1
    this.list.replaceChildren(
      ...found.map(({ token, instrument }, i) => {
        const row = element(
          "div",
          "",
          element("b", "", instrument?.tradingsymbol ?? `#${token}`),
          element(
            "span",
            "result-name",
            instrument === undefined ? "token that no instrument has" : (instrument.name ?? "")
          ),
          element("span", "tag", instrument?.exchange ?? "?"),
          element("span", "tag", instrument?.asset_class ?? "?")
        )
        row.id = `result-${i}`
        row.setAttribute("role", "option")
        row.addEventListener("pointerdown", (event) => {
          event.preventDefault()
          this.pick(i)
        })
        return row
      }),
      ...(note === undefined ? [] : [element("div", "note", note)])
    )
    this.list.hidden = false
    this.input.setAttribute("aria-expanded", "true")
    this.mark()
  }

  hide() {
    this.asked++
    this.list.hidden = true
    this.input.setAttribute("aria-expanded", "false")
    this.input.removeAttribute("aria-activedescendant")
  }

  mark() {
    const rows = this.list.querySelectorAll('[role="option"]')
    rows.forEach((row, i) => {
      row.setAttribute("aria-selected", String(i === this.at))
      if (i !== this.at) return
      row.scrollIntoView({ block: "nearest" })
      this.input.setAttribute("aria-activedescendant", row.id)
    })
  }

  pick(at) {
    const one = this.found[at]
    if (one === undefined) return
    this.input.value = ""
    this.hide()
    this.choose(one.token, one.instrument)
  }

  key(event) {
    if (event.key === "Escape") {
      this.input.value = ""
      this.input.blur()
    } else if (event.key === "Enter") {
      this.pick(this.at)
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault()
      const step = event.key === "ArrowDown" ? 1 : -1
      if (this.found.length > 0) this.at = (this.at + step + this.found.length) % this.found.length
      this.mark()
    }
  }
}
