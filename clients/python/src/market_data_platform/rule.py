"""
Decides whether a stream keeps the rule that a client can check: per instrument and epoch, positions over ``backfill``
and ``tick`` go up by one, every hole is covered exactly by ``evicted``, and the epoch only grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import Place, RuleViolated

_NOWHERE = Place(0, 0)


class Rule:
    """
    Where each instrument's stream stands, moved on by each message. A message that does not fit raises
    :class:`RuleViolated` and moves nothing.

    ``may_restart``: the stream is a replay's, which begins anew with each run. Its ``clock`` message says so
    (:meth:`restart`), but may have been evicted where the client was slow: a step back to position 1 is a new run then.
    """

    __slots__ = ("_may_restart", "places")

    def __init__(self, places: Mapping[int, Place] | None = None, *, may_restart: bool = False) -> None:
        self.places: dict[int, Place] = dict(places or {})
        self._may_restart = may_restart

    def tick(self, token: int, epoch: int, position: int) -> None:
        """One live tick."""
        stood = self.places.get(token)
        if stood is not None and (epoch != stood[0] or position != stood[1] + 1):
            self._advance(token, epoch, position, position, "tick")
            return
        self.places[token] = Place(epoch, position)

    def evicted(self, token: int, epoch: int, first: int, last: int, count: int) -> None:
        """Positions that the client will not get."""
        if count != last - first + 1 or count < 1:
            what = f"evicted {epoch}/{first} to {last} counts {count}"
            raise self._broken(token, Place(epoch, first), Place(epoch, last), what)
        self._advance(token, epoch, first, last, "evicted")

    def backfill(
        self, token: int, epoch: int, first: int, last: int, recovered: bool, data: Sequence[Mapping[str, Any]]
    ) -> None:
        """Ticks that came before the live ones; an empty backfill says where the stream goes on."""
        if len(data) != last - first + 1:
            what = f"backfill {epoch}/{first} to {last} holds {len(data)} ticks"
            raise self._broken(token, Place(epoch, first), Place(epoch, last), what)
        if not data:
            self._stand(token, epoch, last, recovered)
            return
        for i, tick in enumerate(data):
            if tick["position"] != first + i or tick["epoch"] != epoch or tick["instrument_token"] != token:
                came = Place(tick["epoch"], tick["position"])
                what = f"entry {i} of the backfill from {epoch}/{first} is {came.epoch}/{came.position}"
                raise self._broken(token, came, Place(epoch, last), what)
        self._advance(token, epoch, first, last, "backfill")

    def restart(self) -> None:
        """A new run of a replay: every instrument begins anew."""
        self.places.clear()

    def accept(self, error: RuleViolated) -> None:
        """Goes on from a message that broke the rule."""
        self.places[error.instrument_token] = error.after

    def forget(self, token: int) -> None:
        """The instrument is subscribed no more."""
        self.places.pop(token, None)

    def _stand(self, token: int, epoch: int, position: int, recovered: bool) -> None:
        stood = self.places.get(token)
        now = Place(epoch, position)
        # Epoch 0: nothing is known of this instrument yet, its first tick says where it stands.
        if now == _NOWHERE:
            return
        if stood is None:
            self.places[token] = now
            return
        # A place that nobody knows is given up, and told so; the stream may stand only behind it.
        if not recovered and now < stood:
            self.places[token] = now
            return
        if self._may_restart and position == 0 and epoch == stood.epoch:
            self.places[token] = now
            return
        expected = stood.position if epoch == stood.epoch else 0
        if epoch < stood.epoch or position != expected:
            raise self._broken(token, now, now, f"an empty backfill says that it stands at {epoch}/{position}")
        self.places[token] = now

    def _advance(self, token: int, epoch: int, first: int, last: int, what: str) -> None:
        stood = self.places.get(token)
        if stood is not None:
            came = Place(epoch, first)
            is_new_run = self._may_restart and first == 1 and epoch == stood.epoch
            expected = stood.position + 1 if epoch == stood.epoch and not is_new_run else 1
            if epoch < stood.epoch:
                raise self._broken(token, came, Place(epoch, last), f"{what} of the earlier epoch {epoch}/{first}")
            if first != expected:
                raise self._broken(
                    token, came, Place(epoch, last), f"{what} {epoch}/{first}, expected {epoch}/{expected}"
                )
        self.places[token] = Place(epoch, last)

    def _broken(self, token: int, came: Place, after: Place, what: str) -> RuleViolated:
        return RuleViolated(token, self.places.get(token), came, after, what)
