from __future__ import annotations

from datetime import datetime, timezone

import pytest

from market_data_platform import Reconnect, Unsupported
from market_data_platform.pace import Pace
from market_data_platform.reconnect import MAX_RETRY_AFTER, failures_of, parse_retry_after


def highest(_: float, most: float) -> float:
    return most


def lowest(least: float, _: float) -> float:
    return least


def test_waits_anything_up_to_a_bound_that_doubles() -> None:
    # Those of the client in TypeScript.
    policy = Reconnect()
    assert [policy.delay(n, uniform=highest) for n in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 10, 10]
    assert [policy.delay(n, uniform=lowest) for n in range(8)] == [0.0] * 8
    assert policy.delay(100_000, uniform=highest) == 10


def test_waits_longer_after_an_overload_a_restart_or_a_refusal_than_after_a_loss_or_being_slow() -> None:
    codes = (1006, 4001, 1001, 1012, 1013, 1008, 1009)
    assert [failures_of(0, code) for code in codes] == [0, 0, 2, 2, 3, 3, 3]
    assert failures_of(6, 1013) == 6


def test_waits_at_least_as_long_as_the_server_says_within_reason() -> None:
    policy = Reconnect()
    assert policy.delay(0, 5, uniform=lowest) == 5
    assert policy.delay(0, 5, uniform=highest) == 5.25
    assert policy.delay(0, 1e9, uniform=lowest) == MAX_RETRY_AFTER


@pytest.mark.parametrize("wrong", [{"min_delay": 0.0}, {"min_delay": 31.0}])
def test_refuses_bounds_that_bound_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(Unsupported, match="min_delay"):
        Reconnect(**wrong)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Fri, 27 Nov 2026 15:00:30 GMT", 30.0),
        ("Fri, 27 Nov 2026 14:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("", None),
    ],
)
def test_reads_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, datetime(2026, 11, 27, 15, 0, tzinfo=timezone.utc)) == seconds


def test_says_no_more_at_once_than_the_server_takes() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    waits = [pace.take(100) for _ in range(200)]
    # 100 messages at once and 20 a second after that are the server's bounds.
    assert waits[79] == 0
    for n, wait in enumerate(waits, 1):
        assert n <= 100 + 20 * wait
    big = Pace(lambda: now)
    sent = 0
    for wait in (big.take(200_000) for _ in range(20)):
        sent += 200_000
        # 1 MiB at once and 128 KiB a second.
        assert sent <= 1_048_576 + 131_072 * wait
    now = 3600.0
    assert big.take(100) == 0
