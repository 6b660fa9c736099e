/**
 * Decides where a worker can be killed or paused on purpose, between any two of its steps: with
 * MDP_CRASH_AT=<point>[:<nth time>[:SIGSTOP]] it dies there as by `kill -9`, or stands still until SIGCONT. Without it,
 * which is always outside the crash suite, a point does nothing.
 */

/** Between which two steps each lies: what stands before it is done, what comes after has not begun. */
export const CRASH_POINTS = [
  // process
  "after-claim",
  "after-publish",
  "after-dead-letters",
  "after-forward",
  "after-raw-commit",
  "after-checkpoint",
  // store
  "after-store-write",
  "after-store-commit",
  // recent
  "after-ring-write",
  "after-ring-commit",
  // archive
  "after-manifest",
  "after-object",
  "after-archive-write",
  "after-archive-commit"
] as const
/** Of work that is done once a day, which tests of its own kill. */
export const SELDOM_CRASH_POINTS = [
  // old days
  "after-handed-over",
  "after-read-back",
  "after-days-dropped",
  // compaction
  "after-plan",
  "after-joined-object",
  "after-joined-check",
  "after-covered-removed"
] as const
/** Every sink has these two; the list names those that the crash suite plays. */
type SinkPoint = `after-${string}-${"write" | "commit"}`
export type CrashPoint = (typeof CRASH_POINTS)[number] | (typeof SELDOM_CRASH_POINTS)[number] | SinkPoint

interface Armed {
  readonly point: CrashPoint
  /** The how many-th passing it is. */
  times: number
  readonly signal: "SIGKILL" | "SIGSTOP"
}

/** Undefined where no point is named. A name that is none is an error. */
export const parseCrashAt = (text: string | undefined): Armed | undefined => {
  if (text === undefined || text === "") return undefined
  const [name, nth = "1", signal = "SIGKILL", ...more] = text.split(":")
  const point = [...CRASH_POINTS, ...SELDOM_CRASH_POINTS].find((known) => known === name)
  const isSignal = signal === "SIGKILL" || signal === "SIGSTOP"
  if (point === undefined || !/^[1-9]\d{0,8}$/.test(nth) || !isSignal || more.length > 0) {
    const expected = `<point>[:<nth time>[:SIGSTOP]] with one of ${[...CRASH_POINTS, ...SELDOM_CRASH_POINTS].join(", ")}`
    throw new Error(`MDP_CRASH_AT: expected ${expected}, got ${text}`)
  }
  return { point, times: Number(nth), signal }
}

const armed = parseCrashAt(process.env.MDP_CRASH_AT)

export const crashPoint = (point: CrashPoint): void => {
  if (armed === undefined || armed.point !== point) return
  armed.times -= 1
  if (armed.times === 0) process.kill(process.pid, armed.signal)
}
