"""
Decides how many rows are held, and what they are in pandas: a column a field, so that a million ticks take tens of
megabytes; times exact to the microsecond; the same columns and types whatever is in them, also where nothing is.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from .errors import MarketDataError, Unsupported
from .events import Candle, Missed, QuoteUpdate, Tick
from .models import Bar, HistoricalTick

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
#: How a column is held, and what it becomes: ``time`` and ``whole`` are 64-bit integers, ``maybe`` may be missing.
Kind = Literal["time", "whole", "maybe", "price", "flag", "word"]

INDIA = "Asia/Kolkata"
_STATUSES = ("LIVE", "STALE")
_SEQUENCINGS = ("contiguous", "monotonic", "none")
_PHASES = ("PRE_OPEN", "CONTINUOUS", "CAS", "POST_CLOSE", "CLOSED")
#: Missed ranges that a recording keeps; the oldest go.
_MAX_MISSED = 10_000


class Column:
    """One field: its name, its kind, and the words it knows where it is one of some."""

    __slots__ = ("kind", "name", "words")

    def __init__(self, name: str, kind: Kind, words: Sequence[str] | None = None) -> None:
        self.name = name
        self.kind = kind
        self.words = words


TICK_COLUMNS = (
    Column("exchange_ts", "time"),
    Column("instrument_token", "whole"),
    Column("price", "price"),
    Column("volume", "whole"),
    Column("sequence_id", "whole"),
    Column("status", "word", _STATUSES),
    Column("session", "whole"),
    Column("sequencing", "word", _SEQUENCINGS),
    Column("epoch", "maybe"),
    Column("position", "maybe"),
    Column("feed", "word"),
    Column("received_ts", "time"),
)
BAR_COLUMNS = (
    Column("ts", "time"),
    Column("open", "price"),
    Column("high", "price"),
    Column("low", "price"),
    Column("close", "price"),
    Column("volume", "whole"),
    Column("phase", "word", _PHASES),
    Column("final", "flag"),
    Column("oi", "maybe"),
)
_LIVE_TICK_COLUMNS = (
    Column("exchange_ts", "time"),
    Column("instrument_token", "whole"),
    Column("symbol", "word"),
    Column("price", "price"),
    Column("volume", "whole"),
    Column("sequence_id", "whole"),
    Column("status", "word", _STATUSES),
    Column("epoch", "whole"),
    Column("position", "whole"),
    Column("live", "flag"),
)
_LIVE_CANDLE_COLUMNS = (
    Column("ts", "time"),
    Column("instrument_token", "whole"),
    Column("symbol", "word"),
    Column("interval", "word", ("1m", "5m")),
    Column("open", "price"),
    Column("high", "price"),
    Column("low", "price"),
    Column("close", "price"),
    Column("volume", "whole"),
    Column("revision", "whole"),
    Column("final", "flag"),
    Column("oi", "maybe"),
)
#: The best levels have columns of their own, as whoever analyses quotes asks for them.
_LIVE_QUOTE_COLUMNS = (
    Column("exchange_ts", "time"),
    Column("instrument_token", "whole"),
    Column("symbol", "word"),
    Column("bid_price", "price"),
    Column("bid_quantity", "maybe"),
    Column("ask_price", "price"),
    Column("ask_quantity", "maybe"),
    Column("total_buy_quantity", "maybe"),
    Column("total_sell_quantity", "maybe"),
    Column("oi", "maybe"),
    Column("oi_day_high", "maybe"),
    Column("oi_day_low", "maybe"),
    Column("average_price", "price"),
    Column("last_quantity", "maybe"),
    Column("last_trade_ts", "maybe"),
    Column("open", "price"),
    Column("high", "price"),
    Column("low", "price"),
    Column("previous_close", "price"),
    Column("lower_circuit", "price"),
    Column("upper_circuit", "price"),
    Column("day_volume", "maybe"),
)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise MarketDataError("to_pandas needs pandas: pip install 'market-data-platform[pandas]'") from None
    return pandas


def _times(values: Sequence[int], tz: str) -> Any:
    """Exact: the integers are taken as microseconds, never through a float."""
    pandas = _pandas()
    import numpy

    stamps = numpy.asarray(values, dtype="int64").astype("datetime64[us]")
    return pandas.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(tz)


def frame_of(columns: Sequence[Column], values: Mapping[str, Sequence[Any]], tz: str) -> pd.DataFrame:
    """A table whose index is its first column, a time; every column has the type of its kind, whatever is in it."""
    pandas = _pandas()
    import numpy

    first, *others = columns
    index = _times(values[first.name], tz)
    index.name = first.name
    data: dict[str, Any] = {}
    for column in others:
        held = values[column.name]
        if column.kind == "time":
            data[column.name] = _times(held, tz)
        elif column.kind == "whole":
            data[column.name] = numpy.asarray(held, dtype="int64")
        elif column.kind == "price":
            data[column.name] = numpy.asarray(held, dtype="float64")
        elif column.kind == "flag":
            data[column.name] = numpy.asarray(held, dtype="bool")
        elif column.kind == "maybe":
            data[column.name] = pandas.array(list(held), dtype="Int64")
        else:
            words = column.words if column.words is not None else sorted({word for word in held if word is not None})
            # A word that this version does not know is one all the same.
            known = [*words, *sorted({word for word in held if word is not None}.difference(words))]
            data[column.name] = pandas.Categorical(list(held), categories=known)
    made: pd.DataFrame = pandas.DataFrame(data, index=index, columns=[column.name for column in others])
    return made


def _room(kind: Kind) -> Any:
    if kind in ("time", "whole"):
        return array("q")
    return array("d") if kind == "price" else []


class Table(Sequence[R], Generic[R]):
    """Rows of one kind, held as columns: a row is made when it is asked for."""

    _columns: Sequence[Column]

    def __init__(self) -> None:
        self._values: dict[str, Any] = {column.name: _room(column.kind) for column in self._columns}

    def _row(self, at: int) -> R:
        raise NotImplementedError

    def extend_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes rows as JSON has them."""
        for column in self._columns:
            held = self._values[column.name]
            name = column.name
            if column.kind == "price":
                held.extend([_number(row[name]) for row in rows])
            elif column.kind == "maybe":
                held.extend([row.get(name) for row in rows])
            else:
                held.extend([row[name] for row in rows])

    def extend_table(self, other: Table[R]) -> None:
        """Takes the rows of another table of its kind."""
        for name, held in self._values.items():
            held.extend(other.column(name))

    def column(self, name: str) -> Sequence[Any]:
        """All values of one field."""
        found: Sequence[Any] = self._values[name]
        return found

    def __len__(self) -> int:
        return len(self._values[self._columns[0].name])

    @overload
    def __getitem__(self, at: int) -> R: ...
    @overload
    def __getitem__(self, at: slice) -> list[R]: ...
    def __getitem__(self, at: int | slice) -> R | list[R]:
        if isinstance(at, slice):
            return [self._row(i) for i in range(*at.indices(len(self)))]
        i = at + len(self) if at < 0 else at
        if not 0 <= i < len(self):
            raise IndexError(f"row {at} of {len(self)}")
        return self._row(i)

    def __iter__(self) -> Iterator[R]:
        return map(self._row, range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self)} rows of {type(self).__name__}>"

    def to_pandas(self, tz: str = INDIA) -> pd.DataFrame:
        """A DataFrame by time, in India's unless ``tz`` says otherwise; needs pandas."""
        return frame_of(self._columns, self._values, tz)


