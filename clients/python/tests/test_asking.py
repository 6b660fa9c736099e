from __future__ import annotations

import json
from typing import Any

import pytest
from scripted import EPOCH

from market_data_platform import MessageRefused, Place, SubscriptionRefused, Unsupported
from market_data_platform.asking import MAX_LISTED, Asked, Asking, checked_instruments, checked_since

pytestmark = pytest.mark.anyio
MAX_MESSAGE_BYTES = 262_144


def asking(places: dict[int, Place] | None = None, *, tells: bool = False, **asked: Any) -> Asking:
    channels = asked.pop("channels", ("tick",))
    return Asking(Asked(channels, **asked), {} if places is None else places, tells_refusals=tells)


def parsed(texts: list[str]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in texts]


def accepted(message: dict[str, Any], *tokens: int) -> dict[str, Any]:
    """The answer that accepts everything."""
    names = message.get("symbols")
    if names is None:
        entries = [{"instrument_token": token, "accepted": True, "known": True} for token in message["tokens"]]
    else:
        entries = [
            {"instrument_token": token, "symbol": name, "accepted": True, "known": True}
            for name, token in zip(names, tokens, strict=True)
        ]
    return {"type": "subscribed", "id": message["id"], "simulated": False, "tokens": entries}


def test_a_message_says_what_was_asked_and_nothing_else() -> None:
    one = asking()
    one.want(["NSE:INFY"], {}, 0)
    (message,) = parsed(one.connected())
    assert message == {
        "action": "subscribe",
        "id": 1,
        "channels": ["tick"],
        "symbols": ["NSE:INFY"],
        "batch": True,
    }
    full = asking(
        {5: Place(EPOCH, 7)}, channels=("tick", "gap"), policy="conflate", capacity=5, batch=False, replay="r"
    )
    full.want([5], {}, 10)
    (message,) = parsed(full.connected())
    assert message == {
        "action": "subscribe",
        "id": 1,
        "channels": ["tick", "gap"],
        "tokens": [5],
        "since": {"5": [EPOCH, 7]},
        "backfill": 10,
        "policy": "conflate",
        "capacity": 5,
        "replay": "r",
    }


def test_symbols_and_tokens_go_in_messages_of_their_own() -> None:
    one = asking()
    one.want(["NSE:INFY", 7, "NSE:TCS"], {}, 0)
    messages = parsed(one.connected())
    assert [(message.get("tokens"), message.get("symbols")) for message in messages] == [
        ([7], None),
        (None, ["NSE:INFY", "NSE:TCS"]),
    ]


def test_ten_thousand_instruments_come_back_from_their_places_in_messages_that_the_server_takes() -> None:
    tokens = list(range(1_000_000_001, 1_000_010_001))
    places = {token: Place(EPOCH, 999_999_999) for token in tokens}
    one = asking(places)
    one.want(tokens, {}, 0)
    texts = one.connected()
    assert len(texts) == 5
    for text in texts:
        assert len(text.encode()) <= MAX_MESSAGE_BYTES
        message = json.loads(text)
        assert len(message["tokens"]) <= MAX_LISTED
        assert list(message["since"]) == [str(token) for token in message["tokens"]]
    assert [token for message in parsed(texts) for token in message["tokens"]] == tokens
    # As many as it takes at once.
    assert sum(len(text) for text in texts) < 1_048_576


def test_names_that_are_long_go_in_more_messages() -> None:
    symbols = [f"{'ऊ' * 58}{n:06}" for n in range(2_000)]
    one = asking()
    one.want(symbols, {}, 0)
    texts = one.connected()
    assert all(len(text.encode()) <= MAX_MESSAGE_BYTES for text in texts)
    assert [symbol for message in parsed(texts) for symbol in message["symbols"]] == symbols


async def test_after_the_answer_an_instrument_is_asked_for_by_its_token_and_place() -> None:
    places: dict[int, Place] = {}
    one = asking(places)
    one.want(["NSE:INFY"], {}, 100)
    call = one.call_all()
    (message,) = parsed(one.connected())
    one.subscribed(accepted(message, 42))
    assert [answer.instrument_token for answer in await call] == [42]
    assert one.symbol_of(42) == "NSE:INFY"
    places[42] = Place(EPOCH, 9)
    (message,) = parsed(one.connected())
    assert (message["tokens"], message["since"], message["backfill"]) == ([42], {"42": [EPOCH, 9]}, 100)
    one.subscribed(accepted(message))
    assert one.symbol_of(42) == "NSE:INFY"


async def test_a_refused_instrument_is_told_with_all_that_were_refused_with_it() -> None:
    one = asking()
    one.want(["A", "B", 3], {}, 0)
    call = one.call_all()
    by_token, by_symbol = parsed(one.connected())
    one.subscribed(accepted(by_token))
    assert not call.done()
    one.subscribed(
        {
            "id": by_symbol["id"],
            "tokens": [
                {"symbol": "A", "accepted": False, "reason": "unknown_symbol"},
                {"instrument_token": 5, "symbol": "B", "accepted": False, "reason": "forbidden"},
            ],
        }
    )
    with pytest.raises(SubscriptionRefused, match="A: not subscribed: unknown_symbol, and 1 more") as refused:
        await call
    assert refused.value.refused == {"A": "unknown_symbol", "B": "forbidden"}
    assert (refused.value.instrument, refused.value.reason) == ("A", "unknown_symbol")
    assert list(one.by_token) == [3]
    assert len(parsed(one.connected())) == 1, "what was refused is not asked for again"


