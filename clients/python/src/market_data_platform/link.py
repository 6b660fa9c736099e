"""
Decides how a WebSocket to the server is opened: where, with which key, and which failures may pass. The key is in the
``Authorization`` header and nowhere else: no redirect is followed with it, and no log or repr has it.
"""

from __future__ import annotations

import inspect
import json
import logging
import ssl
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Union
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus

from ._version import __version__
from .errors import ProtocolFailed, RequestFailed, Unsupported, request_failed
from .reconnect import Reconnect, parse_retry_after

#: A frame of 2,000 backfilled ticks has some 400 KB, a batch some 64 KB.
_MAX_FRAME_BYTES = 16 * 1024 * 1024
#: Frames that wait undecoded; above it nothing is read from the socket, below a quarter of it reading goes on.
_MAX_FRAMES = 16
_OPEN_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
_HEADER = "authorization"

USER_AGENT = f"market-data-platform-python/{__version__}"

#: A key, or whoever knows the one of the moment: asked for each connection, and once more after a refusal.
Key = Union[str, Callable[[], Union[str, Awaitable[str]]]]

logger = logging.getLogger("market_data_platform")


class _Redacted(logging.Filter):
    """At DEBUG the WebSocket library logs the headers of the upgrade, the key among them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) == 2 and str(record.args[0]).lower() == _HEADER:
            record.args = (record.args[0], "[redacted]")
        return True


_wire_logger = logging.getLogger("market_data_platform.websocket")
_wire_logger.addFilter(_Redacted())


class InsecureKeyWarning(UserWarning):
    """A key goes over a network unencrypted."""


class MayPass(Exception):
    """A connection that failed, and may not fail the next time."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class KeySource:
    """Where the API key comes from; it shows itself to nobody."""

    __slots__ = ("_key", "_last")

    def __init__(self, key: Key) -> None:
        self._key = key
        self._last: str | None = None
        if isinstance(key, str):
            _checked_key(key)

    @property
    def may_change(self) -> bool:
        """Whether asking again may give another key."""
        return not isinstance(self._key, str)

    def now(self, *, anew: bool = False) -> str:
        """The key, from whoever answers at once; the last one again unless it is asked for anew."""
        if isinstance(self._key, str):
            return self._key
        if self._last is None or anew:
            key = self._key()
            if not isinstance(key, str):
                raise Unsupported("key", "a function that answers a text; an async one goes with connect()", key)
            self._last = _checked_key(key)
        return self._last

    async def get(self, *, anew: bool = False) -> str:
        """The key, from whoever has to be waited for too."""
        if isinstance(self._key, str):
            return self._key
        if self._last is None or anew:
            try:
                key = self._key()
                self._last = _checked_key(await key if inspect.isawaitable(key) else key)
            except Unsupported:
                raise
            except Exception as error:
                # It may ask somebody who is away as well; its words are not shown, who knows what is in them.
                raise MayPass(f"key: the function that knows it raised {type(error).__name__}") from error
        return self._last

    def __repr__(self) -> str:
        return "KeySource(…)"


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
        # What it is instead is not shown: it may be a key with a line's end.
        raise Unsupported("key", "the text that `mdp keys add` printed, without blanks", type(key))
    return key


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server is, and how it is spoken to."""

    #: ``http://host:port``, without a slash at its end.
    url: str
    key: KeySource | None = None
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    reconnect: Reconnect = field(default_factory=Reconnect)
    #: Seconds of silence after which the server is asked whether it is there, and then again until it counts as gone.
    heartbeat: float = 10.0
    #: Whether frames are compressed where the server does that: less to send, more to compute.
    compression: bool = False

    @property
    def ws_url(self) -> str:
        return f"ws{self.url[4:]}/ws"


def server_at(
    url: str,
    key: Key | None,
    *,
    ssl_context: ssl.SSLContext | None,
    reconnect: Reconnect | None,
    heartbeat: float,
    compression: bool,
) -> Server:
    """Checks an address, and what goes with it."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if parts.username is not None or parts.password is not None:
        raise Unsupported("url", "an address without user and password", "one with them; a key goes in key")
    if scheme not in ("http", "https") or not parts.hostname:
        raise Unsupported("url", "an address such as http://127.0.0.1:8080", url)
    if parts.query or parts.fragment:
        raise Unsupported("url", "an address without query and fragment", url)
    if heartbeat <= 0:
        raise Unsupported("heartbeat", "seconds above 0", heartbeat)
    if scheme == "http":
        if ssl_context is not None:
            raise Unsupported("ssl_context", "an address that begins with https://", url)
        if key is not None and not _is_loopback(parts.hostname):
            warnings.warn(
                f"the key goes to {parts.hostname} unencrypted: use https://", InsecureKeyWarning, stacklevel=4
            )
    elif ssl_context is None:
        # The system's certificates for REST and WebSocket alike; SSL_CERT_FILE and SSL_CERT_DIR are honoured.
        ssl_context = ssl.create_default_context()
    path = parts.path.rstrip("/").removesuffix("/ws")
    return Server(
        urlunsplit((scheme, parts.netloc, path, "", "")),
        None if key is None else KeySource(key),
        ssl_context,
        reconnect or Reconnect(),
        heartbeat,
        compression,
    )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localhost")


class _Connect(websocket_connect):
    """Follows no redirect: the server sends none, and another place is not to be told the key."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_websocket(server: Server, key: str | None) -> ClientConnection:
    """One connection. What may pass raises :class:`MayPass`, what will not another error of this package."""
    options: dict[str, object] = {} if server.ssl_context is None else {"ssl": server.ssl_context}
    try:
        return await _Connect(
            server.ws_url,
            additional_headers=bearer(key),
            user_agent_header=USER_AGENT,
            compression="deflate" if server.compression else None,
            open_timeout=_OPEN_SECONDS,
            close_timeout=_CLOSE_SECONDS,
            # The library's own would take a slow consumer for a dead server: see Stream._beat.
            ping_interval=None,
            max_size=_MAX_FRAME_BYTES,
            max_queue=_MAX_FRAMES,
            logger=_wire_logger,
            **options,  # type: ignore[arg-type]
        )
    except InvalidStatus as error:
        raise _refusal(server, error) from None
    except ssl.SSLCertVerificationError as error:
        raise ProtocolFailed(f"{server.url}: the certificate is not trusted: {error.verify_message}") from error
    except (OSError, TimeoutError, InvalidMessage, EOFError) as error:
        # An InvalidMessage is a connection that broke off in the handshake, or a server that speaks no HTTP.
        raise MayPass(str(error) or type(error).__name__) from error
    except InvalidHandshake as error:
        raise ProtocolFailed(f"{server.ws_url} is no WebSocket of the platform: {error}") from error


def _refusal(server: Server, error: InvalidStatus) -> Exception:
    response = error.response
    retry_after = response.headers.get("Retry-After")
    refused = refusal_of(response.status_code, bytes(response.body or b""), retry_after, server.ws_url)
    if refused.status in _MAY_PASS:
        return MayPass(f"{refused.status}: {refused.message}", refused.retry_after)
    if 400 <= refused.status < 500:
        return refused
    return ProtocolFailed(f"{server.ws_url} is no WebSocket of the platform: it answered {refused.status}")


def refusal_of(status: int, body: bytes, retry_after: str | None, url: str) -> RequestFailed:
    """The error of an answer's bytes, whatever they are."""
    text = body.decode("utf-8", "replace")
    try:
        said: object = json.loads(text)
    except ValueError:
        said = text
    return request_failed(status, said, parse_retry_after(retry_after), url)
