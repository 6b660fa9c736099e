/** Decides how instruments are kept in PostgreSQL: what of one changed, what a reused token meant before, what has expired. */
import type pg from "pg"
import { type Instrument, MAX_NAME_CHARS } from "../../schema/Instrument.ts"
import { advisory, transaction } from "./connection.ts"
import { rows } from "./rows.ts"

/** Instruments put in one statement. */
const INSTRUMENT_ROWS = 5_000

const INSTRUMENT_COLUMNS =
  "instrument_token, tradingsymbol, exchange, asset_class, tick_size, name, expiry, strike, option_type, lot_size"
const listed = (alias: string, columns: string): string =>
  columns
    .split(", ")
    .map((column) => `${alias}.${column}`)
    .join(", ")
const CONTENT = INSTRUMENT_COLUMNS.replace("instrument_token, ", "")
/** A token that comes with another of these stands for something else. */
const MEANING = "exchange, tradingsymbol, expiry"

const GIVEN_INSTRUMENTS = `
  SELECT * FROM json_to_recordset($1::json) AS g (
    instrument_token integer, tradingsymbol varchar(50), exchange varchar(10), asset_class varchar(20),
    tick_size numeric, name text, expiry date, strike numeric, option_type varchar(2), lot_size integer)`

const PUT_INSTRUMENTS = `
  WITH given AS MATERIALIZED (${GIVEN_INSTRUMENTS}),
  kept AS (
    INSERT INTO instruments_history (instrument_token, known_since, known_until, ${CONTENT})
    SELECT i.instrument_token, i.known_since, now(), ${listed("i", CONTENT)}
    FROM instruments i JOIN given g USING (instrument_token)
    WHERE (${listed("i", MEANING)}) IS DISTINCT FROM (${listed("g", MEANING)})
    ON CONFLICT DO NOTHING),
  put AS (
    INSERT INTO instruments AS i (${INSTRUMENT_COLUMNS}, known_since)
    SELECT ${INSTRUMENT_COLUMNS}, now() FROM given ORDER BY instrument_token
    ON CONFLICT (instrument_token) DO UPDATE
    SET (${CONTENT}) = ROW (${listed("excluded", CONTENT)}),
        known_since = CASE WHEN (${listed("i", MEANING)}) IS DISTINCT FROM (${listed("excluded", MEANING)})
                           THEN excluded.known_since ELSE i.known_since END,
        expired = i.expired AND i.expiry IS NOT DISTINCT FROM excluded.expiry
    WHERE (${listed("i", CONTENT)}) IS DISTINCT FROM (${listed("excluded", CONTENT)})
    RETURNING xmax = 0 AS added)
  SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM put`

const EXPIRE_INSTRUMENTS = "UPDATE instruments SET expired = true WHERE expiry < $1::date AND NOT expired"

/** A name comes one character longer than any may be, so that whoever reads it sees that it was. */
const READ_COLUMNS = INSTRUMENT_COLUMNS.replace("name", `left(name, ${MAX_NAME_CHARS + 1})`).replace(
  "expiry",
  "to_char(expiry, 'YYYY-MM-DD')"
)
/** Where there are more than asked for, those that expired longest ago are left. */
const READ_INSTRUMENTS = `
  SELECT * FROM (
    SELECT ${READ_COLUMNS} FROM instruments
    ORDER BY expired, expiry DESC NULLS FIRST, instrument_token LIMIT $1) AS i
  ORDER BY instrument_token`

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

  const instruments = async (limit: number): Promise<ReadonlyArray<Instrument>> => {
    const found = await rows<
      readonly [
        number,
        string,
        string,
        Instrument["asset_class"],
        number,
        string | null,
        string | null,
        number | null,
        Instrument["option_type"],
        number | null
      ]
    >(pool, "instruments", READ_INSTRUMENTS, [limit])
    return found.map((row) => ({
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
    }))
  }

  const putInstruments = (given: ReadonlyArray<Instrument>, today: string) =>
    transaction(pool, async (client) => {
      await client.query(`SELECT pg_advisory_xact_lock(${advisory("instruments")})`)
      const distinct = [...new Map(given.map((instrument) => [instrument.instrument_token, instrument])).values()]
      let added = 0
      let changed = 0
      for (let i = 0; i < distinct.length; i += INSTRUMENT_ROWS) {
        const json = JSON.stringify(distinct.slice(i, i + INSTRUMENT_ROWS))
        const put = await rows<readonly [number, number]>(client, "put_instruments", PUT_INSTRUMENTS, [json])
        added += put[0]![0]
        changed += put[0]![1]
      }
      const expired = await client.query({ name: "expire", text: EXPIRE_INSTRUMENTS, values: [today] })
      return { added, changed, expired: expired.rowCount ?? 0 }
    })

  return { instruments, instrumentsVersion, putInstruments }
}
