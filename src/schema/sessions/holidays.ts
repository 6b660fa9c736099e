/** Decides on which days each calendar is closed, as dated data; the years named are complete, others are not known. */

/** Segments that close together. */
export type Calendar = "EQUITY" | "CURRENCY" | "COMMODITY"

/** `morning`: closed until 17:00. `evening`: closed from 17:00. */
export interface Holiday {
  readonly date: string
  readonly name: string
  readonly closed: "day" | "morning" | "evening"
}

const days = (rows: Readonly<Record<string, string>>): ReadonlyArray<Holiday> =>
  Object.entries(rows).map(([date, name]) => ({ date, name, closed: "day" }))

/**
 * NSE and BSE cash and equity derivatives. 2015 to 2026: exchange_calendars 4.13.2 (XBOM) and pandas_market_calendars
 * 5.5.0 (XNSE), which agree but for weekends and for the days of Muhurat trading, which the second has as sessions; 2026 also NSE/CMTR/71775 of 2025-12-12 and NSE of 2026-01-09.
 * Diwali Laxmi Pujan is a holiday with an evening's or an hour's trading: `special.ts`.
 */
const EQUITY: ReadonlyArray<Holiday> = days({
  "2015-01-26": "Republic Day",
  "2015-02-17": "Mahashivratri",
  "2015-03-06": "Holi",
  "2015-04-02": "Mahavir Jayanti",
  "2015-04-03": "Good Friday",
  "2015-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2015-05-01": "Maharashtra Day",
  "2015-09-17": "Ganesh Chaturthi",
  "2015-09-25": "Bakri Id",
  "2015-10-02": "Mahatma Gandhi Jayanti",
  "2015-10-22": "Dussehra",
  "2015-11-11": "Diwali Laxmi Pujan",
  "2015-11-12": "Diwali Balipratipada",
  "2015-11-25": "Guru Nanak Jayanti",
  "2015-12-25": "Christmas",
  "2016-01-26": "Republic Day",
  "2016-03-07": "Mahashivratri",
  "2016-03-24": "Holi",
  "2016-03-25": "Good Friday",
  "2016-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2016-04-15": "Ram Navami",
  "2016-04-19": "Mahavir Jayanti",
  "2016-07-06": "Id-Ul-Fitr",
  "2016-08-15": "Independence Day",
  "2016-09-05": "Ganesh Chaturthi",
  "2016-09-13": "Bakri Id",
  "2016-10-11": "Dussehra",
  "2016-10-12": "Muharram",
  "2016-10-30": "Diwali Laxmi Pujan",
  "2016-10-31": "Diwali Balipratipada",
  "2016-11-14": "Guru Nanak Jayanti",
  "2017-01-26": "Republic Day",
  "2017-02-24": "Mahashivratri",
  "2017-03-13": "Holi",
  "2017-04-04": "Ram Navami",
  "2017-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2017-05-01": "Maharashtra Day",
  "2017-06-26": "Id-Ul-Fitr",
  "2017-08-15": "Independence Day",
  "2017-08-25": "Ganesh Chaturthi",
  "2017-10-02": "Mahatma Gandhi Jayanti",
  "2017-10-19": "Diwali Laxmi Pujan",
  "2017-10-20": "Diwali Balipratipada",
  "2017-12-25": "Christmas",
  "2018-01-26": "Republic Day",
  "2018-02-13": "Mahashivratri",
  "2018-03-02": "Holi",
  "2018-03-29": "Mahavir Jayanti",
  "2018-03-30": "Good Friday",
  "2018-05-01": "Maharashtra Day",
  "2018-08-15": "Independence Day",
  "2018-08-22": "Bakri Id",
  "2018-09-13": "Ganesh Chaturthi",
  "2018-09-20": "Muharram",
  "2018-10-02": "Mahatma Gandhi Jayanti",
  "2018-10-18": "Dussehra",
  "2018-11-07": "Diwali Laxmi Pujan",
  "2018-11-08": "Diwali Balipratipada",
  "2018-11-23": "Guru Nanak Jayanti",
  "2018-12-25": "Christmas",
  "2019-03-04": "Mahashivratri",
  "2019-03-21": "Holi",
  "2019-04-17": "Mahavir Jayanti",
  "2019-04-19": "Good Friday",
  "2019-04-29": "Parliamentary elections",
  "2019-05-01": "Maharashtra Day",
  "2019-06-05": "Id-Ul-Fitr",
  "2019-08-12": "Bakri Id",
  "2019-08-15": "Independence Day",
  "2019-09-02": "Ganesh Chaturthi",
  "2019-09-10": "Muharram",
  "2019-10-02": "Mahatma Gandhi Jayanti",
  "2019-10-08": "Dussehra",
  "2019-10-21": "Maharashtra assembly elections",
  "2019-10-27": "Diwali Laxmi Pujan",
  "2019-10-28": "Diwali Balipratipada",
  "2019-11-12": "Guru Nanak Jayanti",
  "2019-12-25": "Christmas",
  "2020-02-21": "Mahashivratri",
  "2020-03-10": "Holi",
  "2020-04-02": "Ram Navami",
  "2020-04-06": "Mahavir Jayanti",
  "2020-04-10": "Good Friday",
  "2020-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2020-05-01": "Maharashtra Day",
  "2020-05-25": "Id-Ul-Fitr",
  "2020-10-02": "Mahatma Gandhi Jayanti",
  "2020-11-14": "Diwali Laxmi Pujan",
  "2020-11-16": "Diwali Balipratipada",
  "2020-11-30": "Guru Nanak Jayanti",
  "2020-12-25": "Christmas",
  "2021-01-26": "Republic Day",
  "2021-03-11": "Mahashivratri",
  "2021-03-29": "Holi",
  "2021-04-02": "Good Friday",
  "2021-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2021-04-21": "Ram Navami",
  "2021-05-13": "Id-Ul-Fitr",
  "2021-07-21": "Bakri Id",
  "2021-08-19": "Muharram",
  "2021-09-10": "Ganesh Chaturthi",
  "2021-10-15": "Dussehra",
  "2021-11-04": "Diwali Laxmi Pujan",
  "2021-11-05": "Diwali Balipratipada",
  "2021-11-19": "Guru Nanak Jayanti",
  "2022-01-26": "Republic Day",
  "2022-03-01": "Mahashivratri",
  "2022-03-18": "Holi",
  "2022-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2022-04-15": "Good Friday",
  "2022-05-03": "Id-Ul-Fitr",
  "2022-08-09": "Muharram",
  "2022-08-15": "Independence Day",
  "2022-08-31": "Ganesh Chaturthi",
  "2022-10-05": "Dussehra",
  "2022-10-24": "Diwali Laxmi Pujan",
  "2022-10-26": "Diwali Balipratipada",
  "2022-11-08": "Guru Nanak Jayanti",
  "2023-01-26": "Republic Day",
  "2023-03-07": "Holi",
  "2023-03-30": "Ram Navami",
  "2023-04-04": "Mahavir Jayanti",
  "2023-04-07": "Good Friday",
  "2023-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2023-05-01": "Maharashtra Day",
  "2023-06-29": "Bakri Id",
  "2023-08-15": "Independence Day",
  "2023-09-19": "Ganesh Chaturthi",
  "2023-10-02": "Mahatma Gandhi Jayanti",
  "2023-10-24": "Dussehra",
  "2023-11-12": "Diwali Laxmi Pujan",
  "2023-11-14": "Diwali Balipratipada",
  "2023-11-27": "Guru Nanak Jayanti",
  "2023-12-25": "Christmas",
  "2024-01-22": "Ram Mandir consecration",
  "2024-01-26": "Republic Day",
  "2024-03-08": "Mahashivratri",
  "2024-03-25": "Holi",
  "2024-03-29": "Good Friday",
  "2024-04-11": "Id-Ul-Fitr",
  "2024-04-17": "Ram Navami",
  "2024-05-01": "Maharashtra Day",
  "2024-05-20": "Parliamentary elections",
  "2024-06-17": "Bakri Id",
  "2024-07-17": "Muharram",
  "2024-08-15": "Independence Day",
  "2024-10-02": "Mahatma Gandhi Jayanti",
  "2024-11-01": "Diwali Laxmi Pujan",
  "2024-11-15": "Guru Nanak Jayanti",
  "2024-11-20": "Maharashtra assembly elections",
  "2024-12-25": "Christmas",
  "2025-02-26": "Mahashivratri",
  "2025-03-14": "Holi",
  "2025-03-31": "Id-Ul-Fitr",
  "2025-04-10": "Mahavir Jayanti",
  "2025-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2025-04-18": "Good Friday",
  "2025-05-01": "Maharashtra Day",
  "2025-08-15": "Independence Day",
  "2025-08-27": "Ganesh Chaturthi",
  "2025-10-02": "Mahatma Gandhi Jayanti",
  "2025-10-21": "Diwali Laxmi Pujan",
  "2025-10-22": "Diwali Balipratipada",
  "2025-11-05": "Guru Nanak Jayanti",
  "2025-12-25": "Christmas",
  "2026-01-15": "Maharashtra municipal elections",
  "2026-01-26": "Republic Day",
  "2026-03-03": "Holi",
  "2026-03-26": "Ram Navami",
  "2026-03-31": "Mahavir Jayanti",
  "2026-04-03": "Good Friday",
  "2026-04-14": "Dr. Baba Saheb Ambedkar Jayanti",
  "2026-05-01": "Maharashtra Day",
  "2026-05-28": "Bakri Id",
  "2026-06-26": "Muharram",
  "2026-09-14": "Ganesh Chaturthi",
  "2026-10-02": "Mahatma Gandhi Jayanti",
  "2026-10-20": "Dussehra",
  "2026-11-08": "Diwali Laxmi Pujan",
  "2026-11-10": "Diwali Balipratipada",
  "2026-11-24": "Guru Nanak Jayanti",
  "2026-12-25": "Christmas"
})

