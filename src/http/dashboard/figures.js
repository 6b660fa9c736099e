// Decides how figures of several processes become one: rates within one life only, sums over those that live.

/** The figures of one life at one time, findable by name and labels. */
class Look {
  constructor({ figures, at }) {
    this.at = at
    this.byName = new Map()
    for (const { name, labels, value } of figures) {
      if (!this.byName.has(name)) this.byName.set(name, [])
      this.byName.get(name).push({ labels, value })
    }
  }

  all(name) {
    return this.byName.get(name) ?? []
  }

  sum(name, wanted) {
    let total
    for (const { labels, value } of this.all(name)) {
      if (Object.entries(wanted).every(([key, text]) => labels[key] === text)) total = (total ?? 0) + value
    }
    return total
  }
}

export class Figures {
  constructor() {
    this.lives = new Map()
  }

  /** Takes what `/topology` says of the processes; a life that is silent or gone counts no more. */
  take(workers) {
    const lives = new Map()
    for (const worker of workers) {
      if (!worker.living) continue
      const known = this.lives.get(worker.life)
      // What was not published anew says nothing new of a rate.
      if (known !== undefined && known.now.at === worker.at) lives.set(worker.life, known)
      else lives.set(worker.life, { now: new Look(worker), before: known?.now })
    }
    this.lives = lives
  }

  forget() {
    this.lives = new Map()
  }

  /** Every figure of a name, of all that live. */
  all(name) {
    return [...this.lives.values()].flatMap(({ now }) => now.all(name))
  }

  /** Undefined where nobody has such a figure. */
  sum(name, wanted = {}) {
    return total([...this.lives.values()].map(({ now }) => now.sum(name, wanted)))
  }

  /** A second; undefined before anyone was seen twice. */
  rate(name, wanted = {}) {
    return total(
      [...this.lives.values()].map(({ now, before }) => {
        const value = now.sum(name, wanted)
        if (value === undefined || before === undefined || now.at <= before.at) return undefined
        return (value - (before.sum(name, wanted) ?? 0)) / ((now.at - before.at) / 1_000_000)
      })
    )
  }

  /** Sums by the value of one label, ascending by it. */
  by(name, label) {
    const sums = new Map()
    for (const { labels, value } of this.all(name)) sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value)
    return [...sums].sort(([a], [b]) => (a < b ? -1 : 1))
  }

  /** The fullest buffer of each name, only where its capacity is known: `[buffer, size, share]`. */
  fills(sizes, capacities) {
    const fullest = new Map()
    for (const { now } of this.lives.values()) {
      for (const { labels, value: capacity } of now.all(capacities)) {
        const size = now.sum(sizes, { buffer: labels.buffer })
        if (size === undefined || !(capacity > 0)) continue
        const share = size / capacity
        if (share >= (fullest.get(labels.buffer)?.share ?? 0)) fullest.set(labels.buffer, { size, share })
      }
    }
    return [...fullest].map(([buffer, { size, share }]) => [buffer, size, share])
  }
}

const total = (values) => {
  const known = values.filter((value) => value !== undefined)
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0)
}
