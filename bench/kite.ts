/**
 * Decides how fast a feed of Kite's ticker is: frames of full packets, each with a new trade and another book, until the
 * log has acknowledged their records, beside a plain loop on the same driver.
 */
import { forgetRun, makeTopic } from "./rawTopic.ts"
import { alternate, figures, median, type Row } from "./row.ts"
import { type Run, runChild, withServers } from "./servers.ts"

const PACKETS = Number(process.env.BENCH_PACKETS ?? 1_000_000)
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)
const PARTITIONS = 12

export const run = (): Promise<Row> =>
  withServers(["kafka"], async ({ settings: found }) => {
    const settings = { ...found, PARTITIONS: String(PARTITIONS) }
    const brokers = found.KAFKA_BROKERS!
    const ours: Array<Run> = []
    const product = async () => {
      const done = await runChild("kiteProduct", [String(PACKETS)], settings)
      await forgetRun(brokers, ["raw_ticks"])
      ours.push(done)
      return done.rate
    }
    let made = 0
    const bare = async () => {
      const into = `bare_${made++}`
      await makeTopic(brokers, into, PARTITIONS)
      const done = await runChild("kiteBare", [String(PACKETS), into, String(PARTITIONS)], settings)
      await forgetRun(brokers, [into])
      return done.rate
    }
    const rates = await alternate(ROUNDS, product, bare)
    return {
      name: "kite",
      ...figures(rates),
      unit: "packets/s",
      cpu_s_per_million: median(ours.map((one) => one.cpuSecondsPerMillion)),
      peak_rss_mb: Math.max(...ours.map((one) => one.peakRssMb))
    }
  })
