"""
Decides what the frames of the wire become: events, with every message held to the rule. Messages that answer what was
asked go to whoever asked. No network in here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from .errors import Place, ProtocolFailed, ReplayFailed, RuleViolated
from .events import (
    Clock,
    Epoch,
    Gap,
    GapFilled,
    Message,
    Missed,
    Run,
    State,
    Stood,
    read_candle,
    read_quote_update,
    read_tick,
)
from .rule import Rule

#: An epoch is its trading day, in days since 1970, times this, plus a time of that day.
_DAY = 1_000_000_000
_SHOWN_CHARS = 200

#: What a frame becomes; ``Stood`` moves a place without a word to the application.
Read = Union[Message, Stood]
_Parsed = Mapping[str, Any]


@dataclass(slots=True)
class Stats:
    """What a stream has seen since it was opened."""

    connects: int = 0
    frames: int = 0
    ticks: int = 0
    #: Positions that were told as missed, where their number is known.
    missed: int = 0
    violations: int = 0
    #: Messages of a type that this version does not know; they are passed over.
    unknown: int = 0


class Reader:
    """Reads the frames of one stream, over all its connections."""

    def __init__(
        self,
        *,
        has_ticks: bool,
        is_replay: bool,
        symbol_of: Callable[[int], str | None],
        control: Callable[[_Parsed], None],
    ) -> None:
        self.rule = Rule(may_restart=is_replay)
        self.stats = Stats()
        #: The replay has ended: nothing more comes.
        self.is_over = False
        self._has_ticks = has_ticks
        self._symbol_of = symbol_of
        self._control = control
        self._run = 0
        #: Instruments that are past their answer on this connection: what is evicted from there on is a slow client's.
        self._live: set[int] = set()
        #: Where instruments stood when a message broke the rule, and no message was taken since.
        self._broken: dict[int, Place | None] = {}

    def connected(self) -> None:
        """Another connection: every instrument is answered anew."""
        self._live.clear()

    def stands(self, places: Mapping[int, Place], tokens: Container[int]) -> None:
        """Where the server says that instruments stand: the places of those that have none yet."""
        for token, place in places.items() if self._has_ticks else ():
            if token in tokens:
                self.rule.places.setdefault(token, place)

    def forget(self, token: int) -> None:
        """The instrument is subscribed no more."""
        self.rule.forget(token)
        self._live.discard(token)
        self._broken.pop(token, None)

    def read(self, raw: str | bytes, events: list[Read], tap: Callable[[_Parsed], None] | None = None) -> None:
        """
        Reads one frame, a message or an array of them, and adds what it becomes to ``events``; ``tap`` is shown each
        message as it came. Raises where a message breaks the rule or is none; those before it are added all the same.
        """
        if not isinstance(raw, str):
            raise ProtocolFailed("a binary frame came; expected text")
        try:
            parsed = json.loads(raw)
            for message in parsed if isinstance(parsed, list) else (parsed,):
                if tap is not None:
                    tap(message)
                self._take(message, events)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ProtocolFailed(f"a message cannot be read ({why}): {raw[:_SHOWN_CHARS]}") from error

    def _take(self, message: _Parsed, events: list[Read]) -> None:
        kind = message["type"]
        if kind == "tick":
            token, epoch, position = message["instrument_token"], message["epoch"], message["position"]
            stood = self.rule.places.get(token)
            if (stood is not None and stood[0] != epoch) or self._broken:
                self._hold(token, lambda: self.rule.tick(token, epoch, position), events)
            else:
                self.rule.tick(token, epoch, position)
            self._live.add(token)
            self.stats.ticks += 1
            events.append(read_tick(message, self._symbol_of(token)))
            return
        take = _TAKERS.get(kind)
        if take is not None:
            take(self, message, events)
        elif kind in _CONTROL:
            self._control(message)
        elif kind not in _SILENT:
            self.stats.unknown += 1

    def _hold(self, token: int, check: Callable[[], None], events: list[Read]) -> None:
        """
        Holds a message to the rule, and tells a new epoch. One that breaks it raises: the stream is to come again from
        the place before. Where that place is broken again it goes on from what came, and tells what lies between.
        """
        stood = self.rule.places.get(token)
        try:
            check()
        except RuleViolated as violation:
            if token not in self._broken or self._broken[token] != stood:
                raise
            self.rule.accept(violation)
            events.append(self._between(violation))
        self._broken.pop(token, None)
        now = self.rule.places.get(token)
        if stood is not None and now is not None and now.epoch != stood.epoch:
            reason: Literal["day", "lost"] = "day" if now.epoch // _DAY != stood.epoch // _DAY else "lost"
            # Before the first tick of it: its ticks come with it, or after.
            events.append(Epoch(token, self._symbol_of(token), stood, Place(now.epoch, 0), reason))

    def violated(self, error: RuleViolated) -> None:
        """A message broke the rule, and the stream is asked for again from the place before it."""
        self.stats.violations += 1
        self._broken[error.instrument_token] = error.stood

    def _between(self, error: RuleViolated) -> Missed:
        stood, came, token = error.stood, error.came, error.instrument_token
        symbol = self._symbol_of(token)
        if stood is not None and came.epoch == stood.epoch and came.position > stood.position + 1:
            first, last = stood.position + 1, came.position - 1
            self.stats.missed += last - first + 1
            return Missed(token, symbol, came.epoch, first, last, last - first + 1, "gone")
        return Missed(token, symbol, came.epoch, None, None, None, "gone")

    def _take_backfill(self, message: _Parsed, events: list[Read]) -> None:
        token, epoch = message["instrument_token"], message["epoch"]
        first, last, recovered, data = message["from"], message["to"], message["recovered"], message["data"]
        symbol = self._symbol_of(token)
        if self._has_ticks:
            stood = self.rule.places.get(token)
            told: list[Read] = []
            self._hold(token, lambda: self.rule.backfill(token, epoch, first, last, recovered, data), told)
            now = self.rule.places.get(token)
            if stood is not None and now is not None and now < stood and not data:
                events.append(Epoch(token, symbol, stood, now, "behind"))
            else:
                events.extend(told)
            if not data and now is not None:
                events.append(Stood(token, now))
        self._live.add(token)
        self.stats.ticks += len(data)
        events.extend([read_tick(tick, symbol, False) for tick in data])

    def _take_evicted(self, message: _Parsed, events: list[Read]) -> None:
        token, epoch = message["instrument_token"], message["epoch"]
        first, last, count = message["from"], message["to"], message["count"]
        if self._has_ticks:
            self._hold(token, lambda: self.rule.evicted(token, epoch, first, last, count), events)
        self.stats.missed += count
        reason: Literal["slow", "gone"] = "slow" if token in self._live else "gone"
        events.append(Missed(token, self._symbol_of(token), epoch, first, last, count, reason))

    def _take_gap(self, message: _Parsed, events: list[Read]) -> None:
        token = message["instrument_token"]
        kind = Gap if message["type"] == "gap" else GapFilled
        events.append(kind(token, self._symbol_of(token), message["from"], message["to"]))

    def _take_candle(self, message: _Parsed, events: list[Read]) -> None:
        events.append(read_candle(message, self._symbol_of(message["instrument_token"])))

    def _take_quote(self, message: _Parsed, events: list[Read]) -> None:
        events.append(read_quote_update(message, self._symbol_of(message["instrument_token"])))

    def _take_state(self, message: _Parsed, events: list[Read]) -> None:
        token = message["instrument_token"]
        events.append(State(token, self._symbol_of(token), message["state"], message["since"]))

    def _take_clock(self, message: _Parsed, events: list[Read]) -> None:
        clock = Clock(message["replay"], message["run"], message["ts"], message["state"])
        if clock.run != self._run:
            if self._run != 0:
                self.rule.restart()
                events.append(Run(clock.replay, clock.run))
            self._run = clock.run
        events.append(clock)
        if clock.state == "failed":
            raise ReplayFailed(clock.replay, "it failed; its status says why")
        self.is_over = clock.state == "ended"


_TAKERS: Mapping[str, Callable[[Reader, _Parsed, list[Read]], None]] = {
    "backfill": Reader._take_backfill,
    "evicted": Reader._take_evicted,
    "gap": Reader._take_gap,
    "gap_filled": Reader._take_gap,
    "candle": Reader._take_candle,
    "quote": Reader._take_quote,
    "state": Reader._take_state,
    "clock": Reader._take_clock,
}
#: What answers something that was asked, or is about the connection.
_CONTROL = frozenset({"subscribed", "unsubscribed", "closing", "error"})
_SILENT = frozenset({"authorized", "pong"})
