/** Decides the days with hours of their own: weekend sessions and Muhurat trading, which also opens a holiday. */
import type { PhaseHours, Segment } from "./hours.ts"

export interface SpecialDay {
  readonly date: string
  readonly name: string
  readonly segments: Partial<Record<Segment, ReadonlyArray<PhaseHours>>>
  /** True where the exchange's own notice of the hours is not at hand. */
  readonly unconfirmed?: true
}

const forAll = (
  segments: ReadonlyArray<Segment>,
  phases: ReadonlyArray<PhaseHours>
): Partial<Record<Segment, ReadonlyArray<PhaseHours>>> =>
  Object.fromEntries(segments.map((segment) => [segment, phases]))

const CASH = ["NSE_EQ", "NSE_EQ_CAS", "BSE_EQ", "BSE_EQ_CAS"] as const
const INDEX = ["NSE_INDEX", "BSE_INDEX"] as const
const DERIVATIVES = ["NFO_FUT", "NFO_OPT", "BFO_FUT", "BFO_OPT"] as const

/** One hour on Diwali Laxmi Pujan for every segment; the cash market has its auction before and closing session after. */
const muhurat = (
  date: string,
  [preOpen, open, close]: readonly [string, string, string],
  postClose: readonly [string, string] | undefined
): SpecialDay => ({
  date,
  name: "Diwali Laxmi Pujan (Muhurat trading)",
  segments: {
    ...forAll([...DERIVATIVES, "CDS", "BCD", "MCX"], [["CONTINUOUS", open, close]]),
    ...forAll(INDEX, [
      ["PRE_OPEN", preOpen, open],
      ["CONTINUOUS", open, close]
    ]),
    ...forAll(CASH, [
      ["PRE_OPEN", preOpen, open],
      ["CONTINUOUS", open, close],
      ...(postClose === undefined ? [] : [["POST_CLOSE", ...postClose] as const])
    ])
  }
})

/** A whole cash-market day on a weekend, in the hours of its time. */
const fullDay = (date: string, name: string, segments: SpecialDay["segments"]): SpecialDay => ({
  date,
  name,
  segments: {
    ...forAll(CASH, [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "15:30"],
      ["POST_CLOSE", "15:40", "16:00"]
    ]),
    ...forAll(INDEX, [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "15:30"]
    ]),
    ...forAll(DERIVATIVES, [["CONTINUOUS", "09:15", "15:30"]]),
    ...segments
  }
})

/** Two short sessions on a Saturday, the second from the disaster-recovery site. */
const recoverySite = (date: string): SpecialDay => ({
  date,
  name: "Special session from the disaster-recovery site",
  segments: {
    ...forAll(CASH, [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "10:00"],
      ["PRE_OPEN", "11:15", "11:30"],
      ["CONTINUOUS", "11:30", "12:30"],
      ["POST_CLOSE", "12:40", "12:50"]
    ]),
    ...forAll(INDEX, [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "10:00"],
      ["PRE_OPEN", "11:15", "11:30"],
      ["CONTINUOUS", "11:30", "12:30"]
    ]),
    ...forAll(DERIVATIVES, [
      ["CONTINUOUS", "09:15", "10:00"],
      ["CONTINUOUS", "11:30", "12:30"]
    ])
  }
})

const unconfirmed = (day: SpecialDay): SpecialDay => ({ ...day, unconfirmed: true })

const BUDGET = "Union Budget"
const PRE_OPEN_FUTURES = forAll(
  ["NFO_FUT", "BFO_FUT"],
  [
    ["PRE_OPEN", "09:00", "09:15"],
    ["CONTINUOUS", "09:15", "15:30"]
  ]
)
const COMMODITY_UNTIL_EVENING = forAll(["MCX"], [["CONTINUOUS", "09:00", "17:00"]])

/**
 * Before 2022 the open and the close on weekdays are those of pandas_market_calendars 5.5.0 (XNSE), as is the day of
 * 2021-02-24; weekends: hindupad.com/diwali-muhurat-trading (2016-10-30), moneycontrol.com of 2019-10-22 and ndtv.com of
 * 2020-11-14; budgets: news18.com of 2020-01-22. Where the auction is not told it has the quarter of an hour before the
 * open, and a closing session that is not told is left out: those days are not known for sure.
 * Muhurat hours since: the exchanges' notices as the press has them (livemint.com of 2022-10-24, angelone.in of 2023-11-12,
 * businesstimes.co of 2024-10-21, dnaindia.com of 2025-10-17) and pandas_market_calendars 5.5.0. Recovery site:
 * zerodha.com/marketintel/bulletin/377895. Budget: NSE/CMTR/72349, BSE 20260116-34, MCX of 2025-01-29 and 2026-01-16.
 */
export const SPECIAL_DAYS: ReadonlyArray<SpecialDay> = [
  fullDay("2015-02-28", BUDGET, {}),
  unconfirmed(muhurat("2015-11-11", ["17:30", "17:45", "18:45"], undefined)),
  muhurat("2016-10-30", ["18:15", "18:30", "19:30"], ["19:40", "19:50"]),
  unconfirmed(muhurat("2017-10-19", ["18:15", "18:30", "19:30"], undefined)),
  unconfirmed(muhurat("2018-11-07", ["17:15", "17:30", "18:30"], undefined)),
  unconfirmed(muhurat("2019-10-27", ["18:00", "18:15", "19:15"], undefined)),
  fullDay("2020-02-01", BUDGET, {}),
  muhurat("2020-11-14", ["18:00", "18:15", "19:15"], ["19:25", "19:35"]),
  // Trading stood still until it was resumed for the evening; what BSE did that day is not in the source.
  unconfirmed({
    date: "2021-02-24",
    name: "Interrupted and extended session",
    segments: {
      ...forAll(
        ["NSE_EQ", "NSE_EQ_CAS", "NSE_INDEX"],
        [
          ["PRE_OPEN", "09:00", "09:15"],
          ["CONTINUOUS", "09:15", "11:40"],
          ["CONTINUOUS", "15:45", "17:00"]
        ]
      ),
      ...forAll(
        ["NFO_FUT", "NFO_OPT"],
        [
          ["CONTINUOUS", "09:15", "11:40"],
          ["CONTINUOUS", "15:45", "17:00"]
        ]
      )
    }
  }),
  unconfirmed(muhurat("2021-11-04", ["18:00", "18:15", "19:15"], undefined)),
  muhurat("2022-10-24", ["18:00", "18:15", "19:15"], ["19:25", "19:35"]),
  muhurat("2023-11-12", ["18:00", "18:15", "19:15"], ["19:25", "19:35"]),
  fullDay("2024-01-20", "Session in place of Monday 22 January", {}),
  recoverySite("2024-03-02"),
  recoverySite("2024-05-18"),
  muhurat("2024-11-01", ["17:45", "18:00", "19:00"], ["19:10", "19:20"]),
  fullDay("2025-02-01", BUDGET, COMMODITY_UNTIL_EVENING),
  muhurat("2025-10-21", ["13:30", "13:45", "14:45"], ["14:55", "15:05"]),
  fullDay("2026-02-01", BUDGET, { ...PRE_OPEN_FUTURES, ...COMMODITY_UNTIL_EVENING }),
  // The date is NSE's; the hour is the one openalgo's calendar expected before the exchanges had named theirs.
  unconfirmed(muhurat("2026-11-08", ["17:45", "18:00", "19:15"], undefined))
]
