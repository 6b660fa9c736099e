"""Decides what a program that runs on asyncio has of a server: REST by ``await``, live streams by ``async for``."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from . import api
from .api import Interval, Query, Speed
from .asking import Asked, Channel, Instrument, Policy, Since, checked_instruments, one_of
from .errors import ClientClosed, MarketDataError, NotFound, Unsupported
from .events import Candle, Message, QuoteUpdate, State, Tick
from .http import AsyncHttpSender
from .link import Key, Server, server_at
from .listeners import Listener, Listeners
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
from .reconnect import Reconnect
from .stream import DEFAULT_BUFFER, Stream
from .tables import INDIA, Recording, Table, recording_of
from .times import Day, Moment

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
E = TypeVar("E")

DEFAULT_CHANNELS: Sequence[Channel] = ("tick", "gap")
#: Rows of a recording, unless it says otherwise.
RECORDED = 100_000


@dataclass(frozen=True, slots=True)
class StreamDefaults:
    """What each live stream of a client begins with; a stream may say otherwise."""

    policy: str | None = None
    capacity: int | None = None
    batch: bool = True
    buffer_size: int = DEFAULT_BUFFER
    when_full: Literal["pause", "error"] = "pause"
    on_violation: Literal["resume", "raise"] = "resume"
    strict: bool = True

    def __post_init__(self) -> None:
        Asked(("tick",), self.policy, self.capacity, self.batch)
        one_of("when_full", self.when_full, ("pause", "error"))
        one_of("on_violation", self.on_violation, ("resume", "raise"))

    def but(self, **given: Any) -> StreamDefaults:
        return replace(self, **{name: value for name, value in given.items() if value is not None})


class _Streams:
    """What opens live streams: the market's, or those of one replay."""

    _server: Server
    _listeners: Listeners
    _defaults: StreamDefaults
    _streams: set[Stream[Any]]

    def _replay_id(self) -> str | None:
        return None

    def _default_instruments(self) -> Sequence[Instrument] | None:
        return None

    def _stream_answered(self) -> None:
        pass

    def _check_open(self) -> None:
        raise NotImplementedError

    def _stream(
        self,
        instruments: Iterable[Instrument] | Instrument | None,
        channels: Sequence[str],
        kind: type[E] | None,
        *,
        since: Since | None = None,
        backfill: int = 0,
        is_queued: bool = True,
        **given: Any,
    ) -> Stream[E]:
        self._check_open()
        keys = self._default_instruments() if instruments is None else checked_instruments(instruments)
        if not keys:
            raise Unsupported("instruments", "at least one", keys)
        options = self._defaults.but(**given)
        stream = Stream(
            self._server,
            self._listeners,
            keys,
            Asked(tuple(channels), options.policy, options.capacity, options.batch, self._replay_id()),
            kind=kind,
            since=since,
            backfill=backfill,
            buffer_size=options.buffer_size,
            when_full=options.when_full,
            on_violation=options.on_violation,
            strict=options.strict,
            is_queued=is_queued,
            on_answered=self._stream_answered,
            on_close=self._streams.discard,
        )
        self._streams.add(stream)
        return stream

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
    ) -> Stream[Tick]:
        """
        Live ticks, each instrument's in order and without a hole that is not told (``missed``).

        ``instruments``: symbols such as ``NSE:INFY``, or tokens, one or many; ``backfill``: so many ticks before the
        live ones; ``since``: the places to go on from, as :meth:`Stream.places` had them. ``policy`` and ``capacity``
        say what the server does where this client is slow; ``buffer_size`` events wait here before that.
        """
        return self._stream(
            instruments,
            ("tick",),
            Tick,
            backfill=backfill,
            since=since,
            policy=policy,
            capacity=capacity,
            buffer_size=buffer_size,
            when_full=when_full,
            strict=strict,
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
    ) -> Stream[Candle]:
        """Live bars: the one under way at once, and each again whenever it has changed. Older ones: ``history``."""
        channel = f"candle_{one_of('interval', interval, ('1m', '5m'))}"
        return self._stream(
            instruments,
            (channel,),
            Candle,
            policy=policy,
            capacity=capacity,
            buffer_size=buffer_size,
            when_full=when_full,
            strict=strict,
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
    ) -> Stream[QuoteUpdate]:
        """
        What is known of book and day: the quote there is at once, then newer ones in their order. A slow reader is
        behind by what waits for it here, up to ``buffer_size`` events; only of what the server could not hand over
        does it send the newest of each instrument alone.
        """
        return self._stream(
            instruments,
            ("quote",),
            QuoteUpdate,
            policy=policy,
            capacity=capacity,
            buffer_size=buffer_size,
            when_full=when_full,
            strict=strict,
        )

    def states(
        self,
        instruments: Iterable[Instrument] | Instrument | None = None,
        *,
        buffer_size: int | None = None,
        strict: bool | None = None,
    ) -> Stream[State]:
        """Whether instruments are live, stale or closed, now and whenever it changes."""
        return self._stream(instruments, ("state",), State, buffer_size=buffer_size, strict=strict)

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
    ) -> Stream[Message]:
        """Everything in the order of the wire: ticks and what is missed of them, gaps, candles, states, clocks."""
        return self._stream(
            instruments,
            channels,
            None,
            backfill=backfill,
            since=since,
            policy=policy,
            capacity=capacity,
            buffer_size=buffer_size,
            when_full=when_full,
            strict=strict,
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
    ) -> Stream[Message]:
        """For listeners alone (:meth:`on`): nothing waits, and nothing is iterated over. Use it in ``async with``."""
        return self._stream(
            instruments,
            channels,
            None,
            backfill=backfill,
            since=since,
            policy=policy,
            capacity=capacity,
            strict=strict,
            is_queued=False,
        )

    async def record(
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
        if seconds is None and count is None:
            raise Unsupported("seconds", "seconds, or count, or both", None)
        recording = recording_of(one_of("channel", channel, ("tick", "quote", "candle_1m", "candle_5m")), limit)

        async def take(stream: Stream[Message]) -> None:
            came = 0
            async for message in stream:
                recording.add(message)
                came += isinstance(message, (Tick, Candle, QuoteUpdate))
                if count is not None and came >= count:
                    return

        async with self.messages(instruments, channels=(channel,), backfill=backfill, policy=policy) as stream:
            try:
                await asyncio.wait_for(take(stream), seconds)
            except asyncio.TimeoutError:
                if seconds is None:
                    raise
        return recording

    def on(self, event: str, listener: Listener) -> Callable[[], None]:
        """
        Calls ``listener`` with each event of this type as it arrives, whatever waits to be iterated over: ``tick``,
        ``missed``, ``gap``, ``candle``, ``quote``, ``connected``, ``disconnected``, ``closing``, ``closed``, ``error``,
        ``message`` and the like. Answers what takes it off again.
        """
        return self._listeners.on(event, listener)

    def once(self, event: str, listener: Listener) -> Callable[[], None]:
        """Like :meth:`on`, for the first one only."""
        return self._listeners.once(event, listener)

    def off(self, event: str, listener: Listener) -> None:
        """Takes a listener off."""
        self._listeners.off(event, listener)


class AsyncHistoryQuery(Generic[R]):
    """A range of history. ``async for`` goes through it by pages; :meth:`all` and :meth:`to_pandas` take it whole."""

    def __init__(self, sender: AsyncHttpSender, query: Query[R]) -> None:
        self._sender = sender
        self._query = query

    async def pages(self) -> AsyncIterator[Table[R]]:
        """Tables of up to 10,000 rows."""
        query = self._query
        cursor: str | None = None
        had = 0
        while True:
            page = await self._sender.send(query.page(cursor, had))
            table = query.table()
            table.extend_rows(page[query.rows])
            had += len(table)
            if len(table) > 0:
                yield table
            cursor = page["next_cursor"]
            if cursor is None or (query.limit is not None and had >= query.limit):
                return

    async def __aiter__(self) -> AsyncIterator[R]:
        async for page in self.pages():
            for row in page:
                yield row

    async def all(self) -> Table[R]:
        """All rows, in columns."""
        table = self._query.table()
        async for page in self.pages():
            table.extend_table(page)
        return table

    async def to_pandas(self, tz: str = INDIA) -> pd.DataFrame:
        """All rows as a DataFrame."""
        return (await self.all()).to_pandas(tz)


class AsyncHistory:
    """
    What is stored. A range is a trading ``day``, or ``start`` and ``end``, half-open; neither: all there is.

    ``as_of``: the day on which a symbol means the instrument.
    """

    def __init__(self, sender: AsyncHttpSender) -> None:
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
    ) -> AsyncHistoryQuery[HistoricalTick]:
        """Ticks of one instrument, ascending."""
        return AsyncHistoryQuery(self._sender, api.ticks(instrument, day, start, end, limit, as_of))

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
    ) -> AsyncHistoryQuery[Bar]:
        """Bars of one instrument, ascending; ``fill`` and ``session`` as in the server's ``/openapi.json``."""
        query = api.candles(instrument, day, start, end, limit, as_of, interval, fill, session)
        return AsyncHistoryQuery(self._sender, query)


