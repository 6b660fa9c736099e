from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from scripted import EPOCH, NEXT_DAY, backfill, clock, evicted, tick

from market_data_platform import (
    Candle,
    Clock,
    Epoch,
    Gap,
    GapFilled,
    Level,
    Missed,
    Place,
    ProtocolFailed,
    QuoteUpdate,
    ReplayFailed,
    RuleViolated,
    Run,
    State,
    Tick,
)
from market_data_platform.events import Stood
from market_data_platform.reading import Read, Reader


def reader(
    *, has_ticks: bool = True, is_replay: bool = False, control: list[Mapping[str, Any]] | None = None
) -> Reader:
    taken = [] if control is None else control
    return Reader(
        has_ticks=has_ticks,
        is_replay=is_replay,
        symbol_of=lambda token: "NSE:INFY" if token == 1 else None,
        control=taken.append,
    )


def read(one: Reader, *messages: Mapping[str, Any]) -> list[Read]:
    events: list[Read] = []
    for message in messages:
        one.read(json.dumps(message), events)
    return events


def test_ticks_come_with_their_symbol_and_whether_they_are_live() -> None:
    events = read(reader(), backfill(1, 1), tick(2), tick(4, token=2, price=2500))
    assert events == [
        Tick(1, "NSE:INFY", 100.5, 10, "LIVE", 1_768_448_700_000_001, 1, EPOCH, 1, live=False),
        Tick(1, "NSE:INFY", 100.5, 10, "LIVE", 1_768_448_700_000_002, 2, EPOCH, 2, live=True),
        Tick(2, None, 2500.0, 10, "LIVE", 1_768_448_700_000_004, 4, EPOCH, 4, live=True),
    ]
    last = events[-1]
    assert isinstance(last, Tick)
    assert isinstance(last.price, float)
    assert last.place == Place(EPOCH, 4)
    assert last.time.isoformat() == "2026-01-15T09:15:00.000004+05:30"


def test_a_frame_may_be_an_array_of_messages() -> None:
    events: list[Read] = []
    reader().read(json.dumps([tick(1), tick(2), evicted(3, 4)]), events)
    assert [event.type for event in events if not isinstance(event, Stood)] == ["tick", "tick", "missed"]


def test_reads_every_other_message() -> None:
    candle = {
        "type": "candle",
        "instrument_token": 1,
        "interval": "5m",
        "ts": 1_768_448_700_000_000,
        "open": 1,
        "high": 2.5,
        "low": 1,
        "close": 2,
        "volume": 30,
        "revision": 3,
        "final": True,
    }
    state = {"type": "state", "instrument_token": 2, "state": "stale", "since": 7}
    events = read(
        reader(),
        {"type": "gap", "instrument_token": 1, "from": 43, "to": 44},
        {"type": "gap_filled", "instrument_token": 1, "from": 43, "to": 43},
        candle,
        state,
        {"type": "pong"},
        {"type": "authorized", "key": "bot", "scopes": ["read"], "expires": None},
    )
    assert events == [
        Gap(1, "NSE:INFY", 43, 44),
        GapFilled(1, "NSE:INFY", 43, 43),
        Candle(1, "NSE:INFY", "5m", 1_768_448_700_000_000, 1.0, 2.5, 1.0, 2.0, 30, 3, True),
        State(2, None, "stale", 7),
    ]
    bar = events[2]
    assert isinstance(bar, Candle)
    assert bar.time.isoformat() == "2026-01-15T09:15:00+05:30"


def test_a_type_of_a_later_server_is_counted_and_passed_over() -> None:
    one = reader()
    assert read(one, {"type": "book", "instrument_token": 1}, tick(1))[0].instrument_token == 1  # type: ignore[union-attr]
    assert one.stats.unknown == 1


def test_answers_go_to_whoever_asked() -> None:
    control: list[Mapping[str, Any]] = []
    messages: list[Mapping[str, Any]] = [
        {"type": kind, "id": 1, "code": 1, "tokens": []} for kind in ("subscribed", "unsubscribed", "closing", "error")
    ]
    assert read(reader(control=control), *messages) == []
    assert control == messages


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        "",
        "{",
        "7",
        "null",
        "[7]",
        "{}",
        '{"type":"tick"}',
        '{"type":"tick","instrument_token":1,"epoch":"x","position":2}',
        '{"type":"backfill","instrument_token":1,"epoch":1,"from":1,"to":1,"recovered":true,"data":[{}]}',
        '{"type":"candle","instrument_token":1}',
    ],
)
def test_what_is_no_message_is_named(raw: str | bytes) -> None:
    one = reader()
    read(one, tick(1))
    with pytest.raises(ProtocolFailed):
        one.read(raw, [])


def test_evicted_before_the_answer_is_gone_and_after_it_slow() -> None:
    one = reader()
    events = read(one, evicted(1, 4), backfill(5, 6), evicted(7, 9), tick(10))
    assert [event for event in events if isinstance(event, Missed)] == [
        Missed(1, "NSE:INFY", EPOCH, 1, 4, 4, "gone"),
        Missed(1, "NSE:INFY", EPOCH, 7, 9, 3, "slow"),
    ]
    one.connected()
    assert read(one, evicted(11, 11)) == [Missed(1, "NSE:INFY", EPOCH, 11, 11, 1, "gone")]
    assert one.stats.missed == 8


