/** Decides how deep JSON from outside may nest: whatever walks it afterwards does so by recursion. */

/** Deeper than anything the platform takes; a quote beside a tick has four levels. */
export const MAX_JSON_DEPTH = 32

const QUOTE = 0x22
const BACKSLASH = 0x5c

/** Whether JSON text, valid or not, opens more than `MAX_JSON_DEPTH` arrays and objects inside each other. */
export const nestsTooDeep = (json: Uint8Array): boolean => {
  let depth = 0
  let isText = false
  for (let i = 0; i < json.length; i += 1) {
    const byte = json[i]!
    if (isText) {
      if (byte === BACKSLASH) i += 1
      else if (byte === QUOTE) isText = false
    } else if (byte === QUOTE) isText = true
    // `[` and `{`, `]` and `}` are 0x20 apart.
    else if ((byte | 0x20) === 0x7b) {
      if (++depth > MAX_JSON_DEPTH) return true
    } else if ((byte | 0x20) === 0x7d) depth -= 1
  }
  return false
}
