/**
 * Decides how many ordered sources become one: a k-way merge on a min-heap over pages, holding one page a source and
 * one being fetched, however long the sources are.
 */
import { Cause, Effect, Fiber, Scope, Semaphore, Stream } from "effect"

/** An ordered source read by keyset. A page shorter than `pageSize` is the last one. */
export interface PageReader<A, E = never> {
  readonly pageSize: number
  readonly page: (after: A | undefined) => Effect.Effect<ReadonlyArray<A>, E>
}

export interface MergeOptions<A> {
  /** A total order over all sources that each source's pages ascend in. Equal items come in the order of the sources. */
  readonly order: (a: A, b: A) => number
  /** Items handed on at a time; every array but the last has exactly this many, whatever the pages are. */
  readonly arraySize: number
  /** Pages fetched at the same time. */
  readonly concurrency: number
}

interface PagedSource<A, E> {
  readonly reader: PageReader<A, E>
  page: ReadonlyArray<A>
  at: number
  /** The page after this one is under way, or there is none. */
  next: Fiber.Fiber<ReadonlyArray<A>, E> | undefined
  last: boolean
}

/** All items of all readers in one order. */
export const merge = <A, E>(
  readers: ReadonlyArray<PageReader<A, E>>,
  options: MergeOptions<A>
): Stream.Stream<A, E> => {
  const { order, arraySize } = options

  return Stream.unwrap(
    Effect.gen(function* () {
      const scope = yield* Scope.Scope
      const fetches = yield* Semaphore.make(options.concurrency)
      const fetch = (reader: PageReader<A, E>, after: A | undefined) =>
        Semaphore.withPermits(fetches, 1)(reader.page(after))

      const sources: Array<PagedSource<A, E>> = []
      /** Source numbers, the one with the smallest head first. */
      const heap: Array<number> = []

      const before = (a: number, b: number): boolean => {
        const left = sources[a]!
        const right = sources[b]!
        const by = order(left.page[left.at]!, right.page[right.at]!)
        return by < 0 || (by === 0 && a < b)
      }
      const siftDown = (from: number) => {
        const size = heap.length
        const moved = heap[from]!
        let i = from
        for (;;) {
          let child = 2 * i + 1
          if (child >= size) break
          if (child + 1 < size && before(heap[child + 1]!, heap[child]!)) child++
          if (!before(heap[child]!, moved)) break
          heap[i] = heap[child]!
          i = child
        }
        heap[i] = moved
      }

      const adopt = (source: PagedSource<A, E>, page: ReadonlyArray<A>) => {
        source.page = page
        source.at = 0
        source.next = undefined
        source.last = page.length < source.reader.pageSize
      }
      /** Begins the next page once half of this one is used, so that two whole pages are held as shortly as can be. */
      const readAhead = (source: PagedSource<A, E>) =>
        Effect.map(Effect.forkIn(fetch(source.reader, source.page[source.page.length - 1]), scope), (fiber) => {
          source.next = fiber
        })

      const firstPages = yield* Effect.forEach(readers, (reader) => fetch(reader, undefined), {
        concurrency: options.concurrency
      })
      for (const [i, reader] of readers.entries()) {
        const source: PagedSource<A, E> = { reader, page: [], at: 0, next: undefined, last: false }
        adopt(source, firstPages[i]!)
        sources.push(source)
        if (source.page.length > 0) heap.push(i)
      }
      for (let i = (heap.length >> 1) - 1; i >= 0; i--) siftDown(i)

      /** Moves items until the array is full or a source wants something; answers that source. */
      const fill = (out: Array<A>): PagedSource<A, E> | undefined => {
        while (heap.length > 0 && out.length < arraySize) {
          const source = sources[heap[0]!]!
          const { page } = source
          if (source.at >= page.length) {
            if (!source.last) return source
            const moved = heap.pop()!
            if (heap.length > 0) {
              heap[0] = moved
              siftDown(0)
            }
            continue
          }
          out.push(page[source.at++]!)
          if (source.at < page.length) siftDown(0)
          if (!source.last && source.next === undefined && source.at * 2 >= page.length) return source
        }
        return undefined
      }

      const pull = Effect.gen(function* () {
        const out: Array<A> = []
        for (;;) {
          const source = fill(out)
          if (source === undefined) break
          if (source.next === undefined) yield* readAhead(source)
          if (source.at < source.page.length) continue
          adopt(source, yield* Fiber.join(source.next!))
          if (source.page.length > 0) siftDown(0)
        }
        return out.length > 0 ? (out as [A, ...Array<A>]) : yield* Cause.done()
      })
      return Stream.fromPull(Effect.succeed(pull))
    })
  )
}