def test_a_later_epoch_is_told_before_its_first_tick() -> None:
    one = reader()
    lost = EPOCH + 5
    events = read(one, tick(9), tick(1, epoch=lost), tick(1, epoch=NEXT_DAY))
    assert [event for event in events if isinstance(event, Epoch)] == [
        Epoch(1, "NSE:INFY", Place(EPOCH, 9), Place(lost, 0), "lost"),
        Epoch(1, "NSE:INFY", Place(lost, 1), Place(NEXT_DAY, 0), "day"),
    ]
    assert [event.type for event in events if not isinstance(event, Stood)] == [
        "tick",
        "epoch",
        "tick",
        "epoch",
        "tick",
    ]


def test_a_place_that_the_server_does_not_know_is_told_as_behind() -> None:
    one = reader()
    events = read(one, tick(9), backfill(4, 3, recovered=False), tick(4))
    assert events[1:3] == [
        Epoch(1, "NSE:INFY", Place(EPOCH, 9), Place(EPOCH, 3), "behind"),
        Stood(1, Place(EPOCH, 3)),
    ]


def test_a_broken_rule_raises_once_and_is_passed_with_what_lies_between_the_second_time() -> None:
    one = reader()
    read(one, tick(1))
    events: list[Read] = []
    with pytest.raises(RuleViolated) as violation:
        one.read(json.dumps([tick(2), tick(5), tick(6)]), events)
    assert [event.position for event in events if isinstance(event, Tick)] == [2], "what came before it is handed on"
    one.violated(violation.value)
    # Asked for again from 2, the server does it again.
    one.connected()
    assert read(one, tick(5), tick(6)) == [
        Missed(1, "NSE:INFY", EPOCH, 3, 4, 2, "gone"),
        *read(reader(), tick(5), tick(6)),
    ]
    # Elsewhere it is a new one.
    with pytest.raises(RuleViolated):
        read(one, tick(9))
    assert one.stats.violations == 1


def test_a_broken_rule_that_is_mended_is_forgotten() -> None:
    one = reader()
    read(one, tick(1))
    with pytest.raises(RuleViolated) as violation:
        read(one, tick(3))
    one.violated(violation.value)
    read(one, backfill(2, 3), tick(4))
    with pytest.raises(RuleViolated):
        read(one, tick(6))


def test_what_lies_between_is_unknown_where_the_stream_goes_back() -> None:
    one = reader()
    read(one, tick(5))
    with pytest.raises(RuleViolated) as violation:
        read(one, tick(5))
    one.violated(violation.value)
    assert read(one, tick(5))[0] == Missed(1, "NSE:INFY", EPOCH, None, None, None, "gone")


def test_a_stream_without_ticks_has_no_places() -> None:
    one = reader(has_ticks=False)
    assert read(one, backfill(10, 9), backfill(4, 3), backfill(90, 89)) == []
    assert one.rule.places == {}


def test_a_replay_tells_its_clock_and_each_run_after_the_first() -> None:
    one = reader(is_replay=True)
    events = read(one, clock(1), tick(1), tick(2), clock(2, ts=5), tick(1), clock(2, "ended", 6))
    assert [event for event in events if not isinstance(event, Tick)] == [
        Clock("r1", 1, None, "running"),
        Run("r1", 2),
        Clock("r1", 2, 5, "running"),
        Clock("r1", 2, 6, "ended"),
    ]
    assert one.is_over


def test_a_replay_that_fails_says_so() -> None:
    with pytest.raises(ReplayFailed, match="r1"):
        read(reader(is_replay=True), clock(1, "failed"))


def test_a_quote_is_read_whole_and_touches_no_place() -> None:
    one = reader()
    quote = {
        "type": "quote",
        "instrument_token": 1,
        "exchange_ts": 1_768_448_700_000_001,
        "bid": [[100, 5, 2], [99.5, 7, 0]],
        "ask": [],
        "oi": 12,
        "previous_close": 99,
        "day_volume": 30,
    }
    told = read(one, backfill(1, 1), quote, tick(2))[1:]
    expected = QuoteUpdate(
        1_768_448_700_000_001,
        bid=[Level(100.0, 5, 2), Level(99.5, 7, 0)],
        ask=[],
        oi=12,
        previous_close=99.0,
        day_volume=30,
        instrument_token=1,
        symbol="NSE:INFY",
    )
    assert told[0] == expected
    assert expected.high is None
    assert [event.type for event in told if not isinstance(event, Stood)] == ["quote", "tick"]
    assert one.rule.places[1] == Place(EPOCH, 2)


def test_a_candle_says_the_open_interest_where_it_is_known() -> None:
    candle = {
        "type": "candle",
        "instrument_token": 1,
        "interval": "1m",
        "ts": 1_768_448_700_000_000,
        **dict.fromkeys(("open", "high", "low", "close"), 1),
        "volume": 30,
        "revision": 3,
        "final": True,
    }
    known, unknown = read(reader(), {**candle, "oi": 0}, candle)
    assert [event.oi for event in (known, unknown) if isinstance(event, Candle)] == [0, None]
