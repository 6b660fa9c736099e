/** Decides how tests read what the stages counted of a batch. */
import type { Sequenced } from "../../../src/streams/process/batch.ts"

type Counted = Pick<Sequenced, "passed">

/** Ticks that any stage took out for a reason, dead letters apart. */
export const tookOut = ({ passed }: Counted, reason: string): number =>
  passed.reduce((sum, { discarded }) => sum + (discarded[reason] ?? 0), 0)

/** Ticks that a stage handed on. */
export const handedOn = ({ passed }: Counted, stage: string): number =>
  passed.reduce((sum, count) => (count.stage === stage ? sum + count.sent : sum), 0)
