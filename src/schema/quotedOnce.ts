/** Decides how names that recur (feeds, connections, incarnations) are quoted: each once, for as long as there are few. */

/** More names than these, and all are quoted anew: what comes from outside may not fill memory. */
const MAX_NAMES = 1024

/** `quote`, which remembers its answers. */
export const quotedOnce = (quote: (name: string) => string): ((name: string) => string) => {
  const quoted = new Map<string, string>()
  return (name) => {
    let text = quoted.get(name)
    if (text === undefined) {
      if (quoted.size >= MAX_NAMES) quoted.clear()
      text = quote(name)
      quoted.set(name, text)
    }
    return text
  }
}

/** A name as a JSON string. */
export const jsonName = quotedOnce((name) => JSON.stringify(name))
