// Decides how the page asks the REST API: JSON in and out, errors with the server's own words.

export class RestError extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

const TIMEOUT_MS = 10_000

export const ask = async (path, options = {}) => {
  let response
  try {
    response = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), ...options })
  } catch {
    throw new RestError(0, "the server does not answer")
  }
  if (response.status === 204) return undefined
  const type = response.headers.get("content-type") ?? ""
  const body = type.includes("json") ? await response.json() : await response.text()
  if (!response.ok) throw new RestError(response.status, body?.message ?? `${response.status} ${response.statusText}`)
  return body
}

export const send = (method, path, body) =>
  ask(path, {
    method,
    ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) })
  })
