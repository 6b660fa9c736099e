/** Decides how a line of a table is cut into fields: by which character, and what quotes mean. */

/** What separates columns, by the name that a flag has for it. */
export const DELIMITERS = { comma: ",", semicolon: ";", tab: "\t", pipe: "|" } as const
export type Delimiter = (typeof DELIMITERS)[keyof typeof DELIMITERS]

/** The fields of one line; `undefined` where its quotes do not close or text follows a closing quote. */
export const splitLine = (line: string, delimiter: string = ","): Array<string> | undefined => {
  if (!line.includes('"')) return line.split(delimiter)
  const fields: Array<string> = []
  let at = 0
  for (;;) {
    if (line[at] === '"') {
      let field = ""
      at += 1
      for (;;) {
        const end = line.indexOf('"', at)
        if (end < 0) return undefined
        field += line.slice(at, end)
        at = end + 1
        if (line[at] !== '"') break
        field += '"'
        at += 1
      }
      fields.push(field)
      if (at >= line.length) return fields
      if (line[at] !== delimiter) return undefined
      at += 1
    } else {
      const end = line.indexOf(delimiter, at)
      fields.push(end < 0 ? line.slice(at) : line.slice(at, end))
      if (end < 0) return fields
      at = end + 1
    }
  }
}

/**
 * What separates the columns of these lines, the first ones of a table: what cuts all of them into the same number of
 * fields, the most where several do; else what the first line has most of. A comma where nothing else does.
 */
export const delimiterOf = (lines: ReadonlyArray<string>): Delimiter => {
  let best: Delimiter = ","
  let most = 0
  for (const delimiter of Object.values(DELIMITERS)) {
    const widths = lines.map((line) => splitLine(line, delimiter)?.length ?? 1)
    const first = widths[0] ?? 1
    // Fields of a table that holds together weigh more than any number of pieces of one that does not.
    const weight = first === 1 ? 0 : first + (widths.every((width) => width === first) ? 1_000_000 : 0)
    if (weight > most) [best, most] = [delimiter, weight]
  }
  return best
}
