"""Every example is run as a user would run it, against the platform itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from day import DAY, INSTRUMENTS, raw_ticks
from instance import CHECKOUT, EXAMPLES, Instance, checked
from test_instance import until_stored

from market_data_platform import IST, Client

#: A guard against a hang.
_SECONDS = 240
_COUNT = 2_000
_RUN: dict[str, Sequence[str]] = {
    "candles_to_pandas.py": ("--symbol", "NSE:RELIANCE", "--day", DAY),
    "live_moving_average.py": ("--symbols", "SIM:RELIANCE", "SIM:INFY", "--ticks", "30"),
    "replay_a_day.py": ("--symbol", "NSE:RELIANCE", "--day", DAY),
}
#: As whoever has just started a simulated market does.
_BARE: dict[str, str] = {
    "candles_to_pandas.py": r"SIM:RELIANCE on \d{4}-\d\d-\d\d, by the hour:\n(.|\n)*average price by volume \d",
    "replay_a_day.py": r"SIM:RELIANCE: [1-9]\d* ticks, 0 missed",
}
README = Path(__file__).resolve().parents[1] / "README.md"
_SAYS = {
    "candles_to_pandas.py": "average price by volume",
    "live_moving_average.py": "average",
    "replay_a_day.py": f"NSE:RELIANCE: {_COUNT // 2} ticks, 0 missed",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A simulated market beside a stored day."""
    with Instance(["demo"], tmp_path_factory.mktemp("demo")) as instance, Client(instance.url) as client:
        assert client.instruments.import_file(INSTRUMENTS).added == 2
        assert client.ingest(raw_ticks(_COUNT)).accepted == _COUNT
        for token in {tick["instrument_token"] for tick in raw_ticks(2)}:
            until_stored(client, token, _COUNT // 2)
        (simulated,) = client.instruments.search("SIM:RELIANCE", limit=1)
        until_stored(client, simulated.instrument_token, 1, datetime.now(IST).date().isoformat())
        yield instance


def test_every_example_is_one_of_these() -> None:
    checked()
    # What is written for Kite's own client is run where that is installed.
    own = [path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("kite_")]
    assert sorted(own) == sorted(_RUN)


def run(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *args],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={"PYTHONPATH": str(CHECKOUT / "clients" / "python" / "src")},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", _RUN)
def test_it_runs(demo: Instance, name: str) -> None:
    assert _SAYS[name] in run(str(EXAMPLES / name), "--url", demo.url, *_RUN[name])


@pytest.mark.parametrize("name", _BARE)
def test_it_runs_on_a_market_that_has_just_begun(demo: Instance, name: str) -> None:
    assert re.search(_BARE[name], run(str(EXAMPLES / name), "--url", demo.url))


def test_what_the_readme_begins_with_runs_as_it_is_written(demo: Instance) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    candles, replay = [next(block for block in blocks if what in block) for what in ("client.history", "client.replay")]
    said = run("-c", f"{candles}{replay}\nclient.close()".replace("http://127.0.0.1:8080", demo.url))
    assert re.search(r"open +high +low +close +volume(.|\n)+\+05:30 \d+\.\d", said)
