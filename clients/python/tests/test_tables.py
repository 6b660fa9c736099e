from __future__ import annotations

import sys
from typing import Any

import pandas as pd
import pytest

from market_data_platform import (
    Bar,
    BarTable,
    Candle,
    HistoricalTick,
    Level,
    MarketDataError,
    Missed,
    QuoteUpdate,
    Recording,
    Tick,
)
from market_data_platform.tables import TickTable

AT = 1_768_448_700_123_457
TICK_TYPES = {
    "instrument_token": "int64",
    "price": "float64",
    "volume": "int64",
    "sequence_id": "int64",
    "status": "category",
    "session": "int64",
    "sequencing": "category",
    "epoch": "Int64",
    "position": "Int64",
    "feed": "category",
    "received_ts": "datetime64[us, Asia/Kolkata]",
}
BAR_TYPES = {
    "open": "float64",
    "high": "float64",
    "low": "float64",
    "close": "float64",
    "volume": "int64",
    "phase": "category",
    "final": "bool",
    "oi": "Int64",
}
LIVE_TICK_TYPES = {
    "instrument_token": "int64",
    "symbol": "category",
    "price": "float64",
    "volume": "int64",
    "sequence_id": "int64",
    "status": "category",
    "epoch": "int64",
    "position": "int64",
    "live": "bool",
}
LIVE_CANDLE_TYPES = {
    "instrument_token": "int64",
    "symbol": "category",
    "interval": "category",
    "open": "float64",
    "high": "float64",
    "low": "float64",
    "close": "float64",
    "volume": "int64",
    "revision": "int64",
    "final": "bool",
    "oi": "Int64",
}

LIVE_QUOTE_TYPES = {
    "instrument_token": "int64",
    "symbol": "category",
    "bid_price": "float64",
    "bid_quantity": "Int64",
    "ask_price": "float64",
    "ask_quantity": "Int64",
    "total_buy_quantity": "Int64",
    "total_sell_quantity": "Int64",
    "oi": "Int64",
    "oi_day_high": "Int64",
    "oi_day_low": "Int64",
    "average_price": "float64",
    "last_quantity": "Int64",
    "last_trade_ts": "Int64",
    "open": "float64",
    "high": "float64",
    "low": "float64",
    "previous_close": "float64",
    "lower_circuit": "float64",
    "upper_circuit": "float64",
    "day_volume": "Int64",
}


def historical(n: int, **other: Any) -> dict[str, Any]:
    return {
        "instrument_token": 738_561,
        "exchange_ts": AT + n,
        "price": 2500,
        "volume": 9_007_199_254_740_991,
        "sequence_id": -281_474_976_710_655 + n,
        "status": "LIVE",
        "session": 0,
        "sequencing": "none",
        "epoch": 20_784_000_033_300,
        "position": n,
        "feed": "dma",
        "received_ts": AT + 5,
        **other,
    }


def bar(n: int, **other: Any) -> dict[str, Any]:
    return {
        "ts": 1_768_448_700_000_000 + n * 60_000_000,
        "open": 1,
        "high": 2.5,
        "low": 1,
        "close": 2,
        "volume": 10,
        "phase": "CONTINUOUS",
        "final": True,
        **other,
    }


def types(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(kind) for name, kind in frame.dtypes.items()}


