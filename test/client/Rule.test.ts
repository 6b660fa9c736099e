import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { RuleViolated } from "../../src/client/errors.ts"
import { type Outcome, Rule } from "../../src/client/Rule.ts"
import { EPOCH } from "../support/hub.ts"

const NEXT_DAY = EPOCH + 1_000_000_000
const firstOf = (outcome: Outcome): number => {
  if (outcome.broken !== undefined) throw outcome.broken
  return outcome.first
}
const brokenOf = (outcome: Outcome): RuleViolated => {
  assert.instanceOf(outcome.broken, RuleViolated)
  return outcome.broken!
}

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Part = Schema.Struct({
  kind: Schema.Literals(["tick", "backfill", "evicted"]),
  length: int(1, 20),
  /** Above 0 it begins an epoch, so much later. */
  later: Schema.Union([Schema.Literal(0), Schema.Literal(0), int(0, 100_000)])
})
const streams = Arbitrary.array(Arbitrary.schema(Part), { minLength: 2, maxLength: 40 })
const place = Arbitrary.schema(int(0, 1000))
const places = Arbitrary.array(place, { maxLength: 60 })

interface Step {
  readonly epoch: number
  readonly from: number
  readonly to: number
  readonly kind: string
}

/** A stream that keeps the rule. */
const stepsOf = (parts: ReadonlyArray<typeof Part.Type>): ReadonlyArray<Step> => {
  let [epoch, position] = [EPOCH, 0]
  return parts.map(({ kind, length, later }) => {
    if (later > 0) [epoch, position] = [epoch + later, 0]
    const from = position + 1
    position += kind === "tick" ? 1 : length
    return { epoch, from, to: position, kind }
  })
}

/** Which of them is the first that breaks the rule. */
const firstBroken = (steps: ReadonlyArray<Step>): number | undefined => {
  const rule = new Rule()
  const at = steps.findIndex(
    ({ epoch, from, to, kind }) =>
      !(kind === "tick" && rule.follows(1, epoch, from)) && rule.advance(1, epoch, from, to, kind).broken !== undefined
  )
  return at < 0 ? undefined : at
}

