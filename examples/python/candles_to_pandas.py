"""
A day's candles in pandas, as a notebook has them: what each hour was worth, and the day's largest moves.

    python examples/python/candles_to_pandas.py --symbol SIM:RELIANCE

Without --day it is today, so far as it is stored: what `npm start` has. The API key is read from API_KEY, where the
server asks for one.
"""

import argparse
import os
from datetime import datetime

from market_data_platform import IST, Client

parser = argparse.ArgumentParser()
parser.add_argument("--url", default="http://127.0.0.1:8080")
parser.add_argument("--symbol", default="SIM:RELIANCE")
parser.add_argument("--day", default=datetime.now(IST).date().isoformat())
given = parser.parse_args()

with Client(given.url, os.environ.get("API_KEY")) as client:
    candles = client.history.candles(given.symbol, given.day, interval="5m").to_pandas()

if candles.empty:
    print(f"{given.symbol}: nothing is stored of {given.day}")
    raise SystemExit(0)

hours = candles.resample("1h").agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
print(f"{given.symbol} on {given.day}, by the hour:")
print(hours.dropna().to_string())

moves = (candles["close"] / candles["open"] - 1).mul(10_000).round(2)
print("\nThe largest moves in five minutes, in basis points:")
print(moves.reindex(moves.abs().sort_values(ascending=False).index).head(3).to_string())

value = (candles["close"] * candles["volume"]).sum() / candles["volume"].sum()
print(f"\nvolume {candles['volume'].sum()}, average price by volume {value:.2f}")
