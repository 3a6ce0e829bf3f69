"""The simulated providers as a process of their own, and in this process; a raw connection to them beside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.simulator import Simulator, serve
from tests.simulator.raw_client import Wire

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def simulator_url() -> Iterator[str]:
    """A simulator process on a free port, for clients that block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.simulator", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with serve(port=0, grace_s=0.1) as running:
        yield running


@pytest.fixture
async def wire(simulator: Simulator) -> AsyncIterator[Wire]:
    connection = await Wire.open(simulator)
    yield connection
    connection.close()
