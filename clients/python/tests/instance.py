"""
Decides how a test runs the platform itself: the checkout that this package is in, or that MDP_CHECKOUT names, as a real
process on a free port, waited for until it answers, killed and started again on the same data and port.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

CHECKOUT = Path(os.environ.get("MDP_CHECKOUT") or Path(__file__).resolve().parents[3])
EXAMPLES = CHECKOUT / "examples" / "python"
_NODE = CHECKOUT / "node_modules" / ".bin" / "node"
_MAIN = CHECKOUT / "src" / "main.ts"
#: A guard against a hang, far from what a slow machine needs.
_READY_SECONDS = 240.0
_LOG_CHARS = 4_000


def checked() -> None:
    """Skips where the platform is not there; with SERVICES=required that is a failure."""
    if _NODE.exists() and _MAIN.exists():
        return
    why = f"no platform in {CHECKOUT}: run npm ci there, or name a checkout in MDP_CHECKOUT"
    if os.environ.get("SERVICES") == "required":
        pytest.fail(why)
    pytest.skip(why)


def free_port() -> int:
    """
    A port below those that systems give to outgoing connections: while a killed server is down, none of its clients can
    be given its own.
    """
    for _ in range(1_000):
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def _dies_with_us() -> None:
    """Linux ends it when this process ends, however that is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Instance:
    """One instance, over all of its lives."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        checked()
        self._command = list(command)
        self._log = folder / "log"
        self.port = free_port()
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": os.environ.get("HOME", ""),
            "PORT": str(self.port),
            "DATA_DIR": str(folder / "data"),
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Instance:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(_NODE), str(_MAIN), *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_dies_with_us,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return self
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        said = self._log.read_text()[-_LOG_CHARS:]
        self.kill()
        raise AssertionError(f"the platform did not become ready: {said}")

    def kill(self) -> None:
        """SIGKILL: it has no say in it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Instance:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
