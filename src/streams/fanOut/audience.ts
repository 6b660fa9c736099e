/** Decides how those who want the same of an instrument lie side by side: every tick and every bar goes through them. */
import type { ClientQueue } from "./ClientQueue.ts"
import type { Wanted } from "./sideChannels.ts"

export interface AudienceMember {
  readonly queue: ClientQueue
  /** Its place in the audience it is in. */
  slot: number
}

/** Members that want the same; `queues[i]` is that of member `i`. */
export class Audience<M extends AudienceMember> {
  readonly wanted: Wanted
  readonly queues: Array<ClientQueue> = []
  private readonly members: Array<M> = []

  constructor(wanted: Wanted) {
    this.wanted = wanted
  }

  add(member: M): void {
    member.slot = this.queues.length
    this.queues.push(member.queue)
    this.members.push(member)
  }

  remove(member: M): void {
    const last = this.members.pop()!
    const queue = this.queues.pop()!
    if (last === member) return
    last.slot = member.slot
    this.members[last.slot] = last
    this.queues[last.slot] = queue
  }
}

/** The audience of what a member wants. */
export const audienceIn = <M extends AudienceMember>(audiences: Array<Audience<M>>, wanted: Wanted): Audience<M> => {
  for (const audience of audiences) if (audience.wanted === wanted) return audience
  const audience = new Audience<M>(wanted)
  audiences.push(audience)
  return audience
}
