/**
 * Decides how replays are started, listed, steered and ended over REST, and by whom: a key for some instruments replays
 * those only, and steers only what it has started. Whoever may read may listen.
 */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { showText } from "../schema/Explain.ts"
import { dayOfDate } from "../schema/Time.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { type Replay, type ReplayRequest, Replays } from "../streams/replay/Replays.ts"
import { Api } from "./Api.ts"
import { Caller, maySee, refuseInstruments } from "./caller.ts"
import { BadRequest, Conflict, type Forbidden, NotFound } from "./errors.ts"
import { overloaded, storeFailure } from "./failures.ts"
import { markSimulated } from "./simulatedMark.ts"
import { meantBy } from "./symbols.ts"

const refused = ({ message, parameter }: { readonly message: string; readonly parameter: string }) =>
  Effect.fail(new BadRequest({ message, parameter }))
const unknown = ({ message, parameter }: { readonly message: string; readonly parameter: string }) =>
  Effect.fail(new NotFound({ message, parameter }))

/** Replays whose starter is remembered, those of keys for some instruments: far more than are listed at a time. */
const MAX_STARTED = 2_000

export const replayRoutes = HttpApiBuilder.group(
  Api,
  "replays",
  Effect.fnUntraced(function* (handlers) {
    const replays = yield* Replays
    const instruments = yield* Instruments
    const mark = (shown: ReadonlyArray<Replay>) => markSimulated(shown.some(({ id }) => replays.isSimulated(id)))
    const marked = (shown: Replay) => mark([shown])
    /** Which key has started a replay, by the ids of both; the oldest go first. */
    const startedBy = new Map<string, string>()

    /** What is to be replayed; refused where the caller's key is not for it. */
    const mayReplay = (asked: ReplayRequest): Effect.Effect<ReplayRequest, BadRequest | Forbidden | NotFound> =>
      Effect.gen(function* () {
        const { all, symbols, tokens, ...rest } = asked
        const { key } = yield* Caller
        if (key === undefined || !key.isRestricted) return asked
        if (all === true) {
          const message = `all: key "${key.name}" is for some instruments: expected symbols or tokens among them`
          return yield* refuseInstruments("all", message)
        }
        const day = dayOfDate(asked.date)!
        const days = { from: day, through: day }
        yield* maySee(tokens ?? [], instruments, "tokens", days)
        if (symbols === undefined) return asked
        const meant: Array<number> = []
        for (const symbol of symbols) {
          meant.push((yield* meantBy(symbol, days, instruments, "symbols")).instrument.instrument_token)
        }
        return { ...rest, tokens: meant }
      })

    const maySteer = (id: string): Effect.Effect<void, Forbidden> =>
      Effect.flatMap(Caller, ({ key }) =>
        key === undefined || !key.isRestricted || startedBy.get(id) === key.id
          ? Effect.void
          : refuseInstruments(
              "id",
              `id: key "${key.name}" is for some instruments, and has not started ${showText(id)}`
            )
      )

    return handlers.handleAll({
      startReplay: ({ payload }) =>
        Effect.gen(function* () {
          const { did, key } = yield* Caller
          const started = yield* replays.start(yield* mayReplay(payload))
          if (key?.isRestricted === true) {
            startedBy.set(started.id, key.id)
            for (const oldest of startedBy.keys()) {
              if (startedBy.size <= MAX_STARTED) break
              startedBy.delete(oldest)
            }
          }
          const { all, date, symbols, tokens } = payload
          const named = symbols ?? tokens
          did("replay_start", {
            replay: started.id,
            date,
            instruments: all === true ? "all" : (named?.length ?? 0),
            speed: started.speed
          })
          yield* marked(started)
          return started
        }).pipe(
          Effect.catchTags({
            ReplayRefused: refused,
            UnknownSymbol: unknown,
            NothingStored: unknown,
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
        Effect.gen(function* () {
          const { did } = yield* Caller
          yield* maySteer(params.id)
          const changed = yield* replays.change(params.id, payload)
          const { seek, step } = payload
          did("replay_change", {
            replay: changed.id,
            state: changed.state,
            speed: changed.speed,
            ...(seek === undefined ? {} : { seek, run: changed.run }),
            ...(step === undefined ? {} : { step: step.ticks ?? `${step.bars} x ${step.interval}` })
          })
          yield* marked(changed)
          return changed
        }).pipe(
          Effect.catchTags({
            ReplayRefused: refused,
            UnknownReplay: unknown,
            ReplayOver: ({ message }) => Effect.fail(new Conflict({ message, parameter: "state" })),
            StepsWaiting: ({ message }) => Effect.fail(new Conflict({ message, parameter: "step" }))
          })
        ),
      stopReplay: ({ params }) =>
        Effect.gen(function* () {
          const { did } = yield* Caller
          yield* maySteer(params.id)
          yield* replays.stop(params.id)
          did("replay_stop", { replay: params.id })
        }).pipe(Effect.catchTag("UnknownReplay", unknown))
    })
  })
)
