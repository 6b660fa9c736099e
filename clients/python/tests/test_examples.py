"""Every example is run as a user would run it, against the platform itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
from day import DAY, INSTRUMENTS, raw_ticks
from instance import CHECKOUT, EXAMPLES, Instance, checked
from test_instance import until_stored

from market_data_platform import Client

#: A guard against a hang.
_SECONDS = 240
_COUNT = 2_000
_RUN: dict[str, Sequence[str]] = {
    "candles_to_pandas.py": ("--symbol", "NSE:RELIANCE", "--day", DAY),
    "live_moving_average.py": ("--symbols", "SIM:RELIANCE", "SIM:INFY", "--ticks", "30"),
    "replay_a_day.py": ("--symbol", "NSE:RELIANCE", "--day", DAY),
}
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
        yield instance


def test_every_example_is_one_of_these() -> None:
    checked()
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(_RUN)


@pytest.mark.parametrize("name", _RUN)
def test_it_runs(demo: Instance, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), "--url", demo.url, *_RUN[name]],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={"PYTHONPATH": str(CHECKOUT / "clients" / "python" / "src")},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert _SAYS[name] in done.stdout