describe("the rule", () => {
  it("takes any first place, and then what follows it", () => {
    const rule = new Rule()
    assert.strictEqual(firstOf(rule.advance(1, EPOCH, 401, 500, "backfill")), 401)
    assert.isTrue(rule.follows(1, EPOCH, 501))
    assert.strictEqual(firstOf(rule.advance(1, EPOCH, 502, 530, "evicted")), 502)
    assert.deepStrictEqual(rule.place(1), [EPOCH, 530])
    assert.isUndefined(rule.place(2))
  })

  it("finds a hole, a position that comes again and an older epoch, and says where", () => {
    const rule = new Rule()
    rule.begin(7, [EPOCH, 500])
    const hole = brokenOf(rule.advance(7, EPOCH, 502, 502, "tick"))
    assert.strictEqual(hole.message, `instrument 7 stood at ${EPOCH}/500: tick ${EPOCH}/502, expected 501`)
    assert.deepStrictEqual(
      [hole.stood, hole.came],
      [
        [EPOCH, 500],
        [EPOCH, 502]
      ]
    )
    assert.isFalse(rule.follows(7, EPOCH, 500))
    brokenOf(rule.advance(7, EPOCH, 500, 500, "tick"))
    brokenOf(rule.advance(7, EPOCH, 400, 600, "backfill"))
    brokenOf(rule.advance(7, EPOCH - 1, 501, 501, "tick"))
    // A breach moves nothing.
    assert.isTrue(rule.follows(7, EPOCH, 501))
  })

  it("lets an epoch begin at 1 alone, and tells a new day from a state that was lost", () => {
    const rule = new Rule()
    rule.begin(1, [EPOCH, 500])
    brokenOf(rule.advance(1, EPOCH + 60, 2, 2, "tick"))
    const lost = rule.advance(1, EPOCH + 60, 1, 1, "tick")
    assert.deepStrictEqual(lost.broken === undefined && lost.change, {
      type: "epoch",
      instrument_token: 1,
      from: [EPOCH, 500],
      to: [EPOCH + 60, 0],
      reason: "lost"
    })
    const day = rule.advance(1, NEXT_DAY, 1, 9, "backfill")
    assert.strictEqual(day.broken === undefined && day.change?.reason, "day")
  })

  it("holds an empty backfill to where the stream stands", () => {
    const rule = new Rule()
    assert.strictEqual(firstOf(rule.stand(1, 0, 0, true)), 1)
    assert.isUndefined(rule.place(1))
    rule.stand(1, EPOCH, 500, true)
    assert.deepStrictEqual(rule.place(1), [EPOCH, 500])
    firstOf(rule.stand(1, EPOCH, 500, true))
    brokenOf(rule.stand(1, EPOCH, 501, true))
    brokenOf(rule.stand(1, EPOCH, 501, false))
    brokenOf(rule.stand(1, EPOCH, 499, true))
    brokenOf(rule.stand(1, EPOCH - 1, 700, true))
    brokenOf(rule.stand(1, NEXT_DAY, 3, true))
    firstOf(rule.stand(1, NEXT_DAY, 0, true))
    assert.isTrue(rule.follows(1, NEXT_DAY, 1))
  })

  it("hands nothing on again where a server is behind the one before it", () => {
    const rule = new Rule()
    rule.begin(1, [EPOCH, 500])
    firstOf(rule.stand(1, EPOCH, 480, false))
    assert.deepStrictEqual(rule.place(1), [EPOCH, 500])
    assert.isFalse(rule.follows(1, EPOCH, 481))
    assert.strictEqual(firstOf(rule.advance(1, EPOCH, 481, 481, "tick")), 501)
    brokenOf(rule.advance(1, EPOCH, 483, 483, "tick"))
    assert.strictEqual(firstOf(rule.advance(1, EPOCH, 482, 505, "backfill")), 501)
    assert.isTrue(rule.follows(1, EPOCH, 506))
  })

  it("goes back to an older epoch only where it is told that the place is not known", () => {
    const rule = new Rule()
    rule.begin(1, [NEXT_DAY, 10])
    const back = rule.stand(1, EPOCH, 700, false)
    assert.strictEqual(back.broken === undefined && back.change?.reason, "behind")
    assert.isTrue(rule.follows(1, EPOCH, 701))
  })

  it("is taken up again at a place that is broken twice, and says what lies between", () => {
    const rule = new Rule()
    rule.begin(1, [EPOCH, 500])
    const first = brokenOf(rule.advance(1, EPOCH, 510, 512, "backfill"))
    assert.isFalse(rule.isBrokenAgain(first))
    assert.isTrue(rule.isBrokenAgain(brokenOf(rule.advance(1, EPOCH, 510, 512, "backfill"))))
    assert.deepStrictEqual(rule.rebase(1, EPOCH, 510, 512), { first: 510, change: undefined, missed: [501, 509] })
    assert.isTrue(rule.follows(1, EPOCH, 513))
    // Behind: what the application has is not handed on again.
    assert.deepStrictEqual(rule.rebase(1, EPOCH, 505, 505), { first: 514, change: undefined, missed: undefined })
    assert.strictEqual(firstOf(rule.advance(1, EPOCH, 506, 515, "backfill")), 514)
    const { change, missed } = rule.rebase(1, NEXT_DAY, 5, 5)
    assert.deepStrictEqual([change?.reason, missed], ["day", [1, 4]])
  })

  it("goes on from what the application has after a reconnect", () => {
    const rule = new Rule()
    rule.begin(1, [EPOCH, 500])
    rule.stand(1, EPOCH, 480, false)
    assert.deepStrictEqual(rule.resume(1), [EPOCH, 500])
    assert.isTrue(rule.follows(1, EPOCH, 501))
  })

  it.prop("takes any stream that keeps it", [streams], ([parts]) => {
    assert.isUndefined(firstBroken(stepsOf(parts)))
  })

  it.prop("finds the first message that was left out, or came twice", [streams, place], ([parts, at]) => {
    const steps = stepsOf(parts)
    const i = at % (steps.length - 1)
    assert.strictEqual(firstBroken(steps.toSpliced(i, 0, steps[i]!)), i + 1, "twice")
    // Nothing shows that an epoch had more, or that a stream began earlier.
    const isEnd = steps[i]!.epoch !== steps[i + 1]!.epoch
    if (i > 0 && !isEnd) assert.strictEqual(firstBroken(steps.toSpliced(i, 1)), i, "left out")
  })

  it.prop(
    "never hands a position on twice, nor one out of order, whatever comes",
    [streams, places],
    ([parts, order]) => {
      const steps = stepsOf(parts)
      const rule = new Rule()
      let [epoch, position] = [0, 0]
      for (const at of order) {
        const step = steps[at % steps.length]!
        const outcome = rule.advance(1, step.epoch, step.from, step.to, step.kind)
        // Twice broken or not, it is taken up again right there.
        const rebased = outcome.broken === undefined ? outcome : rule.rebase(1, step.epoch, step.from, step.to)
        if (rebased.change !== undefined) [epoch, position] = [step.epoch, 0]
        if (epoch === 0) epoch = step.epoch
        assert.strictEqual(epoch, step.epoch)
        if (rebased.first > step.to) continue
        assert.isAbove(rebased.first, position)
        position = step.to
      }
    }
  )
})
