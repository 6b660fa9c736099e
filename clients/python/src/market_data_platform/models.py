"""Decides what answers of REST are: one class each, with the names of the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from .times import as_datetime


@dataclass(slots=True)
class InstrumentInfo:
    """What is known of an instrument besides its ticks; prices in rupees, ``expiry`` as ``YYYY-MM-DD``."""

    instrument_token: int
    tradingsymbol: str
    exchange: str
    #: ``EQ``, ``FUT``, ``OPT`` or ``INDEX``.
    asset_class: str
    tick_size: float
    name: str | None
    expiry: str | None
    strike: float | None
    #: ``CE`` or ``PE``.
    option_type: str | None
    lot_size: int | None
    #: The day asked for is after its expiry.
    expired: bool = False
    #: ``YYYY-MM-DD``: the days on which its token means it; None where no other meaning is known before, or after.
    valid_from: str | None = None
    valid_through: str | None = None

    @property
    def symbol(self) -> str:
        """``EXCHANGE:TRADINGSYMBOL``, the name that is unique."""
        return f"{self.exchange}:{self.tradingsymbol}"


@dataclass(slots=True)
class HistoricalTick:
    """A tick as the store has it; ``epoch`` and ``position`` are None where a replay added the row."""

    instrument_token: int
    exchange_ts: int
    price: float
    volume: int
    sequence_id: int
    status: str
    session: int
    sequencing: str
    epoch: int | None
    position: int | None
    feed: str
    received_ts: int

    @property
    def time(self) -> datetime:
        """``exchange_ts`` in India's time, exact to the microsecond."""
        return as_datetime(self.exchange_ts)


@dataclass(slots=True)
class Bar:
    """A bar of history; ``ts`` is its start."""

    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    #: The trading phase at its start; None where the exchange's hours are not known.
    phase: str | None
    #: Its time is over.
    final: bool
    #: The last open interest that quotes of its time told; None where none did.
    oi: int | None = None

    @property
    def time(self) -> datetime:
        """The bar's start in India's time."""
        return as_datetime(self.ts)


class Level(NamedTuple):
    """One level of the book: how much lies at a price, in how many orders (0: not known)."""

    price: float
    quantity: int
    orders: int


@dataclass(slots=True)
class Book:
    """What is known of an instrument's book and day; None is not known. Rupees, and times in epoch microseconds."""

    exchange_ts: int
    #: Up to five levels, best first; empty where nobody bids.
    bid: list[Level] | None = None
    ask: list[Level] | None = None
    total_buy_quantity: int | None = None
    total_sell_quantity: int | None = None
    #: Open interest.
    oi: int | None = None
    oi_day_high: int | None = None
    oi_day_low: int | None = None
    #: The day's average by volume.
    average_price: float | None = None
    last_quantity: int | None = None
    last_trade_ts: int | None = None
    #: The day's prices as the exchange has them.
    open: float | None = None
    high: float | None = None
    low: float | None = None
    previous_close: float | None = None
    lower_circuit: float | None = None
    upper_circuit: float | None = None
    day_volume: int | None = None

    @property
    def time(self) -> datetime:
        """``exchange_ts`` in India's time, exact to the microsecond."""
        return as_datetime(self.exchange_ts)


@dataclass(slots=True)
class Quote:
    """The last tick and its trading day so far, made of ticks: None where the token has no tick; and its book."""

    instrument_token: int
    last: HistoricalTick | None
    open: float | None
    high: float | None
    low: float | None
    volume: int | None
    #: None where nothing is known of book and day.
    quote: Book | None = None


@dataclass(slots=True)
class Phase:
    """A part of a trading day, half-open, epoch microseconds."""

    phase: str
    from_: int
    to: int


@dataclass(slots=True)
class CalendarDay:
    """The hours of an exchange on a day."""

    exchange: str
    date: str
    #: Why the day is not a regular one: a holiday, a weekend, or a special session's name.
    holiday: str | None
    #: Of the exchange's first segment; empty where nothing trades.
    phases: list[Phase]
    segments: dict[str, list[Phase]]
    #: False beyond the calendar's years: then a weekday counts as open.
    known: bool


