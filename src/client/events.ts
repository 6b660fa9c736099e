/**
 * Decides how the application is told of events: typed, in order, at once. A listener that throws is reported as any
 * uncaught error is, and harms neither the client nor other listeners.
 */

type Listener<A> = (event: A) => void

/** Where nobody listens to `error`, it is written here: an error is never silent. */
const written = (error: unknown): void => console.error("market-data-platform/client:", error)

const report = (error: unknown): void => {
  const { reportError } = globalThis as { readonly reportError?: (error: unknown) => void }
  if (reportError !== undefined) reportError(error)
  else
    queueMicrotask(() => {
      throw error
    })
}

export class Emitter<Events extends { readonly error: unknown }> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>()

  /** Calls the listener at every such event; answers how to take it away again. */
  on<E extends keyof Events>(event: E, listener: Listener<Events[E]>): () => void {
    const known = this.#listeners.get(event) ?? new Set()
    this.#listeners.set(event, known)
    known.add(listener)
    return () => this.off(event, listener)
  }

  off<E extends keyof Events>(event: E, listener: Listener<Events[E]>): void {
    this.#listeners.get(event)?.delete(listener)
  }

  /** The next such event. */
  once<E extends keyof Events>(event: E, options: { readonly signal?: AbortSignal } = {}): Promise<Events[E]> {
    const { signal } = options
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted()
      const aborted = () => {
        off()
        reject(signal!.reason)
      }
      const off = this.on(event, (value) => {
        off()
        signal?.removeEventListener("abort", aborted)
        resolve(value)
      })
      signal?.addEventListener("abort", aborted, { once: true })
    })
  }

  /** Whether it is worth making the event. @internal */
  protected hears(event: keyof Events): boolean {
    return (this.#listeners.get(event)?.size ?? 0) > 0
  }

  /** @internal */
  protected emit<E extends keyof Events>(event: E, value: Events[E]): void {
    const listeners = this.#listeners.get(event)
    if (listeners === undefined || listeners.size === 0) {
      if (event === "error") written(value)
      return
    }
    for (const listener of listeners as Set<Listener<Events[E]>>) {
      try {
        listener(value)
      } catch (error) {
        report(error)
      }
    }
  }
}
