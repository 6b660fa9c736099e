/** Decides how the trading calendar is answered: an exchange's phases on a date, segment by segment. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { showValue } from "../schema/Explain.ts"
import { dayPhases, SEGMENTS, type Segment } from "../schema/Sessions.ts"
import { Api } from "./Api.ts"
import { NotFound } from "./errors.ts"

/** An exchange's segments: those of its name, the first being what its plain stocks or contracts trade in. */
const segmentsOf = (exchange: string): ReadonlyArray<Segment> => {
  const name = exchange.toUpperCase()
  return SEGMENTS.filter((segment) => segment === name || segment.split("_", 1)[0] === name)
}

export const calendarRoute = HttpApiBuilder.group(
  Api,
  "calendar",
  Effect.fnUntraced(function* (handlers) {
    return handlers.handleAll({
      calendar: ({ query: { exchange, date } }) => {
        const segments = segmentsOf(exchange)
        const [first] = segments
        if (first === undefined) {
          const known = [...new Set(SEGMENTS.map((segment) => segment.split("_", 1)[0]))].join(", ")
          return Effect.fail(
            new NotFound({
              parameter: "exchange",
              message: `exchange: hours are known of ${known} and their segments, got ${showValue(exchange)}`
            })
          )
        }
        const { holiday, phases, known } = dayPhases(first, date)
        return Effect.succeed({
          exchange: exchange.toUpperCase(),
          date,
          holiday,
          phases,
          segments: Object.fromEntries(segments.map((segment) => [segment, dayPhases(segment, date).phases])),
          known
        })
      }
    })
  })
)
