/** Decides how a duration is written on the command line. */

const DURATION = /^(\d+(?:\.\d+)?)(us|ms|s|m|h|d)$/
const milliseconds = { us: 0.001, ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** Milliseconds of a duration such as `20ms`, `60s` or `2h`; undefined where the text is none. */
export const parseDuration = (text: string): number | undefined => {
  const match = DURATION.exec(text)
  return match === null ? undefined : Number(match[1]) * milliseconds[match[2] as keyof typeof milliseconds]
}