class AsyncInstruments:
    """What is known of instruments."""

    def __init__(self, sender: AsyncHttpSender) -> None:
        self._sender = sender

    async def search(
        self,
        query: str,
        *,
        exchange: str | None = None,
        asset_class: str | None = None,
        limit: int | None = None,
        as_of: Day | None = None,
    ) -> list[InstrumentInfo]:
        """Best first. Words in any order, each beginning one of symbol, name, exchange, expiry, strike or kind."""
        return await self._sender.send(api.search(query, exchange, asset_class, limit, as_of))

    async def get(self, token: int, *, as_of: Day | None = None) -> InstrumentInfo:
        """What its token meant on ``as_of``, or means now; raises :class:`NotFound` where none has it."""
        return await self._sender.send(api.instrument(token, as_of))

    async def find(self, symbol: str, *, as_of: Day | None = None) -> InstrumentInfo | None:
        """By its symbol, ``EXCHANGE:TRADINGSYMBOL`` or the bare one where only one exchange has it; None: no such."""
        call, pick = api.find(symbol, as_of)
        return pick(await self._sender.send(call))

    async def import_file(self, csv: str | bytes, *, as_of: Day | None = None) -> ImportReport:
        """Sends the broker's instruments file, of the trading day ``as_of``, today unless given."""
        return await self._sender.send(api.import_file(csv, as_of))


