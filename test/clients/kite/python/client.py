"""Hands pykiteconnect what a test says, line by line, and says what it hands its user."""

import datetime
import json
import os
import sys
import threading

from kiteconnect import KiteConnect, KiteTicker
from kiteconnect import exceptions
from twisted.internet import reactor

ROOT, KEY, TOKEN = os.environ["KITE_ROOT"], os.environ["KITE_KEY"], os.environ["KITE_TOKEN"]
lock = threading.Lock()


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(type(value))


def say(**event):
    with lock:
        print(json.dumps(event, default=plain), flush=True)


kite = KiteConnect(api_key=KEY, access_token=TOKEN, root=ROOT)
kite.set_session_expiry_hook(lambda: say(event="session_expired"))
ticker = None


def listen(tokens, mode):
    global ticker
    ticker = KiteTicker(KEY, TOKEN, root=ROOT.replace("http", "ws"), reconnect_max_delay=5)

    def connected(ws, response):
        ws.subscribe(tokens)
        if mode:
            ws.set_mode(mode, tokens)
        say(event="connect")

    ticker.on_connect = connected
    ticker.on_ticks = lambda ws, ticks: say(event="ticks", ticks=ticks)
    ticker.on_close = lambda ws, code, reason: say(event="close", code=code, reason=reason)
    ticker.on_error = lambda ws, code, reason: say(event="error", code=code, reason=str(reason))
    ticker.on_reconnect = lambda ws, attempts: say(event="reconnect")
    ticker.connect(threaded=True)


does = {
    "instruments": lambda exchange=None: kite.instruments(exchange),
    "quote": lambda i: kite.quote(i),
    "ohlc": lambda i: kite.ohlc(i),
    "ltp": lambda i: kite.ltp(i),
    "historical": lambda token, start, end, interval, oi: kite.historical_data(token, start, end, interval, oi=oi),
    "profile": lambda: kite.profile(),
    "margins": lambda: kite.margins(),
    "orders": lambda: kite.orders(),
    "positions": lambda: kite.positions(),
    "order": lambda: kite.place_order(
        variety="regular",
        exchange="NSE",
        tradingsymbol="INFY",
        transaction_type="BUY",
        quantity=1,
        product="CNC",
        order_type="MARKET",
    ),
    "session": lambda request_token: kite.generate_session(request_token, "secret"),
    "logout": lambda: kite.invalidate_access_token(),
    "segment": lambda segment: kite.margins(segment),
    "as": lambda token: kite.set_access_token(token),
    "listen": lambda tokens, mode=None: listen(tokens, mode),
    # Where the ticker's own thread does it: that is not safe from another.
    "subscribe": lambda tokens: reactor.callFromThread(ticker.subscribe, tokens),
    "unsubscribe": lambda tokens: reactor.callFromThread(ticker.unsubscribe, tokens),
    "mode": lambda tokens, mode: reactor.callFromThread(ticker.set_mode, mode, tokens),
}

for line in sys.stdin:
    asked = json.loads(line)
    name = asked.pop("do")
    try:
        say(result=does[name](**asked))
    except exceptions.KiteException as failed:
        say(failed=type(failed).__name__, message=str(failed), code=failed.code)
