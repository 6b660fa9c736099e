/** Decides which forms history is given out in, and what each is called over HTTP. */
export type Format = "json" | "ndjson" | "csv" | "arrow" | "parquet"

export const mediaTypes = {
  json: "application/json",
  ndjson: "application/x-ndjson",
  csv: "text/csv",
  arrow: "application/vnd.apache.arrow.stream",
  parquet: "application/vnd.apache.parquet"
} as const satisfies Readonly<Record<Format, string>>
