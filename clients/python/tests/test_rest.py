from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import pytest
from scripted import Http, Steps
from test_tables import bar, historical

from market_data_platform import (
    BadRequest,
    Book,
    Client,
    Forbidden,
    InsecureKeyWarning,
    Level,
    MarketDataError,
    NetworkFailed,
    NotFound,
    ProtocolFailed,
    Reconnect,
    RequestFailed,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unsupported,
    connect,
)

INSTRUMENT = {
    "instrument_token": 408_065,
    "tradingsymbol": "INFY",
    "exchange": "NSE",
    "asset_class": "EQ",
    "tick_size": 0.05,
    "name": "INFOSYS",
    "expiry": None,
    "strike": None,
    "option_type": None,
    "lot_size": 1,
}
REPLAY = {
    "id": "r-1",
    "state": "paused",
    "speed": "inf",
    "clock": None,
    "run": 1,
    "from": 1,
    "to": 2,
    "sent": 0,
    "total": 5,
}
Reply = tuple[int, Mapping[str, str], object]
KEY = "mdp_0123456789abcdef"


def asked(http: Http, at: int = -1) -> tuple[str, str, dict[str, str]]:
    method, path, _, _ = http.seen[at]
    parts = urlsplit(path)
    return method, parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


def page(rows: list[dict[str, object]], cursor: str | None, name: str = "ticks") -> Reply:
    return 200, {}, {name: rows, "next_cursor": cursor}


def test_history_goes_page_by_page_from_cursor_to_cursor() -> None:
    with Http(page([historical(1), historical(2)], "c1"), page([historical(3)], None)) as http, Client(http.url) as one:
        table = one.history.ticks("NSE:INFY", "2026-01-15").all()
        assert [tick.position for tick in table] == [1, 2, 3]
        assert asked(http, 0) == (
            "GET",
            "/api/v1/historical/ticks",
            {"symbol": "NSE:INFY", "from": "1768415400000000", "to": "1768501800000000", "limit": "10000"},
        )
        assert asked(http, 1)[2]["cursor"] == "c1"


def test_history_asks_for_no_more_than_is_wanted() -> None:
    with Http(page([historical(1), historical(2)], "c1"), page([historical(3)], "c2")) as http, Client(http.url) as one:
        assert len(list(one.history.ticks(5, limit=3))) == 3
        assert [asked(http, n)[2]["limit"] for n in (0, 1)] == ["3", "1"]
        assert asked(http, 0)[2]["instrument_token"] == "5"


def test_candles_are_asked_for_by_interval_fill_and_session() -> None:
    with Http(page([bar(0)], None, "candles")) as http, Client(http.url) as one:
        query = one.history.candles(
            "NSE:INFY", interval="5m", start="2026-01-15T09:15:00+05:30", fill="previous", session="regular"
        )
        assert query.to_pandas()["close"].tolist() == [2.0]
        assert asked(http) == (
            "GET",
            "/api/v1/historical/candles",
            {
                "symbol": "NSE:INFY",
                "from": "1768448700000000",
                "interval": "5m",
                "fill": "previous",
                "session": "regular",
                "limit": "10000",
            },
        )


def test_instruments_are_searched_looked_up_and_found() -> None:
    other = {**INSTRUMENT, "exchange": "BSE", "instrument_token": 9}
    found: Reply = (200, {}, {"instruments": [INSTRUMENT, other, {**INSTRUMENT, "tradingsymbol": "INFYBEES"}]})
    with Http(found, (200, {}, INSTRUMENT), found, found, found) as http, Client(http.url) as one:
        assert [info.symbol for info in one.instruments.search("inf", limit=3)] == [
            "NSE:INFY",
            "BSE:INFY",
            "NSE:INFYBEES",
        ]
        assert asked(http)[2] == {"query": "inf", "limit": "3"}
        assert one.instruments.get(408_065, as_of="2026-01-15").name == "INFOSYS"
        assert asked(http)[1:] == ("/api/v1/instruments/408065", {"as_of": "2026-01-15"})
        info = one.instruments.find("nse:infy")
        assert info is not None
        assert info.instrument_token == 408_065
        assert asked(http)[2] == {"query": "nse:infy", "limit": "20"}
        assert one.instruments.find("NSE:NOPE") is None
        with pytest.raises(Unsupported, match="one of NSE:INFY, BSE:INFY"):
            one.instruments.find("INFY")