@dataclass(slots=True)
class Rejected:
    """A line that was not taken, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class IngestReport:
    """What became of raw ticks that were sent; ``rejected`` has the first of ``rejected_total``."""

    accepted: int
    rejected: list[Rejected]
    rejected_total: int


@dataclass(slots=True)
class ImportReport:
    """What became of an instruments file; ``rejected`` has the first of ``rejected_total``."""

    added: int
    changed: int
    expired: int
    rejected: list[Rejected]
    rejected_total: int


@dataclass(slots=True)
class ReplayStatus:
    """A replay as the server tells it; times in epoch microseconds."""

    id: str
    #: ``running``, ``paused``, ``ended`` or ``failed``.
    state: str
    speed: float | str
    #: Everything up to here has come out; None before the first tick.
    clock: int | None
    #: Counts its runs from 1.
    run: int
    from_: int
    to: int
    #: Ticks that came out so far, of ``total``.
    sent: int
    total: int
    #: Why it failed; None where it did not.
    failure: str | None


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def read_instrument(row: Mapping[str, Any]) -> InstrumentInfo:
    return InstrumentInfo(
        row["instrument_token"],
        row["tradingsymbol"],
        row["exchange"],
        row["asset_class"],
        float(row["tick_size"]),
        row.get("name"),
        row.get("expiry"),
        _float(row.get("strike")),
        row.get("option_type"),
        row.get("lot_size"),
        row.get("expired", False),
        row.get("valid_from"),
        row.get("valid_through"),
    )


def read_historical_tick(row: Mapping[str, Any]) -> HistoricalTick:
    return HistoricalTick(
        row["instrument_token"],
        row["exchange_ts"],
        float(row["price"]),
        row["volume"],
        row["sequence_id"],
        row["status"],
        row["session"],
        row["sequencing"],
        row["epoch"],
        row["position"],
        row["feed"],
        row["received_ts"],
    )


def _levels(rows: Sequence[Sequence[Any]] | None) -> list[Level] | None:
    return None if rows is None else [Level(float(price), quantity, orders) for price, quantity, orders in rows]


def book_values(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The fields of a book in their order, as JSON has them."""
    get = row.get
    return (
        row["exchange_ts"],
        _levels(get("bid")),
        _levels(get("ask")),
        get("total_buy_quantity"),
        get("total_sell_quantity"),
        get("oi"),
        get("oi_day_high"),
        get("oi_day_low"),
        _float(get("average_price")),
        get("last_quantity"),
        get("last_trade_ts"),
        _float(get("open")),
        _float(get("high")),
        _float(get("low")),
        _float(get("previous_close")),
        _float(get("lower_circuit")),
        _float(get("upper_circuit")),
        get("day_volume"),
    )


def read_quote(row: Mapping[str, Any]) -> Quote:
    last, book = row["last"], row.get("quote")
    return Quote(
        row["instrument_token"],
        None if last is None else read_historical_tick(last),
        _float(row["open"]),
        _float(row["high"]),
        _float(row["low"]),
        row["volume"],
        None if book is None else Book(*book_values(book)),
    )


def _phases(rows: Sequence[Mapping[str, Any]]) -> list[Phase]:
    return [Phase(row["phase"], row["from"], row["to"]) for row in rows]


def read_calendar(row: Mapping[str, Any]) -> CalendarDay:
    segments = {name: _phases(rows) for name, rows in row["segments"].items()}
    return CalendarDay(row["exchange"], row["date"], row["holiday"], _phases(row["phases"]), segments, row["known"])


def _rejected(row: Mapping[str, Any]) -> list[Rejected]:
    return [Rejected(one["line"], one["reason"]) for one in row["rejected"]]


def read_ingest(row: Mapping[str, Any]) -> IngestReport:
    return IngestReport(row["accepted"], _rejected(row), row["rejected_total"])


def read_import(row: Mapping[str, Any]) -> ImportReport:
    return ImportReport(row["added"], row["changed"], row["expired"], _rejected(row), row["rejected_total"])


def read_replay(row: Mapping[str, Any]) -> ReplayStatus:
    failure = row.get("failure")
    return ReplayStatus(
        row["id"],
        row["state"],
        row["speed"],
        row["clock"],
        row["run"],
        row["from"],
        row["to"],
        row["sent"],
        row["total"],
        None if failure is None else str(failure["message"]),
    )
