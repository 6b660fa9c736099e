"""
Decides what each route of REST is asked, and what its answer is read as. No network in here: both
clients send the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, Union

from .asking import Instrument, checked_instruments, is_whole, one_of
from .errors import Unsupported
from .models import (
    CalendarDay,
    ImportReport,
    IngestReport,
    InstrumentInfo,
    Quote,
    ReplayStatus,
    read_calendar,
    read_import,
    read_ingest,
    read_instrument,
    read_quote,
    read_replay,
)
from .tables import BarTable, Table, TickTable
from .times import Day, Moment, day_text, span, to_micros

T = TypeVar("T")
Interval = Literal["1m", "5m", "15m", "30m", "1h", "1d"]
INTERVALS = ("1m", "5m", "15m", "30m", "1h", "1d")
#: How many times faster than the market; ``inf``: as fast as it goes.
Speed = Union[float, Literal["inf"]]

#: Rows of one page, the server's most.
PAGE = 10_000
#: Tokens of one request for quotes, the server's most.
MAX_QUOTES = 300
#: The server takes 16 MiB; smaller bodies are answered sooner and held shorter.
_INGEST_BYTES = 4 * 1024 * 1024
_BASE = "/api/v1"
#: Instruments looked at for the one of a name: what is called so exactly comes first.
_MAX_NAMESAKES = 20
_DAY_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request."""

    method: str
    path: str
    decode: Callable[[Any], T]
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str | None = None
    #: Asking twice is as good as asking once.
    is_repeatable: bool = True

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def _params(**given: object) -> dict[str, str]:
    return {name.rstrip("_"): str(value) for name, value in given.items() if value is not None}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# Instruments -----------------------------------------------------------------------------------------------------


def search(
    query: str,
    exchange: str | None = None,
    asset_class: str | None = None,
    limit: int | None = None,
    as_of: Day | None = None,
) -> Call[list[InstrumentInfo]]:
    return Call(
        "GET",
        f"{_BASE}/instruments/search",
        lambda body: [read_instrument(row) for row in body["instruments"]],
        _params(query=query, exchange=exchange, asset_class=asset_class, limit=limit, as_of=_date(as_of)),
    )


def _date(as_of: Day | None) -> str | None:
    return None if as_of is None else day_text(as_of, "as_of")


def instrument(token: int, as_of: Day | None = None) -> Call[InstrumentInfo]:
    checked_instruments(token)
    return Call("GET", f"{_BASE}/instruments/{token}", read_instrument, _params(as_of=_date(as_of)))


def find(
    symbol: str, as_of: Day | None = None
) -> tuple[Call[list[InstrumentInfo]], Callable[[list[InstrumentInfo]], InstrumentInfo | None]]:
    """A search, and which of its answers is the one."""
    checked_instruments(symbol)
    exchange, colon, name = symbol.rpartition(":")
    wanted = name.upper()

    def pick(found: list[InstrumentInfo]) -> InstrumentInfo | None:
        same = [
            one
            for one in found
            if one.tradingsymbol.upper() == wanted and (not colon or one.exchange.upper() == exchange.upper())
        ]
        if len(same) > 1:
            raise Unsupported("symbol", f"one of {', '.join(one.symbol for one in same)}", symbol)
        return same[0] if same else None

    # With its exchange in the query: as a filter, one that the server does not know would be an error.
    return search(symbol, limit=_MAX_NAMESAKES, as_of=as_of), pick


def import_file(csv: str | bytes, as_of: Day | None = None) -> Call[ImportReport]:
    content = csv.encode() if isinstance(csv, str) else csv
    return Call("POST", f"{_BASE}/instruments", read_import, _params(as_of=_date(as_of)), content, "text/csv")


# Market data -----------------------------------------------------------------------------------------------------


def quotes(tokens: Sequence[int]) -> list[Call[list[Quote]]]:
    checked_instruments(tokens)
    return [
        Call(
            "GET",
            f"{_BASE}/quotes",
            lambda body: [read_quote(row) for row in body["quotes"]],
            _params(tokens=",".join(map(str, tokens[first : first + MAX_QUOTES]))),
        )
        for first in range(0, len(tokens), MAX_QUOTES)
    ]


def calendar(exchange: str, date: Day) -> Call[CalendarDay]:
    return Call("GET", f"{_BASE}/calendar", read_calendar, _params(exchange=exchange, date=day_text(date, "date")))


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """A range of history, asked for page by page: each can be asked for again, and goes on exactly after the last."""

    path: str
    rows: str
    params: Mapping[str, str]
    table: Callable[[], Table[T]]
    #: Rows at most; None: all there are.
    limit: int | None

    def page(self, cursor: str | None, had: int) -> Call[Mapping[str, Any]]:
        most = PAGE if self.limit is None else min(PAGE, self.limit - had)
        params = {**self.params, "limit": str(most), **({} if cursor is None else {"cursor": cursor})}
        return Call("GET", self.path, _page, params)


def _page(body: Any) -> Mapping[str, Any]:
    page: Mapping[str, Any] = body
    return page


def _range(
    instrument: Instrument,
    day: Day | None,
    start: Moment | None,
    end: Moment | None,
    limit: int | None,
    as_of: Day | None,
) -> dict[str, str]:
    (key,) = checked_instruments(instrument)
    if limit is not None and (not is_whole(limit) or limit < 1):
        raise Unsupported("limit", "a number of rows from 1", limit)
    first, last = span(day, start, end)
    if first is not None and last is not None and last <= first:
        raise Unsupported("end", "a time after start", end)
    named = {"symbol": key} if isinstance(key, str) else {"instrument_token": str(key)}
    return {**named, **_params(from_=first, to=last, as_of=_date(as_of))}