def test_quotes_are_asked_for_300_at_a_time_in_the_order_asked() -> None:
    def quotes(first: int, last: int) -> Reply:
        rows = [
            {"instrument_token": n, "last": None, "open": None, "high": None, "low": None, "volume": None}
            for n in range(first, last)
        ]
        return 200, {}, {"quotes": rows}

    with Http(quotes(1, 301), quotes(301, 401)) as http, Client(http.url) as one:
        assert [quote.instrument_token for quote in one.quotes(range(1, 401))] == list(range(1, 401))
        assert asked(http, 0)[2]["tokens"].count(",") == 299
    with Http((200, {}, {"instruments": []})) as http, Client(http.url) as one, pytest.raises(NotFound, match="NSE:X"):
        one.quotes("NSE:X")


def test_quotes_have_what_is_known_of_the_book() -> None:
    row = {"instrument_token": 1, "last": None, "open": None, "high": None, "low": None, "volume": None}
    known = {"exchange_ts": 1_768_448_700_000_001, "bid": [[100, 5, 2]], "oi": 12}
    with Http((200, {}, {"quotes": [{**row, "quote": known}, {**row, "instrument_token": 2}]})) as http:
        with Client(http.url) as one:
            first, second = one.quotes([1, 2])
    assert first.quote == Book(1_768_448_700_000_001, bid=[Level(100.0, 5, 2)], oi=12)
    assert first.quote.time.isoformat() == "2026-01-15T09:15:00.000001+05:30"
    assert second.quote is None


def test_the_calendar_has_phases_by_segment() -> None:
    phases = [{"phase": "CONTINUOUS", "from": 1, "to": 2}]
    day = {"exchange": "NSE", "date": "2026-01-15", "holiday": None, "phases": phases, "segments": {"NSE_EQ": phases}}
    with Http((200, {}, {**day, "known": True})) as http, Client(http.url) as one:
        got = one.calendar("NSE", "2026-01-15")
        assert (got.phases[0].from_, got.segments["NSE_EQ"][0].phase) == (1, "CONTINUOUS")
        assert asked(http)[2] == {"exchange": "NSE", "date": "2026-01-15"}


def test_raw_ticks_go_in_bodies_of_a_bounded_size() -> None:
    report = {"accepted": 2, "rejected": [{"line": 1, "reason": "price"}], "rejected_total": 1}
    with Http((200, {}, report), (200, {}, report)) as http, Client(http.url) as one:
        rows = [{"instrument_token": 1, "exchange_ts": 1, "price": 1, "note": "x" * 3_000_000} for _ in range(2)]
        total = one.ingest(rows)
        assert (total.accepted, total.rejected_total, len(total.rejected)) == (4, 2, 2)
        assert [len(body) < 4_194_304 for _, _, _, body in http.seen] == [True, True]
        assert [json.loads(body) for _, _, _, body in http.seen] == rows
        assert http.seen[0][2]["Content-Type"] == "application/x-ndjson"
        assert one.ingest([]).accepted == 0


def test_an_instruments_file_is_sent_as_csv() -> None:
    report = {"added": 1, "changed": 0, "expired": 0, "rejected": [], "rejected_total": 0}
    with Http((200, {}, report)) as http, Client(http.url) as one:
        assert one.instruments.import_file("instrument_token\n1\n").added == 1
        assert (http.seen[0][2]["Content-Type"], http.seen[0][3]) == ("text/csv", b"instrument_token\n1\n")


