/**
 * Decides how fast everything together is: one worker with all its stages on real Kafka, Redis and PostgreSQL, the
 * archive in files, from raw ticks waiting in the log until no group is behind. There is no bare loop of all that.
 */
import { mkdtempSync } from "node:fs"
import { join } from "node:path"
import { fill, forgetRun } from "./rawTopic.ts"
import { figures, median, type Row } from "./row.ts"
import { flush, type Run, runChild, withServers } from "./servers.ts"

const TICKS = Number(process.env.BENCH_TICKS ?? 500_000)
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)
const PARTITIONS = 12

export const run = (): Promise<Row> =>
  withServers(["kafka", "redis", "postgres"], async ({ servers, settings: found, folder }) => {
    const settings = {
      ...found,
      PARTITIONS: String(PARTITIONS),
      // An object waits for more ticks only as long as more come.
      ARCHIVE_FLUSH_MS: "1000"
    }
    const distinct = await fill(settings, TICKS)
    const runs: Array<Run> = []
    for (let round = 0; round < ROUNDS; round++) {
      await flush(servers.redis.url())
      const DATABASE_URL = await servers.postgres.createDatabase(`bench_${round}`)
      const DATA_DIR = mkdtempSync(join(folder, "data-"))
      runs.push(
        await runChild("pipelineWorker", [String(TICKS), String(distinct)], { ...settings, DATABASE_URL, DATA_DIR })
      )
      await forgetRun(found.KAFKA_BROKERS!, ["normalized_ticks"])
    }
    return {
      name: "pipeline",
      ...figures({ product: runs.map((one) => one.rate), bare: [] }),
      unit: "ticks/s",
      cpu_s_per_million: median(runs.map((one) => one.cpuSecondsPerMillion)),
      peak_rss_mb: Math.max(...runs.map((one) => one.peakRssMb))
    }
  })
