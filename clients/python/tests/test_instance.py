"""Against the platform itself: real processes, killed and started again."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from day import DAY, INFY, INSTRUMENTS, OPEN, RELIANCE, raw_ticks
from instance import Instance
from scripted import until, within

from market_data_platform import (
    AsyncClient,
    BadRequest,
    Client,
    Epoch,
    Message,
    Missed,
    NotFound,
    Place,
    Reconnect,
    Stream,
    SubscriptionRefused,
    Tick,
    connect,
)

COUNT = 4_000
# What the server's ring keeps of an instrument by default.
RING_TICKS = 1_000
QUICK = Reconnect(min_delay=0.05, max_delay=0.5)


def now() -> int:
    return time.time_ns() // 1000


def live_ticks(first: int, count: int, token: int = RELIANCE) -> list[dict[str, Any]]:
    at = now()
    return [
        {
            "instrument_token": token,
            "exchange_ts": at + n,
            "price": 100 + n / 4,
            "volume": 1,
            "sequence_id": n,
        }
        for n in range(first, first + count)
    ]


def until_stored(client: Client, token: int, count: int, day: str = DAY) -> None:
    """The store comes behind the stream."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if len(client.history.ticks(token, day).all()) >= count:
                return
        except NotFound:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{count} ticks of {token} are not stored")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance with instruments and a day."""
    with Instance(["run"], tmp_path_factory.mktemp("stored")) as instance, Client(instance.url) as client:
        assert client.instruments.import_file(INSTRUMENTS).added == 2
        report = client.ingest(raw_ticks(COUNT))
        assert (report.accepted, report.rejected) == (COUNT, [])
        for token in (RELIANCE, INFY):
            until_stored(client, token, COUNT // 2)
        yield instance


def test_history_is_what_was_sent_to_the_microsecond(stored: Instance) -> None:
    sent = [tick for tick in raw_ticks(COUNT) if tick["instrument_token"] == RELIANCE]
    with Client(stored.url) as client:
        frame = client.history.ticks("NSE:RELIANCE", DAY).to_pandas()
        assert [stamp.value // 1000 for stamp in frame.index] == [tick["exchange_ts"] for tick in sent]
        assert frame["price"].tolist() == [tick["price"] for tick in sent]
        assert frame["volume"].tolist() == [tick["volume"] for tick in sent]
        assert frame["sequence_id"].tolist() == [tick["sequence_id"] for tick in sent]
        assert set(frame["status"]) == {"LIVE"}
        some = client.history.ticks(RELIANCE, start=OPEN, end=OPEN + 10_000_000)
        assert [tick.exchange_ts for tick in some] == [
            tick["exchange_ts"] for tick in sent if tick["exchange_ts"] < OPEN + 10_000_000
        ]
        assert len(client.history.ticks(RELIANCE, DAY, limit=7).all()) == 7
        assert len(client.history.ticks("NSE:RELIANCE", "2026-01-15").to_pandas()) == 0


@pytest.mark.parametrize(("interval", "rule"), [("1m", "1min"), ("5m", "5min")])
def test_candles_are_what_pandas_makes_of_the_ticks(stored: Instance, interval: Any, rule: str) -> None:
    with Client(stored.url) as client:
        bars = client.history.candles("NSE:INFY", DAY, interval=interval).to_pandas()
        ticks = client.history.ticks("NSE:INFY", DAY).to_pandas()
    made = ticks["price"].resample(rule).ohlc()
    made["volume"] = ticks["volume"].resample(rule).sum()
    assert len(bars) > 1
    assert bars.index.tolist() == made.index.tolist()
    for column in ("open", "high", "low", "close", "volume"):
        assert bars[column].tolist() == made[column].tolist()
    assert bars["final"].all()
    assert set(bars["phase"]) == {"CONTINUOUS"}
    assert bars.index[0] == pd.Timestamp("2026-01-16 09:15", tz="Asia/Kolkata")


def test_what_is_asked_of_rest_is_understood(stored: Instance) -> None:
    with Client(stored.url) as client:
        assert [info.symbol for info in client.instruments.search("infosys")] == ["NSE:INFY"]
        assert client.instruments.get(RELIANCE).name == "RELIANCE INDUSTRIES"
        found = client.instruments.find("INFY")
        assert found is not None
        assert found.instrument_token == INFY
        (quote,) = client.quotes("NSE:RELIANCE")
        assert quote.last is not None
        assert quote.last.sequence_id == COUNT // 2
        assert client.calendar("NSE", "2026-01-26").holiday == "Republic Day"
        assert {phase.phase for phase in client.calendar("NSE", DAY).phases} >= {"CONTINUOUS"}
        with pytest.raises(NotFound, match="NSE:NOPE") as refused:
            client.history.ticks("NSE:NOPE", DAY).all()
        assert refused.value.parameter == "symbol"
        with pytest.raises(BadRequest) as wrong:
            client.instruments.search("x", asset_class="BOND")
        assert wrong.value.parameter == "asset_class"
        report = client.ingest([{"instrument_token": 0, "exchange_ts": OPEN, "price": 1}])
        assert (report.accepted, report.rejected_total, report.rejected[0].line) == (0, 1, 1)


def test_a_replay_plays_the_day_once_and_in_order(stored: Instance) -> None:
    with Client(stored.url, on_violation="raise") as client:
        sent = [tick["sequence_id"] for tick in raw_ticks(COUNT) if tick["instrument_token"] == INFY]
        with client.replay(["NSE:RELIANCE", "NSE:INFY"], DAY, speed="inf") as replay:
            got = [tick for tick in replay.ticks() if tick.symbol == "NSE:INFY"]
            assert [tick.sequence_id for tick in got] == sent
            status = replay.status()
            assert (status.state, status.sent, status.total) == ("ended", COUNT, COUNT)
        with client.replay("NSE:INFY", DAY, speed=1) as replay:
            stream = replay.ticks()
            first = next(stream)
            assert first.sequence_id == 1
            assert replay.pause().state == "paused"
            assert replay.speed(1000).speed == 1000
            assert replay.resume().state == "running"
            assert client.replays.list()[0].id == replay.id
            identity = replay.id
        assert client.replays.get(identity).state == "ended"
        with pytest.raises(SubscriptionRefused), client.replay("NSE:INFY", DAY) as replay:
            next(replay.ticks("NSE:NOPE"))
        with pytest.raises(NotFound), client.replay("NSE:NOPE", DAY):
            pass


@pytest.mark.anyio
async def test_a_replay_is_stepped_and_sought(stored: Instance) -> None:
    async with connect(stored.url) as client, client.replay(["NSE:INFY"], DAY, paused=True) as replay:
        async with replay.ticks() as ticks:
            stepped = await replay.step(ticks=5)
            assert (stepped.state, stepped.sent) == ("paused", 5)
            five = [await within(anext(ticks)) for _ in range(5)]
            assert stepped.clock == five[-1].exchange_ts
            sought = await replay.seek(five[2].exchange_ts)
            assert (sought.state, sought.run, sought.clock, sought.sent) == ("paused", 2, five[2].exchange_ts, 0)
            assert (await replay.step(bars=1, interval="1m")).sent > 0
            first = await within(anext(ticks))
            assert (first.exchange_ts, first.position) == (five[2].exchange_ts, 1)


@pytest.mark.anyio
async def test_a_replay_stands_still_until_it_is_told_to_run(stored: Instance) -> None:
    async with connect(stored.url) as client, client.replay(["NSE:INFY"], DAY, speed="inf", paused=True) as replay:
        async with replay.ticks() as first, replay.messages() as second:
            assert (await replay.status()).state == "paused"
            await replay.resume()
            assert len([tick async for tick in first]) == COUNT // 2
            assert len([one async for one in second if isinstance(one, Tick)]) == COUNT // 2


class Account:
    """Every position of an instrument, by whether it came or was told as missed, in the order of the stream."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.missed: list[Missed] = []
        self.epochs: list[Epoch] = []

    async def follow(self, stream: Stream[Message]) -> None:
        async for message in stream:
            if isinstance(message, Tick):
                self.ticks.append(message)
            elif isinstance(message, Missed):
                self.missed.append(message)
            elif isinstance(message, Epoch):
                self.epochs.append(message)

    def newest(self) -> int:
        return self.ticks[-1].sequence_id if self.ticks else 0

    def held(self, sequence_id: int) -> bool:
        return self.newest() == sequence_id

    def contiguous(self) -> bool:
        """Over each epoch, ticks and missed ranges are 1, 2, 3, … from the first on."""
        spans = [(tick.epoch, tick.position, tick.position) for tick in self.ticks]
        spans += [(one.epoch, one.from_ or 0, one.to or 0) for one in self.missed]
        spans.sort()
        for (epoch, _, last), (next_epoch, first, _) in itertools.pairwise(spans):
            if first != (last + 1 if epoch == next_epoch else 1):
                return False
        return True


async def ingest(client: AsyncClient, first: int, count: int) -> None:
    report = await within(client.ingest(live_ticks(first, count)))
    assert report.accepted == count


@pytest.mark.anyio
async def test_a_server_that_is_killed_is_come_back_to_and_every_tick_is_accounted_for(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    instance = Instance(["run"], tmp_path)
    await loop.run_in_executor(None, instance.start)
    try:
        told: list[Any] = []
        async with connect(instance.url, reconnect=QUICK, on_violation="raise") as client:
            for kind in ("connected", "disconnected"):
                client.on(kind, told.append)
            account = Account()
            async with client.messages(RELIANCE, backfill=10) as stream:
                following = asyncio.ensure_future(account.follow(stream))
                count = 0
                for _ in range(3):
                    await ingest(client, count + 1, 500)
                    count += 500
                    await until(lambda sent=count: account.held(sent) or following.done())  # type: ignore[misc]
                    place = stream.places()[RELIANCE]
                    # What the store has is what a killed instance knows afterwards.
                    await until_all_stored(client, count)
                    await loop.run_in_executor(None, instance.kill)
                    await until(lambda: not stream.is_connected)
                    await loop.run_in_executor(None, instance.start)
                    await until(lambda: stream.is_connected or following.done())
                    assert stream.places()[RELIANCE] == place, "nothing comes twice"
                await ingest(client, count + 1, 500)
                count += 500
                await until(lambda: account.held(count) or following.done())
                assert not following.done(), following.exception()
            await within(following)
            # The rule was held on every message, else it would have been raised; and nothing was lost or came twice.
            assert [tick.sequence_id for tick in account.ticks] == list(range(1, count + 1))
            assert account.missed == []
            assert account.contiguous()
            # The embedded log is lost with its process: each life counts positions anew.
            assert [epoch.reason for epoch in account.epochs] == ["lost"] * 3
            assert stream.stats.connects == 4
            assert stream.stats.violations == 0
            assert [event.type for event in told].count("connected") == 4
    finally:
        instance.kill()


async def until_all_stored(client: AsyncClient, count: int) -> None:
    async def look() -> None:
        while await stored_count(client) < count:
            await asyncio.sleep(0.05)

    await within(look())


async def stored_count(client: AsyncClient) -> int:
    try:
        return len(await client.history.ticks(RELIANCE).all())
    except NotFound:
        return 0


class Proxy:
    """Passes bytes on, and breaks every connection off when it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        for pair in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._pass(*pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.anyio
async def test_connections_that_break_off_in_mid_stream_lose_nothing_and_repeat_nothing(stored: Instance) -> None:
    token = 5
    proxy = Proxy(stored.port)
    async with proxy as url, connect(stored.url) as feed:
        async with connect(url, reconnect=QUICK, on_violation="raise", buffer_size=50) as client:
            account = Account()
            async with client.messages(token) as stream:
                following = asyncio.ensure_future(account.follow(stream))
                count = 0
                for _ in range(20):
                    for _ in range(3):
                        report = await within(feed.ingest(live_ticks(count + 1, 50, token)))
                        assert report.accepted == 50
                        count += 50
                    proxy.cut()
                    # The store comes behind: whoever is away for longer than the ring reaches may be told of a hole.
                    await until(lambda sent=count: account.newest() > sent - RING_TICKS // 2 or following.done())  # type: ignore[misc]
                await until(lambda: account.held(count) or following.done())
                assert not following.done(), following.exception()
            await within(following)
            assert [tick.sequence_id for tick in account.ticks] == list(range(1, count + 1))
            assert account.missed == []
            assert account.epochs == []
            assert stream.stats.connects > 1


@pytest.mark.anyio
async def test_a_slow_consumer_is_told_to_the_tick_what_the_server_gave_up(stored: Instance) -> None:
    token = 6
    async with connect(stored.url, on_violation="raise", capacity=100, buffer_size=100) as client:
        account = Account()
        async with client.messages(token) as stream:
            count = 0
            # Until what waits in socket, client and server is more than they hold.
            while count < 200_000:
                await ingest_raw(client, token, count + 1, 10_000)
                count += 10_000
            following = asyncio.ensure_future(account.follow(stream))
            await until(lambda: account.held(count) or following.done())
            assert not following.done(), following.exception()
        await within(following)
        assert account.missed != []
        assert {one.reason for one in account.missed} == {"slow"}
        assert len(account.ticks) + sum(one.count or 0 for one in account.missed) == count
        assert account.contiguous()
        assert stream.missed == sum(one.count or 0 for one in account.missed)


async def ingest_raw(client: AsyncClient, token: int, first: int, count: int) -> None:
    report = await within(client.ingest(live_ticks(first, count, token)))
    assert report.accepted == count


@pytest.mark.anyio
async def test_a_stream_goes_on_in_another_process_from_the_places_of_the_first(stored: Instance) -> None:
    token = 8
    async with connect(stored.url, on_violation="raise") as first:
        async with first.ticks(token) as stream:
            await ingest_raw(first, token, 1, 10)
            got = [await within(anext(stream)) for _ in range(4)]
            places = stream.places()
    assert places == {token: Place(got[-1].epoch, 4)}
    async with connect(stored.url, on_violation="raise") as second:
        async with second.ticks(token, since=places) as stream:
            rest = [await within(anext(stream)) for _ in range(6)]
            await ingest_raw(second, token, 11, 1)
            rest.append(await within(anext(stream)))
    assert [(tick.sequence_id, tick.live) for tick in rest] == [*((n, False) for n in range(5, 11)), (11, True)]


@pytest.mark.anyio
async def test_instruments_are_subscribed_one_by_one_and_refused_by_name(stored: Instance) -> None:
    async with connect(stored.url) as client:
        async with client.ticks("NSE:RELIANCE") as stream:
            (answer,) = await stream.add("NSE:INFY")
            assert (answer.instrument_token, answer.known) == (INFY, True)
            with pytest.raises(SubscriptionRefused, match="NSE:NOPE: not subscribed: unknown_symbol"):
                await stream.add("NSE:NOPE")
            assert stream.tokens == {RELIANCE: "NSE:RELIANCE", INFY: "NSE:INFY"}
