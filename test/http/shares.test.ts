import { assert, describe, it } from "@effect/vitest"
import { Rate } from "../../src/http/rate.ts"
import { MESSAGES, Shares } from "../../src/http/shares.ts"

/** Work on a clock of the test's own: each step takes `ms`. */
const make = () => {
  let time = 0
  const timers: Array<{ readonly run: () => void; readonly at: number }> = []
  const shares = new Shares(
    MESSAGES,
    () => time,
    (run, ms) => {
      timers.push({ run, at: time + ms })
    }
  )
  const done: Array<string> = []
  const work = (name: string, steps: number, ms: number) => {
    let left = steps
    return {
      step: () => {
        time += ms
        done.push(name)
        return --left > 0
      }
    }
  }
  /** Goes on to the next timer; answers how long nothing was done before it. */
  const next = () => {
    const timer = timers.shift()
    if (timer === undefined) return undefined
    const idle = timer.at - time
    time = timer.at
    timer.run()
    return idle
  }
  return {
    shares,
    done,
    work,
    next,
    time: () => time,
    pass: (ms: number) => {
      time += ms
    }
  }
}

describe("the work of clients", () => {
  it("is done at once where it is little and nobody waits", () => {
    const { shares, done, work, next } = make()
    shares.add(work("a", 3, 0.1))
    assert.deepStrictEqual(done, ["a", "a", "a"])
    assert.isUndefined(next())
  })

  it("is done in slices, each client in turn, and leaves most of the time to others", () => {
    const { shares, done, work, next, time, pass } = make()
    pass(1000)
    const from = time()
    shares.add(work("a", 300, 0.5))
    shares.add(work("b", 20, 0.5))
    let idle = 0
    let longest = 0
    for (;;) {
      const before = time()
      const rest = next()
      if (rest === undefined) break
      idle += rest
      longest = Math.max(longest, time() - before - rest)
    }
    assert.strictEqual(done.length, 320)
    // The one that asked for little is not behind the one that asked for much.
    assert.isBelow(done.lastIndexOf("b"), 50)
    assert.isAtMost(longest, 2.5)
    assert.isAbove(idle / (time() - from), 0.6)
  })

  it("that takes longer than a slice in one step is followed by as long a rest", () => {
    const { shares, work, next } = make()
    shares.add(work("a", 2, 100))
    assert.isAtLeast(next()!, 200)
  })

  it("that is given up is not gone on with", () => {
    const { shares, done, work, next } = make()
    const one = work("a", 100, 1)
    shares.add(one)
    const before = done.length
    shares.remove(one)
    next()
    assert.strictEqual(done.length, before)
  })
})

describe("an allowance", () => {
  it("is taken at once, fills up with time, and says when there is enough", () => {
    const allowance = new Rate(10, 2, 0)
    assert.isTrue(allowance.take(10, 0))
    assert.isFalse(allowance.take(1, 0))
    assert.strictEqual(allowance.secondsUntil(1), 0.5)
    assert.isTrue(allowance.take(1, 500))
    assert.isFalse(allowance.take(11, 1_000_000))
    assert.isTrue(allowance.take(10, 1_000_000))
  })
})
