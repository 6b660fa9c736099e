from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import pytest
from scripted import EPOCH, Peer, Script, Scripted, Steps, backfill, clock, evicted, tick, until, within

from market_data_platform import (
    BufferFull,
    ClientClosed,
    Closed,
    Closing,
    Connected,
    ConnectionFailed,
    Disconnected,
    Forbidden,
    MessageRefused,
    Missed,
    NotFound,
    Place,
    ProtocolFailed,
    Reconnect,
    RuleViolated,
    Stream,
    SubscriptionRefused,
    Tick,
    Unauthorized,
    Unsupported,
    connect,
)

pytestmark = pytest.mark.anyio
KEY = "mdp_0123456789abcdef"
SMALL_SOCKET = 64 * 1024


async def stay(peer: Peer) -> None:
    await peer.accept()
    await peer.stay()


async def take(stream: Stream[Any], count: int) -> list[Any]:
    return [await within(anext(stream)) for _ in range(count)]


def positions(events: list[Any]) -> list[int]:
    return [event.position for event in events if isinstance(event, Tick)]


async def test_backfill_and_live_ticks_come_in_one_order() -> None:
    async def script(peer: Peer) -> None:
        asked = await peer.accept(backfill(8, 10), tick(11), tick(12))
        assert (asked["symbols"], asked["backfill"], asked["channels"]) == (["NSE:INFY"], 3, ["tick"])
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client:
        async with client.ticks("NSE:INFY", backfill=3) as ticks:
            got = await take(ticks, 5)
            assert positions(got) == [8, 9, 10, 11, 12]
            assert [one.live for one in got] == [False, False, False, True, True]
            assert {one.symbol for one in got} == {"NSE:INFY"}
            assert ticks.tokens == {1: "NSE:INFY"}
            assert ticks.is_connected
            assert ticks.stats.ticks == 5
            assert [answer.accepted for answer in await ticks.accepted()] == [True]
        assert not ticks.is_connected


async def test_places_are_those_of_what_was_handed_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(backfill(5, 4), tick(5), tick(6), evicted(7, 8), tick(9))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client, client.messages(1) as stream:
        await until(lambda: stream.stats.ticks == 3)
        assert stream.places() == {}
        await take(stream, 1)
        assert stream.places() == {1: Place(EPOCH, 5)}
        await take(stream, 2)
        assert stream.places() == {1: Place(EPOCH, 8)}


async def test_an_instrument_that_says_nothing_has_the_place_of_its_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(backfill(5, 4), tick(3, token=2))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client, client.ticks([1, 2]) as stream:
        await take(stream, 1)
        assert stream.places() == {1: Place(EPOCH, 4), 2: Place(EPOCH, 3)}


async def test_goes_on_from_a_place_of_another_process_and_holds_the_server_to_it() -> None:
    async def right(peer: Peer) -> None:
        asked = await peer.accept(backfill(8, 8), tick(9))
        assert asked["since"] == {"1": [EPOCH, 7]}
        await peer.stay()

    async def wrong(peer: Peer) -> None:
        await peer.accept(tick(9))
        await peer.stay()

    async with Scripted(right, wrong) as server, connect(server.url, on_violation="raise") as client:
        async with client.ticks(1, since={1: (EPOCH, 7)}) as stream:
            assert positions(await take(stream, 2)) == [8, 9]
        async with client.ticks(1, since={1: Place(EPOCH, 7)}) as stream:
            with pytest.raises(RuleViolated, match="stood at 20784000033300/7: tick 20784000033300/9") as violation:
                await take(stream, 1)
            assert violation.value.stood == Place(EPOCH, 7)


async def test_a_connection_that_breaks_off_is_made_again_and_the_stream_goes_on_from_its_places() -> None:
    async def first(peer: Peer) -> None:
        asked = await peer.hear()
        assert (asked["symbols"], "since" in asked) == (["NSE:INFY", "NSE:TCS"], False)
        await peer.answer(asked)
        await peer.say(tick(1), tick(2))
        await peer.cut()

    async def second(peer: Peer) -> None:
        asked = await peer.hear()
        assert (asked["tokens"], asked["since"]) == ([1, 2], {"1": [EPOCH, 2]})
        await peer.answer(asked)
        await peer.say(backfill(3, 4), tick(5))
        await peer.stay()

    told: list[object] = []
    steps = Steps()
    async with Scripted(first, second) as server, connect(server.url, reconnect=steps) as client:
        for kind in ("connected", "disconnected"):
            client.on(kind, told.append)
        async with client.ticks(["NSE:INFY", "NSE:TCS"]) as stream:
            got = await take(stream, 5)
        assert positions(got) == [1, 2, 3, 4, 5]
        assert {one.symbol for one in got} == {"NSE:INFY"}
    assert [type(event) for event in told] == [Connected, Disconnected, Connected]
    assert [event.resumed for event in told if isinstance(event, Connected)] == [0, 1]
    assert steps.asked == [(0, None)]


