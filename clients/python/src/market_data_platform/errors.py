"""Decides which failures a caller can tell apart, and what each knows. They are named as in the other clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where an instrument's stream stands: the resume token. A tuple, so that JSON has it as ``[epoch, position]``."""

    epoch: int
    position: int


class MarketDataError(Exception):
    """The root of every error that this package raises by itself."""


class Unsupported(MarketDataError, ValueError):
    """An option or argument that is wrong: nothing was sent."""

    def __init__(self, field: str, expected: str, got: object) -> None:
        super().__init__(f"{field}: expected {expected}, got {_shown(got)}")
        self.field = field
        self.expected = expected
        self.got = got


class ClientClosed(MarketDataError):
    """The client, or the stream, was closed here."""

    def __init__(self, what: str = "the client") -> None:
        super().__init__(f"{what} is closed")


class ProtocolFailed(MarketDataError):
    """What came is no message of the platform: another server, a proxy, or a version that does not fit."""


class ReplayFailed(MarketDataError):
    """A replay that ended by a failure of its own."""

    def __init__(self, replay: str, reason: str) -> None:
        super().__init__(f"replay {replay}: {reason}")
        self.replay = replay
        self.reason = reason


# REST ------------------------------------------------------------------------------------------------------------


class NetworkFailed(MarketDataError):
    """A request got no answer: no connection, or one that broke."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"{request}: {reason}")
        self.reason = reason


class TimedOut(MarketDataError, TimeoutError):
    """A request got no answer in time."""

    def __init__(self, request: str, seconds: float) -> None:
        super().__init__(f"{request}: no answer in {seconds:g} s")
        self.seconds = seconds


class RequestFailed(MarketDataError):
    """A request that the server refused: ``tag`` is its word for why, ``parameter`` what is wrong if one thing is."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        tag: str,
        parameter: str | None = None,
        retry_after: float | None = None,
        url: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.tag = tag
        self.parameter = parameter
        #: Seconds after which asking again makes sense, where the server said so.
        self.retry_after = retry_after
        self.url = url


class BadRequest(RequestFailed):
    """400: a parameter, a field or a body is wrong."""


class Unauthorized(RequestFailed):
    """401: no key, or one that is unknown, expired or revoked. A live stream refused for it ends with this too."""


class Forbidden(RequestFailed):
    """403: the key's scope or instruments do not allow it, or the server does not know its own name in the address."""


class NotFound(RequestFailed):
    """404: no such instrument, replay or route."""


class Conflict(RequestFailed):
    """409: it does not fit the state that the thing is in."""


class PayloadTooLarge(RequestFailed):
    """413: the body is too large."""


class UnsupportedMediaType(RequestFailed):
    """415: the body is of another type than the route takes."""


class TooManyRequests(RequestFailed):
    """429: too much at a time; ``retry_after`` says when to ask again."""


class InternalError(RequestFailed):
    """500: a defect of the server, which has it in its log."""


class Unavailable(RequestFailed):
    """503: something behind the server does not answer, or it is not ready yet."""


_BY_STATUS: Mapping[int, type[RequestFailed]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    429: TooManyRequests,
    500: InternalError,
    503: Unavailable,
}
_MAX_SHOWN_CHARS = 200


def request_failed(status: int, body: Any, retry_after: float | None, url: str) -> RequestFailed:
    """The error of an answer; ``body`` is its JSON where it had any, else its text."""
    tag, message, parameter = f"Status{status}", "", None
    if isinstance(body, Mapping):
        tag = str(body.get("_tag", tag))
        message = str(body.get("message", ""))
        parameter = str(body["parameter"]) if "parameter" in body else None
    elif isinstance(body, str):
        message = body.strip()[:_MAX_SHOWN_CHARS]
    kind = _BY_STATUS.get(status, RequestFailed)
    return kind(
        message or f"answered {status}",
        status=status,
        tag=tag,
        parameter=parameter,
        retry_after=retry_after,
        url=url,
    )


# Live streams ----------------------------------------------------------------------------------------------------


class ConnectionFailed(MarketDataError):
    """No connection could be made in the time that was allowed for it."""

    def __init__(self, url: str, attempts: int, seconds: float, reason: str) -> None:
        tries = "1 try" if attempts == 1 else f"{attempts} tries"
        super().__init__(f"{url}: no connection in {seconds:g} s, {tries}: {reason}")
        self.url = url
        self.attempts = attempts
        self.reason = reason


class SubscriptionRefused(MarketDataError):
    """An instrument is not to be had; ``refused`` has all of them that were refused together, with the reasons."""

    def __init__(self, refused: Mapping[int | str, str]) -> None:
        (instrument, reason), *others = refused.items()
        more = f", and {len(others)} more" if others else ""
        super().__init__(f"{instrument}: not subscribed: {reason}{more}")
        self.instrument = instrument
        self.reason = reason
        self.refused = dict(refused)


class MessageRefused(MarketDataError):
    """The server refused a message, or closed the connection for it: ``code`` is its word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class RuleViolated(MarketDataError):
    """
    A message breaks the rule that a client can check: per instrument and epoch, positions over ``backfill`` and
    ``tick`` go up by one, every hole is covered exactly by ``evicted``, and the epoch only grows.
    """

    def __init__(self, instrument_token: int, stood: Place | None, came: Place, after: Place, what: str) -> None:
        where = "nowhere" if stood is None else f"{stood.epoch}/{stood.position}"
        super().__init__(f"instrument {instrument_token} stood at {where}: {what}")
        self.instrument_token = instrument_token
        #: Where the stream of this instrument stood before; None where it had no place yet.
        self.stood = stood
        #: Where the message that breaks the rule begins.
        self.came = came
        #: Where the stream would stand after that message.
        self.after = after
        self.what = what


class BufferFull(MarketDataError):
    """The application is too far behind, and asked for this to be an error."""

    def __init__(self, buffer_size: int) -> None:
        super().__init__(f"the application is {buffer_size} messages behind, as many as buffer_size allows")
        self.buffer_size = buffer_size


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
