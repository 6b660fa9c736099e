"""
Decides what a stream asks of the server, and what its answers mean: which instruments it is to have, from which place,
in messages of the size that the server takes. No network in here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union

from .errors import MessageRefused, Place, SubscriptionRefused, Unsupported
from .events import Answer, read_answer

#: An instrument: its token, or its symbol, ``EXCHANGE:TRADINGSYMBOL``.
Instrument = Union[int, str]
Channel = Literal["tick", "gap", "quote", "candle_1m", "candle_5m", "state"]
Policy = Literal["evict-oldest", "conflate", "pause", "disconnect"]
Since = Mapping[int, Union[Place, Sequence[int]]]
CHANNELS = ("tick", "gap", "quote", "candle_1m", "candle_5m", "state")
POLICIES = ("evict-oldest", "conflate", "pause", "disconnect")

#: Instruments of one message, and so places too, of which the server takes 2,000 in one.
MAX_LISTED = 2_000
#: The server takes 256 KiB.
_MAX_MESSAGE_BYTES = 200_000
_MAX_TOKEN = 2_147_483_647
_MAX_SYMBOL_CHARS = 64
#: Well-formed, and refused for now only.
_TOO_FAST = "too_fast"
_NO_ROOM = frozenset({"server_full", "too_many_tokens"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What every message of a stream says beside its instruments."""

    channels: Sequence[str]
    policy: str | None = None
    capacity: int | None = None
    batch: bool = True
    replay: str | None = None

    def __post_init__(self) -> None:
        if not self.channels:
            raise Unsupported("channels", f"some of {', '.join(CHANNELS)}", list(self.channels))
        for channel in self.channels:
            one_of("channels", channel, CHANNELS)
        if self.policy is not None:
            one_of("policy", self.policy, POLICIES)
        if self.capacity is not None and (not is_whole(self.capacity) or self.capacity < 1):
            raise Unsupported("capacity", "a number of ticks from 1", self.capacity)

    @property
    def has_ticks(self) -> bool:
        return "tick" in self.channels


@dataclass(slots=True)
class Want:
    """An instrument that the stream is to have."""

    key: Instrument
    backfill: int
    #: Known once the server has answered.
    token: int | None = None

    @property
    def symbol(self) -> str | None:
        return self.key if isinstance(self.key, str) else None


