"""Services as forks of one process: that there is one, and what becomes of them when it dies."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from services.fork_server import Child, ForkServer
from tests.mesh.mesh import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="services are forked on Linux alone")


@pytest.fixture
async def forks(tmp_path: Path) -> AsyncIterator[ForkServer]:
    forks = ForkServer([])
    yield forks
    (tmp_path / "end").touch()
    await forks.close()


async def lingering(forks: ForkServer, tmp_path: Path) -> Child:
    child = await forks.spawn("tests.contract.lingering", os.environ, [str(tmp_path / "end")])
    assert await child.stdout.readline() == b"here\n"
    return child


async def test_all_that_are_started_at_once_have_one_parent(forks: ForkServer, tmp_path: Path) -> None:
    children = await asyncio.gather(*(lingering(forks, tmp_path) for _ in range(5)))
    assert len({child.pid for child in children}) == 5
    assert len({psutil.Process(child.pid).ppid() for child in children}) == 1
    children[0].kill()
    assert await children[0].wait() == -signal.SIGKILL
    assert [child.returncode for child in children[1:]] == [None] * 4


async def test_a_child_of_a_server_that_died_has_ended_once_it_really_has(forks: ForkServer, tmp_path: Path) -> None:
    orphan = await lingering(forks, tmp_path)
    first = psutil.Process(orphan.pid).ppid()
    psutil.Process(first).kill()

    async def another_parent() -> bool:
        return psutil.Process(orphan.pid).ppid() != first

    await eventually(another_parent)
    again = await lingering(forks, tmp_path)
    assert psutil.Process(again.pid).ppid() != first
    assert orphan.returncode is None  # it holds its port for as long as it drains
    (tmp_path / "end").touch()
    assert await orphan.wait() == -signal.SIGTERM
    assert await again.wait() == 0