async def test_ticks_that_were_here_when_the_connection_broke_are_handed_out_first() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(*(tick(n) for n in range(1, 51)))
        await peer.ws.close(1001, "restart")

    async def second(peer: Peer) -> None:
        asked = await peer.accept(*(tick(n) for n in range(51, 101)))
        assert asked["since"] == {"1": [EPOCH, 50]}
        await peer.stay()

    async with Scripted(first, second) as server, connect(server.url, reconnect=Steps()) as client:
        async with client.ticks(1) as stream:
            await until(lambda: stream.stats.ticks == 100)
            assert positions(await take(stream, 100)) == list(range(1, 101))


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        # The second failure in a row of no other kind waits longer than the first.
        (1006, [0, 1, 2]),
        (1011, [0, 1, 2]),
        (4001, [0, 1, 2]),
        (1001, [2, 2, 2]),
        (1012, [2, 2, 2]),
        (1013, [3, 3, 3]),
    ],
)
async def test_each_close_code_has_its_own_wait(code: int, waits: list[int]) -> None:
    async def closes(peer: Peer) -> None:
        await peer.accept()
        await (peer.cut() if code == 1006 else peer.ws.close(code, "because"))

    told: list[Disconnected] = []
    steps = Steps()
    async with Scripted(closes, closes, closes, stay) as server, connect(server.url, reconnect=steps) as client:
        client.on("disconnected", told.append)
        async with client.ticks(1):
            await until(lambda: server.connections == 4)
    assert [attempt for attempt, _ in steps.asked] == waits
    assert {event.code for event in told} == {code}


@pytest.mark.parametrize("code", [1008, 1009])
async def test_a_connection_that_is_ended_for_what_was_said_is_told_as_an_error_and_waits(code: int) -> None:
    async def closes(peer: Peer) -> None:
        await peer.accept()
        await peer.ws.close(code, "too many messages")

    errors: list[Exception] = []
    steps = Steps()
    async with Scripted(closes, stay) as server, connect(server.url, reconnect=steps) as client:
        client.on("error", errors.append)
        async with client.ticks(1):
            await until(lambda: server.connections == 2)
    assert [str(error) for error in errors] == [f"closed with {code}: too many messages"]
    assert isinstance(errors[0], MessageRefused)
    assert steps.asked[0][0] == 3


async def test_a_slow_client_that_is_closed_goes_on_from_where_the_server_says_it_stands() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(tick(1))
        since = {"1": [EPOCH, 1], "2": [EPOCH, 40]}
        await peer.say({"type": "closing", "code": 4001, "reason": "too slow", "since": since})
        await peer.ws.close(4001, "too slow")

    async def second(peer: Peer) -> None:
        asked = await peer.accept(tick(2))
        assert asked["since"] == {"1": [EPOCH, 1], "2": [EPOCH, 40]}
        await peer.stay()

    closings: list[Closing] = []
    async with Scripted(first, second) as server, connect(server.url, reconnect=Steps()) as client:
        client.on("closing", closings.append)
        async with client.ticks([1, 2], policy="disconnect") as stream:
            assert positions(await take(stream, 2)) == [1, 2]
    assert closings == [Closing(4001, "too slow", {1: Place(EPOCH, 1), 2: Place(EPOCH, 40)})]


async def test_an_upgrade_that_is_refused_for_now_is_tried_again_after_what_the_server_says() -> None:
    steps = Steps()
    refusals = [
        (503, {"Retry-After": "1"}, '{"_tag":"NotReady","message":"starting"}'),
        (429, {"Retry-After": "7"}, "full"),
        (502, {}, ""),
    ]
    async with Scripted(stay, refusals=refusals) as server, connect(server.url, reconnect=steps) as client:
        async with client.ticks(1):
            pass
    assert steps.asked == [(0, 1.0), (1, 7.0), (2, None)]


