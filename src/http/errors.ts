/** Decides how a failure is answered over HTTP: `{"_tag","message","parameter"?}` with its status. */
import { Schema } from "effect"
import { HttpApiSchema } from "effect/http-api"

const fields = { message: Schema.String, parameter: Schema.optionalKey(Schema.String) }

/** An input that is refused; `parameter` names it, the message says what was expected and what came. */
export class BadRequest extends Schema.TaggedError<BadRequest>()("BadRequest", fields, { httpApiStatus: 400 }) {}
/** A foreign Host or Origin, or a key without the scope, or for other instruments. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", fields, { httpApiStatus: 403 }) {}
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", fields, { httpApiStatus: 404 }) {}
/** The path is right, the method is not; `Allow` lists those that are. */
export class MethodNotAllowed extends Schema.TaggedError<MethodNotAllowed>()("MethodNotAllowed", fields, {
  httpApiStatus: 405
}) {}
/** What is asked for does not fit the state that the thing is in. */
export class Conflict extends Schema.TaggedError<Conflict>()("Conflict", fields, { httpApiStatus: 409 }) {}
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()("PayloadTooLarge", fields, {
  httpApiStatus: 413
}) {}
export class UnsupportedMediaType extends Schema.TaggedError<UnsupportedMediaType>()("UnsupportedMediaType", fields, {
  httpApiStatus: 415
}) {}
export class RangeNotSatisfiable extends Schema.TaggedError<RangeNotSatisfiable>()("RangeNotSatisfiable", fields, {
  httpApiStatus: 416
}) {}
/** A defect: logged with its cause, told without. */
export class InternalError extends Schema.TaggedError<InternalError>()("InternalError", fields, {
  httpApiStatus: 500
}) {}

/** Full for now; `Retry-After` says when to ask again. */
export class TooManyRequests extends Schema.TaggedError<TooManyRequests>()("TooManyRequests", {
  ...fields,
  retryAfterSeconds: Schema.Int
}) {}
/** Something behind the server does not answer; asking again may help. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  ...fields,
  retryAfterSeconds: Schema.Int
}) {}

/** `GET /readyz` before everything it waits for is there. */
export class NotReady extends Schema.TaggedError<NotReady>()(
  "NotReady",
  { ...fields, waiting: Schema.Array(Schema.String), degraded: Schema.Array(Schema.String) },
  { httpApiStatus: 503 }
) {}

const retryHeaders = { "retry-after": Schema.Int }
const body = <const Tag extends string>(tag: Tag, status: number) =>
  Schema.Struct({ _tag: Schema.tag(tag), ...fields })
    .annotate({ identifier: tag })
    .pipe(HttpApiSchema.status(status))

const told = (error: TooManyRequests | Unavailable) => ({
  message: error.message,
  ...(error.parameter === undefined ? {} : { parameter: error.parameter })
})

/** As they go over the wire: the seconds in the header. */
export const TooManyRequestsResponse = TooManyRequests.pipe(
  HttpApiSchema.encodeToWithHeaders(
    { body: body("TooManyRequests", 429), headers: retryHeaders },
    {
      decode: ({ body, headers }) => new TooManyRequests({ ...body, retryAfterSeconds: headers["retry-after"] }),
      encode: (error) => ({
        body: { _tag: "TooManyRequests" as const, ...told(error) },
        headers: { "retry-after": error.retryAfterSeconds }
      })
    }
  )
)
export const UnavailableResponse = Unavailable.pipe(
  HttpApiSchema.encodeToWithHeaders(
    { body: body("Unavailable", 503), headers: retryHeaders },
    {
      decode: ({ body, headers }) => new Unavailable({ ...body, retryAfterSeconds: headers["retry-after"] }),
      encode: (error) => ({
        body: { _tag: "Unavailable" as const, ...told(error) },
        headers: { "retry-after": error.retryAfterSeconds }
      })
    }
  )
)
