// Decides how the page comes by an API key, where the server asks for one: a person gives it, and the tab keeps it.

/** Of this tab only: gone with it, and never in an address, where a log or a history would keep it. */
const NAME = "mdp.api-key"

const stored = () => {
  try {
    return sessionStorage.getItem(NAME) ?? undefined
  } catch {
    // A browser that keeps nothing: the key lasts until the page is loaded again.
    return undefined
  }
}

const store = (text) => {
  try {
    if (text === undefined) sessionStorage.removeItem(NAME)
    else sessionStorage.setItem(NAME, text)
  } catch {}
}

let key = stored()
/** While a person is asked: what the server said, and whoever waits for the answer. */
let asked
let show = () => {}
const listeners = new Set()

/** The key to send; undefined where none was asked for yet. */
export const apiKey = () => key

/** `shown(why)` is to ask a person, and with undefined to stop asking. */
export const showAsking = (shown) => {
  show = shown
  show(asked?.why)
}

/** Calls `given()` whenever a person has given a key. */
export const whenGiven = (given) => {
  listeners.add(given)
}

/** The server did not take `used`, the key that a request had, if any. */
export const refuseKey = (used, why) => {
  // Another one was given meanwhile, or is being asked for.
  if (asked !== undefined || used !== key) return
  key = undefined
  store(undefined)
  let resolve
  const promise = new Promise((done) => {
    resolve = done
  })
  asked = { why, promise, resolve }
  show(why)
}

/** A person has given a key. */
export const giveKey = (text) => {
  key = text.trim()
  store(key)
  const { resolve } = asked ?? {}
  asked = undefined
  show(undefined)
  resolve?.()
  for (const given of listeners) given()
}

/** Done at once, unless a person is being asked. */
export const keyGiven = () => asked?.promise ?? Promise.resolve()

export const isAsking = () => asked !== undefined
