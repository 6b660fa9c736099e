"""
Decides what a live stream tells, message by message, and how each message of the wire is read. Names are those of the
wire; ``from``, which Python keeps for itself, is ``from_``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, Union

from .errors import MarketDataError, Place
from .models import Book, book_values
from .times import as_datetime


@dataclass(slots=True)
class Tick:
    """One trade or packet, as the platform published it. Prices are in rupees, times epoch microseconds."""

    type: ClassVar[str] = "tick"
    instrument_token: int
    #: As it was subscribed; None where the instrument was asked for by its token.
    symbol: str | None
    price: float
    #: The quantity in this tick.
    volume: int
    #: ``LIVE``, or ``STALE`` for one that shows a gap or comes out of order.
    status: str
    exchange_ts: int
    #: The exchange's number of it; a negative one is made of its content.
    sequence_id: int
    epoch: int
    position: int
    #: False where it came in a backfill: asked for, or caught up with after a connection was lost.
    live: bool = True

    @property
    def time(self) -> datetime:
        """``exchange_ts`` in India's time, exact to the microsecond."""
        return as_datetime(self.exchange_ts)

    @property
    def place(self) -> Place:
        """The place after this tick: what ``since`` takes to go on from here."""
        return Place(self.epoch, self.position)


@dataclass(slots=True)
class Candle:
    """A bar as it stands now; the same bar comes again with a higher ``revision`` whenever it has changed."""

    type: ClassVar[str] = "candle"
    instrument_token: int
    symbol: str | None
    #: ``1m`` or ``5m``.
    interval: str
    #: The bar's start, epoch microseconds.
    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    #: How many ticks are in the bar.
    revision: int
    #: The bar's time is over. A late tick may change it all the same, and is told as another revision.
    final: bool
    #: The last open interest that quotes of its time told; None where none did.
    oi: int | None = None

    @property
    def time(self) -> datetime:
        """The bar's start in India's time."""
        return as_datetime(self.ts)


@dataclass(slots=True)
class QuoteUpdate(Book):
    """What is known of an instrument's book and day from now on: a later one replaces all of it."""

    type: ClassVar[str] = "quote"
    #: Always there.
    instrument_token: int = 0
    #: As it was subscribed; None where the instrument was asked for by its token.
    symbol: str | None = None


@dataclass(slots=True)
class Gap:
    """Numbers of the exchange that no feed had when the tick after them came."""

    type: ClassVar[str] = "gap"
    instrument_token: int
    symbol: str | None
    from_: int
    to: int


@dataclass(slots=True)
class GapFilled:
    """Numbers of a gap that came after all."""

    type: ClassVar[str] = "gap_filled"
    instrument_token: int
    symbol: str | None
    from_: int
    to: int


@dataclass(slots=True)
class Missed:
    """Positions that this client does not get. ``from_``, ``to`` and ``count`` are None where they are not known."""

    type: ClassVar[str] = "missed"
    instrument_token: int
    symbol: str | None
    epoch: int
    from_: int | None
    to: int | None
    count: int | None
    #: ``slow``: the server's queue for this client was full; ``gone``: asked for, and not to be had any more.
    reason: Literal["slow", "gone"]


@dataclass(slots=True)
class Epoch:
    """An instrument's positions count anew."""

    type: ClassVar[str] = "epoch"
    instrument_token: int
    symbol: str | None
    from_: Place
    #: Where the stream goes on: its next tick is the one after.
    to: Place
    #: ``day``: a new trading day; ``lost``: the platform lost its state, what lay between is not known; ``behind``: the
    #: server knows only an older place than this client.
    reason: Literal["day", "lost", "behind"]


@dataclass(slots=True)
class State:
    """``live``; ``stale``: silent in trading hours beyond what is usual for it; or ``closed``."""

    type: ClassVar[str] = "state"
    instrument_token: int
    symbol: str | None
    state: str
    since: int