class TickTable(Table[HistoricalTick]):
    """Ticks of history."""

    _columns = TICK_COLUMNS

    def _row(self, at: int) -> HistoricalTick:
        v = self._values
        return HistoricalTick(
            v["instrument_token"][at],
            v["exchange_ts"][at],
            v["price"][at],
            v["volume"][at],
            v["sequence_id"][at],
            v["status"][at],
            v["session"][at],
            v["sequencing"][at],
            v["epoch"][at],
            v["position"][at],
            v["feed"][at],
            v["received_ts"][at],
        )


class BarTable(Table[Bar]):
    """Bars of history."""

    _columns = BAR_COLUMNS

    def _row(self, at: int) -> Bar:
        v = self._values
        return Bar(*(v[column.name][at] for column in BAR_COLUMNS))


def _number(value: Any) -> float:
    # JSON knows no NaN: null stands for it.
    return float("nan") if value is None else float(value)


class Recording(Sequence[R], Generic[R]):
    """
    Live ticks, candles or quotes as they came, ``limit`` of them at most: full, the oldest go, counted in ``dropped``.
    Of a candle the newest revision is kept, where the bar first came.
    """

    def __init__(self, kind: type[R], limit: int) -> None:
        if limit < 1:
            raise Unsupported("limit", "a number of rows from 1", limit)
        self.limit = limit
        self.dropped = 0
        #: What the stream told as missed meanwhile, the newest.
        self.missed: deque[Missed] = deque(maxlen=_MAX_MISSED)
        self._kind = kind
        self._rows: OrderedDict[object, R] = OrderedDict()
        self._count = 0

    def add(self, event: object) -> None:
        """Takes an event; what is neither of the kind nor missed is passed over."""
        if isinstance(event, Missed):
            self.missed.append(event)
            return
        if not isinstance(event, self._kind):
            return
        self._count += 1
        if isinstance(event, Candle):
            key: object = (event.instrument_token, event.interval, event.ts)
        else:
            key = self._count
        self._rows[key] = event
        if len(self._rows) > self.limit:
            self._rows.popitem(last=False)
            self.dropped += 1

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> R: ...
    @overload
    def __getitem__(self, at: slice) -> list[R]: ...
    def __getitem__(self, at: int | slice) -> R | list[R]:
        return list(self._rows.values())[at]

    def __iter__(self) -> Iterator[R]:
        return iter(list(self._rows.values()))

    def __repr__(self) -> str:
        return f"<Recording of {len(self)} {self._kind.__name__}s>"

    def to_pandas(self, tz: str = INDIA) -> pd.DataFrame:
        """A DataFrame by time, in India's unless ``tz`` says otherwise; needs pandas."""
        columns = _LIVE_COLUMNS[self._kind]
        rows = list(self._rows.values())
        values = {column.name: [_value(row, column.name) for row in rows] for column in columns}
        return frame_of(columns, values, tz)


_LIVE_COLUMNS: Mapping[type[Any], Sequence[Column]] = {
    Tick: _LIVE_TICK_COLUMNS,
    Candle: _LIVE_CANDLE_COLUMNS,
    QuoteUpdate: _LIVE_QUOTE_COLUMNS,
}


def _value(row: Any, name: str) -> Any:
    side, _, part = name.partition("_")
    if side not in ("bid", "ask"):
        return getattr(row, name)
    levels = getattr(row, side)
    return getattr(levels[0], part) if levels else None


def recording_of(channel: str, limit: int) -> Recording[Any]:
    if channel == "quote":
        return Recording(QuoteUpdate, limit)
    return Recording(Candle if channel.startswith("candle") else Tick, limit)
