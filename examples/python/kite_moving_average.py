"""
A moving-average bot on paper, written for Kite Connect: the two lines with `root` are all that is not Kite's own.

    KITE_API_KEY=replay:2026-01-15@60 KITE_ACCESS_TOKEN=any KITE_ROOT=http://127.0.0.1:8081 \
        python examples/python/kite_moving_average.py NSE INFY 15:29
"""

import os
import sys
from collections import deque

from kiteconnect import KiteConnect, KiteTicker

api_key, access_token = os.environ["KITE_API_KEY"], os.environ["KITE_ACCESS_TOKEN"]
root = os.environ.get("KITE_ROOT", "https://api.kite.trade")
exchange, symbol, until = sys.argv[1:4]

kite = KiteConnect(api_key, access_token, root=root)
token = next(i["instrument_token"] for i in kite.instruments(exchange) if i["tradingsymbol"] == symbol)
ticker = KiteTicker(api_key, access_token, root=os.environ.get("KITE_WS", root.replace("http", "ws")))
closes, minute, last, held, cash = deque(maxlen=9), None, None, 0, 0.0


def on_ticks(ws, ticks):
    global minute, last, held, cash
    for tick in ticks:
        if "exchange_timestamp" not in tick:
            continue
        now = tick["exchange_timestamp"].strftime("%H:%M")
        if minute is not None and now != minute:
            closes.append(last)
            fast, slow = sum(list(closes)[-3:]) / 3, sum(closes) / len(closes)
            wanted = int(len(closes) == 9 and fast > slow)
            if wanted != held:
                print("BUY " if wanted else "SELL", tick["exchange_timestamp"], tick["last_price"], flush=True)
                held, cash = wanted, cash + (1 if held else -1) * tick["last_price"]
        minute, last = now, tick["last_price"]
        if now >= until:
            print(f"profit {cash + held * last:.2f}", flush=True)
            os._exit(0)


def on_connect(ws, response):
    ws.subscribe([token])
    ws.set_mode(ws.MODE_FULL, [token])


ticker.on_ticks, ticker.on_connect = on_ticks, on_connect
ticker.connect()