async def test_where_refusals_are_told_the_others_go_on_and_nothing_at_all_is_an_error() -> None:
    one = asking(tells=True)
    one.want([1, 2], {}, 0)
    call = one.call_all()
    (message,) = parsed(one.connected())
    refused = {"instrument_token": 2, "accepted": False, "reason": "forbidden"}
    answer = accepted(message)
    answer["tokens"][1] = refused
    assert one.subscribed(answer).lost == {2: "forbidden"}
    assert [entry.accepted for entry in await call] == [True, False]

    none = asking(tells=True)
    none.want([2], {}, 0)
    call = none.call_all()
    (message,) = parsed(none.connected())
    none.subscribed({"id": message["id"], "tokens": [refused]})
    with pytest.raises(SubscriptionRefused):
        await call


async def test_on_a_later_connection_what_there_is_no_room_for_is_asked_again_and_what_is_forbidden_lost() -> None:
    one = asking()
    one.want([1, 2, 3], {}, 0)
    call = one.call_all()
    (message,) = parsed(one.connected())
    one.subscribed(accepted(message))
    await call
    (message,) = parsed(one.connected())
    answer = accepted(message)
    answer["tokens"][1] = {"instrument_token": 2, "accepted": False, "reason": "server_full"}
    answer["tokens"][2] = {"instrument_token": 3, "accepted": False, "reason": "forbidden"}
    todo = one.subscribed(answer)
    assert (list(todo.again), todo.lost) == ([2], {3: "forbidden"})
    assert [message["tokens"] for message in parsed(one.again(todo.again))] == [[2]]
    assert [message["tokens"] for message in parsed(one.connected())] == [[1, 2]]


async def test_a_message_that_is_refused_fails_who_waits_for_it_and_too_fast_is_asked_again() -> None:
    one = asking()
    one.want([1], {}, 0)
    call = one.call_all()
    (message,) = parsed(one.connected())
    todo = one.refused("too_fast", "in 3 s", message["id"])
    assert todo is not None
    assert list(todo.again) == [1]
    (message,) = parsed(one.again(todo.again))
    assert one.refused("unsupported", "policy", message["id"]) is not None
    with pytest.raises(MessageRefused, match="unsupported: policy") as refused:
        await call
    assert refused.value.code == "unsupported"
    assert one.refused("unsupported", "nobody's", 77) is None


async def test_on_a_later_connection_a_refused_message_is_the_end() -> None:
    one = asking(replay="r1")
    one.want([1], {}, 0)
    one.call_all()
    (message,) = parsed(one.connected())
    one.subscribed(accepted(message))
    (message,) = parsed(one.connected())
    with pytest.raises(MessageRefused, match="unknown_replay"):
        one.refused("unknown_replay", "gone", message["id"])


async def test_leaving_is_answered_by_the_server_or_by_the_next_connection() -> None:
    one = asking()
    one.want([1, 2, "C"], {}, 0)
    for message, tokens in zip(parsed(one.connected()), ([], [3]), strict=True):
        one.subscribed(accepted(message, *tokens))
    messages, left = one.leave([1, "C", 9], True)
    (message,) = parsed(messages)
    assert (message["action"], message["tokens"]) == ("unsubscribe", [1, 3])
    assert not left.done()
    one.unsubscribed(
        {
            "id": message["id"],
            "tokens": [{"instrument_token": 1, "removed": True}, {"instrument_token": 3, "removed": True}],
            "held": [2],
        }
    )
    assert await left == [1, 3]
    assert list(one.by_token) == [2]

    messages, left = one.leave([2], True)
    assert len(messages) == 1
    one.connected()
    assert await left == [2]
    assert one.by_token == {}


async def test_an_instrument_that_is_there_already_under_another_name_is_there() -> None:
    one = asking()
    one.want(["NSE:INFY", 1], {}, 0)
    call = one.call_all()
    by_token, by_symbol = parsed(one.connected())
    one.subscribed(accepted(by_token))
    refused = {"instrument_token": 1, "symbol": "NSE:INFY", "accepted": False, "reason": "already_subscribed"}
    one.subscribed({"id": by_symbol["id"], "tokens": [refused]})
    await call


@pytest.mark.parametrize("wrong", [[0], [-1], [2_147_483_648], [""], ["x" * 65], [True], [1.5], [None]])
def test_refuses_what_is_no_instrument(wrong: Any) -> None:
    with pytest.raises(Unsupported, match="instruments"):
        checked_instruments(wrong)


def test_takes_one_instrument_or_many_each_once() -> None:
    assert checked_instruments("NSE:INFY") == ["NSE:INFY"]
    assert checked_instruments(7) == [7]
    many: list[int | str] = [7, "A", 7, "A"]
    assert checked_instruments(iter(many)) == [7, "A"]


@pytest.mark.parametrize("wrong", [{1: 5}, {1: (1, 2, 3)}, {1: ("x", 2)}, {"x": (1, 2)}])
def test_refuses_what_is_no_place(wrong: Any) -> None:
    with pytest.raises(Unsupported, match="since"):
        checked_since(wrong)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": ("ticks",)}, "channels"),
        ({"policy": "drop"}, "policy"),
        ({"capacity": 0}, "capacity"),
    ],
)
def test_refuses_options_that_the_server_would(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(Unsupported, match=f"^{field}: expected"):
        asking(**wrong)


def test_refuses_places_without_ticks_and_more_places_than_a_message_of_symbols_takes() -> None:
    with pytest.raises(Unsupported, match="channels"):
        asking(channels=("state",)).want([1], {1: Place(1, 1)}, 0)
    with pytest.raises(Unsupported, match="backfill"):
        asking().want([1], {}, -1)
    with pytest.raises(Unsupported, match="name tokens instead"):
        asking().want(["A"], {n: Place(1, 1) for n in range(1, 2_002)}, 0)
