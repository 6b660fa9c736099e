"""Decides what every test has: one event loop of asyncio, and a guard against a hang."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
