"""
A stored day against a trading rule, as fast as it goes: the same stages and the same messages as live.

    python examples/python/replay_a_day.py --symbol SIM:RELIANCE

Without --day it is today, so far as it is stored: what `npm start` has. The API key is read from API_KEY, where the
server asks for one.

It buys where the price rises above its average of the last ticks, sells where it falls below, and pays no costs: it
shows how a replay is used, and is no advice.
"""

import argparse
import os
from collections import deque
from datetime import datetime

from market_data_platform import IST, Client, Clock, Missed, Tick

parser = argparse.ArgumentParser()
parser.add_argument("--url", default="http://127.0.0.1:8080")
parser.add_argument("--symbol", default="SIM:RELIANCE")
parser.add_argument("--day", default=datetime.now(IST).date().isoformat())
parser.add_argument("--speed", default="inf", help="times the market's own pace, or inf")
parser.add_argument("--window", type=int, default=50)
given = parser.parse_args()
speed = "inf" if given.speed == "inf" else float(given.speed)

window: deque[float] = deque(maxlen=given.window)
position, cash, trades, ticks, missed = 0, 0.0, 0, 0, 0
last = 0.0

with (
    Client(given.url, os.environ.get("API_KEY")) as client,
    client.replay(given.symbol, given.day, speed=speed) as replay,
):
    for message in replay.messages():
        if isinstance(message, Missed):
            missed += message.count or 0
        elif isinstance(message, Clock) and message.state == "ended":
            print(f"the day has ended after {replay.status().sent} ticks")
        if not isinstance(message, Tick):
            continue
        ticks += 1
        last = message.price
        window.append(last)
        wanted = 1 if last > sum(window) / len(window) else 0
        if len(window) == given.window and wanted != position:
            cash -= (wanted - position) * last
            position = wanted
            trades += 1

print(f"{given.symbol}: {ticks} ticks, {missed} missed, {trades} trades, result {cash + position * last:.2f} a share")
