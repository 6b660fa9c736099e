from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pandas as pd
import pytest

from market_data_platform import IST, MarketDataError, Unsupported, as_datetime, to_micros
from market_data_platform.times import Day, Moment, day_text, span

AT = 1_768_448_700_123_456


@pytest.mark.parametrize(
    "moment",
    [
        AT,
        "2026-01-15T09:15:00.123456+05:30",
        "2026-01-15T03:45:00.123456Z",
        "2026-01-15 03:45:00.123456789+0000",
        datetime(2026, 1, 15, 9, 15, 0, 123456, tzinfo=IST),
        datetime(2026, 1, 14, 22, 45, 0, 123456, tzinfo=timezone(timedelta(hours=-5))),
        pd.Timestamp("2026-01-15T09:15:00.123456789", tz="Asia/Kolkata"),
    ],
)
def test_reads_a_moment_to_the_microsecond(moment: Moment) -> None:
    assert to_micros(moment) == AT


def test_shows_it_in_india_without_a_rounding() -> None:
    assert as_datetime(AT).isoformat() == "2026-01-15T09:15:00.123456+05:30"
    # Beyond what a double of seconds holds.
    for micros in (AT, AT + 1, 4_102_444_799_999_999):
        assert to_micros(as_datetime(micros)) == micros


@pytest.mark.parametrize(
    "wrong",
    [
        "2026-01-15T09:15:00",
        "2026-02-31T09:15:00Z",
        "9:15",
        "",
        datetime(2026, 1, 15, 9, 15),
        1_768_448_700,
        1_768_448_700_123,
        True,
        1.5,
        None,
    ],
)
def test_refuses_what_is_no_moment(wrong: Moment) -> None:
    with pytest.raises(Unsupported, match=r"^start: expected") as refused:
        to_micros(wrong, "start")
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, MarketDataError)


@pytest.mark.parametrize(
    "day",
    ["2026-01-15", date(2026, 1, 15), datetime(2026, 1, 15, 23), datetime(2026, 1, 14, 20, tzinfo=timezone.utc)],
)
def test_a_day_is_from_midnight_to_midnight_in_india(day: Day) -> None:
    assert day_text(day) == "2026-01-15"
    assert span(day, None, None) == (to_micros("2026-01-15T00:00+05:30"), to_micros("2026-01-16T00:00+05:30"))
    assert span(None, "2026-01-15", date(2026, 1, 16)) == span(day, None, None)


@pytest.mark.parametrize("wrong", ["15-01-2026", "2026-13-01", "", None, 20260115])
def test_refuses_what_is_no_day(wrong: Day) -> None:
    with pytest.raises(Unsupported, match="day: expected a day"):
        day_text(wrong)


def test_refuses_a_day_and_a_range() -> None:
    with pytest.raises(Unsupported, match="both"):
        span("2026-01-15", "2026-01-15", None)