/**
 * NSE and BSE currency derivatives close on the cash market's holidays and on the days when the banks do. 2023: BSE
 * 20221215-48, with Bakri Id and Id-E-Milad as moved. 2024: nirmalbang.com/currency-trading-holidays.aspx, with
 * Id-E-Milad as moved. 2025: rupeezy.in/mcx-holiday (bank holidays) and NSE/CD/70033. 2026: NSE/CD/71962.
 */
const BANK_HOLIDAYS: ReadonlyArray<Holiday> = days({
  "2023-03-22": "Gudi Padwa",
  "2023-05-05": "Buddha Pournima",
  "2023-08-16": "Parsi New Year",
  "2023-09-29": "Id-E-Milad",
  "2024-02-19": "Chhatrapati Shivaji Maharaj Jayanti",
  "2024-04-01": "Annual bank closing",
  "2024-04-09": "Gudi Padwa",
  "2024-05-23": "Buddha Pournima",
  "2024-09-18": "Id-E-Milad",
  "2025-02-19": "Chhatrapati Shivaji Maharaj Jayanti",
  "2025-04-01": "Annual bank closing",
  "2025-05-12": "Buddha Pournima",
  "2025-09-08": "Id-E-Milad",
  "2026-02-19": "Chhatrapati Shivaji Maharaj Jayanti",
  "2026-03-19": "Gudi Padwa",
  "2026-04-01": "Annual bank closing",
  "2026-08-26": "Id-E-Milad"
})