@pytest.mark.parametrize(("status", "kind"), [(403, Forbidden), (404, NotFound)])
async def test_an_upgrade_that_is_refused_for_good_is_an_error(status: int, kind: type[Exception]) -> None:
    body = json.dumps({"_tag": kind.__name__, "message": "origin: no"})
    async with Scripted(refusals=[(status, {}, body)]) as server, connect(server.url) as client:
        with pytest.raises(kind, match="origin: no"):
            async with client.ticks(1):
                pass


async def test_no_server_is_an_error_after_a_while_and_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    policy = Reconnect(min_delay=0.001, max_delay=0.01, first_for=0.05)
    async with connect(f"http://127.0.0.1:{port}", reconnect=policy) as client:
        with pytest.raises(
            ConnectionFailed, match=rf"ws://127\.0\.0\.1:{port}/ws: no connection in 0\.05 s, \d+ tries"
        ):
            await anext(aiter(client.ticks(1)))


async def test_a_lost_server_is_given_up_where_that_is_asked_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.stay()

    policy = Reconnect(min_delay=0.001, max_delay=0.01, lost_for=0.05)
    async with Scripted(script) as server:
        client = connect(server.url, reconnect=policy)
        stream = client.ticks(1)
        assert positions(await take(stream, 1)) == [1]
    with pytest.raises(ConnectionFailed, match=r"no connection in 0\.05 s"):
        await take(stream, 1)
    await client.close()


async def test_what_stands_in_for_a_server_that_is_replaced_is_waited_out() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept()
        await peer.cut()

    async with Scripted(first, stay) as server, connect(server.url, reconnect=Steps()) as client:
        async with client.ticks(1) as stream:
            server._refusals.extend([(404, {}, "no such app"), (200, {}, "<html>")])
            await until(lambda: server.connections == 2)
            assert len(server.requests) == 4
            assert stream.stats.connects == 2


# The key ---------------------------------------------------------------------------------------------------------


async def test_the_key_is_a_bearer_of_the_upgrade_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Scripted(stay) as server, connect(server.url, key=KEY) as client:
        async with client.ticks(1) as stream:
            shown = repr((client, vars(client), stream, vars(stream), stream._server))
        assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
        assert server.requests[0].headers["User-Agent"].startswith("market-data-platform-python/")
        assert "Origin" not in server.requests[0].headers
    # The server of this test logs what it reads; the client's own is what counts.
    logged = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    assert any("authorization" in message.lower() for message in logged), "the upgrade is logged at DEBUG"
    assert not any(KEY in message for message in logged)
    assert KEY not in shown