def ticks(
    instrument: Instrument,
    day: Day | None,
    start: Moment | None,
    end: Moment | None,
    limit: int | None,
    as_of: Day | None,
) -> Query[Any]:
    params = _range(instrument, day, start, end, limit, as_of)
    return Query(f"{_BASE}/historical/ticks", "ticks", params, TickTable, limit)


def candles(
    instrument: Instrument,
    day: Day | None,
    start: Moment | None,
    end: Moment | None,
    limit: int | None,
    as_of: Day | None,
    interval: str,
    fill: str,
    session: str,
) -> Query[Any]:
    params = {
        **_range(instrument, day, start, end, limit, as_of),
        "interval": one_of("interval", interval, INTERVALS),
        "fill": one_of("fill", fill, ("none", "previous")),
        "session": one_of("session", session, ("all", "regular")),
    }
    return Query(f"{_BASE}/historical/candles", "candles", params, BarTable, limit)


# Writing ---------------------------------------------------------------------------------------------------------


def ingest(ticks: Iterable[Mapping[str, Any]]) -> Iterable[Call[IngestReport]]:
    """Raw ticks, in bodies of a size that is answered soon. Sent twice they add no row."""
    lines: list[bytes] = []
    size = 0
    for tick in ticks:
        line = _json(tick)
        if lines and size + len(line) + 1 > _INGEST_BYTES:
            yield _ingest(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield _ingest(lines)


def _ingest(lines: Sequence[bytes]) -> Call[IngestReport]:
    body = b"\n".join(lines) + b"\n"
    return Call("POST", f"{_BASE}/ingest", read_ingest, {}, body, "application/x-ndjson")


def sum_of(reports: Iterable[IngestReport]) -> IngestReport:
    """Reports of several bodies as one; lines are counted within each body."""
    whole = IngestReport(0, [], 0)
    for report in reports:
        whole.accepted += report.accepted
        whole.rejected += report.rejected
        whole.rejected_total += report.rejected_total
    return whole


# Replays ---------------------------------------------------------------------------------------------------------


def replay_request(
    instruments: Iterable[Instrument] | Instrument | None,
    date: Day,
    *,
    all: bool = False,
    speed: Speed = 1,
    start: str | None = None,
    end: str | None = None,
    source: str | None = None,
    paused: bool = False,
    loop: bool = False,
    detached: bool = False,
) -> dict[str, Any]:
    """``start`` and ``end`` are times of that day in India, such as ``09:15``."""
    keys = [] if instruments is None else checked_instruments(instruments)
    if all == bool(keys):
        raise Unsupported("instruments", "instruments, or all=True, one of them", keys[:5])
    symbols = [key for key in keys if isinstance(key, str)]
    if symbols and len(symbols) < len(keys):
        raise Unsupported("instruments", "symbols or tokens, not both in one replay", keys[:5])
    request: dict[str, Any] = {"date": day_text(date, "date"), "speed": _speed(speed)}
    if all:
        request["all"] = True
    else:
        request["symbols" if symbols else "tokens"] = keys
    given = {"from": start, "to": end, "source": source}
    request.update({name: value for name, value in given.items() if value is not None})
    flags = {"paused": paused, "loop": loop, "detached": detached}
    request.update({name: True for name, value in flags.items() if value})
    return request


def _speed(speed: Speed) -> Speed:
    if speed == "inf" or speed == float("inf"):
        return "inf"
    if isinstance(speed, (int, float)) and not isinstance(speed, bool) and speed > 0:
        return speed
    raise Unsupported("speed", 'a number above 0, or "inf"', speed)


def create_replay(request: Mapping[str, Any]) -> Call[ReplayStatus]:
    return Call("POST", f"{_BASE}/replays", read_replay, {}, _json(request), "application/json", is_repeatable=False)


def list_replays() -> Call[list[ReplayStatus]]:
    return Call("GET", f"{_BASE}/replays", lambda body: [read_replay(row) for row in body["replays"]])


def _replay_path(identity: str) -> str:
    if not identity or not all(char.isalnum() or char in "-_." for char in identity):
        raise Unsupported("id", "the id of a replay", identity)
    return f"{_BASE}/replays/{identity}"


def get_replay(identity: str) -> Call[ReplayStatus]:
    return Call("GET", _replay_path(identity), read_replay)


def change_replay(
    identity: str,
    *,
    state: str | None = None,
    speed: Speed | None = None,
    seek: Moment | None = None,
    step: Mapping[str, Any] | None = None,
) -> Call[ReplayStatus]:
    change: dict[str, Any] = {}
    if state is not None:
        change["state"] = one_of("state", state, ("paused", "running"))
    if speed is not None:
        change["speed"] = _speed(speed)
    if seek is not None:
        change["seek"] = seek if isinstance(seek, str) and _DAY_TIME.fullmatch(seek) else to_micros(seek, "seek")
    if step is not None:
        change["step"] = dict(step)
    if not change:
        raise Unsupported("state", "state, speed, seek or step", "nothing")
    # A step taken twice is two.
    return Call(
        "PATCH",
        _replay_path(identity),
        read_replay,
        {},
        _json(change),
        "application/json",
        is_repeatable=step is None,
    )


def step_of(ticks: int | None, bars: int | None, interval: str) -> dict[str, Any]:
    if (ticks is None) == (bars is None):
        raise Unsupported("step", "ticks or bars, one of them", {"ticks": ticks, "bars": bars})
    count = ticks if ticks is not None else bars
    if not is_whole(count) or int(count or 0) < 1:
        raise Unsupported("step", "a number from 1", count)
    if ticks is not None:
        return {"ticks": ticks}
    return {"bars": bars, "interval": one_of("interval", interval, INTERVALS)}


def delete_replay(identity: str) -> Call[None]:
    return Call("DELETE", _replay_path(identity), lambda _: None)
