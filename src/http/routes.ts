/** Decides which routes there are: the API with its handlers, its description, and the dashboard. */
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { Api } from "./Api.ts"
import { layerSchemaRefusals, layerTypedAnswers } from "./answers.ts"
import { archiveRoutes } from "./archiveRoutes.ts"
import { calendarRoute } from "./calendarRoute.ts"
import type { DashboardFile } from "./dashboard.ts"
import { dlqRoutes } from "./dlqRoutes.ts"
import { historicalRoutes } from "./historicalRoutes.ts"
import { ingestRoute } from "./ingestRoute.ts"
import { instrumentRoutes } from "./instrumentRoutes.ts"
import { quotesRoute } from "./quotesRoute.ts"
import { replayRoutes } from "./replayRoutes.ts"
import { systemRoutes } from "./systemRoutes.ts"
import { udfRoutes } from "./udfRoutes.ts"
import { layerKnownParameters } from "./unknownParameters.ts"

export const OPENAPI_PATH = "/openapi.json"

export const routes = (dashboard: ReadonlyArray<DashboardFile>) =>
  Layer.mergeAll(
    HttpApiBuilder.layer(Api, { openapiPath: OPENAPI_PATH }),
    layerTypedAnswers,
    HttpRouter.use((router) =>
      Effect.forEach(dashboard, ({ path, response }) => router.add<never, never>("GET", path, response), {
        discard: true
      })
    )
  ).pipe(
    Layer.provide([
      instrumentRoutes,
      ingestRoute,
      quotesRoute,
      historicalRoutes,
      archiveRoutes,
      calendarRoute,
      replayRoutes,
      dlqRoutes,
      systemRoutes,
      udfRoutes
    ]),
    Layer.provide([layerSchemaRefusals, layerKnownParameters]),
    Layer.provide(HttpServer.layerServices)
  )