async def test_a_refused_key_is_an_error_at_the_upgrade_or_after_it() -> None:
    async def revoked(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.say({"type": "error", "code": "unauthorized", "message": "key: revoked"})
        await peer.ws.close(1008, "key: revoked")

    body = '{"_tag":"Unauthorized","message":"key: unknown"}'
    async with Scripted(revoked, refusals=[(401, {}, body)]) as server, connect(server.url, key=KEY) as client:
        with pytest.raises(Unauthorized, match="key: refused: key: unknown"):
            async with client.ticks(1):
                pass
        stream = client.ticks(1)
        assert positions(await take(stream, 1)) == [1]
        with pytest.raises(Unauthorized, match="key: refused: key: revoked"):
            await take(stream, 1)


async def test_whoever_knows_the_key_is_asked_for_each_connection_and_once_more_after_a_refusal() -> None:
    async def revokes(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.say({"type": "error", "code": "unauthorized", "message": "key: expired"})
        await peer.ws.close(1008, "key: expired")

    async def goes_on(peer: Peer) -> None:
        await peer.accept(tick(2))
        await peer.cut()

    async def key() -> str:
        keys.append(f"key{len(keys) + 1}")
        return keys[-1]

    keys: list[str] = []
    refusal: tuple[int, dict[str, str], str] = (401, {}, "")
    async with Scripted(revokes, goes_on, refusals=[refusal]) as server:
        async with connect(server.url, key=key, reconnect=Steps()) as client:
            stream = client.ticks(1)
            assert positions(await take(stream, 2)) == [1, 2]
            server._refusals.extend([refusal, refusal])
            with pytest.raises(Unauthorized):
                await take(stream, 1)
        assert [request.headers["Authorization"] for request in server.requests] == [
            f"Bearer key{n}" for n in range(1, 6)
        ]


async def test_a_key_that_cannot_be_had_now_may_be_had_later() -> None:
    def key() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise OSError(f"vault away, {KEY}")
        return KEY

    asked: list[int] = []
    told: list[Disconnected] = []
    async with Scripted(stay) as server, connect(server.url, key=key, reconnect=Steps()) as client:
        client.on("disconnected", told.append)
        async with client.ticks(1):
            pass
    assert [event.reason for event in told] == ["key: the function that knows it raised OSError"] * 2


async def test_a_key_that_can_be_none_ends_the_stream_rather_than_being_asked_for_again() -> None:
    def key() -> str:
        asked.append(1)
        return f"{KEY}\n"

    asked: list[int] = []
    async with Scripted(stay) as server, connect(server.url, key=key, reconnect=Steps()) as client:
        with pytest.raises(Unsupported, match="key"):
            async with client.ticks(1):
                pass
    assert asked == [1]


async def test_a_redirect_is_not_followed() -> None:
    async with Scripted() as elsewhere:
        refusals = [(307, {"Location": f"ws://127.0.0.1:{elsewhere.port}/ws"}, "")]
        async with Scripted(refusals=refusals) as server, connect(server.url, key=KEY) as client:
            with pytest.raises(ProtocolFailed, match="answered 307"):
                async with client.ticks(1):
                    pass
        assert elsewhere.requests == []


# What is refused -------------------------------------------------------------------------------------------------


async def test_an_instrument_that_is_not_to_be_had_is_raised_when_the_stream_begins() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(await peer.hear(), {"NSE:INFI": "unknown_symbol"})
        await peer.stay()

    async with Scripted(script, script) as server, connect(server.url) as client:
        with pytest.raises(SubscriptionRefused, match="NSE:INFI: not subscribed: unknown_symbol") as refused:
            async with client.ticks(["NSE:INFY", "NSE:INFI"]):
                pass
        assert refused.value.refused == {"NSE:INFI": "unknown_symbol"}
        with pytest.raises(SubscriptionRefused):
            await anext(aiter(client.ticks(["NSE:INFY", "NSE:INFI"])))
        assert client._streams == set()


async def test_where_it_is_told_instead_the_others_go_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(await peer.hear(), {"NSE:INFI": "unknown_symbol"})
        await peer.say(tick(1))
        await peer.stay()

    errors: list[Exception] = []
    async with Scripted(script) as server, connect(server.url, strict=False) as client:
        client.on("error", errors.append)
        async with client.ticks(["NSE:INFY", "NSE:INFI"]) as stream:
            assert positions(await take(stream, 1)) == [1]
    assert [str(error) for error in errors] == ["NSE:INFI: not subscribed: unknown_symbol"]


async def test_an_instrument_that_is_lost_on_a_later_connection_ends_the_stream() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.cut()

    async def second(peer: Peer) -> None:
        await peer.answer(await peer.hear(), {1: "forbidden"})
        await peer.stay()

    async with Scripted(first, second) as server, connect(server.url, reconnect=Steps()) as client:
        async with client.ticks([1, 2]) as stream:
            await take(stream, 1)
            with pytest.raises(SubscriptionRefused, match="1: not subscribed: forbidden"):
                await take(stream, 1)


async def test_a_message_that_is_refused_ends_the_stream_with_the_servers_words() -> None:
    async def script(peer: Peer) -> None:
        asked = await peer.hear()
        await peer.say({"type": "error", "id": asked["id"], "code": "unsupported", "message": "policy: no"})
        await peer.stay()

    async with Scripted(script) as server, connect(server.url, policy="pause") as client:
        with pytest.raises(MessageRefused, match="unsupported: policy: no") as refused:
            async with client.ticks(1):
                pass
        assert refused.value.code == "unsupported"


async def test_an_error_that_answers_nothing_is_told_and_ends_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept({"type": "error", "code": "odd", "message": "hm"}, tick(1))
        await peer.stay()

    errors: list[Exception] = []
    async with Scripted(script) as server, connect(server.url) as client:
        client.on("error", errors.append)
        async with client.ticks(1) as stream:
            await take(stream, 1)
    assert [str(error) for error in errors] == ["odd: hm"]


async def test_what_came_too_fast_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data_platform.stream._ASK_AGAIN", 0.001)

    async def script(peer: Peer) -> None:
        asked = await peer.hear()
        await peer.say({"type": "error", "id": asked["id"], "code": "too_fast", "message": "in 3 s"})
        await peer.accept(tick(1))
        await peer.stay()

    errors: list[Exception] = []
    async with Scripted(script) as server, connect(server.url) as client:
        client.on("error", errors.append)
        async with client.ticks(1) as stream:
            assert positions(await take(stream, 1)) == [1]
    assert [str(error) for error in errors] == ["1: not subscribed: too_fast"]


@pytest.mark.parametrize("frame", [b"\x00", "not json", '{"type":"tick"}'])
async def test_what_is_no_message_of_the_platform_ends_the_stream(frame: str | bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.ws.send(frame)
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client, client.ticks(1) as stream:
        assert positions(await take(stream, 1)) == [1]
        with pytest.raises(ProtocolFailed):
            await take(stream, 1)


# The rule --------------------------------------------------------------------------------------------------------


async def test_a_message_that_breaks_the_rule_is_asked_for_again_and_not_handed_on() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(tick(1), tick(3))
        await peer.stay()

    async def second(peer: Peer) -> None:
        asked = await peer.accept(backfill(2, 3), tick(4))
        assert asked["since"] == {"1": [EPOCH, 1]}
        await peer.stay()

    errors: list[RuleViolated] = []
    async with Scripted(first, second) as server, connect(server.url, reconnect=Steps()) as client:
        client.on("error", errors.append)
        async with client.messages(1) as stream:
            assert positions(await take(stream, 4)) == [1, 2, 3, 4]
            assert (stream.missed, stream.stats.violations) == (0, 1)
    assert [(error.stood, error.came) for error in errors] == [(Place(EPOCH, 1), Place(EPOCH, 3))]


async def test_a_server_that_breaks_it_again_is_followed_and_what_lies_between_is_missed() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.accept(tick(1) if server.connections == 1 else tick(4), tick(5))
        await peer.stay()

    async with Scripted(breaks, breaks) as server, connect(server.url, reconnect=Steps()) as client:
        client.on("error", lambda _: None)
        async with client.messages(1) as stream:
            got = await take(stream, 4)
            assert positions(got) == [1, 4, 5]
            assert got[1] == Missed(1, None, EPOCH, 2, 3, 2, "gone")
            assert stream.missed == 2


async def test_where_it_is_raised_every_tick_before_it_is_handed_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.ws.send(json.dumps([tick(1), tick(2), tick(2), tick(3)]))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url, on_violation="raise") as client:
        got: list[Tick] = []
        with pytest.raises(RuleViolated):
            await collect(client.ticks(1), got)
        assert positions(got) == [1, 2]


async def test_missed_ticks_that_nobody_listens_for_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(backfill(1, 0), evicted(1, 4), evicted(5, 6), tick(7))
        await peer.stay()

    async with Scripted(script, script) as server, connect(server.url) as client:
        async with client.ticks(1) as stream:
            assert positions(await take(stream, 1)) == [7]
            assert stream.missed == 6
        assert [record.getMessage() for record in caplog.records if "missed" in record.getMessage()] == [
            f"4 ticks missed, the last of instrument 1 up to {EPOCH}/4 (slow); listen to 'missed' to be told each"
        ]
        caplog.clear()
        told: list[Missed] = []
        client.on("missed", told.append)
        async with client.ticks(1) as stream:
            await take(stream, 1)
        assert [event.count for event in told] == [4, 2]
        assert "missed" not in caplog.text


# Slow consumers and silent servers -------------------------------------------------------------------------------


async def test_a_slow_consumer_keeps_the_server_waiting_and_loses_nothing() -> None:
    total = 60_000
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        peer.ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_SOCKET)
        await peer.accept()
        for first in range(1, total, 100):
            await peer.ws.send(json.dumps([tick(n) for n in range(first, first + 100)]))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url, buffer_size=500) as client:
        async with client.ticks(1) as stream:
            # The client reads no more, and what the server has to say waits in the server.
            await until(lambda: stream._buffer.is_full and peers[0].ws.transport.get_write_buffer_size() > 32_768)
            # The buffer, and one frame.
            assert len(stream._buffer) <= 600
            assert stream.stats.ticks <= 600
            assert positions(await take(stream, total)) == list(range(1, total + 1))
            assert stream.missed == 0