@dataclass(slots=True, eq=False)
class _Call:
    """Somebody who waits until every instrument of a list is answered."""

    open: set[Instrument]
    future: asyncio.Future[list[Answer]]
    answers: list[Answer] = field(default_factory=list)
    refused: dict[Instrument, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Leaving:
    """Somebody who waits until the server has answered an unsubscription."""

    tokens: list[int]
    future: asyncio.Future[list[int]]


class Asking:
    """The instruments of one stream, over all its connections; ``places`` are where they stand, kept by the rule."""

    def __init__(self, asked: Asked, places: dict[int, Place], *, tells_refusals: bool) -> None:
        self._asked = asked
        self._places = places
        self.tells_refusals = tells_refusals
        self._wants: dict[Instrument, Want] = {}
        self.by_token: dict[int, Want] = {}
        #: Instruments of the messages that are not answered yet, by the message's id.
        self._unanswered: dict[object, list[Instrument]] = {}
        self._calls: list[_Call] = []
        self._leaving: dict[object, _Leaving] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._wants)

    def symbol_of(self, token: int) -> str | None:
        want = self.by_token.get(token)
        return want.symbol if want is not None else None

    # What is wanted ---------------------------------------------------------------------------------------------

    def want(self, keys: Sequence[Instrument], since: Mapping[int, Place], backfill: int) -> list[Want]:
        """Takes instruments in, each with its place if it has one; answers those that are new."""
        if not is_whole(backfill) or backfill < 0:
            raise Unsupported("backfill", "a number of ticks", backfill)
        if (since or backfill) and not self._asked.has_ticks:
            raise Unsupported("channels", '"tick" with since and backfill', list(self._asked.channels))
        if len(since) > MAX_LISTED and any(isinstance(key, str) for key in keys):
            raise Unsupported(
                "since", f"at most {MAX_LISTED} places beside symbols (name tokens instead)", f"{len(since)} places"
            )
        fresh = [Want(key, backfill) for key in keys if key not in self._wants and key not in self.by_token]
        for want in fresh:
            self._wants[want.key] = want
        self._places.update(since)
        return fresh

    def call(self, keys: Iterable[Instrument]) -> asyncio.Future[list[Answer]]:
        """Answers once the server has answered for all of them."""
        call = _Call(set(keys), asyncio.get_running_loop().create_future())
        self._calls.append(call)
        if not call.open:
            self._close(call)
        return call.future

    def call_all(self) -> asyncio.Future[list[Answer]]:
        """Answers once the server has answered for all that is wanted now."""
        return self.call(self._wants)

    # Messages ---------------------------------------------------------------------------------------------------

    def connected(self) -> list[str]:
        """A connection is open: the messages that ask for everything, each instrument from where it stands."""
        self._unanswered.clear()
        for leaving in list(self._leaving.values()):
            # This connection is not subscribed to them.
            self._left(leaving, list(self.by_token))
        self._leaving.clear()
        return self.subscriptions(list(self._wants.values()))

    def subscriptions(self, wants: Sequence[Want]) -> list[str]:
        """The messages that ask for some of the instruments."""
        messages: list[str] = []
        by_token = [(want.key if isinstance(want.key, int) else want.token, want) for want in wants]
        for is_token in (True, False):
            entries = [entry for entry in by_token if (entry[0] is not None) is is_token]
            for backfill in dict.fromkeys(want.backfill for _, want in entries):
                same = [want for _, want in entries if want.backfill == backfill]
                for first in range(0, len(same), MAX_LISTED):
                    self._subscription(same[first : first + MAX_LISTED], is_token, backfill, messages)
        return messages

    def again(self, keys: Iterable[Instrument]) -> list[str]:
        """The messages that ask once more for those of them that are still wanted."""
        return self.subscriptions([self._wants[key] for key in keys if key in self._wants])

    def _subscription(self, wants: Sequence[Want], is_token: bool, backfill: int, messages: list[str]) -> None:
        asked, places = self._asked, self._places
        identity = self._next_id()
        message: dict[str, Any] = {"action": "subscribe", "id": identity, "channels": list(asked.channels)}
        if is_token:
            tokens = [want.key if isinstance(want.key, int) else want.token for want in wants]
            message["tokens"] = tokens
            since = {str(token): places[token] for token in tokens if token is not None and token in places}
        else:
            message["symbols"] = [want.key for want in wants]
            # Whose places they are the server knows.
            since = {str(token): place for token, place in places.items() if token not in self.by_token}
        if asked.has_ticks and since:
            message["since"] = since
        if asked.has_ticks and backfill > 0:
            message["backfill"] = backfill
        if asked.policy is not None:
            message["policy"] = asked.policy
        if asked.capacity is not None:
            message["capacity"] = asked.capacity
        if asked.batch:
            message["batch"] = True
        if asked.replay is not None:
            message["replay"] = asked.replay
        text = _text(message)
        if len(wants) > 1 and len(text.encode()) > _MAX_MESSAGE_BYTES:
            half = len(wants) // 2
            self._subscription(wants[:half], is_token, backfill, messages)
            self._subscription(wants[half:], is_token, backfill, messages)
            return
        self._unanswered[identity] = [want.key for want in wants]
        messages.append(text)

    def leave(self, keys: Sequence[Instrument], is_connected: bool) -> tuple[list[str], asyncio.Future[list[int]]]:
        """The messages that let go of instruments, and what answers the tokens that went once the server has."""
        gone = [want for key in keys if (want := self._find(key)) is not None]
        for want in gone:
            self._wants.pop(want.key, None)
        tokens = [want.token for want in gone if want.token is not None]
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        leaving = _Leaving(tokens, future)
        if not tokens or not is_connected:
            self._left(leaving, [])
            return [], future
        messages: list[str] = []
        for first in range(0, len(tokens), MAX_LISTED):
            some = tokens[first : first + MAX_LISTED]
            identity = self._next_id()
            messages.append(_text({"action": "unsubscribe", "tokens": some, "id": identity}))
        # Answers come in order: the last of them is all of them.
        self._leaving[self._last_id] = leaving
        return messages, future

    def _find(self, key: Instrument) -> Want | None:
        want = self._wants.get(key)
        return want if want is not None or isinstance(key, str) else self.by_token.get(key)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    # Answers ----------------------------------------------------------------------------------------------------

    def subscribed(self, message: Mapping[str, Any]) -> Refusals:
        """Takes the answer to a subscription."""
        asked = self._unanswered.pop(message.get("id"), [])
        again: dict[Instrument, str] = {}
        lost: dict[Instrument, str] = {}
        for entry in message["tokens"]:
            answer = read_answer(entry)
            key = self._key_of(answer)
            token = answer.instrument_token
            if key is None:
                continue
            if answer.accepted or (answer.reason == "already_subscribed" and token in self.by_token):
                want = self._wants[key]
                if token is not None:
                    want.token = token
                    self.by_token.setdefault(token, want)
                self._settle(key, answer)
            elif answer.reason in _NO_ROOM and not self._is_awaited(key):
                again[key] = answer.reason or ""
            else:
                lost.update(self._refuse(key, answer))
        for key in asked:
            # What was named twice in a message is answered once.
            if key in self.by_token:
                self._settle(key, None)
        return Refusals(again, lost)

    def _refuse(self, key: Instrument, answer: Answer) -> Mapping[Instrument, str]:
        """An instrument is not to be had: whoever waits for it is told; where nobody does, the stream had it before."""
        reason = answer.reason or "no reason given"
        want = self._wants.pop(key)
        if want.token is not None:
            self._forget(want.token)
        if self._is_awaited(key):
            self._settle(key, answer, reason)
            return {key: reason} if self.tells_refusals else {}
        return {key: reason}

    def unsubscribed(self, message: Mapping[str, Any]) -> list[int]:
        """Takes the answer to an unsubscription; answers the tokens that are no longer subscribed."""
        leaving = self._leaving.pop(message.get("id"), None)
        gone = [entry["instrument_token"] for entry in message["tokens"]]
        for token in gone:
            self._forget(token)
        if leaving is not None:
            gone += leaving.tokens
            self._left(leaving, list(message["held"]))
        return gone

    def refused(self, code: str, text: str, identity: object) -> Refusals | None:
        """
        Takes an error that answers a message. None where no message waits for it; raises where it is the end of
        what the stream had.
        """
        error = MessageRefused(code, text)
        leaving = self._leaving.pop(identity, None)
        if leaving is not None:
            if not leaving.future.done():
                leaving.future.set_exception(error)
            return Refusals({}, {})
        keys = self._unanswered.pop(identity, None)
        if keys is None:
            return None
        if code == _TOO_FAST:
            return Refusals(dict.fromkeys(keys, code), {})
        waiting = [call for call in self._calls if call.open.intersection(keys)]
        if not waiting:
            raise error
        for key in keys:
            want = self._wants.get(key)
            if want is not None and want.token is None:
                del self._wants[key]
        for call in waiting:
            self._calls.remove(call)
            if not call.future.done():
                call.future.set_exception(error)
        return Refusals({}, {})

    def end(self, error: Exception) -> None:
        """Whoever waits for an answer gets none."""
        for call in self._calls:
            _fail(call.future, error)
        for leaving in self._leaving.values():
            _fail(leaving.future, error)
        self._calls.clear()
        self._leaving.clear()

    def _settle(self, key: Instrument, answer: Answer | None, refused: str | None = None) -> None:
        for call in list(self._calls):
            if key not in call.open:
                continue
            call.open.discard(key)
            if answer is not None:
                call.answers.append(answer)
            if refused is not None:
                call.refused[key] = refused
            if not call.open:
                self._close(call)

    def _close(self, call: _Call) -> None:
        self._calls.remove(call)
        if call.future.done():
            return
        # A stream of nothing is nobody's wish, whatever else may be told.
        is_all = bool(call.refused) and not any(answer.accepted for answer in call.answers)
        if call.refused and (is_all or not self.tells_refusals):
            call.future.set_exception(SubscriptionRefused(call.refused))
        else:
            call.future.set_result(call.answers)

    def _is_awaited(self, key: Instrument) -> bool:
        return any(key in call.open for call in self._calls)

    def _key_of(self, answer: Answer) -> Instrument | None:
        """By what the instrument of an answer was asked for."""
        if answer.symbol is not None and answer.symbol in self._wants:
            return answer.symbol
        token = answer.instrument_token
        if token is None:
            return None
        if token in self._wants:
            return token
        want = self.by_token.get(token)
        return want.key if want is not None and want.key in self._wants else None

    def _forget(self, token: int) -> None:
        self.by_token.pop(token, None)

    def _left(self, leaving: _Leaving, held: Sequence[int]) -> None:
        for token in leaving.tokens:
            self._forget(token)
        if not leaving.future.done():
            leaving.future.set_result(leaving.tokens)


