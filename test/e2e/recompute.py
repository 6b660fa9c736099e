"""Recomputes bars from ticks with pandas: an address, then tokens with their intervals as JSON; says how many agree."""

import io
import json
import sys
import urllib.request

import pandas as pd

WIDTHS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "1d": 86_400}
# Seconds from midnight UTC to 09:15 and to midnight in India.
OPEN, MIDNIGHT = 3 * 3600 + 45 * 60, -(5 * 3600 + 30 * 60)
RANGE = "from=2022-01-01T00:00:00Z&to=2026-02-01T00:00:00Z"


def get(path: str) -> io.BytesIO:
    with urllib.request.urlopen(f"{sys.argv[1]}/api/v1/historical/{path}&{RANGE}") as answer:
        return io.BytesIO(answer.read())


agreed = 0
for token, intervals in json.loads(sys.argv[2]):
    ticks = pd.read_parquet(get(f"ticks?instrument_token={token}&format=parquet"))
    micros = ticks.exchange_ts.astype("int64")
    for interval in intervals:
        width = WIDTHS[interval] * 1_000_000
        origin = (MIDNIGHT if interval == "1d" else OPEN) * 1_000_000
        start = ((micros - origin) // width * width + origin).rename("ts")
        made = (
            ticks.groupby(start)
            .agg(
                open=("price", "first"),
                high=("price", "max"),
                low=("price", "min"),
                close=("price", "last"),
                volume=("volume", "sum"),
            )
            .reset_index()
        )
        bars = pd.read_csv(get(f"candles?instrument_token={token}&interval={interval}&format=csv"))
        pd.testing.assert_frame_equal(made, bars[made.columns], check_exact=True, check_dtype=False)
        agreed += len(bars)
print(agreed)
