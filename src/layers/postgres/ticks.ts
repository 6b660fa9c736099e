/**
 * Decides how ticks are written to PostgreSQL and read from it: each row once, with its bookmark and the quotes beside it,
 * in the order of ticks.
 */
import type pg from "pg"
import { type Tick, tradingDay, tradingDayStart } from "../../schema/Tick.ts"
import { composed, firstThatHolds, storedOf, storedWord, tickFields, type ValueField } from "../../schema/tickFields.ts"
import type { Bookmark, Mark } from "../../streams/log/bookmark.ts"
import type { QuotesWritten, StoreBatch, StoredTick, TickQuery, WriteResult } from "../../streams/ports/TickStore.ts"
import { turn } from "../../streams/run/turns.ts"
import { int2Array, int4Array, int8Array, textArray, timestampArray, timestampText, wordArray } from "./arrays.ts"
import type { Bars } from "./bars.ts"
import { NO_PARTITION, stateOf, tickTransaction, UNIQUE_VIOLATION } from "./connection.ts"
import { type Days, daysOf } from "./days.ts"
import { makeQuoteWriter, type QuotesOf } from "./quotes.ts"
import { barOf, micros, rows, seconds, storedTick, TICK, TICK_ORDER, type TickRow } from "./rows.ts"

/** A transaction that inserts into more days than this would hold too many locks; it is split. */
const MAX_DAYS_PER_TRANSACTION = 64

/** After a row was found to be there already, so many writes look before they insert. */
const CAREFUL_WRITES = 20

const MICROS_PER_MINUTE = 60_000_000

// --- statements -------------------------------------------------------------------------------------------------

const STORED = storedOf(tickFields)

type ArrayOf = (ticks: ReadonlyArray<Tick>, of: (tick: Tick) => never) => Buffer | string

/** The type of each kind's column, and how a batch of them is sent. */
const kinds: Readonly<Record<ValueField["kind"], readonly [type: string, array: ArrayOf]>> = {
  token: ["integer", int4Array],
  index: ["integer", int4Array],
  small: ["smallint", int2Array],
  micros: ["timestamptz", timestampArray],
  price: ["numeric", wordArray],
  whole: ["bigint", int8Array],
  quantity: ["bigint", int8Array],
  word: ["varchar", wordArray],
  name: ["text", textArray]
}

const NAMES = Object.keys(STORED).join(", ")
const TYPES = Object.values(STORED).map((field) => ("initial" in field ? `"char"` : kinds[field.kind][0]))
const ARRAYS = TYPES.map((type, i) => `$${i + 1}::${type}[]`).join(", ")

// Sorted by the key: pages of the index are met one after the other, which makes it half as fast again, and two
// writers of the same rows wait for each other rather than for ever.
const INSERT = `
  INSERT INTO ticks (${NAMES})
  SELECT * FROM unnest(${ARRAYS}) AS t (${NAMES})
  ORDER BY instrument_token, exchange_ts, sequence_id`

const TOUCHED = (rowsChanged: string) => `
  SELECT instrument_token, ${seconds(barOf(1, "exchange_ts"))}, count(*), count(epoch)
  FROM ${rowsChanged} GROUP BY 1, 2`

const INSERT_MISSING = `
  WITH added AS (${INSERT} ON CONFLICT DO NOTHING RETURNING instrument_token, exchange_ts, epoch) ${TOUCHED("added")}`

/** A replay may have added a row before the live tick came: the live one brings its place in the day. */
const UNPLACED = `
  SELECT l.n FROM unnest($1::integer[], $2::timestamptz[], $3::bigint[]) WITH ORDINALITY
       AS l (instrument_token, exchange_ts, sequence_id, n)
  JOIN ticks t USING (instrument_token, exchange_ts, sequence_id)
  WHERE t.epoch IS NULL AND t.exchange_ts >= $4::timestamptz AND t.exchange_ts <= $5::timestamptz`

const FILL_POSITIONS = `
  WITH filled AS (
    UPDATE ticks t SET epoch = l.epoch, position = l.position
    FROM unnest($1::integer[], $2::timestamptz[], $3::bigint[], $6::bigint[], $7::bigint[])
         AS l (instrument_token, exchange_ts, sequence_id, epoch, position)
    WHERE t.instrument_token = l.instrument_token AND t.exchange_ts = l.exchange_ts
      AND t.sequence_id = l.sequence_id AND t.epoch IS NULL
      AND t.exchange_ts >= $4::timestamptz AND t.exchange_ts <= $5::timestamptz
    RETURNING t.instrument_token, t.exchange_ts, t.epoch)
  ${TOUCHED("filled")}`

