"""
Decides how a time is written: the platform counts microseconds since 1970; a caller says a moment, or a day of the
market, which begins at midnight in India.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone
from typing import Union

from .errors import Unsupported

#: India's time, which has no summer time.
IST = timezone(timedelta(hours=5, minutes=30), "IST")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ISO = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2})(:\d{2})?(?:\.(\d{1,9}))?(?:[zZ]|([+-]\d{2}):?(\d{2}))")
#: What the platform takes as epoch microseconds: 1980 to 2100. Smaller numbers are another unit by mistake.
_FIRST, _LAST = 315_532_800_000_000, 4_102_444_800_000_000

#: Epoch microseconds, an aware datetime (pandas' Timestamp is one), ISO-8601 with an offset, or a day of the market.
Moment = Union[int, str, datetime, date]
#: A trading day.
Day = Union[str, date]


def as_datetime(micros: int) -> datetime:
    """Epoch microseconds as a time in India, exact."""
    return (_EPOCH + micros * _MICROSECOND).astimezone(IST)


def to_micros(moment: Moment, name: str = "time") -> int:
    """Epoch microseconds of a moment; digits past the microsecond are cut. A naive time is refused by name."""
    if isinstance(moment, int) and not isinstance(moment, bool):
        if not _FIRST <= moment <= _LAST:
            raise Unsupported(name, "epoch microseconds between 1980 and 2100", moment)
        return moment
    if isinstance(moment, str):
        if _DATE.fullmatch(moment.strip()):
            return day_start(moment, name)
        return _iso_micros(moment.strip(), name)
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise Unsupported(name, "a time with an offset", moment.isoformat())
        return (moment - _EPOCH) // _MICROSECOND
    if isinstance(moment, date):
        return day_start(moment, name)
    raise Unsupported(name, "a time", moment)


def _iso_micros(text: str, name: str) -> int:
    """Read by hand: what `datetime.fromisoformat` takes differs between versions of Python."""
    found = _ISO.fullmatch(text)
    if found is not None:
        day, minute, second, fraction, hours, minutes = found.groups()
        try:
            whole = datetime.fromisoformat(f"{day}T{minute}{second or ':00'}{hours or '+00'}:{minutes or '00'}")
            return (whole - _EPOCH) // _MICROSECOND + int((fraction or "").ljust(6, "0")[:6])
        except ValueError:
            pass
    raise Unsupported(name, "ISO-8601 with an offset, such as 2026-01-15T09:15:00+05:30", text)


def day_text(day: Day, name: str = "day") -> str:
    """``YYYY-MM-DD`` of a trading day."""
    if isinstance(day, datetime):
        if day.utcoffset() is None:
            return day.date().isoformat()
        return day.astimezone(IST).date().isoformat()
    if isinstance(day, date):
        return day.isoformat()
    text = day.strip() if isinstance(day, str) else ""
    if _DATE.fullmatch(text):
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            pass
    raise Unsupported(name, "a day such as 2026-01-15", day)


def day_start(day: Day, name: str = "day") -> int:
    """The midnight in India with which a trading day begins, epoch microseconds."""
    midnight = datetime.combine(date.fromisoformat(day_text(day, name)), datetime.min.time(), tzinfo=IST)
    return (midnight - _EPOCH) // _MICROSECOND


def span(day: Day | None, start: Moment | None, end: Moment | None) -> tuple[int | None, int | None]:
    """The half-open range that ``day``, or ``start`` and ``end``, say; None where a side is open."""
    if day is not None:
        if start is not None or end is not None:
            raise Unsupported("day", "a day, or start and end", "both")
        first = day_start(day)
        return first, first + 86_400_000_000
    return (
        None if start is None else to_micros(start, "start"),
        None if end is None else to_micros(end, "end"),
    )
