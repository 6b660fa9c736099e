/** Decides how replays are started, listed, steered and ended over REST. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { type Replay, Replays } from "../streams/replay/Replays.ts"
import { Api } from "./Api.ts"
import { BadRequest, Conflict, NotFound } from "./errors.ts"
import { overloaded, storeFailure } from "./failures.ts"
import { markSimulated } from "./simulatedMark.ts"

const refused = ({ message, parameter }: { readonly message: string; readonly parameter: string }) =>
  Effect.fail(new BadRequest({ message, parameter }))
const unknown = ({ message, parameter }: { readonly message: string; readonly parameter: string }) =>
  Effect.fail(new NotFound({ message, parameter }))

export const replayRoutes = HttpApiBuilder.group(
  Api,
  "replays",
  Effect.fnUntraced(function* (handlers) {
    const replays = yield* Replays
    const mark = (shown: ReadonlyArray<Replay>) => markSimulated(shown.some(({ id }) => replays.isSimulated(id)))
    const marked = (shown: Replay) => mark([shown])
    return handlers.handleAll({
      startReplay: ({ payload }) =>
        replays.start(payload).pipe(
          Effect.tap(marked),
          Effect.catchTags({
            ReplayRefused: refused,
            UnknownSymbol: unknown,
            Overloaded: (error) => Effect.fail(overloaded(error)),
            StoreError: (error) => Effect.fail(storeFailure(error))
          })
        ),
      listReplays: () =>
        replays.list.pipe(
          Effect.tap(mark),
          Effect.map((list) => ({ replays: list }))
        ),
      replay: ({ params }) =>
        replays.get(params.id).pipe(Effect.tap(marked), Effect.catchTag("UnknownReplay", unknown)),
      changeReplay: ({ params, payload }) =>
        replays.change(params.id, payload).pipe(
          Effect.tap(marked),
          Effect.catchTags({
            ReplayRefused: refused,
            UnknownReplay: unknown,
            ReplayOver: ({ message }) => Effect.fail(new Conflict({ message, parameter: "state" }))
          })
        ),
      stopReplay: ({ params }) => replays.stop(params.id).pipe(Effect.catchTag("UnknownReplay", unknown))
    })
  })
)
