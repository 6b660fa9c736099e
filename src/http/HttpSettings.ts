/** Decides what the routes need to know besides the services: limits, and how the topology describes itself. */
import { Context } from "effect"
import type { Settings } from "../schema/Settings.ts"
import type { FrontSettings } from "./front.ts"

export class HttpSettings extends Context.Service<
  HttpSettings,
  Pick<
    Settings,
    | "HOST"
    | "PORT"
    | "TLS_CERT_FILE"
    | "TLS_KEY_FILE"
    | "ALLOWED_HOSTS"
    | "ALLOWED_ORIGINS"
    | "METRICS_ALLOW"
    | "INGEST_WAIT_MS"
    | "MAX_FUTURE_SKEW_MS"
    | "DRAIN_DEADLINE_MS"
  > &
    FrontSettings & {
      /** The pipeline as data, for `/topology`. */
      readonly describe: () => object
    }
>()("market-data-platform/http/HttpSettings") {}
