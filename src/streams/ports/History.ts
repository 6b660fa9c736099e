/** Decides what is asked of the past, whatever its age: what the store holds and what the archive has as one. */
import { Context } from "effect"
import type { Archive } from "./Archive.ts"
import type { TickStore } from "./TickStore.ts"

/** Ticks and quotes as whoever replays them asks for them. */
export interface PastTicks extends Pick<TickStore["Service"], "ticks" | "quotePage" | "count" | "tokens"> {}

export class History extends Context.Service<
  History,
  PastTicks &
    Pick<TickStore["Service"], "candles" | "minuteOi" | "revision"> & {
      /** One of the two alone; undefined where there is no archive. */
      readonly of: (source: "store" | "archive") => PastTicks | undefined
      /** What the archive's own objects are; undefined where there is none. */
      readonly archive: Pick<Archive["Service"], "list" | "object"> | undefined
    }
>()("market-data-platform/streams/History") {}