const PUT_BOOKMARKS = `
  INSERT INTO sink_offsets (incarnation, partition, next_offset, mark, updated_at)
  SELECT b.incarnation, b.partition, b.next_offset, b.mark, now()
  FROM json_to_recordset($1::json) AS b (incarnation text, partition integer, next_offset bigint, mark jsonb)
  ORDER BY 1, 2
  ON CONFLICT (incarnation, partition) DO UPDATE
  SET next_offset = excluded.next_offset, mark = excluded.mark, updated_at = excluded.updated_at
  WHERE excluded.next_offset > sink_offsets.next_offset`

/**
 * The key's order is the ticks' but for ties, so a page is what the index gives first, with all ties of its last
 * instant, and only that is sorted. Without this a day that was never analyzed is sorted whole for every page.
 */
const pageOf = (passed: string): string => `
  SELECT ${TICK} FROM (
    SELECT * FROM ticks
    WHERE instrument_token = $1::integer AND exchange_ts >= $2::timestamptz AND exchange_ts < $3::timestamptz ${passed}
    ORDER BY exchange_ts FETCH FIRST ($4::bigint) ROWS WITH TIES) t
  ORDER BY ${TICK_ORDER} LIMIT $4::bigint`

const PAGE = pageOf("")
const LAST_BIGINT = "9223372036854775807"
/** The page that starts at a cursor's time leaves out what the cursor has passed of it. */
export const PAGE_AFTER = pageOf(`
    AND (exchange_ts > $2::timestamptz OR
         (greatest(sequence_id, 0), coalesce(epoch, ${LAST_BIGINT}), coalesce(position, ${LAST_BIGINT}), sequence_id)
         > (greatest($5::bigint, 0), coalesce($6::bigint, ${LAST_BIGINT}), coalesce($7::bigint, ${LAST_BIGINT}),
            $5::bigint))`)

const AFTER_POSITION = `
  SELECT ${TICK} FROM ticks
  WHERE instrument_token = $1::integer AND exchange_ts >= $2::timestamptz AND exchange_ts < $3::timestamptz
    AND (epoch, position) > ($4::bigint, $5::bigint)
  ORDER BY epoch, position LIMIT $6::bigint`

const COUNT = `
  SELECT count(*) FROM ticks
  WHERE instrument_token = ANY ($1::integer[]) AND exchange_ts >= $2::timestamptz AND exchange_ts < $3::timestamptz`

/** A row is never changed but once, by what brings its place; so these grow with every change. */
const REVISION = `
  SELECT count(*), count(epoch) FROM ticks
  WHERE instrument_token = ANY ($1::integer[]) AND exchange_ts >= $2::timestamptz AND exchange_ts < $3::timestamptz`

// --- writing ----------------------------------------------------------------------------------------------------

type Touched = readonly [token: number, minuteSeconds: number, rows: number, positioned: number]

/** Minutes of instruments, each once. */
class Minutes {
  readonly tokens: Array<number> = []
  readonly starts: Array<number> = []
  readonly #seen = new Set<string>()
  readonly #last = new Map<number, number>()

