"""Decides how long to wait before a connection or a request is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from .errors import Unsupported

#: After these nobody should be back within a second or two: the server restarts, is overloaded, or did not like what
#: came. The client in TypeScript has the same.
_LEAST_FAILURES = {1001: 2, 1012: 2, 1008: 3, 1009: 3, 1013: 3}
#: A server that asks for more is asked again after this all the same, seconds.
MAX_RETRY_AFTER = 300.0


@dataclass(frozen=True, slots=True)
class Reconnect:
    """
    Full jitter: attempt *n* (0, 1, …) waits anything from nothing to ``min(max_delay, min_delay * 2**n)`` seconds, so
    that the clients of a server that comes back do not come all at once, and at least what it says in ``Retry-After``.
    """

    #: Seconds that the first wait may take at most.
    min_delay: float = 0.25
    #: Seconds that any wait may take at most.
    max_delay: float = 10.0
    #: Seconds within which the very first connection has to be made: a mistyped address is an error, not a wait.
    first_for: float = 30.0
    #: Seconds without a connection after which a stream that had one gives up; None: never.
    lost_for: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.min_delay <= self.max_delay:
            raise Unsupported("min_delay", f"seconds above 0 and up to {self.max_delay:g}", self.min_delay)

    def delay(
        self,
        attempt: int,
        retry_after: float | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> float:
        """Seconds before the next try."""
        # The exponent is bounded: an attempt may be any number by the time a server comes back.
        jitter = uniform(0.0, min(self.max_delay, self.min_delay * 2.0 ** min(attempt, 32)))
        return jitter if retry_after is None else min(retry_after, MAX_RETRY_AFTER) + jitter


def failures_of(before: int, code: int) -> int:
    """Failures that a wait is reckoned by: those in a row before this one, or more where the close code asks for it."""
    return max(before, _LEAST_FAILURES.get(code, 0))


def parse_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3): a number of them, or a date."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - (now or datetime.now(timezone.utc))).total_seconds())
