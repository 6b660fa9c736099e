/**
 * Decides whether a burst at ten times what the store can take does any harm: to the worker's memory, to a single tick,
 * to the clients. The store's limit is a trigger that sleeps as long as so many rows are to take, until it is lifted.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Ground, now, residentMb, type SoakOptions } from "./ground.ts"
import { seconds as inSeconds, type Report } from "./report.ts"

const SYMBOLS = 50
/** How much more is fed than the store can take. */
const TIMES = 10
const SAMPLE_MS = 1000
/** RSS shown, of all that was taken. */
const SHOWN = 20
/** Memory is flat: the mean of a run's last quarter is at most so many times that of its second. */
const FLAT = 1.15
/** A process has its size only after a while: in a shorter run its growth is said, and not judged. */
const WARM_AFTER_S = 100
const CATCHES_UP_WITHIN_MS = 900_000

const THROTTLE = `
  CREATE TABLE soak_throttle (rows_per_second double precision);
  INSERT INTO soak_throttle VALUES (NULL);
  CREATE FUNCTION soak_throttle() RETURNS trigger LANGUAGE plpgsql AS $$
  DECLARE
    due timestamptz := clock_timestamp()
      + make_interval(secs => (SELECT count(*) FROM added) / (SELECT rows_per_second FROM soak_throttle));
  BEGIN
    WHILE clock_timestamp() < due AND EXISTS (SELECT FROM soak_throttle WHERE rows_per_second IS NOT NULL) LOOP
      PERFORM pg_sleep(least(0.1, extract(epoch FROM due - clock_timestamp())));
    END LOOP;
    RETURN NULL;
  END $$;
  CREATE TRIGGER soak_throttle AFTER INSERT ON ticks REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION soak_throttle()`

const mean = (list: ReadonlyArray<number>): number => list.reduce((sum, n) => sum + n, 0) / list.length

/** Means of the second and the last quarter. */
const quarters = (samples: ReadonlyArray<number>): readonly [second: number, last: number] => {
  const quarter = Math.floor(samples.length / 4)
  return [mean(samples.slice(quarter, 2 * quarter)), mean(samples.slice(-quarter))]
}

export const burst = async ({ engine, seconds, rate }: SoakOptions, report: Report): Promise<void> => {
  const capacity = rate / TIMES
  process.stdout.write(
    `burst, ${engine}: ${rate} ticks/s for ${seconds} s into a store that takes ${capacity} rows/s\n`
  )
  const ground = await Ground.set(engine, SYMBOLS)
  try {
    await ground.sql(THROTTLE)
    const [worker] = ground.workers
    await ground.sql("UPDATE soak_throttle SET rows_per_second = $1", [capacity])
    const feed = await ground.play(rate)
    const from = now()
    report.tell("the burst begins")
    const memory: Array<readonly [worker: number, server: number]> = []
    let mostLag = 0
    while (now() - from < seconds * 1e6) {
      await sleep(SAMPLE_MS)
      const [ofWorker, ofServer] = await residentMb([worker!, ground.server])
      memory.push([ofWorker!, ofServer!])
      const lag = await ground.figure(worker!, "topology_consumer_lag_records", 'group="store"')
      mostLag = Math.max(mostLag, lag)
      if (memory.length % Math.max(1, Math.round(seconds / 10)) === 0) {
        report.tell(`store's lag ${lag}, worker ${ofWorker!.toFixed(0)} MB, server ${ofServer!.toFixed(0)} MB`)
      }
    }
    const stored = await ground.rows()
    const took = (now() - from) / 1000
    const meant = await feed.stop()
    report.tell(`the burst is over: ${meant.length} ticks fed, ${stored} stored`)
    const backlog = (await ground.ends()).reduce((sum, end) => sum + end, 0) - (await ground.rows())

    const liftedAt = now()
    await ground.sql("UPDATE soak_throttle SET rows_per_second = NULL")
    report.tell(`the store's limit is lifted, ${backlog} ticks behind`)
    const isLevel = await ground.storeReaches(await ground.ends(), CATCHES_UP_WITHIN_MS)
    const levelAt = now()
    report.tell(isLevel ? "the store has everything" : "the store has not caught up")

    const every = Math.max(1, Math.floor(memory.length / SHOWN))
    report.table([
      ["s", "worker MB", "server MB"],
      ...memory.flatMap((sample, i) =>
        i % every === 0 ? [[((i * took) / memory.length / 1000).toFixed(0), ...sample.map((mb) => mb.toFixed(0))]] : []
      )
    ])
    const [second, last] = quarters(memory.map(([mb]) => mb))
    const [serverSecond, serverLast] = quarters(memory.map(([, mb]) => mb))
    const fed = meant.length / (took / 1000)
    const taken = stored / (took / 1000)
    report.check(
      "the burst was ten times what the store took",
      fed / taken >= TIMES * 0.9,
      `${fed.toFixed(0)} ticks/s fed, ${taken.toFixed(0)} rows/s stored`
    )
    const grown = `${last.toFixed(0)} MB after ${second.toFixed(0)} MB, ${(last / second).toFixed(2)} ×`
    report.tell(
      `the server: ${serverLast.toFixed(0)} MB after ${serverSecond.toFixed(0)} MB, ${(serverLast / serverSecond).toFixed(2)} ×`
    )
    if (seconds < WARM_AFTER_S)
      report.tell(`the worker: ${grown}; a burst under ${WARM_AFTER_S} s is too short to judge`)
    else {
      report.check(
        `the worker's memory is flat: the last quarter's mean at most ${FLAT} × the second's`,
        last <= FLAT * second,
        grown
      )
    }
    report.check(
      "the lag was to be seen in /metrics",
      mostLag >= backlog / 2,
      `${mostLag} records at most, ${backlog} ticks behind at the end`
    )
    report.check(
      "the store catches up",
      isLevel,
      `${inSeconds((levelAt - liftedAt) / 1000)} after the limit was lifted, ${Math.round(backlog / ((levelAt - liftedAt) / 1e6))} rows/s`
    )
    await ground.closeAccount(report, meant)
  } finally {
    await ground.close()
  }
}
