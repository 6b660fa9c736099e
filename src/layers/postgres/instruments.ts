/**
 * Decides how instruments are kept in PostgreSQL: the newest of each token in one table, what the token was seen to be
 * before in another, and which have expired.
 */
import type pg from "pg"
import { type Instrument, MAX_NAME_CHARS } from "../../schema/Instrument.ts"
import { meaningsOf, type Sighting, sighted } from "../../schema/Meaning.ts"
import { tradingDate } from "../../schema/Tick.ts"
import type { KnownInstrument } from "../../streams/ports/TickStore.ts"
import { advisory, transaction } from "./connection.ts"
import { rows } from "./rows.ts"

/** Instruments put in one statement. */
const INSTRUMENT_ROWS = 5_000

const CONTENT = "tradingsymbol, exchange, asset_class, tick_size, name, expiry, strike, option_type, lot_size"
const COLUMNS = `instrument_token, first_seen, last_seen, ${CONTENT}`
const UPDATED = `first_seen, last_seen, ${CONTENT}`

const GIVEN = `
  SELECT ${COLUMNS} FROM json_to_recordset($1::json) AS g (
    instrument_token integer, first_seen date, last_seen date, tradingsymbol varchar(50), exchange varchar(10),
    asset_class varchar(20), tick_size numeric, name text, expiry date, strike numeric, option_type varchar(2),
    lot_size integer)`

const PUT_NEWEST = `
  INSERT INTO instruments AS i (${COLUMNS}) ${GIVEN} ORDER BY instrument_token
  ON CONFLICT (instrument_token) DO UPDATE
  SET (${UPDATED}) = ROW (${UPDATED.replaceAll(/\w+/g, "excluded.$&")}),
      expired = i.expired AND i.expiry IS NOT DISTINCT FROM excluded.expiry`
const FORGET_FORMER = "DELETE FROM instruments_history WHERE instrument_token = ANY($1::integer[])"
const PUT_FORMER = `INSERT INTO instruments_history (${COLUMNS}) ${GIVEN}`

const EXPIRE_INSTRUMENTS = "UPDATE instruments SET expired = true WHERE expiry < $1::date AND NOT expired"

const day = (date: string): string => `${date} - DATE '1970-01-01'`
/** A name comes one character longer than any may be, so that whoever reads it sees that it was. */
const READ_COLUMNS = `instrument_token, ${CONTENT}`
  .replace("name", `left(name, ${MAX_NAME_CHARS + 1}) AS name`)
  .replace("expiry", "to_char(expiry, 'YYYY-MM-DD') AS expiry")
const READ_DAYS = `${day("first_seen")} AS first_day, ${day("last_seen")} AS last_day`

const READ_SIGHTINGS = `
  SELECT ${READ_COLUMNS}, ${READ_DAYS} FROM instruments WHERE instrument_token = ANY($1::integer[])
  UNION ALL
  SELECT ${READ_COLUMNS}, ${READ_DAYS} FROM instruments_history WHERE instrument_token = ANY($1::integer[])
  ORDER BY instrument_token, first_day`

/** Where there are more than asked for, older meanings are left, then those that expired longest ago. */
const READ_INSTRUMENTS = `
  SELECT * FROM (
    SELECT ${READ_COLUMNS}, ${READ_DAYS}, false AS is_former, expired FROM instruments
    UNION ALL
    SELECT ${READ_COLUMNS}, ${READ_DAYS}, true, true FROM instruments_history
    ORDER BY is_former, expired, expiry DESC NULLS FIRST, instrument_token, first_day DESC LIMIT $1) AS i
  ORDER BY instrument_token, first_day`

type Row = readonly [
  instrument_token: number,
  tradingsymbol: string,
  exchange: string,
  asset_class: Instrument["asset_class"],
  tick_size: number,
  name: string | null,
  expiry: string | null,
  strike: number | null,
  option_type: Instrument["option_type"],
  lot_size: number | null,
  first_day: number,
  last_day: number
]

const instrumentOf = (row: Row): Instrument => ({
  instrument_token: row[0],
  tradingsymbol: row[1],
  exchange: row[2],
  asset_class: row[3],
  tick_size: row[4],
  name: row[5],
  expiry: row[6],
  strike: row[7],
  option_type: row[8],
  lot_size: row[9]
})
const sightingOf = (row: Row): Sighting => ({ instrument: instrumentOf(row), first: row[10], last: row[11] })

