/** Decides how a broker's file becomes the body of an import: opened, cut into records, and each made a line of the import's own. */
import { Effect } from "effect"
import { linesOf, openSource } from "../layers/feeds/fileSource.ts"
import {
  type BrokerOptions,
  brokerReader,
  hasHeader,
  IMPORT_HEADER,
  missingColumn
} from "../layers/instruments/brokerFile.ts"
import { JsonObjects } from "../layers/instruments/jsonObjects.ts"
import { delimiterOf, splitLine } from "../schema/delimited.ts"
import { FeedError } from "../schema/Errors.ts"
import { showValue } from "../schema/Explain.ts"
import { MAX_INSTRUMENT_LINE_CHARS } from "../schema/InstrumentFile.ts"

/** Of a body, as an instance takes it. */
const MAX_BODY_BYTES = 32 * 1024 * 1024
/** Lines that are looked at to see what separates columns. */
const LOOKED_AT = 20

export interface Refusal {
  /** Of the file, from 1; in a JSON list the number of the object. */
  readonly line: number
  readonly reason: string
}

export interface BrokerInput {
  readonly body: string
  /** The line of the file that a line of the body came from, both from 1. */
  readonly lineOf: (line: number) => number
  readonly refusals: ReadonlyArray<Refusal>
  /** Records that the file has. */
  readonly records: number
}

type Records = (chunks: AsyncIterable<Uint8Array>, options: Omit<BrokerOptions, "isJson">) => Promise<void>

class Body {
  readonly #parts: Array<string> = [IMPORT_HEADER]
  readonly #lines: Array<number> = [1]
  readonly refusals: Array<Refusal> = []
  #bytes = IMPORT_HEADER.length
  records = 0

  put(line: number, read: { readonly line: string } | string): void {
    this.records += 1
    if (typeof read === "string") {
      this.refusals.push({ line, reason: read })
      return
    }
    this.#bytes += Buffer.byteLength(read.line) + 1
    if (this.#bytes > MAX_BODY_BYTES) {
      throw new Error(`it has more instruments than an import takes, which is ${MAX_BODY_BYTES} bytes of them`)
    }
    this.#parts.push(read.line)
    this.#lines.push(line)
  }

  finish(): BrokerInput {
    const lines = this.#lines
    return {
      body: `${this.#parts.join("\n")}\n`,
      lineOf: (line) => lines[line - 1] ?? line,
      refusals: this.refusals,
      records: this.records
    }
  }
}

const fromJson =
  (body: Body): Records =>
  async (chunks, options) => {
    const { read } = brokerReader({ ...options, isJson: true })
    const objects = new JsonObjects()
    const decoder = new TextDecoder()
    let number = 0
    for await (const chunk of chunks) {
      for (const text of objects.take(decoder.decode(chunk, { stream: true }))) {
        number += 1
        let fields: Map<string, unknown>
        try {
          const parsed = JSON.parse(text) as Record<string, unknown>
          fields = new Map(Object.entries(parsed).map(([key, value]) => [key.toLowerCase(), value]))
        } catch {
          body.put(number, "not JSON")
          continue
        }
        const column = (name: string): string | undefined => {
          const value = fields.get(name.toLowerCase())
          return typeof value === "string" || typeof value === "number" ? String(value) : undefined
        }
        body.put(number, read(column))
      }
    }
  }

const fromLines =
  (body: Body): Records =>
  async (chunks, options) => {
    const { read } = brokerReader({ ...options, isJson: false })
    let at: ReadonlyMap<string, number> | undefined
    let width = 0
    let delimiter: string | undefined
    let number = 0
    for await (const lines of linesOf(chunks, () => undefined)) {
      delimiter ??= delimiterOf(
        lines.filter((line) => line !== undefined && line.trim() !== "").slice(0, LOOKED_AT) as Array<string>
      )
      for (const line of lines) {
        number += 1
        if (line === undefined || line.length > MAX_INSTRUMENT_LINE_CHARS) {
          body.put(number, `expected at most ${MAX_INSTRUMENT_LINE_CHARS} characters a line`)
          continue
        }
        if (line.trim() === "") continue
        const fields = splitLine(line.endsWith("\r") ? line.slice(0, -1) : line, delimiter)
        if (at === undefined) {
          const names = hasHeader(options.broker)
            ? (fields ?? []).map((name) => name.trim().toLowerCase())
            : (fields ?? []).map((_, index) => String(index + 1))
          const columns = new Map(names.map((name, index) => [name, index] as const))
          const missing = missingColumn(options, (column) => columns.has(column.toLowerCase()))
          if (missing !== undefined)
            throw new Error(`line ${number}: column ${missing} is missing, got ${showValue(line)}`)
          at = columns
          width = names.length
          if (hasHeader(options.broker)) continue
        }
        if (fields === undefined) body.put(number, "a quote is not closed, or text follows a closing quote")
        else if (fields.length !== width) body.put(number, `expected ${width} fields, got ${fields.length}`)
        else {
          const columns = at
          body.put(
            number,
            read((column) => fields[columns.get(column.toLowerCase()) ?? -1])
          )
        }
      }
    }
  }

/** All chunks, the first of which was taken to look at it. */
async function* after(first: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value
}

/** Reads a broker's file, also gzipped or zipped, CSV or a JSON list. */
export const readBrokerFile = (
  file: string,
  options: Omit<BrokerOptions, "isJson">
): Effect.Effect<BrokerInput, FeedError> =>
  Effect.tryPromise({
    try: async () => {
      const source = await openSource(file)
      try {
        const body = new Body()
        for await (const part of source.parts()) {
          const chunks = part.chunks[Symbol.asyncIterator]()
          const first = await chunks.next()
          if (first.done === true) continue
          const isJson = /^\s*[[{]/.test(new TextDecoder().decode(first.value.subarray(0, 4096)))
          await (isJson ? fromJson(body) : fromLines(body))(after(first.value, chunks), options)
        }
        return body.finish()
      } finally {
        source.close()
      }
    },
    catch: (error) => {
      const { code, message } = error as NodeJS.ErrnoException
      return new FeedError({ message: `${file}: ${code === "ENOENT" ? "no such file" : message}` })
    }
  })
