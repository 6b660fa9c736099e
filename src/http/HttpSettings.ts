/** Decides what the routes need to know besides the services: limits, and how the topology describes itself. */
import { Context } from "effect"
import type { Settings } from "../schema/Settings.ts"
import type { FrontSettings } from "./front.ts"

export class HttpSettings extends Context.Service<
  HttpSettings,
  Pick<Settings, "HOST" | "PORT" | "ALLOWED_ORIGINS" | "INGEST_WAIT_MS" | "MAX_FUTURE_SKEW_MS" | "DRAIN_DEADLINE_MS"> &
    FrontSettings & {
      /** The pipeline as data, for `/topology`. */
      readonly describe: () => object
    }
>()("market-data-platform/http/HttpSettings") {}
