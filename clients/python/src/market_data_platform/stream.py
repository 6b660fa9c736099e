"""
Decides how a live stream is kept: one WebSocket at a time, opened again whenever it breaks, every instrument going on
from where it stands; a bounded number of events between the socket and the consumer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any, Generic, Literal, TypeVar, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .asking import Asked, Asking, Instrument, Since, checked_instruments, checked_since
from .buffer import Buffer
from .errors import (
    ClientClosed,
    ConnectionFailed,
    Forbidden,
    MarketDataError,
    MessageRefused,
    Place,
    ProtocolFailed,
    RequestFailed,
    RuleViolated,
    SubscriptionRefused,
    Unauthorized,
)
from .events import Answer, Closed, Closing, Connected, Disconnected, Message, Missed, Run, Stood, Tick, read_places
from .link import MayPass, Server, open_websocket
from .listeners import Listeners
from .pace import Pace
from .reading import Read, Reader, Stats
from .reconnect import failures_of

#: What stands between the socket and a slow consumer, in events.
DEFAULT_BUFFER = 10_000
#: A connection that lasted so long was a good one: the next failure is the first again. Seconds, as all below.
_GOOD_AFTER = 5.0
#: What there was no room for, or what came too fast, is asked for again.
_ASK_AGAIN = 5.0
#: The event loop gets a turn after so many events that were there already.
_TURN = 128
#: Missed ticks that no listener is told of are in the log so often at most.
_TELL_EVERY = 10.0

_NORMAL, _ABNORMAL, _POLICY, _TOO_LARGE = 1000, 1006, 1008, 1009
#: Codes of our own, as an endpoint may use them, and as the client in TypeScript does.
_SILENT, _RULE = 4900, 4901
_PING = '{"action":"ping"}'

E = TypeVar("E")
logger = logging.getLogger("market_data_platform")


class Stream(Generic[E]):
    """
    A live stream, iterated over with ``async for``. In ``async with`` it is open, subscribed and answered when the
    block begins, and closed when it ends; without, it opens at the first event and closes when the loop is left.

    Made by :meth:`AsyncClient.ticks` and its like, which say what the options mean.
    """

    def __init__(
        self,
        server: Server,
        listeners: Listeners,
        instruments: Iterable[Instrument],
        asked: Asked,
        *,
        kind: type[E] | None,
        since: Since | None = None,
        backfill: int = 0,
        buffer_size: int = DEFAULT_BUFFER,
        when_full: Literal["pause", "error"] = "pause",
        on_violation: Literal["resume", "raise"] = "resume",
        strict: bool = True,
        is_queued: bool = True,
        on_answered: Callable[[], None] | None = None,
        on_close: Callable[[Stream[Any]], None] | None = None,
    ) -> None:
        self._server = server
        self._listeners = listeners
        self._kind = kind
        self._is_queued = is_queued
        self._on_answered = on_answered
        self._on_close = on_close
        self._raises_violations = on_violation == "raise"
        self._buffer: Buffer[Read] = Buffer(buffer_size, is_strict=when_full == "error")
        self._reader = Reader(
            has_ticks=asked.has_ticks,
            is_replay=asked.replay is not None,
            symbol_of=lambda token: self._asking.symbol_of(token),
            control=self._control,
        )
        self._asking = Asking(asked, self._reader.rule.places, tells_refusals=not strict)
        #: Of what the consumer has been handed; the rule's are of what has come in.
        self._places: dict[int, Place] = {}
        self._ws: ClientConnection | None = None
        self._outbox: asyncio.Queue[str] | None = None
        self._later: set[asyncio.TimerHandle] = set()
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[list[Answer]] | None = None
        self._is_entered = False
        self._is_closed = False
        self._is_ended = False
        self._handed = 0
        self._unauthorized: Unauthorized | None = None
        #: On this connection.
        self._is_answered = False
        self._untold = 0
        self._told_at = float("-inf")
        self._want(instruments, since, backfill)
        if len(self._asking) == 0:
            raise SubscriptionRefused({"instruments": "expected at least one"})

    def __repr__(self) -> str:
        state = "closed" if self._is_over else "connected" if self._ws is not None else "not connected"
        return f"<Stream of {len(self._asking)} instruments at {self._server.url}, {state}>"

    # What an application has of it ------------------------------------------------------------------------------

    def places(self) -> dict[int, Place]:
        """
        Where each instrument stands after the last event that the application was given, by token. Keep it, and give it
        as ``since`` to go on from there later, in another process too.
        """
        return dict(self._places)

    @property
    def missed(self) -> int:
        """Ticks that were told as missed so far, where their number is known."""
        return self._reader.stats.missed

    @property
    def stats(self) -> Stats:
        return self._reader.stats

    @property
    def tokens(self) -> dict[int, Instrument]:
        """The tokens that are subscribed, with what they were asked for by."""
        return {token: want.key for token, want in self._asking.by_token.items()}

    @property
    def is_connected(self) -> bool:
        return self._ws is not None

    async def accepted(self) -> list[Answer]:
        """What became of each instrument, once the server has answered."""
        self._start()
        assert self._first is not None
        return await asyncio.shield(self._first)

    async def add(
        self, instruments: Iterable[Instrument] | Instrument, *, since: Since | None = None, backfill: int = 0
    ) -> list[Answer]:
        """Subscribes more instruments on this stream, and answers once the server has."""
        keys = self._want(instruments, since, backfill)
        self._start()
        call = self._asking.call(keys)
        self._say_all(self._asking.again(keys))
        return await call

    async def remove(self, instruments: Iterable[Instrument] | Instrument) -> list[int]:
        """
        Lets go of instruments, and answers their tokens once the server has answered: from then on no event of them
        comes in. Those that came before are still handed out.
        """
        self._check_open()
        messages, left = self._asking.leave(checked_instruments(instruments), self._ws is not None)
        self._say_all(messages)
        tokens = await left
        for token in tokens:
            self._reader.forget(token)
        return tokens

    async def close(self) -> None:
        """Ends the stream; events that are here already are still handed out."""
        if self._is_closed:
            return
        self._is_closed = True
        self._end(None)
        task = self._task
        if task is not None and task is not asyncio.current_task():
            # Not cancelled with whoever waits here: it has a connection to close.
            await asyncio.wait({task})

    async def __aenter__(self) -> Stream[E]:
        self._check_open()
        self._is_entered = True
        try:
            await self.accepted()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[E]:
        return self if self._is_entered else self._until_left()

    async def _until_left(self) -> AsyncIterator[E]:
        try:
            while True:
                try:
                    event = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield event
        finally:
            await self.close()

    async def __anext__(self) -> E:
        while True:
            event = self._buffer.pop()
            if event is None:
                self._start()
                if not await self._buffer.wait():
                    raise StopAsyncIteration
                continue
            self._handed += 1
            if self._handed % _TURN == 0:
                # Else a consumer that never waits keeps the socket from being read, and its pings from being answered.
                await asyncio.sleep(0)
            if self.hand(event):
                return cast(E, event)

    async def take(self, most: int) -> list[Read]:
        """
        Up to ``most`` events that are here, at least one; none once the stream has ended. They do not count as given to
        the application: :meth:`hand` says so of each, for who iterates from another thread.
        """
        self._start()
        if not await self._buffer.wait():
            return []
        events: list[Read] = []
        while len(events) < most and (event := self._buffer.pop()) is not None:
            events.append(event)
        return events

    def hand(self, event: Read) -> bool:
        """Counts an event as given to the application; whether it is one that this stream is iterated for."""
        kind = type(event)
        if kind is Tick:
            tick = cast(Tick, event)
            self._places[tick.instrument_token] = Place(tick.epoch, tick.position)
        elif isinstance(event, Stood):
            self._places[event.instrument_token] = event.place
            return False
        elif isinstance(event, Missed):
            if event.to is not None:
                self._places[event.instrument_token] = Place(event.epoch, event.to)
        elif isinstance(event, Run):
            self._places.clear()
        return self._kind is None or kind is self._kind

    # What it asks for -------------------------------------------------------------------------------------------

    def _want(
        self, instruments: Iterable[Instrument] | Instrument, since: Since | None, backfill: int
    ) -> list[Instrument]:
        self._check_open()
        places = checked_since(since)
        fresh = self._asking.want(checked_instruments(instruments), places, backfill)
        self._places.update(places)
        return [want.key for want in fresh]

    def _say_all(self, messages: Iterable[str]) -> None:
        """Puts messages behind the others of this connection; without one, the next says it all anew."""
        if self._outbox is not None:
            for message in messages:
                self._outbox.put_nowait(message)

    def _ask_again(self, keys: Collection[Instrument]) -> None:
        """A while later, on this connection if it is still there."""
        outbox = self._outbox

        def ask() -> None:
            self._later.discard(handle)
            if self._outbox is outbox:
                self._say_all(self._asking.again(keys))

        handle = asyncio.get_running_loop().call_later(_ASK_AGAIN, ask)
        self._later.add(handle)

    def _control(self, message: Mapping[str, Any]) -> None:
        """What answers something that was asked, or is about the connection."""
        kind = message["type"]
        if kind == "subscribed":
            self._is_answered = True
            refusals = self._asking.subscribed(message)
        elif kind == "unsubscribed":
            for token in self._asking.unsubscribed(message):
                self._reader.forget(token)
            return
        elif kind == "closing":
            since = read_places(message["since"])
            self._reader.stands(since, self._asking.by_token)
            self._listeners.tell("closing", Closing(message["code"], message["reason"], since))
            return
        else:
            code, text = message["code"], message["message"]
            if code == "unauthorized":
                # The close frame comes next.
                self._unauthorized = _refused_key(text)
                return
            answered = self._asking.refused(code, text, message.get("id"))
            if answered is None:
                self._listeners.tell_error(MessageRefused(code, text))
                return
            refusals = answered
        if refusals.again:
            self._listeners.tell_error(SubscriptionRefused(refusals.again))
            self._ask_again(refusals.again)
        if refusals.lost:
            # Asked for by nobody who waits: the stream had it, and was to have it again.
            error = SubscriptionRefused(refusals.lost)
            if not self._asking.tells_refusals or len(self._asking) == 0:
                raise error
            self._listeners.tell_error(error)

    # Its life ---------------------------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._buffer.is_closed

    def _check_open(self) -> None:
        if self._is_over:
            raise ClientClosed("the stream")

    def _start(self) -> None:
        if self._first is not None:
            return
        self._check_open()
        self._first = self._asking.call_all()
        self._first.add_done_callback(self._answered)
        self._task = asyncio.get_running_loop().create_task(self._live(), name="market-data-platform stream")

    def _answered(self, first: asyncio.Future[list[Answer]]) -> None:
        """The first subscription is answered: one that is refused is the end of the stream."""
        error = None if first.cancelled() else first.exception()
        if error is not None:
            self._end(error)
        elif self._on_answered is not None and not self._is_over:
            self._on_answered()

    def fail(self, error: BaseException) -> None:
        """Ends the stream with an error of its surroundings."""
        self._end(error)

    async def _live(self) -> None:
        try:
            await self._keep()
            self._end(None)
        except asyncio.CancelledError:
            raise
        except MarketDataError as error:
            self._end(error)
        except Exception as error:
            logger.exception("a stream ended by a defect of its own")
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Nothing more comes; whoever waits for an answer is told why."""
        if self._is_ended:
            return
        self._is_ended = True
        self._buffer.close(error)
        error = self._buffer.error
        self._asking.end(error if isinstance(error, MarketDataError) else ClientClosed("the stream"))
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self)
        self._listeners.tell("closed", Closed(error))
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _keep(self) -> None:
        """Connects, and connects again, until the stream is over."""
        policy = self._server.reconnect
        key = self._server.key
        failures = 0
        tries = 0
        is_anew = False
        lost = time.monotonic()
        while not self._is_over:
            retry_after: float | None = None
            tries += 1
            try:
                ws = await open_websocket(self._server, None if key is None else await key.get(anew=True))
            except MayPass as error:
                code, reason, retry_after = _ABNORMAL, str(error), error.retry_after
            except Unauthorized as error:
                # Whoever knows the key may know a newer one; once.
                if key is None or not key.may_change or is_anew:
                    raise _refused_key(error.message) from None
                is_anew = True
                continue
            except (RequestFailed, ProtocolFailed) as error:
                # What stands in for a server that is being replaced says all sorts of things.
                if self.stats.connects == 0 or isinstance(error, Forbidden):
                    raise
                code, reason = _ABNORMAL, str(error)
            else:
                began = time.monotonic()
                code, reason = await self._session(ws, tries)
                if self._is_over:
                    return
                lost = time.monotonic()
                if self._unauthorized is not None:
                    refused, self._unauthorized = self._unauthorized, None
                    if key is None or not key.may_change or (is_anew and not self._is_answered):
                        raise refused
                    is_anew = True
                    continue
                is_anew = False
                tries = 0
                if lost - began >= _GOOD_AFTER:
                    failures = 0
                if code in (_POLICY, _TOO_LARGE):
                    self._listeners.tell_error(MessageRefused(f"closed with {code}", reason))
            delay = policy.delay(failures_of(failures, code), retry_after)
            failures += 1
            limit = policy.first_for if self.stats.connects == 0 else policy.lost_for
            if limit is not None and time.monotonic() + delay - lost > limit:
                raise ConnectionFailed(self._server.ws_url, max(tries, 1), limit, reason)
            logger.warning("%s: %d %s; trying again in %.1f s", self._server.ws_url, code, reason, delay)
            self._listeners.tell("disconnected", Disconnected(code, reason, delay))
            await asyncio.sleep(delay)

    async def _session(self, ws: ClientConnection, tries: int) -> tuple[int, str]:
        """One connection, to its end; answers its close code, and why."""
        reader, stats = self._reader, self._reader.stats
        self._ws = ws
        self._outbox = asyncio.Queue()
        self._is_answered = False
        stats.connects += 1
        reader.connected()
        resumed = sum(1 for token in self._asking.by_token if token in reader.rule.places)
        if stats.connects > 1:
            logger.info("%s: connected again, %d instruments go on", self._server.ws_url, resumed)
        self._listeners.tell("connected", Connected(tries, resumed))
        self._say_all(self._asking.connected())
        silent: list[str] = []
        tasks = [asyncio.create_task(self._say(ws, self._outbox)), asyncio.create_task(self._beat(ws, silent))]
        tap = self._tap if "message" in self._listeners else None
        try:
            while not reader.is_over and not self._buffer.is_closed:
                raw = await ws.recv()
                stats.frames += 1
                events: list[Read] = []
                try:
                    reader.read(raw, events, tap)
                finally:
                    # What came before a message that is wrong is handed out all the same.
                    if events:
                        await self._hand_in(events)
            self._end(None)
            return _NORMAL, "the stream is over"
        except RuleViolated as violation:
            reader.violated(violation)
            if self._raises_violations:
                raise
            self._listeners.tell_error(violation)
            return _RULE, "the rule was broken; going on from the last right place"
        except ConnectionClosed as closed:
            if silent:
                return _SILENT, silent[0]
            frame = closed.rcvd or closed.sent
            if frame is None:
                return _ABNORMAL, "the connection was lost"
            return frame.code, frame.reason or f"closed with {frame.code}"
        finally:
            self._ws = None
            self._outbox = None
            for handle in self._later:
                handle.cancel()
            self._later.clear()
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await _goodbye(ws, self._buffer.is_full)

    def _tap(self, message: Mapping[str, Any]) -> None:
        self._listeners.tell("message", message)

    async def _hand_in(self, events: list[Read]) -> None:
        """Tells the listeners, and puts what is iterated for, or moves a place, behind what waits."""
        listeners = self._listeners
        if listeners.are_any:
            for event in events:
                if not isinstance(event, Stood):
                    listeners.tell(event.type, event)
        if self._kind is not None and self._kind is not Missed and "missed" not in listeners:
            for event in events:
                if isinstance(event, Missed):
                    self._log_missed(event)
        if self._is_queued:
            await self._buffer.put(events if self._kind is None else [one for one in events if self._matters(one)])
        else:
            for event in events:
                self.hand(event)

    def _matters(self, event: Read) -> bool:
        return type(event) is self._kind or isinstance(event, (Stood, Missed, Run))

    def _log_missed(self, event: Missed) -> None:
        self._untold += event.count or 0
        now = time.monotonic()
        if now - self._told_at < _TELL_EVERY:
            return
        self._told_at = now
        logger.warning(
            "%d ticks missed, the last of instrument %d up to %d/%s (%s); listen to 'missed' to be told each",
            self._untold,
            event.instrument_token,
            event.epoch,
            event.to,
            event.reason,
        )
        self._untold = 0

    async def _say(self, ws: ClientConnection, outbox: asyncio.Queue[str]) -> None:
        pace = Pace()
        try:
            while True:
                text = await outbox.get()
                await pace.wait(len(text.encode()))
                await ws.send(text)
        except ConnectionClosed:
            # Who reads knows.
            pass

    async def _beat(self, ws: ClientConnection, silent: list[str]) -> None:
        """
        Asks whether the server is still there where it is silent. A consumer that is slow is none of its fault: while
        nothing is read here no answer can come, and a pong that nobody asked for tells the server that this side lives.
        """
        seconds = self._server.heartbeat
        stats = self._reader.stats
        frames = -1
        is_asked = False
        try:
            while True:
                await asyncio.sleep(seconds)
                if self._buffer.is_full:
                    await ws.pong()
                    is_asked = False
                elif stats.frames != frames:
                    frames = stats.frames
                    is_asked = False
                elif not is_asked:
                    self._say_all([_PING])
                    is_asked = True
                else:
                    silent.append(f"silent for {2 * seconds:g} s")
                    ws.transport.abort()
                    return
        except ConnectionClosed:
            pass


async def _goodbye(ws: ClientConnection, is_paused: bool) -> None:
    """Closes in order where the other side's answer can be read; else cuts the connection off."""
    if is_paused:
        ws.transport.abort()
    closing = asyncio.ensure_future(ws.close())
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        ws.transport.abort()
        raise
    except Exception:
        ws.transport.abort()


def _refused_key(words: str) -> Unauthorized:
    return Unauthorized(f"key: refused: {words}", status=401, tag="Unauthorized")


#: A stream of everything, in the order of the wire.
MessageStream = Stream[Message]
