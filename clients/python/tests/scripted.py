"""
Decides how a test plays the server: a WebSocket server whose every connection is a script of the test, and an HTTP
server that answers what the test says. What they send is what the contract of the platform says a server sends.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from market_data_platform import Reconnect

T = TypeVar("T")
#: A guard against a hang, far from what a slow machine needs.
GUARD_SECONDS = 60.0
EPOCH = 20_784_000_033_300
NEXT_DAY = 20_785_000_033_300


async def within(work: Awaitable[T]) -> T:
    """What is awaited for ever fails the test instead."""
    return await asyncio.wait_for(work, GUARD_SECONDS)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition."""

    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await within(look())


class Steps(Reconnect):
    """Waits for nothing, and remembers which waits it was asked for: attempt and Retry-After."""

    def __new__(cls, **_: float | None) -> Steps:
        self = super().__new__(cls)
        object.__setattr__(self, "asked", [])
        return self

    asked: list[tuple[int, float | None]]

    def delay(self, attempt: int, retry_after: float | None = None, uniform: object = None) -> float:
        self.asked.append((attempt, retry_after))
        return 0.001


def tick(position: int, *, token: int = 1, epoch: int = EPOCH, price: float = 100.5) -> dict[str, Any]:
    return {
        "type": "tick",
        "instrument_token": token,
        "price": price,
        "volume": 10,
        "status": "LIVE",
        "exchange_ts": 1_768_448_700_000_000 + position,
        "sequence_id": position,
        "epoch": epoch,
        "position": position,
    }


def backfill(first: int, last: int, *, token: int = 1, epoch: int = EPOCH, recovered: bool = True) -> dict[str, Any]:
    return {
        "type": "backfill",
        "instrument_token": token,
        "epoch": epoch,
        "from": first,
        "to": last,
        "recovered": recovered,
        "data": [tick(position, token=token, epoch=epoch) for position in range(first, last + 1)],
    }


def evicted(first: int, last: int, *, token: int = 1, epoch: int = EPOCH, count: int | None = None) -> dict[str, Any]:
    return {
        "type": "evicted",
        "instrument_token": token,
        "epoch": epoch,
        "from": first,
        "to": last,
        "count": last - first + 1 if count is None else count,
    }


def clock(run: int, state: str = "running", ts: int | None = None) -> dict[str, Any]:
    return {"type": "clock", "replay": "r1", "run": run, "ts": ts, "state": state}


class Peer:
    """One connection, as its script sees it."""

    def __init__(self, ws: ServerConnection) -> None:
        self.ws = ws

    @property
    def headers(self) -> Mapping[str, str]:
        assert self.ws.request is not None
        return self.ws.request.headers

    async def hear(self) -> dict[str, Any]:
        """The client's next message."""
        message: dict[str, Any] = json.loads(await within(self.ws.recv()))
        return message

    async def say(self, *messages: Mapping[str, Any]) -> None:
        for message in messages:
            await self.ws.send(json.dumps(message))

    async def answer(
        self, asked: Mapping[str, Any], refused: Mapping[int | str, str] | None = None, tokens: Sequence[int] = ()
    ) -> None:
        """Accepts what was asked for but for some; symbols have the ``tokens`` in their order, or 1, 2, …"""
        entries: list[dict[str, Any]] = []
        reasons = refused or {}
        for i, symbol in enumerate(asked.get("symbols", ())):
            token = tokens[i] if tokens else i + 1
            if symbol in reasons:
                entries.append({"symbol": symbol, "accepted": False, "reason": reasons[symbol]})
            else:
                entries.append({"instrument_token": token, "symbol": symbol, "accepted": True, "known": True})
        for token in asked.get("tokens", ()):
            if token in reasons:
                entries.append({"instrument_token": token, "accepted": False, "reason": reasons[token]})
            else:
                entries.append({"instrument_token": token, "accepted": True, "known": True})
        await self.say({"type": "subscribed", "id": asked["id"], "simulated": False, "tokens": entries})

    async def accept(self, *messages: Mapping[str, Any]) -> dict[str, Any]:
        """Hears a subscription, accepts it, and says some more."""
        asked = await self.hear()
        assert asked["action"] == "subscribe"
        await self.answer(asked)
        await self.say(*messages)
        return asked

    async def cut(self) -> None:
        """The connection breaks off."""
        self.ws.transport.abort()

    async def stay(self) -> None:
        """Until the client goes."""
        await within(self.ws.wait_closed())


Script = Callable[[Peer], Awaitable[None]]


class Scripted:
    """Plays one script a connection, in their order; there may be no more connections than scripts."""

    def __init__(self, *scripts: Script, refusals: Sequence[tuple[int, Mapping[str, str], str]] = ()) -> None:
        self._scripts = list(scripts)
        self._refusals = list(refusals)
        self._server: Server | None = None
        self._failures: list[BaseException] = []
        self.connections = 0
        self.requests: list[Request] = []

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _play(self, ws: ServerConnection) -> None:
        number = self.connections
        self.connections += 1
        try:
            if number >= len(self._scripts):
                raise AssertionError(f"connection {number + 1}, of which there were to be {len(self._scripts)}")
            await self._scripts[number](Peer(ws))
        except ConnectionClosed:
            pass
        except BaseException as failure:
            self._failures.append(failure)
            raise

    def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if not self._refusals:
            return None
        status, headers, body = self._refusals.pop(0)
        response = connection.respond(status, body)
        for name, value in headers.items():
            response.headers[name] = value
        return response

    async def __aenter__(self) -> Scripted:
        self._server = await serve(
            self._play, "127.0.0.1", 0, process_request=self._upgrade, ping_interval=None, close_timeout=1
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await within(self._server.wait_closed())
        if self._failures and not isinstance(error, AssertionError):
            raise self._failures[0]


class Http:
    """Answers each request with the next of the answers: status, headers and body, JSON where it is no text."""

    def __init__(self, *answers: tuple[int, Mapping[str, str], object]) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, str, Mapping[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, self.path, dict(self.headers.items()), body))
                status, headers, answer = outer.answers.pop(0) if outer.answers else (500, {}, "no answer is left")
                if status == 0:
                    # As a server that is killed while it answers.
                    self.close_connection = True
                    return
                content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(0 if status == 204 else len(content)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _handle

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Http:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
