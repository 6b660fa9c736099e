"""The client of scripts and notebooks: the same streams, without ``await``, also where an event loop runs already."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scripted import EPOCH, Peer, Script, Scripted, Steps, tick, within

from market_data_platform import Client, ClientClosed, MarketDataError, Place, SubscriptionRefused


@contextmanager
def served(*scripts: Script) -> Iterator[Scripted]:
    """A scripted server on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = Scripted(*scripts)
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(60)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def plays(count: int) -> Script:
    async def script(peer: Peer) -> None:
        await peer.accept(*(tick(n) for n in range(1, count + 1)))
        await peer.stay()

    return script


def test_a_loop_over_live_ticks_ends_where_it_is_left() -> None:
    left = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.accept(*(tick(n) for n in range(1, 6)))
        await peer.stay()
        left.set()

    with served(script) as server, Client(server.url) as client:
        got = []
        for one in client.ticks("NSE:INFY"):
            got.append(one.position)
            if len(got) == 3:
                break
        assert got == [1, 2, 3]
        gc.collect()
        assert left.wait(60)


def test_places_are_those_of_what_was_iterated_over_whatever_is_here() -> None:
    with served(plays(50)) as server, Client(server.url) as client, client.ticks(1) as stream:
        next(stream)
        next(stream)
        assert stream.places() == {1: Place(EPOCH, 2)}
        assert stream.tokens == {1: 1}
        assert stream.missed == 0
        assert [answer.accepted for answer in stream.accepted()] == [True]


def test_a_connection_that_breaks_is_made_again_underneath() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.cut()

    async def second(peer: Peer) -> None:
        asked = await peer.accept(tick(2))
        assert asked["since"] == {"1": [EPOCH, 1]}
        await peer.stay()

    with served(first, second) as server, Client(server.url, reconnect=Steps()) as client:
        with client.ticks(1) as stream:
            assert [next(stream).position, next(stream).position] == [1, 2]
            assert stream.stats.connects == 2


def test_refusals_are_raised_where_the_stream_begins() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(await peer.hear(), {"NSE:NOPE": "unknown_symbol"})
        await peer.stay()

    with served(script, script) as server, Client(server.url) as client:
        with pytest.raises(SubscriptionRefused), client.ticks("NSE:NOPE"):
            pass
        with pytest.raises(SubscriptionRefused):
            next(iter(client.ticks("NSE:NOPE")))


def test_instruments_come_and_go() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.accept(tick(5, token=2))
        asked = await peer.hear()
        gone = {"instrument_token": 2, "removed": True}
        await peer.say({"type": "unsubscribed", "id": asked["id"], "tokens": [gone], "held": [1]})
        await peer.stay()

    with served(script) as server, Client(server.url) as client, client.ticks(1) as stream:
        assert [answer.instrument_token for answer in stream.add(2)] == [2]
        assert [next(stream).position, next(stream).position] == [1, 5]
        assert stream.remove([2]) == [2]


def test_it_works_where_an_event_loop_runs_already() -> None:
    """As a cell of Jupyter does."""

    async def cell(url: str) -> list[int]:
        with Client(url) as client:
            recording = client.record(1, count=3)
            return [one.position for one in recording]

    with served(plays(3)) as server:
        assert asyncio.run(within(cell(server.url))) == [1, 2, 3]


def test_closing_ends_what_waits_on_another_thread_and_nothing_begins_after_it() -> None:
    with served(plays(0)) as server:
        client = Client(server.url)
        stream = client.ticks(1)
        stream.accepted()
        ended: list[Any] = []
        thread = threading.Thread(target=lambda: ended.extend(stream))
        thread.start()
        client.close()
        client.close()
        thread.join(60)
        assert not thread.is_alive()
        assert ended == []
        with pytest.raises(ClientClosed):
            client.ticks(1)


def test_a_listener_may_not_wait_for_its_own_client() -> None:
    failures: list[Exception] = []

    with served(plays(1)) as server, Client(server.url) as client:

        def waits(_: object) -> None:
            try:
                client.ticks(2)
            except MarketDataError as error:
                failures.append(error)

        client.on("tick", waits)
        with client.ticks(1) as stream:
            next(stream)
    assert [str(failure) for failure in failures] == ["a listener may not wait for its own client"]


def test_a_client_that_nobody_holds_leaves_no_thread_behind() -> None:
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "market-data-platform"]

    def use(url: str) -> threading.Thread:
        client = Client(url)
        client.record(1, count=1)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "market-data-platform"]
        client._sender.close()
        return thread

    with served(plays(1)) as server:
        thread = use(server.url)
        gc.collect()
        thread.join(60)
        assert names() == []