class AsyncReplays:
    """Replays as things of the server; :meth:`AsyncClient.replay` starts one and listens to it."""

    def __init__(self, sender: AsyncHttpSender) -> None:
        self._sender = sender

    async def create(
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
        return await self._sender.send(api.create_replay(request))

    async def list(self) -> list[ReplayStatus]:
        """Newest first."""
        return await self._sender.send(api.list_replays())

    async def get(self, id: str) -> ReplayStatus:
        return await self._sender.send(api.get_replay(id))

    async def change(
        self,
        id: str,
        *,
        state: Literal["paused", "running"] | None = None,
        speed: Speed | None = None,
        seek: Moment | None = None,
        step: Mapping[str, Any] | None = None,
    ) -> ReplayStatus:
        """Pauses, runs on, changes the speed, goes elsewhere, or takes a step."""
        return await self._sender.send(api.change_replay(id, state=state, speed=speed, seek=seek, step=step))

    async def delete(self, id: str) -> None:
        """Ends one; asking again changes nothing."""
        await self._sender.send(api.delete_replay(id))


class Replay(_Streams):
    """
    A stored day, played through the same pipeline into streams of its own, which end where it ends. ``async with``
    starts it and ends it; it runs from the moment on when its first stream is subscribed, so that no tick is missed.
    """

    def __init__(
        self,
        server: Server,
        sender: AsyncHttpSender,
        listeners: Listeners,
        defaults: StreamDefaults,
        request: dict[str, Any],
    ) -> None:
        self._server = server
        self._sender = sender
        self._listeners = listeners
        self._defaults = defaults
        self._request = request
        self._streams: set[Stream[Any]] = set()
        self._id: str | None = None
        self._waits = not request.get("paused", False)
        self._starting: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def id(self) -> str:
        """The server's name of it; it has one once it is started."""
        if self._id is None:
            raise MarketDataError("the replay is not started: expected `async with client.replay(…)`")
        return self._id

    async def start(self) -> Replay:
        """Has it made ready, paused; ``async with`` and ``await`` do."""
        if self._is_closed:
            raise ClientClosed("the replay")
        if self._id is None:
            status = await self._sender.send(api.create_replay({**self._request, "paused": True}))
            self._id = status.id
        return self

    def __await__(self) -> Generator[Any, None, Replay]:
        return self.start().__await__()

    async def __aenter__(self) -> Replay:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _replay_id(self) -> str | None:
        return self.id

    def _default_instruments(self) -> Sequence[Instrument] | None:
        named: Sequence[Instrument] | None = self._request.get("symbols") or self._request.get("tokens")
        if named is None:
            raise Unsupported("instruments", "some, as the replay is of all", None)
        return named

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed("the replay")

    def _stream_answered(self) -> None:
        if self._waits:
            self._waits = False
            self._starting = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.resume()
        except Exception as error:
            for stream in list(self._streams):
                stream.fail(error)

    async def status(self) -> ReplayStatus:
        """How far it has come."""
        return await self._sender.send(api.get_replay(self.id))

    async def pause(self) -> ReplayStatus:
        """Stands still where it is."""
        self._waits = False
        return await self._sender.send(api.change_replay(self.id, state="paused"))

    async def resume(self) -> ReplayStatus:
        """Runs, or runs on."""
        self._waits = False
        return await self._sender.send(api.change_replay(self.id, state="running"))

    async def speed(self, speed: Speed) -> ReplayStatus:
        """Times the market's own pace from here on; ``inf``: as fast as it goes."""
        return await self._sender.send(api.change_replay(self.id, speed=speed))

    async def seek(self, moment: Moment) -> ReplayStatus:
        """
        Goes to a moment of the day, or to a time of it in IST such as ``"09:20"``; its streams are told of a new
        ``run``, which begins with the first tick there. Paused, it stays so.
        """
        return await self._sender.send(api.change_replay(self.id, seek=moment))

    async def step(
        self, *, ticks: int | None = None, bars: int | None = None, interval: Interval = "1m"
    ) -> ReplayStatus:
        """
        Goes on at once by so many ticks, or to the end of so many bars that have ticks, and is paused there, also where
        it ran; a step that takes long is answered while it is still ``running``.
        """
        return await self._sender.send(api.change_replay(self.id, step=api.step_of(ticks, bars, interval)))

    async def close(self) -> None:
        """Ends its streams, and the replay with them unless it is detached."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(stream.close() for stream in list(self._streams)))
        if self._id is not None and not self._request.get("detached", False):
            # One that was over so long ago is known to nobody any more.
            with contextlib.suppress(NotFound):
                await self._sender.send(api.delete_replay(self._id))


class AsyncClient(_Streams):
    """A server, for a program on asyncio. Made by :func:`connect`; each live stream has a WebSocket of its own."""

    def __init__(self, server: Server, defaults: StreamDefaults, timeout: float, retries: int) -> None:
        self._server = server
        self._defaults = defaults
        self._sender = AsyncHttpSender(server, timeout, retries)
        self._listeners = Listeners()
        self._streams: set[Stream[Any]] = set()
        self._replays: set[Replay] = set()
        self._is_closed = False
        self.history = AsyncHistory(self._sender)
        self.instruments = AsyncInstruments(self._sender)
        self.replays = AsyncReplays(self._sender)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._server.url}>"

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def server(self) -> Server:
        """Where it is, and how it is spoken to."""
        return self._server

    async def __aenter__(self) -> AsyncClient:
        self._check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed

    async def close(self) -> None:
        """Ends every stream and replay of it."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.gather(*(replay.close() for replay in list(self._replays)), return_exceptions=True)
        await asyncio.gather(*(stream.close() for stream in list(self._streams)))
        await self._sender.close()

    async def quotes(self, instruments: Iterable[Instrument] | Instrument) -> list[Quote]:
        """The last tick and the day so far of each, in the order asked. A symbol costs a look-up."""
        tokens: list[int] = []
        for key in checked_instruments(instruments):
            tokens.append(await self._token_of(key))
        return [quote for call in api.quotes(tokens) for quote in await self._sender.send(call)]

    async def _token_of(self, key: Instrument) -> int:
        if isinstance(key, int):
            return key
        return token_of(key, await self.instruments.find(key))

    async def calendar(self, exchange: str, date: Day) -> CalendarDay:
        """The trading phases of a day, or why there are none."""
        return await self._sender.send(api.calendar(exchange, date))

    async def ingest(self, ticks: Iterable[Mapping[str, Any]]) -> IngestReport:
        """Sends raw ticks, mappings as the server's ``/openapi.json`` has them; sent twice they add no row."""
        return api.sum_of([await self._sender.send(call) for call in api.ingest(ticks)])

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
    ) -> Replay:
        """
        A stored day, to be used in ``async with``. With ``paused`` it stands still until :meth:`Replay.resume`.
        ``start`` and ``end`` are times of that day in India, such as ``09:15``.
        """
        self._check_open()
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
        replay = Replay(self._server, self._sender, self._listeners, self._defaults, request)
        self._replays.add(replay)
        return replay