async def test_where_it_is_an_error_a_slow_consumer_gets_what_is_here_and_then_that() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(*(tick(n) for n in range(1, 20)))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url, buffer_size=5, when_full="error") as client:
        async with client.ticks(1) as stream:
            await until(lambda: stream._buffer.is_closed)
            assert positions(await take(stream, 5)) == [1, 2, 3, 4, 5]
            with pytest.raises(BufferFull, match="5 messages behind"):
                await take(stream, 1)


async def answers_pings(peer: Peer) -> None:
    """Until the client goes; a tick once three pings came."""
    await peer.accept()
    pings = 0
    while True:
        assert await peer.hear() == {"action": "ping"}
        await peer.say({"type": "pong"})
        pings += 1
        if pings == 3:
            await peer.say(tick(2))


async def test_a_silent_server_is_asked_and_then_left() -> None:
    async def silent(peer: Peer) -> None:
        await peer.accept(tick(1))
        assert await peer.hear() == {"action": "ping"}
        await peer.stay()

    told: list[Disconnected] = []
    steps = Steps()
    # On a slow machine one that answers is too late now and then.
    scripts = [silent, *[answers_pings] * 100]
    async with Scripted(*scripts) as server, connect(server.url, heartbeat=0.2, reconnect=steps) as client:
        client.on("disconnected", told.append)
        async with client.ticks(1) as stream:
            assert positions(await take(stream, 2)) == [1, 2]
    assert told[0] == Disconnected(4900, "silent for 0.4 s", 0.001)
    assert steps.asked[0] == (0, None)


