from __future__ import annotations

import pytest
from scripted import EPOCH, NEXT_DAY, backfill, evicted, tick

from market_data_platform import Place, Rule, RuleViolated


def play(rule: Rule, *messages: dict[str, object]) -> None:
    for m in messages:
        if m["type"] == "tick":
            rule.tick(m["instrument_token"], m["epoch"], m["position"])  # type: ignore[arg-type]
        elif m["type"] == "evicted":
            rule.evicted(m["instrument_token"], m["epoch"], m["from"], m["to"], m["count"])  # type: ignore[arg-type]
        else:
            args = (m["instrument_token"], m["epoch"], m["from"], m["to"], m["recovered"], m["data"])
            rule.backfill(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([tick(7), tick(8), tick(9)], id="ticks that go up by one, from anywhere"),
        pytest.param([backfill(1, 5), tick(6)], id="a backfill and the ticks behind it"),
        pytest.param([backfill(6, 5), tick(6)], id="an empty backfill that says where the stream stands"),
        pytest.param([backfill(1, 0, epoch=0), tick(40)], id="an instrument that nothing is known of yet"),
        pytest.param([tick(1), evicted(2, 9), tick(10)], id="a hole that is covered"),
        pytest.param([tick(1), evicted(2, 5), evicted(6, 9), tick(10)], id="a hole that is covered in two parts"),
        pytest.param([evicted(2, 5), backfill(6, 9), tick(10)], id="a backfill that could not give all"),
        pytest.param([tick(9), tick(1, epoch=NEXT_DAY)], id="a later epoch, from its first position"),
        pytest.param([tick(9), evicted(1, 4, epoch=NEXT_DAY), tick(5, epoch=NEXT_DAY)], id="a later epoch with a hole"),
        pytest.param([tick(3), tick(3, token=2), tick(4), tick(4, token=2)], id="instruments apart from one another"),
        pytest.param([tick(9), backfill(4, 3, recovered=False), tick(4)], id="a place that nobody knows, given up"),
    ],
)
def test_takes(messages: list[dict[str, object]]) -> None:
    play(Rule(), *messages)


@pytest.mark.parametrize(
    ("messages", "came", "what"),
    [
        ([tick(1), tick(3)], Place(EPOCH, 3), "expected"),
        ([tick(1), tick(1)], Place(EPOCH, 1), "expected"),
        ([tick(5), tick(4)], Place(EPOCH, 4), "expected"),
        ([tick(1), evicted(3, 4)], Place(EPOCH, 3), "expected"),
        ([tick(1), evicted(2, 4), tick(6)], Place(EPOCH, 6), "expected"),
        ([tick(1), evicted(2, 4), tick(4)], Place(EPOCH, 4), "expected"),
        ([tick(1), evicted(2, 4, count=2)], Place(EPOCH, 2), "counts 2"),
        ([evicted(2, 1)], Place(EPOCH, 2), "counts 0"),
        ([tick(1), backfill(3, 4)], Place(EPOCH, 3), "expected"),
        ([tick(1), {**backfill(2, 4), "data": []}], Place(EPOCH, 2), "holds 0"),
        ([{**backfill(2, 3), "data": [tick(2), tick(4)]}], Place(EPOCH, 4), "entry 1"),
        ([{**backfill(2, 3), "data": [tick(2), tick(3, token=2)]}], Place(EPOCH, 3), "entry 1"),
        ([tick(1, epoch=NEXT_DAY), tick(2)], Place(EPOCH, 2), "earlier epoch"),
        ([tick(9), tick(2, epoch=NEXT_DAY)], Place(NEXT_DAY, 2), "expected"),
        ([tick(9), backfill(12, 11)], Place(EPOCH, 11), "empty backfill"),
        ([tick(9), backfill(4, 3)], Place(EPOCH, 3), "empty backfill"),
        ([tick(9), backfill(4, 3, epoch=NEXT_DAY)], Place(NEXT_DAY, 3), "empty backfill"),
    ],
)
def test_refuses_and_names_the_place(messages: list[dict[str, object]], came: Place, what: str) -> None:
    rule = Rule()
    play(rule, *messages[:-1])
    stood = rule.places.get(1)
    with pytest.raises(RuleViolated) as refused:
        play(rule, messages[-1])
    assert (refused.value.instrument_token, refused.value.stood, refused.value.came) == (1, stood, came)
    assert what in str(refused.value)
    assert rule.places.get(1) == stood, "a message that breaks the rule moves nothing"


def test_goes_on_from_a_message_that_was_accepted_all_the_same() -> None:
    rule = Rule()
    play(rule, tick(1))
    with pytest.raises(RuleViolated) as refused:
        play(rule, backfill(5, 8))
    rule.accept(refused.value)
    play(rule, tick(9))


def test_a_replay_may_begin_anew_and_only_a_replay() -> None:
    replay = Rule(may_restart=True)
    play(replay, tick(8), tick(1), tick(2))
    replay.restart()
    play(replay, tick(5))
    with pytest.raises(RuleViolated):
        play(replay, tick(3))
    market = Rule()
    play(market, tick(8))
    with pytest.raises(RuleViolated):
        play(market, tick(1))


def test_a_stream_that_is_left_and_joined_again_has_no_place_in_between() -> None:
    rule = Rule({1: Place(EPOCH, 5)})
    with pytest.raises(RuleViolated):
        play(rule, tick(9))
    rule.forget(1)
    play(rule, tick(9))