def token_of(symbol: str, found: InstrumentInfo | None) -> int:
    if found is None:
        raise NotFound(f"symbol: no instrument is {symbol!r}", status=404, tag="NotFound", parameter="symbol")
    return found.instrument_token


def connect(
    url: str,
    *,
    key: Key | None = None,
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
) -> AsyncClient:
    """
    A client of the server at ``url``, such as ``http://127.0.0.1:8080``, to be used in ``async with``.

    ``key``: the API key, or a function that answers it, asked for each connection. ``policy``, ``capacity``: what the
    server does with a slow stream, ``evict-oldest`` unless said otherwise. ``buffer_size``: events of each stream that
    wait for the program; ``when_full`` of them nothing more is read (``pause``), or it is an ``error``.
    ``on_violation``: a message that breaks the rule is asked for again (``resume``), or raised. ``strict``: an
    instrument that is not to be had ends the stream; not so, ``error`` listeners are told of it. ``heartbeat``,
    ``timeout``: seconds. ``retries``: of a request of REST. ``compression``: of live frames. ``ssl_context``: for
    https.
    """
    server = server_at(
        url, key, ssl_context=ssl_context, reconnect=reconnect, heartbeat=heartbeat, compression=compression
    )
    defaults = StreamDefaults(policy, capacity, batch, buffer_size, when_full, on_violation, strict)
    return AsyncClient(server, defaults, timeout, retries)
