/** Decides in which form history is answered: the one that `format` names, else the first that the client accepts. */
import { BASE } from "../Api.ts"
import { type Format, mediaTypes } from "./mediaTypes.ts"

const byMediaType = new Map<string, Format>(
  (Object.keys(mediaTypes) as ReadonlyArray<Format>).map((format) => [mediaTypes[format], format])
)

/** JSON where the client names nothing that is written here. */
export const formatOf = (named: Format | undefined, accept: string | undefined): Format => {
  if (named !== undefined) return named
  for (const part of (accept ?? "").split(",")) {
    const type = part.split(";", 1)[0]!.trim().toLowerCase()
    if (type === "*/*") return "json"
    const format = byMediaType.get(type)
    if (format !== undefined) return format
  }
  return "json"
}

const PATHS: ReadonlySet<string> = new Set([`${BASE}/historical/ticks`, `${BASE}/historical/candles`])
const SEVERAL = ["symbols", "tokens", "all"] as const

/** Whether several instruments are asked for: all of it is then one answer. */
export const isOfSeveral = (query: Readonly<Partial<Record<(typeof SEVERAL)[number], unknown>>>): boolean =>
  SEVERAL.some((name) => query[name] !== undefined)

/** Whether the answer to a request will stream, by its head alone. */
export const willStream = (path: string, query: string, accept: string): boolean => {
  if (!PATHS.has(path)) return false
  const asked = new URLSearchParams(query)
  if (SEVERAL.some((name) => asked.has(name))) return true
  // A format that is none is refused by its route, which streams nothing.
  return formatOf((asked.get("format") as Format | null) ?? undefined, accept) !== "json"
}
