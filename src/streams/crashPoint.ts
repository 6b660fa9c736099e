/**
 * Decides where a worker can be killed on purpose, between any two of its steps: MDP_CRASH_AT=<point>[:<nth time>]
 * makes it die there as by `kill -9`. Without it, which is always outside the crash suite, a point does nothing.
 */

/** Between which two steps each lies: what stands before it is done, what comes after has not begun. */
export const CRASH_POINTS = [
  // process
  "after-claim",
  "after-publish",
  "after-dead-letters",
  "after-forward",
  "after-raw-commit",
  "after-snapshot",
  // store
  "after-store-write",
  "after-store-commit",
  // recent
  "after-ring",
  "after-ring-commit",
  // archive
  "after-manifest",
  "after-object",
  "after-archive-write",
  "after-archive-commit"
] as const
export type CrashPoint = (typeof CRASH_POINTS)[number]

/** The point and how often it is passed before; undefined where none is named. A name that is none is an error. */
export const parseCrashAt = (text: string | undefined): { readonly point: CrashPoint; times: number } | undefined => {
  if (text === undefined || text === "") return undefined
  const [name, nth = "1"] = text.split(":")
  const point = CRASH_POINTS.find((known) => known === name)
  if (point === undefined || !/^[1-9]\d{0,8}$/.test(nth)) {
    throw new Error(`MDP_CRASH_AT: expected <point>[:<nth time>] with one of ${CRASH_POINTS.join(", ")}, got ${text}`)
  }
  return { point, times: Number(nth) }
}

const armed = parseCrashAt(process.env.MDP_CRASH_AT)

export const crashPoint = (point: CrashPoint): void => {
  if (armed === undefined || armed.point !== point) return
  armed.times -= 1
  if (armed.times === 0) process.kill(process.pid, "SIGKILL")
}
