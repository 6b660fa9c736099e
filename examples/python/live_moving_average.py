"""
A moving average of live ticks. It goes on through restarts of the server, and says what it missed.

    python examples/python/live_moving_average.py --symbols SIM:RELIANCE SIM:INFY --ticks 200
"""

import argparse
import asyncio
import os
from collections import defaultdict, deque

from market_data_platform import Disconnected, Missed, connect

parser = argparse.ArgumentParser()
parser.add_argument("--url", default="http://127.0.0.1:8080")
parser.add_argument("--symbols", nargs="+", default=["SIM:RELIANCE"])
parser.add_argument("--window", type=int, default=20, help="ticks in the average")
parser.add_argument("--ticks", type=int, default=0, help="stop after so many live ticks; 0: never")
given = parser.parse_args()


def missed(event: Missed) -> None:
    print(f"{event.symbol}: {event.count} ticks missed ({event.reason})")


def disconnected(event: Disconnected) -> None:
    print(f"connection lost ({event.code} {event.reason}); again in {event.retry_in:.1f} s")


async def main() -> None:
    prices: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=given.window))
    live = 0
    async with connect(given.url, key=os.environ.get("API_KEY")) as client:
        client.on("missed", missed)
        client.on("disconnected", disconnected)
        # The last ticks before the live ones fill the window, without a seam.
        async for tick in client.ticks(given.symbols, backfill=given.window):
            window = prices[tick.symbol]
            window.append(tick.price)
            if not tick.live:
                continue
            average = sum(window) / len(window)
            print(f"{tick.time:%H:%M:%S.%f} {tick.symbol} {tick.price:.2f} average {average:.2f}")
            live += 1
            if live == given.ticks:
                return


asyncio.run(main())