async def test_a_slow_consumer_is_no_silent_server() -> None:
    pongs = 0

    async def script(peer: Peer) -> None:
        protocol = peer.ws.protocol
        original = protocol.recv_frame

        def counted(frame: Any) -> None:
            nonlocal pongs
            pongs += frame.opcode == 0x0A
            original(frame)

        protocol.recv_frame = counted  # type: ignore[method-assign]
        await peer.accept(*(tick(n) for n in range(1, 101)))
        await peer.stay()

    scripts = [script, *[stay] * 100]
    async with Scripted(*scripts) as server, connect(server.url, heartbeat=0.02, buffer_size=5) as client:
        async with client.ticks(1) as stream:
            # It tells the server that it lives, and does not take it for dead.
            await until(lambda: pongs >= 5)
            assert stream.is_connected
            assert stream.stats.connects == 1
            assert positions(await take(stream, 100)) == list(range(1, 101))


# Its life --------------------------------------------------------------------------------------------------------


async def test_a_loop_that_is_left_closes_its_connection() -> None:
    left: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.accept(tick(1))
        await peer.stay()
        left.append(True)

    async with Scripted(script) as server, connect(server.url) as client:
        async for _ in client.ticks(1):
            break
        await until(lambda: left == [True])


async def test_in_a_block_one_loop_may_follow_another() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1), tick(2), tick(3))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client, client.ticks(1) as stream:
        got = []
        async for one in stream:
            got.append(one)
            break
        async for one in stream:
            got.append(one)
            if len(got) == 3:
                break
        assert positions(got) == [1, 2, 3]


async def test_closing_ends_the_loop_with_what_was_here_and_nothing_begins_after_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1), tick(2))
        await peer.stay()

    closed: list[Closed] = []
    async with Scripted(script) as server:
        client = connect(server.url)
        client.on("closed", closed.append)
        stream = client.ticks(1)
        await stream.accepted()
        await until(lambda: stream.stats.ticks == 2)
        await client.close()
        await client.close()
        assert positions([one async for one in stream]) == [1, 2]
        with pytest.raises(ClientClosed):
            client.ticks(1)
        with pytest.raises(ClientClosed):
            await stream.add(2)
        with pytest.raises(ClientClosed):
            async with stream:
                pass
    assert closed == [Closed(None)]


async def test_closing_ends_a_consumer_that_waits_and_a_connection_that_is_not_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        stream = client.ticks(1)
        waiting = asyncio.ensure_future(anext(stream))
        answered = asyncio.ensure_future(stream.accepted())
        await asyncio.sleep(0)
        await within(client.close())
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises(ClientClosed):
            await answered


async def test_cancelling_whoever_waits_leaves_the_stream_as_it_was() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1))
        asked = await peer.hear()
        await peer.answer(asked)
        await peer.say(tick(2))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client, client.ticks(1) as stream:
        await take(stream, 1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)
        await stream.add(2)
        assert positions(await take(stream, 1)) == [2]