def test_replays_are_made_steered_and_ended() -> None:
    answers: list[Reply] = [
        (201, {}, REPLAY),
        (200, {}, {"replays": [REPLAY]}),
        *[(200, {}, REPLAY)] * 7,
        (204, {}, ""),
    ]
    with Http(*answers) as http, Client(http.url) as one:
        status = one.replays.create(
            ["NSE:INFY"], "2026-01-15", speed=float("inf"), start="09:15", end="10:00", paused=True, detached=True
        )
        assert (status.id, status.speed, status.from_, status.failure) == ("r-1", "inf", 1, None)
        assert json.loads(http.seen[0][3]) == {
            "symbols": ["NSE:INFY"],
            "date": "2026-01-15",
            "speed": "inf",
            "from": "09:15",
            "to": "10:00",
            "paused": True,
            "detached": True,
        }
        assert [one_of.id for one_of in one.replays.list()] == ["r-1"]
        assert one.replays.get("r-1").total == 5
        changes = [
            {"state": "paused"},
            {"speed": 10},
            {"seek": "2026-01-15T10:00:00+05:30"},
            {"step": {"ticks": 5}},
            {"seek": "09:20"},
            {"state": "running", "speed": "inf"},
        ]
        for change in changes:
            one.replays.change("r-1", **change)  # type: ignore[arg-type]
        sent = [json.loads(body) for method, _, _, body in http.seen if method == "PATCH"]
        assert sent == [*changes[:2], {"seek": 1_768_451_400_000_000}, *changes[3:]]
        one.replays.delete("r-1")
        assert asked(http)[:2] == ("DELETE", "/api/v1/replays/r-1")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda one: one.replays.create(None, "2026-01-15"), "instruments"),
        (lambda one: one.replays.create(["A", 1], "2026-01-15"), "instruments"),
        (lambda one: one.replays.create(["A"], "2026-01-15", all=True), "instruments"),
        (lambda one: one.replays.create(["A"], "15/1/2026"), "date"),
        (lambda one: one.replays.create(["A"], "2026-01-15", speed=0), "speed"),
        (lambda one: one.replays.create(["A"], "2026-01-15", speed="fast"), "speed"),
        (lambda one: one.replays.change("r"), "state"),
        (lambda one: one.replays.change("r", state="stopped"), "state"),
        (lambda one: one.replays.get("../quotes"), "id"),
        (lambda one: one.history.candles("A", interval="2m"), "interval"),
        (lambda one: one.history.candles("A", fill="zero"), "fill"),
        (lambda one: one.history.ticks("A", limit=0), "limit"),
        (lambda one: one.history.ticks("A", start="2026-01-16", end="2026-01-15"), "end"),
        (lambda one: one.history.ticks("A", start="2026-01-16", end="2026-01-16"), "end"),
        (lambda one: one.history.ticks("A", start="2026-01-16T09:15"), "start"),
        (lambda one: one.instruments.get(0), "instruments"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_sent(wrong, field: str) -> None:  # type: ignore[no-untyped-def]
    with Http() as http, Client(http.url) as one:
        with pytest.raises(Unsupported, match=f"^{field}: expected"):
            wrong(one)
        assert http.seen == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (418, RequestFailed),
    ],
)
def test_a_refusal_is_an_error_of_its_kind_with_the_servers_words(status: int, kind: type[RequestFailed]) -> None:
    body = {"_tag": kind.__name__, "message": "limit: expected 1 to 10000, got 0", "parameter": "limit"}
    with Http((status, {}, body)) as http, Client(http.url) as one:
        with pytest.raises(kind, match="limit: expected 1 to 10000, got 0") as refused:
            one.instruments.search("x")
        error = refused.value
        assert type(error) is kind
        assert isinstance(error, MarketDataError)
        assert (error.status, error.tag, error.parameter) == (status, kind.__name__, "limit")
        assert len(http.seen) == 1, "what is refused for good is not asked again"


