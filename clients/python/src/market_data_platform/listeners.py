"""Decides who is told what as it arrives: functions by the type of the event. One that raises ends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .asking import one_of
from .events import EVENT_TYPES

Listener = Callable[[Any], object]
logger = logging.getLogger("market_data_platform")


class Listeners:
    """Those of one client, for all of its streams."""

    def __init__(self) -> None:
        self._by_type: dict[str, list[Listener]] = {}

    def __contains__(self, kind: str) -> bool:
        return kind in self._by_type

    @property
    def are_any(self) -> bool:
        return bool(self._by_type)

    def on(self, kind: str, listener: Listener) -> Callable[[], None]:
        self._by_type.setdefault(one_of("event", kind, EVENT_TYPES), []).append(listener)
        return lambda: self.off(kind, listener)

    def once(self, kind: str, listener: Listener) -> Callable[[], None]:
        def first(event: Any) -> None:
            off()
            listener(event)

        off = self.on(kind, first)
        return off

    def off(self, kind: str, listener: Listener) -> None:
        """Whoever is not there any more is nobody to complain of."""
        listeners = [one for one in self._by_type.get(kind, ()) if one != listener]
        if listeners:
            self._by_type[kind] = listeners
        else:
            self._by_type.pop(kind, None)

    def tell(self, kind: str, event: Any) -> None:
        for listener in self._by_type.get(kind, ()):
            try:
                listener(event)
            except Exception:
                logger.exception("a listener of %r failed", kind)

    def tell_error(self, error: Exception) -> None:
        """An error that ends nothing by itself; nobody there: the log has it."""
        if "error" in self:
            self.tell("error", error)
        else:
            logger.error("%s", error)
