"""
Decides what a script or a notebook has of a server: the same as a program on asyncio, without ``await``. REST is sent
where it is called; live streams run on a thread of their own, also where an event loop runs already, as in Jupyter.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ssl
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from . import api
from .api import Interval, Query, Speed
from .asking import Channel, Instrument, Policy, Since, checked_instruments
from .async_client import DEFAULT_CHANNELS, RECORDED, AsyncClient, Replay, connect, token_of
from .errors import ClientClosed, MarketDataError, Place
from .events import Answer, Candle, Message, QuoteUpdate, State, Tick
from .http import HttpSender
from .link import Key
from .listeners import Listener
from .models import (
    Bar,
    CalendarDay,
    HistoricalTick,
    ImportReport,
    IngestReport,
    InstrumentInfo,
    Quote,
    ReplayStatus,
)
from .reading import Read, Stats
from .reconnect import Reconnect
from .stream import DEFAULT_BUFFER, Stream
from .tables import INDIA, Recording, Table
from .times import Day, Moment

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
E = TypeVar("E")

#: Events handed from the stream's thread at a time.
_AT_A_TIME = 1_000
#: How often a wait looks whether it was interrupted, seconds: on Windows a lock does not.
_LOOK = 0.5


class _Loop:
    """An event loop on a thread of its own, from the first live stream on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None
        self.is_closed = False

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self.is_closed:
                raise ClientClosed
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run, args=(loop,), name="market-data-platform", daemon=True)
                thread.start()
                self._stop = weakref.finalize(self, loop.call_soon_threadsafe, loop.stop)
                self._loop, self._thread = loop, thread
            return self._loop

    @property
    def is_started(self) -> bool:
        return self._loop is not None

    def run(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Runs something on the loop and waits for it; interrupted, it is cancelled."""
        loop = self._started()
        if threading.current_thread() is self._thread:
            raise MarketDataError("a listener may not wait for its own client")
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            while True:
                try:
                    return future.result(_LOOK)
                except concurrent.futures.TimeoutError:
                    if future.done():
                        return future.result()
                    if self.is_closed:
                        raise ClientClosed from None
                except concurrent.futures.CancelledError:
                    raise ClientClosed from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Ends the loop and its thread; whoever waits for something on it gets :class:`ClientClosed`."""
        with self._lock:
            self.is_closed = True
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


class LiveStream(Generic[E]):
    """A live stream, iterated over with ``for``; ``with`` opens it at once and closes it at the end."""

    def __init__(self, loop: _Loop, make: Callable[[], Stream[E]]) -> None:
        self._loop = loop
        self._here: deque[Read] = deque()

        async def made() -> Stream[E]:
            return make()

        self._stream: Stream[E] = loop.run(made)
        self._is_entered = False

    def __repr__(self) -> str:
        return repr(self._stream)

    def __iter__(self) -> Iterator[E]:
        return self if self._is_entered else self._until_left()

    def _until_left(self) -> Iterator[E]:
        try:
            while True:
                try:
                    event = next(self)
                except StopIteration:
                    return
                yield event
        finally:
            self.close()

    def __next__(self) -> E:
        stream = self._stream
        while True:
            while self._here:
                event = self._here.popleft()
                if stream.hand(event):
                    return cast(E, event)
            try:
                self._here.extend(self._loop.run(lambda: stream.take(_AT_A_TIME)))
            except ClientClosed:
                raise StopIteration from None
            if not self._here:
                raise StopIteration

    def __enter__(self) -> LiveStream[E]:
        self._is_entered = True
        try:
            self.accepted()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accepted(self) -> list[Answer]:
        """What became of each instrument, once the server has answered."""
        return self._loop.run(self._stream.accepted)

    def add(
        self, instruments: Iterable[Instrument] | Instrument, *, since: Since | None = None, backfill: int = 0
    ) -> list[Answer]:
        """Subscribes more instruments on this stream."""
        return self._loop.run(lambda: self._stream.add(instruments, since=since, backfill=backfill))

    def remove(self, instruments: Iterable[Instrument] | Instrument) -> list[int]:
        """Lets go of instruments; answers their tokens."""
        return self._loop.run(lambda: self._stream.remove(instruments))

    def places(self) -> dict[int, Place]:
        """Where each instrument stands after the last event that was iterated over: what ``since`` takes."""
        return self._stream.places()

    @property
    def missed(self) -> int:
        """Ticks that were told as missed so far."""
        return self._stream.missed

    @property
    def stats(self) -> Stats:
        return self._stream.stats

    @property
    def tokens(self) -> dict[int, Instrument]:
        """The tokens that are subscribed, with what they were asked for by."""
        return self._stream.tokens

    def close(self) -> None:
        """Ends the stream; what is here already can still be iterated over."""
        if not self._loop.is_closed:
            self._loop.run(self._stream.close)


class HistoryQuery(Generic[R]):
    """A range of history. ``for`` goes through it page by page; :meth:`all` and :meth:`to_pandas` take it whole."""

    def __init__(self, sender: HttpSender, query: Query[R]) -> None:
        self._sender = sender
        self._query = query

    def pages(self) -> Iterator[Table[R]]:
        """Tables of up to 10,000 rows."""
        query = self._query
        cursor: str | None = None
        had = 0
        while True:
            page = self._sender.send(query.page(cursor, had))
            table = query.table()
            table.extend_rows(page[query.rows])
            had += len(table)
            if len(table) > 0:
                yield table
            cursor = page["next_cursor"]
            if cursor is None or (query.limit is not None and had >= query.limit):
                return

    def __iter__(self) -> Iterator[R]:
        for page in self.pages():
            yield from page

    def all(self) -> Table[R]:
        """All rows, in columns."""
        table = self._query.table()
        for page in self.pages():
            table.extend_table(page)
        return table

    def to_pandas(self, tz: str = INDIA) -> pd.DataFrame:
        """All rows as a DataFrame."""
        return self.all().to_pandas(tz)


class History:
    """
    What is stored. A range is a trading ``day``, or ``start`` and ``end``, half-open; neither: all there is.

    ``as_of``: the day on which a symbol means the instrument.
    """

    def __init__(self, sender: HttpSender) -> None:
        self._sender = sender

    def ticks(
        self,
        instrument: Instrument,
        day: Day | None = None,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int | None = None,
        as_of: Day | None = None,
    ) -> HistoryQuery[HistoricalTick]:
        """Ticks of one instrument, ascending."""
        return HistoryQuery(self._sender, api.ticks(instrument, day, start, end, limit, as_of))

    def candles(
        self,
        instrument: Instrument,
        day: Day | None = None,
        *,
        interval: Interval = "1m",
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int | None = None,
        as_of: Day | None = None,
        fill: Literal["none", "previous"] = "none",
        session: Literal["all", "regular"] = "all",
    ) -> HistoryQuery[Bar]:
        """Bars of one instrument, ascending; ``fill`` and ``session`` as in the server's ``/openapi.json``."""
        query = api.candles(instrument, day, start, end, limit, as_of, interval, fill, session)
        return HistoryQuery(self._sender, query)


class Instruments:
    """What is known of instruments."""

    def __init__(self, sender: HttpSender) -> None:
        self._sender = sender

    def search(
        self,
        query: str,
        *,
        exchange: str | None = None,
        asset_class: str | None = None,
        limit: int | None = None,
        as_of: Day | None = None,
    ) -> list[InstrumentInfo]:
        """Best first. Words in any order, each beginning one of symbol, name, exchange, expiry, strike or kind."""
        return self._sender.send(api.search(query, exchange, asset_class, limit, as_of))

    def get(self, token: int, *, as_of: Day | None = None) -> InstrumentInfo:
        """What its token meant on ``as_of``, or means now; raises :class:`NotFound` where none has it."""
        return self._sender.send(api.instrument(token, as_of))

    def find(self, symbol: str, *, as_of: Day | None = None) -> InstrumentInfo | None:
        """By its symbol, ``EXCHANGE:TRADINGSYMBOL`` or the bare one where only one exchange has it; None: no such."""
        call, pick = api.find(symbol, as_of)
        return pick(self._sender.send(call))

    def import_file(self, csv: str | bytes, *, as_of: Day | None = None) -> ImportReport:
        """Sends the broker's instruments file, of the trading day ``as_of``, today unless given."""
        return self._sender.send(api.import_file(csv, as_of))


class Replays:
    """Replays as things of the server; :meth:`Client.replay` starts one and listens to it."""

    def __init__(self, sender: HttpSender) -> None:
        self._sender = sender

    def create(
        self,
        instruments: Iterable[Instrument] | Instrument | None,
        date: Day,
        *,
        all: bool = False,
        speed: Speed = 1,
        start: str | None = None,
        end: str | None = None,
        source: Literal["store", "archive"] | None = None,
        paused: bool = False,
        loop: bool = False,
        detached: bool = False,
    ) -> ReplayStatus:
        """Starts one; ``start`` and ``end`` are times of that day in India, such as ``09:15``."""
        request = api.replay_request(
            instruments,
            date,
            all=all,
            speed=speed,
            start=start,
            end=end,
            source=source,
            paused=paused,
            loop=loop,
            detached=detached,
        )
        return self._sender.send(api.create_replay(request))

    def list(self) -> list[ReplayStatus]:
        """Newest first."""
        return self._sender.send(api.list_replays())

    def get(self, id: str) -> ReplayStatus:
        return self._sender.send(api.get_replay(id))

    def change(
        self,
        id: str,
        *,
        state: Literal["paused", "running"] | None = None,
        speed: Speed | None = None,
        seek: Moment | None = None,
        step: Mapping[str, Any] | None = None,
    ) -> ReplayStatus:
        """Pauses, runs on, changes the speed, goes elsewhere, or takes a step."""
        return self._sender.send(api.change_replay(id, state=state, speed=speed, seek=seek, step=step))

    def delete(self, id: str) -> None:
        """Ends one; asking again changes nothing."""
        self._sender.send(api.delete_replay(id))


class _LiveStreams:
    """What opens live streams on the thread of a client: the market's, or those of one replay."""

    _loop: _Loop

    def _source(self) -> AsyncClient | Replay:
        raise NotImplementedError

    def ticks(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        *,
        backfill: int = 0,
        since: Since | None = None,
        policy: Policy | None = None,
        capacity: int | None = None,
        buffer_size: int | None = None,
        when_full: Literal["pause", "error"] | None = None,
        strict: bool | None = None,
    ) -> LiveStream[Tick]:
        """Live ticks; the options are those of :meth:`AsyncClient.ticks`."""
        source = self._source()
        return LiveStream(
            self._loop,
            lambda: source.ticks(
                instruments,
                backfill=backfill,
                since=since,
                policy=policy,
                capacity=capacity,
                buffer_size=buffer_size,
                when_full=when_full,
                strict=strict,
            ),
        )

    def candles(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        interval: Literal["1m", "5m"] = "1m",
        *,
        policy: Policy | None = None,
        capacity: int | None = None,
        buffer_size: int | None = None,
        when_full: Literal["pause", "error"] | None = None,
        strict: bool | None = None,
    ) -> LiveStream[Candle]:
        """Live bars: the one under way at once, and each again whenever it has changed. Older ones: ``history``."""
        source = self._source()
        return LiveStream(
            self._loop,
            lambda: source.candles(
                instruments,
                interval,
                policy=policy,
                capacity=capacity,
                buffer_size=buffer_size,
                when_full=when_full,
                strict=strict,
            ),
        )

    def quote_updates(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        *,
        policy: Policy | None = None,
        capacity: int | None = None,
        buffer_size: int | None = None,
        when_full: Literal["pause", "error"] | None = None,
        strict: bool | None = None,
    ) -> LiveStream[QuoteUpdate]:
        """
        What is known of book and day: the quote there is at once, then newer ones in their order. A slow reader is
        behind by what waits for it here, up to ``buffer_size`` events; only of what the server could not hand over
        does it send the newest of each instrument alone.
        """
        source = self._source()
        return LiveStream(
            self._loop,
            lambda: source.quote_updates(
                instruments,
                policy=policy,
                capacity=capacity,
                buffer_size=buffer_size,
                when_full=when_full,
                strict=strict,
            ),
        )

    def states(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        *,
        buffer_size: int | None = None,
        strict: bool | None = None,
    ) -> LiveStream[State]:
        """Whether instruments are live, stale or closed, now and whenever it changes."""
        source = self._source()
        return LiveStream(self._loop, lambda: source.states(instruments, buffer_size=buffer_size, strict=strict))

    def messages(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        *,
        channels: Sequence[Channel] = DEFAULT_CHANNELS,
        backfill: int = 0,
        since: Since | None = None,
        policy: Policy | None = None,
        capacity: int | None = None,
        buffer_size: int | None = None,
        when_full: Literal["pause", "error"] | None = None,
        strict: bool | None = None,
    ) -> LiveStream[Message]:
        """Everything in the order of the wire; the options are those of :meth:`AsyncClient.messages`."""
        source = self._source()
        return LiveStream(
            self._loop,
            lambda: source.messages(
                instruments,
                channels=channels,
                backfill=backfill,
                since=since,
                policy=policy,
                capacity=capacity,
                buffer_size=buffer_size,
                when_full=when_full,
                strict=strict,
            ),
        )

    def subscribe(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        *,
        channels: Sequence[Channel] = DEFAULT_CHANNELS,
        backfill: int = 0,
        since: Since | None = None,
        policy: Policy | None = None,
        capacity: int | None = None,
        strict: bool | None = None,
    ) -> LiveStream[Message]:
        """For listeners alone, which are called on the stream's thread. Use it in ``with``."""
        source = self._source()
        return LiveStream(
            self._loop,
            lambda: source.subscribe(
                instruments,
                channels=channels,
                backfill=backfill,
                since=since,
                policy=policy,
                capacity=capacity,
                strict=strict,
            ),
        )

    def record(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        *,
        seconds: float | None = None,
        count: int | None = None,
        channel: Literal["tick", "quote", "candle_1m", "candle_5m"] = "tick",
        backfill: int = 0,
        limit: int = RECORDED,
        policy: Policy | None = None,
    ) -> Recording[Any]:
        """Live ticks, candles or quotes for some ``seconds`` or until ``count`` came; the newest ``limit`` are kept."""
        source = self._source()
        return self._loop.run(
            lambda: source.record(
                instruments,
                seconds=seconds,
                count=count,
                channel=channel,
                backfill=backfill,
                limit=limit,
                policy=policy,
            )
        )

    def on(self, event: str, listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` with each event of this type, on the stream's thread; see :meth:`AsyncClient.on`."""
        return self._source().on(event, listener)

    def once(self, event: str, listener: Listener) -> Callable[[], None]:
        """Like :meth:`on`, for the first one only."""
        return self._source().once(event, listener)

    def off(self, event: str, listener: Listener) -> None:
        """Takes a listener off."""
        self._source().off(event, listener)


class LiveReplay(_LiveStreams):
    """A stored day, played into streams of its own: :class:`Replay` without ``await``."""

    def __init__(self, loop: _Loop, replay: Replay) -> None:
        self._loop = loop
        self._replay = replay

    def _source(self) -> AsyncClient | Replay:
        return self._replay

    @property
    def id(self) -> str:
        """The server's name of it."""
        return self._replay.id

    def start(self) -> LiveReplay:
        """Has it made ready, paused; ``with`` does."""
        self._loop.run(self._replay.start)
        return self

    def __enter__(self) -> LiveReplay:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> ReplayStatus:
        """How far it has come."""
        return self._loop.run(self._replay.status)

    def pause(self) -> ReplayStatus:
        """Stands still where it is."""
        return self._loop.run(self._replay.pause)

    def resume(self) -> ReplayStatus:
        """Runs, or runs on."""
        return self._loop.run(self._replay.resume)

    def speed(self, speed: Speed) -> ReplayStatus:
        """Times the market's own pace from here on; ``inf``: as fast as it goes."""
        return self._loop.run(lambda: self._replay.speed(speed))

    def seek(self, moment: Moment) -> ReplayStatus:
        """
        Goes to a moment of the day, or to a time of it in IST such as ``"09:20"``; its streams are told of a new
        ``run``, which begins with the first tick there. Paused, it stays so.
        """
        return self._loop.run(lambda: self._replay.seek(moment))

    def step(self, *, ticks: int | None = None, bars: int | None = None, interval: Interval = "1m") -> ReplayStatus:
        """
        Goes on at once by so many ticks, or to the end of so many bars that have ticks, and is paused there, also where
        it ran; a step that takes long is answered while it is still ``running``.
        """
        return self._loop.run(lambda: self._replay.step(ticks=ticks, bars=bars, interval=interval))

    def close(self) -> None:
        """Ends its streams, and the replay with them unless it is detached."""
        if not self._loop.is_closed:
            self._loop.run(self._replay.close)


class Client(_LiveStreams):
    """
    A server, for a script or a notebook; the options are those of :func:`connect`.

    >>> client = Client("http://127.0.0.1:8080")
    >>> client.history.candles("NSE:RELIANCE", "2026-01-15", interval="5m").to_pandas()
    """

    def __init__(
        self,
        url: str,
        key: Key | None = None,
        *,
        policy: Policy | None = None,
        capacity: int | None = None,
        batch: bool = True,
        buffer_size: int = DEFAULT_BUFFER,
        when_full: Literal["pause", "error"] = "pause",
        on_violation: Literal["resume", "raise"] = "resume",
        strict: bool = True,
        reconnect: Reconnect | None = None,
        heartbeat: float = 10.0,
        timeout: float = 30.0,
        retries: int = 3,
        compression: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._live = connect(
            url,
            key=key,
            policy=policy,
            capacity=capacity,
            batch=batch,
            buffer_size=buffer_size,
            when_full=when_full,
            on_violation=on_violation,
            strict=strict,
            reconnect=reconnect,
            heartbeat=heartbeat,
            timeout=timeout,
            retries=retries,
            compression=compression,
            ssl_context=ssl_context,
        )
        self._loop = _Loop()
        self._sender = HttpSender(self._live.server, timeout, retries)
        self._is_closed = False
        self.history = History(self._sender)
        self.instruments = Instruments(self._sender)
        self.replays = Replays(self._sender)

    def __repr__(self) -> str:
        return f"<Client of {self._live.url}>"

    @property
    def url(self) -> str:
        return self._live.url

    def _source(self) -> AsyncClient | Replay:
        if self._is_closed:
            raise ClientClosed
        return self._live

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every stream and replay of it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._loop.is_started:
            try:
                self._loop.run(self._live.close)
            finally:
                self._loop.close()
        self._sender.close()

    def quotes(self, instruments: Iterable[Instrument] | Instrument) -> list[Quote]:
        """The last tick and the day so far of each, in the order asked. A symbol costs a look-up."""
        keys = checked_instruments(instruments)
        tokens = [key if isinstance(key, int) else token_of(key, self.instruments.find(key)) for key in keys]
        return [quote for call in api.quotes(tokens) for quote in self._sender.send(call)]

    def calendar(self, exchange: str, date: Day) -> CalendarDay:
        """The trading phases of a day, or why there are none."""
        return self._sender.send(api.calendar(exchange, date))

    def ingest(self, ticks: Iterable[Mapping[str, Any]]) -> IngestReport:
        """Sends raw ticks, mappings as the server's ``/openapi.json`` has them; sent twice they add no row."""
        return api.sum_of([self._sender.send(call) for call in api.ingest(ticks)])

    def replay(
        self,
        instruments: Iterable[Instrument] | Instrument | None,
        date: Day,
        *,
        all: bool = False,
        speed: Speed = 1,
        start: str | None = None,
        end: str | None = None,
        source: Literal["store", "archive"] | None = None,
        paused: bool = False,
        loop: bool = False,
        detached: bool = False,
    ) -> LiveReplay:
        """A stored day, to be used in ``with``; see :meth:`AsyncClient.replay`."""
        live = cast(AsyncClient, self._source())
        replay = live.replay(
            instruments,
            date,
            all=all,
            speed=speed,
            start=start,
            end=end,
            source=source,
            paused=paused,
            loop=loop,
            detached=detached,
        )
        return LiveReplay(self._loop, replay)
