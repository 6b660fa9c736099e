"""
Decides how fast a client says what it has to say: below what the server lets a client send, at once and in the long run
(100 messages and 20 a second, 1 MiB and 128 KiB a second), since one message too many closes the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_MESSAGES, _MESSAGES_PER_SECOND = 80.0, 15.0
_BYTES, _BYTES_PER_SECOND = 786_432.0, 98_304.0


class Pace:
    """Two buckets, of messages and of bytes, for one connection."""

    __slots__ = ("_at", "_bytes", "_messages", "_now")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._at = now()
        self._messages = _MESSAGES
        self._bytes = _BYTES

    def take(self, size: int) -> float:
        """Takes room for a message of so many bytes; seconds to wait before it is sent."""
        now = self._now()
        passed = now - self._at
        self._at = now
        self._messages = min(_MESSAGES, self._messages + passed * _MESSAGES_PER_SECOND) - 1
        self._bytes = min(_BYTES, self._bytes + passed * _BYTES_PER_SECOND) - size
        return max(0.0, -self._messages / _MESSAGES_PER_SECOND, -self._bytes / _BYTES_PER_SECOND)

    async def wait(self, size: int) -> None:
        seconds = self.take(size)
        if seconds > 0:
            await asyncio.sleep(seconds)