async def test_instruments_are_added_and_removed_on_the_way() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1))
        asked = await peer.hear()
        assert (asked["symbols"], asked["backfill"]) == (["NSE:TCS"], 2)
        await peer.answer(asked, tokens=[7])
        await peer.say(backfill(4, 5, token=7), tick(6, token=7))
        asked = await peer.hear()
        assert (asked["action"], asked["tokens"]) == ("unsubscribe", [7])
        gone = {"instrument_token": 7, "removed": True}
        await peer.say({"type": "unsubscribed", "id": asked["id"], "tokens": [gone], "held": [1]})
        asked = await peer.hear()
        await peer.answer(asked, {7: "forbidden"})
        # Joined again elsewhere in its stream: nothing is held against it.
        await peer.accept(tick(90, token=8))
        await peer.say(tick(2))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client, client.ticks(1) as stream:
        (answer,) = await stream.add("NSE:TCS", backfill=2)
        assert answer.instrument_token == 7
        assert [(one.symbol, one.position) for one in await take(stream, 4)] == [
            (None, 1),
            ("NSE:TCS", 4),
            ("NSE:TCS", 5),
            ("NSE:TCS", 6),
        ]
        assert await stream.remove("NSE:TCS") == [7]
        assert stream.tokens == {1: 1}
        with pytest.raises(SubscriptionRefused, match="7: not subscribed: forbidden"):
            await stream.add(7)
        await stream.add(8)
        assert await stream.add(8) == []
        assert positions(await take(stream, 2)) == [90, 2]


async def test_what_was_removed_is_not_asked_for_by_the_next_connection() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(tick(1), tick(1, token=2))
        asked = await peer.hear()
        assert asked["action"] == "unsubscribe"
        await peer.cut()

    async def second(peer: Peer) -> None:
        asked = await peer.accept(tick(2))
        assert (asked["tokens"], asked["since"]) == ([1], {"1": [EPOCH, 1]})
        await peer.stay()

    async with Scripted(first, second) as server, connect(server.url, reconnect=Steps()) as client:
        async with client.ticks([1, 2]) as stream:
            await take(stream, 2)
            assert await within(stream.remove(2)) == [2]
            assert positions(await take(stream, 1)) == [2]


async def test_two_consumers_of_one_stream_are_told() -> None:
    async with Scripted(stay) as server, connect(server.url) as client, client.ticks(1) as stream:
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two consumers"):
            await anext(stream)
        first.cancel()


async def test_listeners_are_told_as_things_arrive_whether_anybody_iterates_or_not() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(tick(1), tick(2), {"type": "gap", "instrument_token": 1, "from": 3, "to": 4}, tick(3))
        await peer.stay()

    def fails(_: object) -> None:
        raise ZeroDivisionError

    told: list[Any] = []
    once: list[Any] = []
    raw: list[Any] = []
    async with Scripted(script, script) as server, connect(server.url) as client:
        client.on("tick", fails)
        off = client.on("tick", told.append)
        client.on("gap", told.append)
        client.once("tick", once.append)
        client.on("message", raw.append)
        async with client.subscribe(1) as stream:
            await until(lambda: len(told) == 4)
            assert stream.places() == {1: Place(EPOCH, 3)}
            assert len(stream._buffer) == 0
        assert [event.type for event in told] == ["tick", "tick", "gap", "tick"]
        assert positions(once) == [1]
        assert [message["type"] for message in raw] == ["subscribed", "tick", "tick", "gap", "tick"]
        off()
        client.off("tick", fails)
        client.off("tick", fails)
        async with client.subscribe(1) as stream:
            await until(lambda: stream.stats.ticks == 3)
        assert len(told) == 5


async def test_candles_and_states_are_streams_of_their_own() -> None:
    candle = {"instrument_token": 1, "interval": "5m", "ts": 1, "open": 1, "high": 1, "low": 1, "close": 1}

    async def candles(peer: Peer) -> None:
        asked = await peer.accept(backfill(5, 4))
        assert (asked["channels"], "since" in asked) == (["candle_5m"], False)
        await peer.say({"type": "candle", **candle, "volume": 1, "revision": 1, "final": False})
        await peer.cut()

    async def again(peer: Peer) -> None:
        asked = await peer.accept(backfill(90, 89))
        assert "since" not in asked
        await peer.say({"type": "candle", **candle, "volume": 2, "revision": 2, "final": True})
        await peer.stay()

    async def states(peer: Peer) -> None:
        asked = await peer.accept({"type": "state", "instrument_token": 1, "state": "closed", "since": 5})
        assert asked["channels"] == ["state"]
        await peer.stay()

    async with Scripted(candles, again, states) as server, connect(server.url, reconnect=Steps()) as client:
        async with client.candles("NSE:INFY", "5m") as bars:
            got = await take(bars, 2)
            assert [(bar.symbol, bar.revision, bar.final) for bar in got] == [
                ("NSE:INFY", 1, False),
                ("NSE:INFY", 2, True),
            ]
        async with client.states(1) as stream:
            assert [state.state for state in await take(stream, 1)] == ["closed"]