@dataclass(frozen=True, slots=True)
class Refusals:
    """What an answer leaves to be done: ask once more for ``again``; ``lost`` is not to be had any more."""

    again: Mapping[Instrument, str]
    lost: Mapping[Instrument, str]


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Not everybody who could ask does.
        future.exception()


def one_of(field_name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise Unsupported(field_name, f"one of {', '.join(known)}", value)
    return value


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def checked_instruments(instruments: Iterable[Instrument] | Instrument) -> list[Instrument]:
    """Tokens and symbols, each once; a single one is a list of one."""
    keys: dict[Instrument, None] = {}
    for key in [instruments] if isinstance(instruments, (int, str)) else instruments:
        is_symbol = isinstance(key, str) and 0 < len(key) <= _MAX_SYMBOL_CHARS
        if not is_symbol and not (is_whole(key) and 1 <= int(key) <= _MAX_TOKEN):
            raise Unsupported("instruments", "tokens, or symbols such as NSE:RELIANCE", key)
        keys[key] = None
    return list(keys)


def checked_since(since: Since | None) -> dict[int, Place]:
    places: dict[int, Place] = {}
    for token, place in (since or {}).items():
        try:
            epoch, position = place
            places[int(token)] = Place(int(epoch), int(position))
        except (TypeError, ValueError):
            raise Unsupported("since", f"(epoch, position) of {token!r}", place) from None
    return places
