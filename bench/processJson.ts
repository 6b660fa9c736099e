/**
 * Decides how fast the group `process` is on real Kafka and Redis, JSON in and out: raw ticks waiting in the log until
 * all are published and acknowledged, claims and checkpoints on, beside a plain loop on the same drivers.
 */
import { fill, forgetRun, makeTopic } from "./rawTopic.ts"
import { alternate, figures, median, type Row } from "./row.ts"
import { flush, type Run, runChild, withServers } from "./servers.ts"

const TICKS = Number(process.env.BENCH_TICKS ?? 1_000_000)
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)
const PARTITIONS = Number(process.env.BENCH_PARTITIONS ?? 12)

export const run = (): Promise<Row> =>
  withServers(["kafka", "redis"], async ({ servers, settings: found }) => {
    const settings = { ...found, PARTITIONS: String(PARTITIONS) }
    const brokers = found.KAFKA_BROKERS!
    const distinct = await fill(settings, TICKS)
    const ours: Array<Run> = []
    const product = async () => {
      await flush(servers.redis.url())
      const done = await runChild("processProduct", [String(TICKS), String(distinct)], settings)
      await forgetRun(brokers, ["normalized_ticks"])
      ours.push(done)
      return done.rate
    }
    let made = 0
    const bare = async () => {
      await flush(servers.redis.url())
      const into = `bare_${made++}`
      await makeTopic(brokers, into, PARTITIONS)
      const done = await runChild("processBare", [String(TICKS), String(distinct), into], settings)
      await forgetRun(brokers, [into])
      return done.rate
    }
    const rates = await alternate(ROUNDS, product, bare)
    return {
      name: "process-json",
      ...figures(rates),
      unit: "ticks/s",
      cpu_s_per_million: median(ours.map((one) => one.cpuSecondsPerMillion)),
      peak_rss_mb: Math.max(...ours.map((one) => one.peakRssMb))
    }
  })
