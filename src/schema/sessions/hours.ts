/** Decides the regular hours of each segment as dated data: a row holds from its date until the next row's. */

/**
 * `PRE_OPEN`: orders are collected and matched once, before continuous trading. `CAS`: the Closing Auction Session.
 * `POST_CLOSE`: trades at the closing price. `CLOSED`: none of these, also the minutes between two phases.
 */
export type Phase = "PRE_OPEN" | "CONTINUOUS" | "CAS" | "POST_CLOSE" | "CLOSED"

/** `*_CAS`: stocks that have derivatives. SIM is the simulator's, open at all hours. */
export const SEGMENTS = [
  "NSE_EQ",
  "NSE_EQ_CAS",
  "NSE_INDEX",
  "NFO_FUT",
  "NFO_OPT",
  "BSE_EQ",
  "BSE_EQ_CAS",
  "BSE_INDEX",
  "BFO_FUT",
  "BFO_OPT",
  "CDS",
  "BCD",
  "MCX",
  "SIM"
] as const
export type Segment = (typeof SEGMENTS)[number]

/** A phase with its start and end on the IST clock, `HH:MM`; the end is not part of it. */
export type PhaseHours = readonly [phase: Phase, from: string, to: string]

export interface DatedHours {
  /** The first date of these hours, `YYYY-MM-DD`. */
  readonly from: string
  readonly phases: ReadonlyArray<PhaseHours>
}

/**
 * Cash market. Until 2010: pandas_market_calendars 5.5.0 (XNSE). Since: nseindia.com/market-data/market-timings.
 * 2026-08-03: NSE/CMTR/74466 of 2026-05-29 and BSE 20260610 (both on SEBI HO/47/11/11(3)2025-MRD-POD2/I/2765/2026).
 * The pre-open rules of 2026-09-07 move order entry within 09:00-09:15 only, so no row starts there.
 */
const CASH_BEFORE_CAS: ReadonlyArray<DatedHours> = [
  { from: "1999-06-09", phases: [["CONTINUOUS", "09:55", "15:30"]] },
  { from: "2010-01-04", phases: [["CONTINUOUS", "09:00", "15:30"]] },
  {
    from: "2010-10-18",
    phases: [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "15:30"],
      ["POST_CLOSE", "15:40", "16:00"]
    ]
  }
]

const CASH: ReadonlyArray<DatedHours> = [
  ...CASH_BEFORE_CAS,
  {
    from: "2026-08-03",
    phases: [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "15:30"],
      ["POST_CLOSE", "15:50", "16:00"]
    ]
  }
]

const CASH_CAS: ReadonlyArray<DatedHours> = [
  ...CASH_BEFORE_CAS,
  {
    from: "2026-08-03",
    phases: [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "15:15"],
      ["CAS", "15:15", "15:35"],
      ["POST_CLOSE", "15:50", "16:00"]
    ]
  }
]

/** An index follows its stocks; those of the indices that have derivatives all have derivatives themselves. */
const INDEX: ReadonlyArray<DatedHours> = CASH_CAS.map(({ from, phases }) => ({
  from,
  phases: phases.filter(([phase]) => phase !== "POST_CLOSE")
}))

/** Equity derivatives: NSE/FAOP/74467 of 2026-05-29, BSE 20260612. */
const OPTIONS: ReadonlyArray<DatedHours> = [
  ...CASH_BEFORE_CAS.map(({ from, phases }) => ({
    from,
    phases: phases.filter(([phase]) => phase === "CONTINUOUS")
  })),
  { from: "2026-08-03", phases: [["CONTINUOUS", "09:15", "15:40"]] }
]

/** Futures have a pre-open since 2025-12-08 (NSE/FAOP/71092, SEBI/HO/MRD/TPD-1/P/CIR/2025/79). */
const FUTURES: ReadonlyArray<DatedHours> = [
  ...OPTIONS.filter(({ from }) => from < "2025-12-08"),
  {
    from: "2025-12-08",
    phases: [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "15:30"]
    ]
  },
  {
    from: "2026-08-03",
    phases: [
      ["PRE_OPEN", "09:00", "09:15"],
      ["CONTINUOUS", "09:15", "15:40"]
    ]
  }
]

/** Currency and interest-rate derivatives; cross-currency contracts go on to 19:30. */
const CURRENCY: ReadonlyArray<DatedHours> = [{ from: "2008-08-29", phases: [["CONTINUOUS", "09:00", "17:00"]] }]

/**
 * Commodities with an international reference (agricultural contracts end earlier). The close follows daylight saving
 * in the United States, from the Monday after each change: SEBI/HO/CDMRD/DMP/CIR/P/2018/146, and for 2026 NSE and BSE
 * of 2026-02-09 (23:30 from 2026-03-09 to 2026-10-30).
 */
const COMMODITY: ReadonlyArray<DatedHours> = (
  [
    ["2021-11-08", "23:55"],
    ["2022-03-14", "23:30"],
    ["2022-11-07", "23:55"],
    ["2023-03-13", "23:30"],
    ["2023-11-06", "23:55"],
    ["2024-03-11", "23:30"],
    ["2024-11-04", "23:55"],
    ["2025-03-10", "23:30"],
    ["2025-11-03", "23:55"],
    ["2026-03-09", "23:30"],
    ["2026-11-02", "23:55"]
  ] as const
).map(([from, close]) => ({ from, phases: [["CONTINUOUS", "09:00", close]] }))

/** Ascending by date. A date before the first row has the first row's hours, and is not known. */
export const HOURS: Readonly<Record<Segment, ReadonlyArray<DatedHours>>> = {
  NSE_EQ: CASH,
  NSE_EQ_CAS: CASH_CAS,
  NSE_INDEX: INDEX,
  NFO_FUT: FUTURES,
  NFO_OPT: OPTIONS,
  BSE_EQ: CASH,
  BSE_EQ_CAS: CASH_CAS,
  BSE_INDEX: INDEX,
  BFO_FUT: FUTURES,
  BFO_OPT: OPTIONS,
  CDS: CURRENCY,
  BCD: CURRENCY,
  MCX: COMMODITY,
  SIM: [{ from: "1970-01-01", phases: [["CONTINUOUS", "00:00", "24:00"]] }]
}
