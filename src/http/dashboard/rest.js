// Decides how the page asks the REST API: JSON in and out, with its key where one is asked for, errors with the server's
// own words.
import { apiKey, keyGiven, refuseKey } from "./key.js"

export class RestError extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

const TIMEOUT_MS = 10_000

/** Whether the server says that the key is missing or wrong; who gave wrong ones again and again is to wait. */
const isKeyRefused = (status, body) => status === 401 || (status === 429 && body?.parameter === "Authorization")

export const ask = async (path, { headers, ...options } = {}) => {
  for (;;) {
    // While a person is asked for the key, nothing is sent that would be refused for want of it.
    await keyGiven()
    const key = apiKey()
    let response
    let body
    try {
      response = await fetch(path, {
        signal: AbortSignal.timeout(TIMEOUT_MS),
        ...options,
        headers: { ...headers, ...(key === undefined ? {} : { authorization: `Bearer ${key}` }) }
      })
      if (response.status === 204) return undefined
      const type = response.headers.get("content-type") ?? ""
      body = type.includes("json") ? await response.json() : await response.text()
    } catch {
      throw new RestError(0, "the server does not answer")
    }
    if (response.ok) return body
    if (!isKeyRefused(response.status, body)) {
      throw new RestError(response.status, body?.message ?? `${response.status} ${response.statusText}`)
    }
    refuseKey(key, key === undefined ? "" : body.message)
  }
}

export const send = (method, path, body) =>
  ask(path, {
    method,
    ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) })
  })