  add(token: number, minute: number): void {
    if (this.#last.get(token) === minute) return
    this.#last.set(token, minute)
    const key = `${token} ${minute}`
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    this.tokens.push(token)
    this.starts.push(minute)
  }
}

const minuteStart = (time: number): number => Math.floor(time / MICROS_PER_MINUTE) * MICROS_PER_MINUTE

/** What the store takes of these ticks; the days of the rest are dropped. */
const takenFrom = (ticks: ReadonlyArray<Tick>, from: number): ReadonlyArray<Tick> =>
  ticks.some(({ exchange_ts }) => exchange_ts < from) ? ticks.filter(({ exchange_ts }) => exchange_ts >= from) : ticks

/** The first of each key that is not in `seen` yet. */
const firstOfKeys = (ticks: ReadonlyArray<Tick>, seen: Set<string>): ReadonlyArray<Tick> =>
  ticks.filter(({ instrument_token, exchange_ts, sequence_id }) => {
    const size = seen.size
    return seen.add(`${instrument_token} ${exchange_ts} ${sequence_id}`).size > size
  })

const expressionOf = (name: string, field: ValueField): string => {
  if ("unplaced" in field) return `i < live ? t.${name} : null`
  if (field.kind !== "word" || field.initial !== true) return `t.${name}`
  const cases = field.words.map((word) => [`t.${name} === "${word}"`, `"${storedWord(field, word)}"`] as const)
  return firstThatHolds(cases.slice(0, -1), cases.at(-1)![1])
}

/** Each column and what reads its field: a function each, of which the engine then knows what it meets. */
const COLUMNS = Object.entries(STORED).map(([name, field]) => ({
  array: kinds[field.kind][1],
  of: composed<(live: number) => (tick: Tick) => never>(`(live) => (t, i) => ${expressionOf(name, field)}`)
}))

/** Ticks first, then replayed ones, which have no place in the day. */
const tickColumns = (ticks: ReadonlyArray<Tick>, replayed: ReadonlyArray<Tick>): Array<unknown> => {
  const all = replayed.length === 0 ? ticks : [...ticks, ...replayed]
  return COLUMNS.map(({ array, of }) => array(all, of(ticks.length)))
}

const putBookmarks = async (client: pg.PoolClient, bookmarks: ReadonlyArray<Bookmark>): Promise<void> => {
  if (bookmarks.length === 0) return
  const furthest = new Map<string, Bookmark>()
  for (const bookmark of bookmarks) {
    const key = `${bookmark.partition} ${bookmark.incarnation}`
    const other = furthest.get(key)
    if (other === undefined || other.offset < bookmark.offset) furthest.set(key, bookmark)
  }
  const json = JSON.stringify(
    [...furthest.values()].map((b) => ({
      incarnation: b.incarnation,
      partition: b.partition,
      next_offset: b.offset,
      mark: b.mark ?? null
    }))
  )
  await client.query({ name: "put_bookmarks", text: PUT_BOOKMARKS, values: [json] })
}

/** The keys of some ticks, and the time they span, which lets the server look at few chunks. */
const keysOf = (ticks: ReadonlyArray<Tick>): Array<unknown> => {
  let first = Number.POSITIVE_INFINITY
  let last = 0
  for (const { exchange_ts } of ticks) {
    if (exchange_ts < first) first = exchange_ts
    if (exchange_ts > last) last = exchange_ts
  }
  return [
    int4Array(ticks, (t) => t.instrument_token),
    timestampArray(ticks, (t) => t.exchange_ts),
    int8Array(ticks, (t) => t.sequence_id),
    timestampText(first),
    timestampText(last)
  ]
}

const resultOf = (added: number, dropped: number, quotes: QuotesWritten | undefined): WriteResult => ({
  added,
  ...(dropped === 0 ? {} : { dropped }),
  ...(quotes === undefined ? {} : { quotes })
})

const both = (a: QuotesWritten | undefined, b: QuotesWritten | undefined): QuotesWritten | undefined =>
  a === undefined || b === undefined ? (a ?? b) : { added: a.added + b.added, dropped: a.dropped + b.dropped }

export const makeWriter = (pool: pg.Pool, days: Days, bars: Bars, storesDepth: boolean) => {
  const putQuotes = makeQuoteWriter(storesDepth)
  let careful = 0

  const mark = async (client: pg.PoolClient, minutes: Minutes): Promise<void> => {
    if (minutes.tokens.length === 0) return
    await client.query({
      name: "mark_minutes",
      text: bars.mark,
      values: [int4Array(minutes.tokens, (token) => token), timestampArray(minutes.starts, (start) => start)]
    })
  }

  /** Every row is new, else it fails with a unique violation: a third faster than asking row by row. */
  const insertNew = (
    given: ReadonlyArray<Tick>,
    quotes: QuotesOf,
    bookmarks: ReadonlyArray<Bookmark>
  ): Promise<WriteResult> =>
    tickTransaction(pool, async (client, ticksFrom) => {
      const ticks = takenFrom(given, ticksFrom)
      if (ticks.length > 0) {
        await turn(ticks.length)
        const minutes = new Minutes()
        for (const tick of ticks) minutes.add(tick.instrument_token, minuteStart(tick.exchange_ts))
        await client.query({ name: "insert", text: INSERT, values: tickColumns(ticks, []) })
        await mark(client, minutes)
      }
      const quoted = await putQuotes(client, quotes, ticksFrom)
      await putBookmarks(client, bookmarks)
      return resultOf(ticks.length, given.length - ticks.length, quoted)
    })

  /** Rows that a replay added get the places that their live ticks bring. */
  const fillPositions = async (client: pg.PoolClient, ticks: ReadonlyArray<Tick>, minutes: Minutes): Promise<void> => {
    // Looked for first: an update of a columnstore chunk takes out whatever may be concerned.
    const found = await rows<readonly [number]>(client, "unplaced", UNPLACED, keysOf(ticks))
    if (found.length === 0) return
    const unplaced = found.map(([n]) => ticks[n - 1]!)
    const filled = await rows<Touched>(client, "fill_positions", FILL_POSITIONS, [
      ...keysOf(unplaced),
      int8Array(unplaced, (t) => t.epoch),
      int8Array(unplaced, (t) => t.position)
    ])
    for (const [token, start] of filled) minutes.add(token, micros(start))
  }

  const insertMissing = (batch: StoreBatch): Promise<WriteResult> =>
    tickTransaction(pool, async (client, ticksFrom) => {
      const seen = new Set<string>()
      const given = [batch.ticks, batch.replayed].map((ticks) => takenFrom(ticks, ticksFrom))
      // Of a live and a replayed copy of a tick the live one counts.
      const ticks = firstOfKeys(given[0]!, seen)
      const replayed = firstOfKeys(given[1]!, seen)
      const minutes = new Minutes()
      let added = 0
      let live = 0
      if (ticks.length + replayed.length > 0) {
        await turn(ticks.length + replayed.length)
        const inserted = await rows<Touched>(client, "insert_missing", INSERT_MISSING, tickColumns(ticks, replayed))
        for (const [token, start, count, positioned] of inserted) {
          minutes.add(token, micros(start))
          added += count
          live += positioned
        }
      }
      if (live < ticks.length) await fillPositions(client, ticks, minutes)
      await mark(client, minutes)
      const quoted = await putQuotes(client, batch, ticksFrom)
      await putBookmarks(client, batch.bookmarks)
      const taken = given[0]!.length + given[1]!.length
      return resultOf(added, batch.ticks.length + batch.replayed.length - taken, quoted)
    })

  const writeOnce = async (batch: StoreBatch): Promise<WriteResult> => {
    const { ticks, replayed, bookmarks } = batch
    if (ticks.length > 0 && replayed.length === 0 && careful === 0) {
      try {
        return await insertNew(ticks, batch, bookmarks)
      } catch (cause) {
        if (stateOf(cause) !== UNIQUE_VIOLATION) throw cause
        careful = CAREFUL_WRITES
      }
    }
    const result = await insertMissing(batch)
    if (ticks.length > 0 && replayed.length === 0) {
      careful = result.added + (result.dropped ?? 0) === ticks.length ? Math.max(0, careful - 1) : CAREFUL_WRITES
    }
    return result
  }

  const writeDays = async (batch: StoreBatch, of: ReadonlySet<number>): Promise<WriteResult> => {
    await days.ensure(of)
    try {
      return await writeOnce(batch)
    } catch (cause) {
      if (stateOf(cause) !== NO_PARTITION) throw cause
      days.forget()
      await days.ensure(of)
      return await writeOnce(batch)
    }
  }

  return async (batch: StoreBatch): Promise<WriteResult> => {
    const lists = [batch.ticks, batch.replayed, batch.quotes, batch.replayedQuotes]
    if (lists.every(({ length }) => length === 0) && batch.bookmarks.length === 0) return { added: 0 }
    const of = daysOf(...lists)
    if (of.size <= MAX_DAYS_PER_TRANSACTION) return writeDays(batch, of)
    // Only a file of very many days comes here. The bookmarks go with the last piece, so none runs ahead of its rows.
    const ordered = [...of].sort((a, b) => a - b)
    let added = 0
    let dropped = 0
    let quoted: QuotesWritten | undefined
    for (let i = 0; i < ordered.length; i += MAX_DAYS_PER_TRANSACTION) {
      const piece = new Set(ordered.slice(i, i + MAX_DAYS_PER_TRANSACTION))
      const within = ({ exchange_ts }: Pick<Tick, "exchange_ts">) => piece.has(tradingDay(exchange_ts))
      const part: StoreBatch = {
        ticks: batch.ticks.filter(within),
        replayed: batch.replayed.filter(within),
        quotes: batch.quotes.filter(within),
        replayedQuotes: batch.replayedQuotes.filter(within),
        bookmarks: i + MAX_DAYS_PER_TRANSACTION < ordered.length ? [] : batch.bookmarks
      }
      const result = await writeDays(part, piece)
      added += result.added
      dropped += result.dropped ?? 0
      quoted = both(quoted, result.quotes)
    }
    return resultOf(added, dropped, quoted)
  }
}

// --- reading ----------------------------------------------------------------------------------------------------

export const makeReader = (pool: pg.Pool, days: Days, bars: Bars) => {
  const bookmarks = async (incarnation: string): Promise<ReadonlyArray<Bookmark>> => {
    const found = await rows<readonly [number, number, string | null]>(
      pool,
      "bookmarks",
      "SELECT partition, next_offset, mark FROM sink_offsets WHERE incarnation = $1::text ORDER BY partition",
      [incarnation]
    )
    return found.map(([partition, offset, mark]) => ({
      partition,
      incarnation,
      offset,
      mark: mark === null ? undefined : (JSON.parse(mark) as Mark)
    }))
  }

  const page = async (
    query: TickQuery,
    from: number,
    to: number,
    limit: number
  ): Promise<ReadonlyArray<StoredTick>> => {
    const { after } = query
    const within = [query.instrument_token, timestampText(from), timestampText(to), limit]
    const found =
      after !== undefined && after.exchange_ts === from
        ? await rows<TickRow>(pool, "page_after", PAGE_AFTER, [
            ...within,
            after.sequence_id,
            after.epoch,
            after.position
          ])
        : await rows<TickRow>(pool, "page", PAGE, within)
    return found.map(storedTick)
  }

  const ticks = async (query: TickQuery): Promise<ReadonlyArray<StoredTick>> => {
    // A cursor before the range has passed nothing of it.
    const from = Math.max(query.from, query.after?.exchange_ts ?? query.from)
    const windows = await days.windows(from, query.to)
    let found: ReadonlyArray<StoredTick> = []
    for (const [start, end] of windows) {
      const more = await page(query, start, end, query.limit - found.length)
      found = found.length === 0 ? more : [...found, ...more]
      if (found.length >= query.limit) break
    }
    return found
  }

  const ticksAfter = async (
    token: number,
    epoch: number,
    position: number,
    limit: number
  ): Promise<ReadonlyArray<StoredTick>> => {
    const day = Math.floor(epoch / 1_000_000_000)
    const found = await rows<TickRow>(pool, "after_position", AFTER_POSITION, [
      token,
      timestampText(tradingDayStart(day)),
      timestampText(tradingDayStart(day + 1)),
      epoch,
      position,
      limit
    ])
    return found.map(storedTick)
  }

  const count = async (tokens: ReadonlyArray<number>, from: number, to: number): Promise<number> => {
    if (tokens.length === 0) return 0
    const distinct = [...new Set(tokens)]
    let sum = 0
    for (const [start, end] of await days.windows(from, to)) {
      const found = await rows<readonly [number]>(pool, "count", COUNT, [
        int4Array(distinct, (token) => token),
        timestampText(start),
        timestampText(end)
      ])
      sum += found[0]![0]
    }
    return sum
  }

  const revision = async (tokens: ReadonlyArray<number>, from: number, to: number): Promise<string> => {
    const distinct = [...new Set(tokens)]
    const counts: Array<string> = []
    for (const [start, end] of await days.windows(from, to)) {
      const [found] = await rows<readonly [number, number]>(pool, "revision", REVISION, [
        int4Array(distinct, (token) => token),
        timestampText(start),
        timestampText(end)
      ])
      if (found![0] > 0) counts.push(`${timestampText(start)}:${found!.join()}`)
    }
    return counts.join(" ")
  }

  const tokens = async (from: number, to: number): Promise<ReadonlyArray<number>> => {
    const all = new Set<number>()
    for (const [start, end] of await days.windows(from, to)) {
      const found = await rows<readonly [number]>(pool, "tokens", bars.tokens, [
        timestampText(start),
        timestampText(end)
      ])
      for (const [token] of found) all.add(token)
    }
    return [...all].sort((a, b) => a - b)
  }

  return { bookmarks, ticks, ticksAfter, count, revision, tokens }
}