const isSameInstrument = (a: Instrument, b: Instrument): boolean =>
  a === b || (Object.keys(a) as Array<keyof Instrument>).every((field) => a[field] === b[field])

/** Whether a token means the same on every day. */
const meansTheSame = (before: ReadonlyArray<Sighting>, after: ReadonlyArray<Sighting>): boolean => {
  const [was, is] = [meaningsOf(before), meaningsOf(after)]
  return (
    was.length === is.length &&
    was.every((one, i) => one.from === is[i]!.from && isSameInstrument(one.instrument, is[i]!.instrument))
  )
}

const isSameSighting = (a: Sighting, b: Sighting | undefined): boolean =>
  b !== undefined && a.first === b.first && a.last === b.last && isSameInstrument(a.instrument, b.instrument)

const written = (sightings: ReadonlyArray<Sighting>): string =>
  JSON.stringify(
    sightings.map(({ first, instrument, last }) => ({
      ...instrument,
      first_seen: tradingDate(first),
      last_seen: tradingDate(last)
    }))
  )

export const makeInstruments = (pool: pg.Pool) => {
  const instrumentsVersion = async (): Promise<string> => {
    const found = await rows<readonly [number]>(
      pool,
      "instruments_version",
      "SELECT version FROM instruments_version",
      []
    )
    return String(found[0]?.[0] ?? 0)
  }

  const instruments = async (limit: number): Promise<ReadonlyArray<KnownInstrument>> => {
    const found = await rows<Row>(pool, "instruments", READ_INSTRUMENTS, [limit])
    return found.map((row) => ({ instrument: instrumentOf(row), first: row[10] }))
  }

  /** Puts some, each of another token; counts those that are new, and those whose meaning on some day is. */
  const putSome = async (client: pg.PoolClient, given: ReadonlyArray<Instrument>, fileDay: number) => {
    const tokens = given.map(({ instrument_token }) => instrument_token)
    const known = new Map<number, Array<Sighting>>()
    for (const row of await rows<Row>(client, "sightings", READ_SIGHTINGS, [tokens])) {
      const before = known.get(row[0])
      if (before === undefined) known.set(row[0], [sightingOf(row)])
      else before.push(sightingOf(row))
    }
    let added = 0
    let changed = 0
    const newest: Array<Sighting> = []
    const former: Array<Sighting> = []
    const forgotten: Array<number> = []
    for (const instrument of given) {
      const before = known.get(instrument.instrument_token) ?? []
      const after = sighted(before, instrument, fileDay)
      if (before.length === 0) added += 1
      else if (!meansTheSame(before, after)) changed += 1
      const last = after[after.length - 1]!
      if (!isSameSighting(last, before[before.length - 1])) newest.push(last)
      const others = after.slice(0, -1)
      if (others.length === before.length - 1 && others.every((one, i) => isSameSighting(one, before[i]))) continue
      if (before.length > 1) forgotten.push(instrument.instrument_token)
      former.push(...others)
    }
    if (newest.length > 0) await client.query({ name: "put_newest", text: PUT_NEWEST, values: [written(newest)] })
    if (forgotten.length > 0) await client.query({ name: "forget", text: FORGET_FORMER, values: [forgotten] })
    if (former.length > 0) await client.query({ name: "put_former", text: PUT_FORMER, values: [written(former)] })
    return { added, changed }
  }

  const putInstruments = (given: ReadonlyArray<Instrument>, fileDay: number, today: number) =>
    transaction(pool, async (client) => {
      await client.query(`SELECT pg_advisory_xact_lock(${advisory("instruments")})`)
      const distinct = [...new Map(given.map((instrument) => [instrument.instrument_token, instrument])).values()]
      let added = 0
      let changed = 0
      for (let i = 0; i < distinct.length; i += INSTRUMENT_ROWS) {
        const put = await putSome(client, distinct.slice(i, i + INSTRUMENT_ROWS), fileDay)
        added += put.added
        changed += put.changed
      }
      const expired = await client.query({ name: "expire", text: EXPIRE_INSTRUMENTS, values: [tradingDate(today)] })
      return { added, changed, expired: expired.rowCount ?? 0 }
    })

  return { instruments, instrumentsVersion, putInstruments }
}
