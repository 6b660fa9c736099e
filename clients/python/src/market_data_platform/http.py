"""
Decides how a request of REST is sent: with the key, within a time, again where that is no harm, and which error it ends
with. Both ways of sending, one that waits and one that awaits, decide by the same rules.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import Any, TypeVar

import httpx

from .api import Call
from .errors import MarketDataError, NetworkFailed, ProtocolFailed, RequestFailed, TimedOut, Unauthorized
from .link import USER_AGENT, MayPass, Server, bearer, refusal_of

T = TypeVar("T")

#: Asked again after these, by what the server says in ``Retry-After``.
_AGAIN = frozenset({429, 502, 503, 504})
#: Of these the request was not taken in: asking again is no harm, whatever was asked.
_NOT_TAKEN = frozenset({429})
#: A server that asks for a longer wait is told to whoever asks, seconds.
_MAX_WAIT = 30.0


def _trusts_nobody() -> ssl.SSLContext:
    """For http, where no certificate is looked at: to load the system's would take a tenth of a second."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Sender:
    """What both ways of sending share."""

    def __init__(self, server: Server, timeout: float, retries: int) -> None:
        self._server = server
        self._timeout = timeout
        self._retries = retries

    def _options(self) -> dict[str, Any]:
        return {
            "base_url": self._server.url,
            "timeout": self._timeout,
            "verify": self._server.ssl_context or _trusts_nobody(),
            # The server sends none, and another place is not to be told the key.
            "follow_redirects": False,
            "headers": {"User-Agent": USER_AGENT, "Accept": "application/json"},
        }

    def _request(self, call: Call[Any], key: str | None) -> dict[str, Any]:
        headers = bearer(key)
        if call.content_type is not None:
            headers["Content-Type"] = call.content_type
        return {
            "method": call.method,
            "url": call.path,
            "params": call.params,
            "content": call.content,
            "headers": headers,
        }

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        if not response.is_success:
            retry_after = response.headers.get("Retry-After")
            raise refusal_of(response.status_code, response.content, retry_after, str(response.url))
        try:
            body = json.loads(response.content) if response.content else None
            return call.decode(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolFailed(f"{call.name}: the answer cannot be read: {type(error).__name__}: {error}") from error

    def _failure(self, call: Call[Any], error: httpx.HTTPError) -> MarketDataError:
        if isinstance(error, httpx.TimeoutException):
            return TimedOut(call.name, self._timeout)
        return NetworkFailed(call.name, str(error) or type(error).__name__)

    def _wait(self, call: Call[Any], error: Exception, attempt: int) -> float | None:
        """Seconds before the request is sent again; None: it is not."""
        if attempt >= self._retries:
            return None
        retry_after: float | None = None
        if isinstance(error, RequestFailed):
            if error.status not in _AGAIN or not (call.is_repeatable or error.status in _NOT_TAKEN):
                return None
            retry_after = error.retry_after
        elif isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            pass
        elif not isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)) or not call.is_repeatable:
            return None
        if retry_after is not None and retry_after > _MAX_WAIT:
            return None
        return self._server.reconnect.delay(attempt, retry_after)

    def _may_ask_key_again(self, error: Exception, is_anew: bool) -> bool:
        key = self._server.key
        return isinstance(error, Unauthorized) and key is not None and key.may_change and not is_anew


class HttpSender(_Sender):
    """Sends and waits."""

    def __init__(self, server: Server, timeout: float, retries: int) -> None:
        super().__init__(server, timeout, retries)
        self._client = httpx.Client(**self._options())

    def send(self, call: Call[T]) -> T:
        attempt, is_anew = 0, False
        while True:
            try:
                key = self._server.key
                text = None if key is None else key.now(anew=is_anew)
                return self._read(call, self._client.request(**self._request(call, text)))
            except (httpx.HTTPError, RequestFailed) as error:
                if self._may_ask_key_again(error, is_anew):
                    is_anew = True
                    continue
                wait = self._wait(call, error, attempt)
                if wait is None:
                    if isinstance(error, httpx.HTTPError):
                        raise self._failure(call, error) from error
                    raise
            attempt += 1
            time.sleep(wait)

    def close(self) -> None:
        self._client.close()


class AsyncHttpSender(_Sender):
    """Sends and awaits."""

    def __init__(self, server: Server, timeout: float, retries: int) -> None:
        super().__init__(server, timeout, retries)
        self._client: httpx.AsyncClient | None = None

    async def send(self, call: Call[T]) -> T:
        if self._client is None:
            self._client = httpx.AsyncClient(**self._options())
        attempt, is_anew = 0, False
        while True:
            try:
                key = self._server.key
                text = None if key is None else await key.get(anew=is_anew)
                return self._read(call, await self._client.request(**self._request(call, text)))
            except MayPass as error:
                raise NetworkFailed(call.name, str(error)) from error.__cause__
            except (httpx.HTTPError, RequestFailed) as error:
                if self._may_ask_key_again(error, is_anew):
                    is_anew = True
                    continue
                wait = self._wait(call, error, attempt)
                if wait is None:
                    if isinstance(error, httpx.HTTPError):
                        raise self._failure(call, error) from error
                    raise
            attempt += 1
            await asyncio.sleep(wait)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
