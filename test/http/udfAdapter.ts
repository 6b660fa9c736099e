/**
 * Decides what TradingView's public UDF adapter makes of a datafeed's answers: its rules in our own words, so that a
 * test reads as a chart does. Every answer is taken as JSON, whatever its status and content type.
 */
import { Effect } from "effect"
import { ask } from "./serving.ts"

type Json = Record<string, unknown>
type Column = "t" | "o" | "h" | "l" | "c" | "v"

export interface ChartBar {
  readonly time: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume?: number
}

/** An error as the adapter passes it on to the chart. */
export class Rejected {
  readonly reason: unknown
  constructor(reason: unknown) {
    this.reason = reason
  }
}

const query = (given: Readonly<Record<string, string | number>>): string =>
  Object.entries(given)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`)
    .join("&")

export const adapter = (port: number, headers: Readonly<Record<string, string>> = {}) => {
  const send = (path: string, given: Readonly<Record<string, string | number>> = {}) =>
    Effect.map(ask(port, `/udf/${path}?${query(given)}`, { headers }), ({ text }) => JSON.parse(text) as unknown)
  return {
    send,
    /** Without one of search and group requests a chart cannot name an instrument. */
    config: Effect.map(send("config"), (config) => {
      const { supports_search, supports_group_request } = config as Json
      if (supports_search !== true && supports_group_request !== true) throw new Error("neither search nor groups")
      return config as Json
    }),
    time: Effect.map(send("time"), (answer) => Number.parseInt(String(answer), 10)),
    search: (userInput: string, exchange: string, type: string) =>
      Effect.map(send("search", { limit: 30, query: userInput.toUpperCase(), type, exchange }), (answer) =>
        (answer as Json).s === undefined ? (answer as ReadonlyArray<Json>) : []
      ),
    resolve: (symbol: string) =>
      Effect.map(send("symbols", { symbol }), (answer) =>
        (answer as Json).s === undefined ? (answer as Json) : new Rejected("unknown_symbol")
      ),
    bars: (info: Json, resolution: string, from: number, to: number, countBack?: number) =>
      Effect.map(
        send("history", {
          symbol: String(info.ticker ?? ""),
          resolution,
          from,
          to,
          ...(countBack === undefined ? {} : { countback: countBack })
        }),
        (answer) => {
          const { s, errmsg, nextTime, ...response } = answer as Json & {
            readonly [N in Column]?: ReadonlyArray<unknown>
          }
          if (s !== "ok" && s !== "no_data") return new Rejected(errmsg)
          if (s === "no_data") {
            return { bars: [], meta: { noData: true, nextTime } }
          }
          const number = (column: Column, i: number) => Number.parseFloat(String(response[column]![i]))
          const bars = response.t!.map(
            (seconds, i): ChartBar => ({
              time: (seconds as number) * 1000,
              open: number(response.o === undefined ? "c" : "o", i),
              high: number(response.o === undefined ? "c" : "h", i),
              low: number(response.o === undefined ? "c" : "l", i),
              close: number("c", i),
              ...(response.v === undefined ? {} : { volume: number("v", i) })
            })
          )
          return { bars, meta: { noData: false, nextTime: undefined } }
        }
      ),
    quotes: (symbols: ReadonlyArray<string>) =>
      Effect.map(send("quotes", { symbols: symbols.join(",") }), (answer) => {
        const { s, d, errmsg } = answer as Json
        return s === "ok" ? (d as ReadonlyArray<Json>) : new Rejected(errmsg)
      }),
    marks: (path: "marks" | "timescale_marks", info: Json, resolution: string, from: number, to: number) =>
      Effect.map(send(path, { symbol: String(info.ticker ?? ""), from, to, resolution }), (answer) => {
        if (!Array.isArray(answer)) throw new Error(`no marks: ${JSON.stringify(answer)}`)
        return answer as ReadonlyArray<Json>
      })
  }
}