def test_too_much_and_not_ready_are_asked_again_after_what_the_server_says() -> None:
    steps = Steps()
    busy: Reply = (429, {"Retry-After": "2"}, {"_tag": "TooManyRequests", "message": "full"})
    starting: Reply = (503, {}, {"_tag": "NotReady", "message": "starting"})
    with Http(busy, starting, (200, {}, INSTRUMENT)) as http, Client(http.url, reconnect=steps) as one:
        assert one.instruments.get(1).name == "INFOSYS"
        assert steps.asked == [(0, 2.0), (1, None)]
        http.answers = [busy] * 9
        with pytest.raises(TooManyRequests) as refused:
            one.instruments.get(1)
        assert refused.value.retry_after == 2
        assert len(http.answers) == 5, "three tries more, and no fourth"
        http.answers = [(503, {"Retry-After": "3600"}, "")]
        with pytest.raises(Unavailable):
            one.instruments.get(1)


def test_what_may_have_been_done_is_not_done_twice() -> None:
    with Http((0, {}, ""), (0, {}, ""), (503, {}, "")) as http, Client(http.url, reconnect=Steps()) as one:
        with pytest.raises(NetworkFailed, match="POST /api/v1/replays"):
            one.replays.create(["A"], "2026-01-15")
        with pytest.raises(NetworkFailed):
            one.replays.change("r", step={"ticks": 1})
        with pytest.raises(Unavailable):
            one.replays.create(["A"], "2026-01-15")
        assert len(http.seen) == 3


def test_a_connection_that_breaks_off_is_no_reason_to_give_up_a_question() -> None:
    with Http((0, {}, ""), (200, {}, INSTRUMENT)) as http, Client(http.url, reconnect=Steps()) as one:
        assert one.instruments.get(1).name == "INFOSYS"


def test_no_server_is_a_failure_of_the_network_and_a_silent_one_of_time() -> None:
    with Http() as http:
        url = http.url
    with Client(url, reconnect=Steps()) as one, pytest.raises(NetworkFailed, match="GET /api/v1/instruments/1"):
        one.instruments.get(1)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.05, retries=0) as one, pytest.raises(TimedOut, match=r"no answer in 0\.05 s"):
            one.instruments.get(1)


@pytest.mark.parametrize("body", ["<html>", "[]", {"instruments": [{}]}])
def test_an_answer_that_cannot_be_read_is_named(body: object) -> None:
    with (
        Http((200, {}, body)) as http,
        Client(http.url) as one,
        pytest.raises(ProtocolFailed, match="GET /api/v1/instruments/search"),
    ):
        one.instruments.search("x")


def test_the_key_is_a_bearer_in_a_header_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Http((200, {}, INSTRUMENT), (401, {}, {"_tag": "Unauthorized", "message": "key: expired"})) as http:
        one = Client(http.url, KEY)
        one.instruments.get(1)
        assert http.seen[0][2]["Authorization"] == f"Bearer {KEY}"
        with pytest.raises(Unauthorized) as refused:
            one.instruments.get(1)
        shown = repr((one, vars(one), vars(one._live), one._live.server, refused.value, vars(refused.value)))
        one.close()
    assert KEY not in shown
    assert KEY not in caplog.text


def test_a_function_that_knows_the_key_is_asked_again_after_a_refusal_and_once() -> None:
    refusal: Reply = (401, {}, {"_tag": "Unauthorized", "message": "key: expired"})
    keys = iter(["old", "new", "newest"])
    with Http(refusal, (200, {}, INSTRUMENT), (200, {}, INSTRUMENT)) as http:
        one = Client(http.url, lambda: next(keys))
        one.instruments.get(1)
        one.instruments.get(1)
        assert [seen[2]["Authorization"] for seen in http.seen] == ["Bearer old", "Bearer new", "Bearer new"]
        http.answers = [refusal] * 5
        with pytest.raises(Unauthorized):
            one.instruments.get(1)
        assert len(http.answers) == 3
        one.close()