/** Holidays that shut both sessions of the commodity market; on others the evening is open. */
const COMMODITY_CLOSED_ALL_DAY = new Set([
  "Republic Day",
  "Good Friday",
  "Independence Day",
  "Mahatma Gandhi Jayanti",
  "Christmas",
  "Diwali Laxmi Pujan"
])

/**
 * MCX: the cash market's holidays, most of them for the morning only, and New Year's evening. 2022:
 * priceactionhub.com/index.php/holiday-calendar. 2023: press of the day for each. 2024: indmoney.com/articles/stocks/
 * mcx-holidays. 2025: rupeezy.in/mcx-holiday. 2026: BSE 20251215 (commodity derivatives) and NSE of 2026-01-12.
 */
const COMMODITY: ReadonlyArray<Holiday> = [
  ...EQUITY.map(
    ({ date, name }): Holiday => ({ date, name, closed: COMMODITY_CLOSED_ALL_DAY.has(name) ? "day" : "morning" })
  ),
  ...["2024-01-01", "2025-01-01", "2026-01-01"].map((date): Holiday => ({ date, name: "New Year", closed: "evening" }))
]

export const HOLIDAYS: Readonly<Record<Calendar, ReadonlyArray<Holiday>>> = {
  EQUITY,
  CURRENCY: [...EQUITY, ...BANK_HOLIDAYS],
  COMMODITY
}

/** The first and the last year whose holidays are all here. */
export const KNOWN_YEARS: Readonly<Record<Calendar, readonly [first: number, last: number]>> = {
  EQUITY: [2015, 2026],
  CURRENCY: [2023, 2026],
  COMMODITY: [2022, 2026]
}