def test_ticks_keep_every_microsecond_and_every_digit() -> None:
    table = TickTable()
    table.extend_rows([historical(1), historical(2, status="STALE", epoch=None, position=None)])
    assert table[0] == HistoricalTick(**{**historical(1), "price": 2500.0})
    assert table[-1].epoch is None
    assert [tick.status for tick in table] == ["LIVE", "STALE"]
    assert len(table[0:5]) == 2
    with pytest.raises(IndexError):
        table[2]
    frame = table.to_pandas()
    assert types(frame) == TICK_TYPES
    assert frame.index.name == "exchange_ts"
    assert str(frame.index.dtype) == "datetime64[us, Asia/Kolkata]"
    assert str(frame.index[0]) == "2026-01-15 09:15:00.123458+05:30"
    assert [stamp.value // 1000 for stamp in frame.index] == [AT + 1, AT + 2]
    assert frame["volume"].tolist() == [9_007_199_254_740_991] * 2
    assert frame["sequence_id"].tolist() == [-281_474_976_710_654, -281_474_976_710_653]
    assert frame["epoch"].tolist() == [20_784_000_033_300, pd.NA]
    assert list(frame["status"].cat.categories) == ["LIVE", "STALE"]


def test_bars_are_by_their_start_in_the_zone_that_is_asked_for() -> None:
    table = BarTable()
    table.extend_rows([bar(0), bar(1, phase=None, final=False, open=None)])
    assert table[0] == Bar(1_768_448_700_000_000, 1.0, 2.5, 1.0, 2.0, 10, "CONTINUOUS", True)
    assert table[0].time.isoformat() == "2026-01-15T09:15:00+05:30"
    frame = table.to_pandas()
    assert types(frame) == BAR_TYPES
    assert frame["final"].tolist() == [True, False]
    assert frame["phase"].isna().tolist() == [False, True]
    assert frame["open"].isna().tolist() == [False, True]
    assert str(frame.index[0]) == "2026-01-15 09:15:00+05:30"
    assert str(table.to_pandas("UTC").index[0]) == "2026-01-15 03:45:00+00:00"


def test_nothing_has_the_same_columns_and_types_as_something() -> None:
    made: list[tuple[Any, Any]] = [
        (TickTable(), TICK_TYPES),
        (BarTable(), BAR_TYPES),
        (Recording(Tick, 5), LIVE_TICK_TYPES),
        (Recording(Candle, 5), LIVE_CANDLE_TYPES),
    ]
    for table, expected in made:
        frame = table.to_pandas()
        assert len(frame) == 0
        assert types(frame) == expected
        assert str(frame.index.dtype) == "datetime64[us, Asia/Kolkata]"


def test_a_word_of_a_later_server_is_a_category_too() -> None:
    table = BarTable()
    table.extend_rows([bar(0, phase="AUCTION")])
    assert table.to_pandas()["phase"].tolist() == ["AUCTION"]


def live_tick(position: int) -> Tick:
    return Tick(1, "NSE:INFY", 100.5, 10, "LIVE", AT + position, position, 20_784_000_033_300, position)


def test_a_recording_keeps_the_newest_and_counts_what_went() -> None:
    recording: Recording[Tick] = Recording(Tick, 3)
    for position in range(1, 6):
        recording.add(live_tick(position))
    recording.add(Missed(1, None, 1, 6, 9, 4, "slow"))
    assert ([tick.position for tick in recording], recording.dropped) == ([3, 4, 5], 2)
    assert [missed.count for missed in recording.missed] == [4]
    assert recording[0].position == 3
    frame = recording.to_pandas()
    assert types(frame) == LIVE_TICK_TYPES
    assert frame["symbol"].tolist() == ["NSE:INFY"] * 3
    assert [stamp.value // 1000 for stamp in frame.index] == [AT + 3, AT + 4, AT + 5]


def test_a_recording_of_candles_keeps_each_bar_once_as_it_stands() -> None:
    recording: Recording[Candle] = Recording(Candle, 3)
    for start, revision in ((0, 1), (0, 2), (60, 1), (0, 3)):
        recording.add(Candle(1, None, "1m", AT + start * 1_000_000, 1.0, 2.0, 1.0, 2.0, 5, revision, False))
    assert [candle.revision for candle in recording] == [3, 1]
    frame = recording.to_pandas()
    assert types(frame) == LIVE_CANDLE_TYPES
    assert frame["interval"].tolist() == ["1m", "1m"]


def test_recorded_quotes_have_the_best_levels_as_columns() -> None:
    recording = Recording(QuoteUpdate, 10)
    recording.add(QuoteUpdate(AT, bid=[Level(100.0, 5, 2)], ask=[], oi=12, instrument_token=1, symbol="NSE:INFY"))
    recording.add(QuoteUpdate(AT + 1, high=101.5, instrument_token=1))
    frame = recording.to_pandas()
    assert types(frame) == LIVE_QUOTE_TYPES
    assert frame["bid_price"].iloc[0] == 100.0
    assert frame["bid_quantity"].tolist() == [5, pd.NA]
    assert frame["ask_price"].isna().all()
    assert frame["oi"].tolist() == [12, pd.NA]
    assert frame["high"].iloc[1] == 101.5
    assert types(Recording(QuoteUpdate, 5).to_pandas()) == LIVE_QUOTE_TYPES


def test_bars_have_the_open_interest_where_it_is_known() -> None:
    table = BarTable()
    table.extend_rows([bar(0), bar(1, oi=7)])
    assert [row.oi for row in table] == [None, 7]
    assert table.to_pandas()["oi"].tolist() == [pd.NA, 7]


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MarketDataError, match=r"pip install 'market-data-platform\[pandas\]'"):
        TickTable().to_pandas()


def test_a_million_ticks_take_megabytes_not_gigabytes() -> None:
    table = TickTable()
    rows = [historical(n) for n in range(1_000)]
    for _ in range(100):
        table.extend_rows(rows)
    held = sum(sys.getsizeof(table.column(name)) for name in TICK_TYPES)
    # Eleven columns of eight bytes, an array's room to grow included.
    assert held / len(table) < 120