@pytest.mark.parametrize("wrong", ["", "a b", "a\n", "schlüssel"])
def test_a_key_that_no_header_takes_is_refused_unseen(wrong: str) -> None:
    with pytest.raises(Unsupported, match="key: expected") as refused:
        Client("http://127.0.0.1:1", wrong)
    assert wrong == "" or wrong not in str(refused.value)


def test_a_redirect_is_not_followed() -> None:
    with Http() as elsewhere, Http((307, {"Location": elsewhere.url}, "")) as http:
        with Client(http.url, KEY) as one, pytest.raises(RequestFailed):
            one.instruments.get(1)
        assert elsewhere.seen == []


@pytest.mark.parametrize(
    "wrong",
    ["127.0.0.1:8080", "ftp://h", "http://", "http://u:secret@h", "http://h?x=1", "http://h#x", ""],
)
def test_refuses_what_is_no_address(wrong: str) -> None:
    with pytest.raises(Unsupported, match=r"^url: expected") as refused:
        connect(wrong)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:8080/", "http://h:8080"),
        ("ws://h:8080/ws", "http://h:8080"),
        ("wss://h/ws", "https://h"),
        ("https://h/prefix", "https://h/prefix"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_takes_addresses_of_rest_and_websocket_alike(given: str, url: str) -> None:
    client = connect(given)
    assert client.url == url
    assert client.server.ws_url == f"ws{url[4:]}/ws"


def test_a_key_in_the_clear_is_warned_of_beyond_this_machine() -> None:
    with pytest.warns(InsecureKeyWarning, match="unencrypted"):
        connect("http://feed.example:8080", key=KEY)
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://feed.example"):
        connect(url, key=KEY)


def test_wrong_options_are_named() -> None:
    for wrong in (
        {"policy": "drop"},
        {"when_full": "evict"},
        {"on_violation": "ignore"},
        {"heartbeat": 0},
        {"capacity": 0},
    ):
        with pytest.raises(Unsupported, match=f"^{next(iter(wrong))}: expected"):
            connect("http://127.0.0.1:1", **wrong)
    assert connect("http://127.0.0.1:1", reconnect=Reconnect()).url == "http://127.0.0.1:1"


@pytest.mark.anyio
async def test_a_program_on_asyncio_has_the_same() -> None:
    answers: list[Reply] = [
        page([historical(1)], "c"),
        page([historical(2)], None),
        (200, {}, {"instruments": [INSTRUMENT]}),
        (200, {}, {"quotes": []}),
        (401, {}, {"_tag": "Unauthorized", "message": "x"}),
        (201, {}, REPLAY),
        (200, {}, {"replays": []}),
        (200, {}, REPLAY),
        (200, {}, REPLAY),
        (204, {}, ""),
        (0, {}, ""),
    ]
    keys = iter(["one", "two"])

    async def key() -> str:
        return next(keys)

    with Http(*answers) as http:
        async with connect(http.url, key=key, reconnect=Steps()) as one:
            assert [tick.position async for tick in one.history.ticks(5)] == [1, 2]
            assert await one.quotes("NSE:INFY") == []
            assert (await one.replays.create([1], "2026-01-15")).id == "r-1"
            assert await one.replays.list() == []
            await one.replays.get("r-1")
            await one.replays.change("r-1", state="paused")
            await one.replays.delete("r-1")
            with pytest.raises(NetworkFailed):
                await one.replays.create([1], "2026-01-15")
        assert {seen[2]["Authorization"] for seen in http.seen[:5]} == {"Bearer one"}
        assert {seen[2]["Authorization"] for seen in http.seen[5:]} == {"Bearer two"}
