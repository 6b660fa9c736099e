/** Decides how what an oracle finds is told: a few examples of each kind. */

/** Problems, a few of each kind and how many more. */
export class Problems {
  readonly #counts = new Map<string, { count: number; examples: Array<string> }>()

  add(kind: string, example = ""): void {
    const known = this.#counts.get(kind)
    if (known === undefined) this.#counts.set(kind, { count: 1, examples: [example] })
    else {
      known.count++
      if (known.examples.length < 4) known.examples.push(example)
    }
  }

  get list(): ReadonlyArray<string> {
    return [...this.#counts].map(([kind, { count, examples }]) => `${kind}: ${count}, such as ${examples.join("; ")}`)
  }
}
