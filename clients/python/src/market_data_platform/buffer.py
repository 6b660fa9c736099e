"""
Decides what waits between the socket and a consumer that is slower: a bounded number of events. While it is full
nothing more is read from the socket, so that it is the server which sees a slow client, and its policy which decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from .errors import BufferFull, Unsupported

E = TypeVar("E")


class Buffer(Generic[E]):
    """
    Holds at most ``size`` events, and those of one frame more. Full: ``put`` waits for the consumer, or, where
    ``is_strict``, closes the buffer with :class:`BufferFull`.
    """

    __slots__ = ("_getter", "_is_strict", "_items", "_putter", "_size", "error", "is_closed")

    def __init__(self, size: int, *, is_strict: bool = False) -> None:
        if size < 1:
            raise Unsupported("buffer_size", "a number of events from 1", size)
        self._size = size
        self._is_strict = is_strict
        self._items: deque[E] = deque()
        self._getter: asyncio.Future[None] | None = None
        self._putter: asyncio.Future[None] | None = None
        self.is_closed = False
        #: What it was closed with.
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether whoever puts waits for the consumer."""
        return self._putter is not None

    async def put(self, events: list[E]) -> None:
        """Adds events, and returns once there is room for more: half of it, so that the two do not wake for each."""
        if self.is_closed:
            return
        self._items.extend(events)
        _wake(self._getter)
        if len(self._items) < self._size:
            return
        if self._is_strict:
            self.close(BufferFull(self._size))
            return
        while len(self._items) > self._size // 2 and not self.is_closed:
            self._putter = asyncio.get_running_loop().create_future()
            try:
                await self._putter
            finally:
                self._putter = None

    def pop(self) -> E | None:
        """The next event, if there is one now."""
        if not self._items:
            return None
        event = self._items.popleft()
        if self._putter is not None and len(self._items) <= self._size // 2:
            _wake(self._putter)
        return event

    async def wait(self) -> bool:
        """Waits for an event; False where none comes any more. Raises what the buffer was closed with."""
        while not self._items:
            if self.is_closed:
                if self.error is not None:
                    raise self.error
                return False
            if self._getter is not None:
                raise RuntimeError("two consumers iterate over one stream")
            self._getter = asyncio.get_running_loop().create_future()
            try:
                await self._getter
            finally:
                self._getter = None
        return True

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes: what is here is still handed out, then the error is raised where there is one."""
        if self.is_closed:
            return
        self.is_closed = True
        self.error = error
        _wake(self._getter)
        _wake(self._putter)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
