"""Decides what a trading day in these tests is: instruments of NSE, and ticks of them with every digit that matters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

#: A Friday; the day before it was a holiday.
DAY = "2026-01-16"
#: 09:15 in India.
OPEN = 1_768_535_100_000_000
RELIANCE, INFY = 738_561, 408_065
SYMBOLS = {"NSE:RELIANCE": RELIANCE, "NSE:INFY": INFY}

_HEADER = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,"
    "instrument_type,segment,exchange"
)
INSTRUMENTS = "\n".join(
    [
        _HEADER,
        f"{RELIANCE},2885,RELIANCE,RELIANCE INDUSTRIES,0,,0,0.05,1,EQ,NSE,NSE",
        f"{INFY},1594,INFY,INFOSYS,0,,0,0.05,1,EQ,NSE,NSE",
        "",
    ]
)


def raw_ticks(count: int, *, start: int = OPEN, step: int = 250_123, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Ticks of both instruments in turn, ``step`` microseconds apart."""
    chance = random.Random(seed)
    prices = {RELIANCE: 2500.0, INFY: 1500.0}
    for n in range(count):
        token = (RELIANCE, INFY)[n % 2]
        prices[token] = round(prices[token] + chance.choice((-0.05, 0.0, 0.05)), 2)
        yield {
            "instrument_token": token,
            "exchange_ts": start + n * step,
            "price": prices[token],
            "volume": chance.randrange(1, 100),
            "sequence_id": n // 2 + 1,
        }