@dataclass(slots=True)
class Run:
    """A replay begins anew: places count from 1 again."""

    type: ClassVar[str] = "run"
    replay: str
    run: int


@dataclass(slots=True)
class Clock:
    """How far a replay has come."""

    type: ClassVar[str] = "clock"
    replay: str
    run: int
    #: Market time, epoch microseconds; None before the first tick.
    ts: int | None
    #: ``running``, ``paused``, ``ended`` or ``failed``.
    state: str


#: What :meth:`AsyncClient.messages` gives, in the order of the wire.
Message = Union[Tick, Missed, Epoch, Gap, GapFilled, Candle, QuoteUpdate, State, Run, Clock]


# Of a connection, to listeners only -------------------------------------------------------------------------------


@dataclass(slots=True)
class Connected:
    """A stream is connected, after ``attempt`` tries (from 1); ``resumed`` instruments go on from a known place."""

    type: ClassVar[str] = "connected"
    attempt: int
    resumed: int


@dataclass(slots=True)
class Disconnected:
    """A connection is gone, or could not be made; the next is tried in ``retry_in`` seconds."""

    type: ClassVar[str] = "disconnected"
    #: The close code; 1006 where it broke off or could not be made.
    code: int
    reason: str
    retry_in: float


@dataclass(slots=True)
class Closing:
    """The server is about to close the connection, and says where each instrument's stream stands."""

    type: ClassVar[str] = "closing"
    code: int
    reason: str
    since: Mapping[int, Place] = field(default_factory=dict)


@dataclass(slots=True)
class Closed:
    """A stream has ended: with the error that its iterator raises, or None."""

    type: ClassVar[str] = "closed"
    error: BaseException | None


#: What listeners are told: messages, and what happens to connections; ``error`` and ``message`` besides.
Event = Union[Message, Connected, Disconnected, Closing, Closed, MarketDataError, Mapping[str, Any]]
EVENT_TYPES = (
    "tick",
    "missed",
    "epoch",
    "gap",
    "gap_filled",
    "candle",
    "quote",
    "state",
    "run",
    "clock",
    "connected",
    "disconnected",
    "closing",
    "closed",
    "error",
    "message",
)


@dataclass(slots=True)
class Answer:
    """What became of one instrument that was asked for."""

    instrument_token: int | None
    symbol: str | None
    accepted: bool
    #: Whether an instrument has this token; where none has, its ticks are sent all the same.
    known: bool
    #: Why it was not accepted.
    reason: str | None


@dataclass(slots=True)
class Stood:
    """Where an instrument stands without a message of its own; the stream keeps it to itself."""

    instrument_token: int
    place: Place


def read_tick(message: Mapping[str, Any], symbol: str | None, live: bool = True) -> Tick:
    return Tick(
        message["instrument_token"],
        symbol,
        # 2500 is no less a price than 2500.5.
        float(message["price"]),
        message["volume"],
        message["status"],
        message["exchange_ts"],
        message["sequence_id"],
        message["epoch"],
        message["position"],
        live,
    )


def read_candle(message: Mapping[str, Any], symbol: str | None) -> Candle:
    return Candle(
        message["instrument_token"],
        symbol,
        message["interval"],
        message["ts"],
        float(message["open"]),
        float(message["high"]),
        float(message["low"]),
        float(message["close"]),
        message["volume"],
        message["revision"],
        message["final"],
        message.get("oi"),
    )


def read_quote_update(message: Mapping[str, Any], symbol: str | None) -> QuoteUpdate:
    update = QuoteUpdate(*book_values(message))
    update.instrument_token = message["instrument_token"]
    update.symbol = symbol
    return update


def read_answer(message: Mapping[str, Any]) -> Answer:
    return Answer(
        message.get("instrument_token"),
        message.get("symbol"),
        message["accepted"],
        message.get("known", False),
        message.get("reason"),
    )


def read_places(since: Mapping[str, Any]) -> dict[int, Place]:
    return {int(token): Place(epoch, position) for token, (epoch, position) in since.items()}