async def test_quotes_are_a_stream_that_begins_anew_on_each_connection_and_ticks_go_on_beside_them() -> None:
    def quote(stamp: int) -> dict[str, Any]:
        return {"type": "quote", "instrument_token": 1, "exchange_ts": stamp, "bid": [[100, 5, 1]], "oi": stamp}

    async def quotes(peer: Peer) -> None:
        asked = await peer.accept(backfill(5, 4))
        assert (asked["channels"], "since" in asked) == (["quote"], False)
        await peer.say(quote(5))
        await peer.cut()

    async def again(peer: Peer) -> None:
        await peer.accept(backfill(90, 89), quote(6))
        await peer.stay()

    async def both(peer: Peer) -> None:
        await peer.accept(backfill(1, 0), quote(6), tick(1), quote(7), tick(2))
        await peer.stay()

    async with Scripted(quotes, again, both) as server, connect(server.url, reconnect=Steps()) as client:
        async with client.quote_updates("NSE:INFY") as stream:
            assert [(one.symbol, one.oi) for one in await take(stream, 2)] == [("NSE:INFY", 5), ("NSE:INFY", 6)]
        heard: list[Any] = []
        client.on("quote", heard.append)
        async with client.messages(1, channels=["tick", "quote"]) as all_of_it:
            assert [message.type for message in await take(all_of_it, 4)] == ["quote", "tick", "quote", "tick"]
            assert all_of_it.stats.violations == 0
        assert [one.exchange_ts for one in heard] == [6, 7]


async def test_options_of_a_stream_go_before_those_of_its_client() -> None:
    async def script(peer: Peer) -> None:
        asked = await peer.accept()
        seen.append((asked.get("policy"), asked.get("capacity"), asked.get("batch")))
        await peer.stay()

    seen: list[Any] = []
    async with (
        Scripted(script, script) as server,
        connect(server.url, policy="conflate", capacity=7, batch=False) as client,
        client.ticks(1),
        client.ticks(1, policy="pause", capacity=9),
    ):
        await until(lambda: len(seen) == 2)
    assert seen == [("conflate", 7, None), ("pause", 9, None)]


async def test_a_recording_ends_by_count_or_by_time() -> None:
    def script(count: int) -> Script:
        async def play(peer: Peer) -> None:
            await peer.accept(*(tick(n) for n in range(1, count + 1)))
            await peer.stay()

        return play

    async with Scripted(script(5), script(3)) as server, connect(server.url) as client:
        recording = await within(client.record(1, count=4, limit=3))
        assert ([one.position for one in recording], recording.dropped) == ([2, 3, 4], 1)
        recording = await within(client.record(1, seconds=0.5))
        assert [one.position for one in recording] == [1, 2, 3]
        with pytest.raises(ValueError, match="seconds"):
            await client.record(1)


async def test_a_stream_of_a_replay_ends_where_the_replay_ends() -> None:
    async def script(peer: Peer) -> None:
        asked = await peer.accept(clock(1), tick(1), clock(2), tick(1), tick(2), clock(2, "ended"))
        assert asked["replay"] == "r1"
        await peer.stay()

    from market_data_platform.asking import Asked
    from market_data_platform.listeners import Listeners

    async with Scripted(script) as server, connect(server.url) as client:
        stream: Stream[Any] = Stream(
            client.server, Listeners(), [1], Asked(("tick",), replay="r1"), kind=None, on_violation="raise"
        )
        got = [event async for event in stream]
        assert [event.type for event in got] == ["clock", "tick", "run", "clock", "tick", "tick", "clock"]
        assert stream.places() == {1: Place(EPOCH, 2)}
        assert server.connections == 1


async def test_a_consumer_that_never_waits_leaves_the_socket_its_turn() -> None:
    total = 5_000

    async def script(peer: Peer) -> None:
        await peer.accept()
        for n in range(1, total + 1, 50):
            await peer.ws.send(json.dumps([tick(m) for m in range(n, n + 50)]))
        await peer.stay()

    async with Scripted(script) as server, connect(server.url) as client:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with client.ticks(1) as stream:
            await until(lambda: stream.stats.ticks == total)
            other = asyncio.ensure_future(others())
            before = turns
            await take_all(stream, total)
            assert turns - before >= total // 128
            other.cancel()


async def collect(stream: Stream[Any], got: list[Any]) -> None:
    async for event in stream:
        got.append(event)


async def take_all(stream: Stream[Any], count: int) -> None:
    for _ in range(count):
        await anext(stream)
