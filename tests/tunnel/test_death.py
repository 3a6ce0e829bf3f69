"""A peer that dies or falls silent is noticed in time: every waiting call ends, nothing hangs, nothing leaks."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc import aio
from modelmuxer.tunnel import TunnelChannel, TunnelOptions

from tests.tunnel.conftest import Client, Server, eventually

pytestmark = pytest.mark.usefixtures("carrier")

IMPATIENT = TunnelOptions(ping_interval_s=0.1, ping_limit=5, backoff_s=0.02, connect_timeout_s=1)


@asynccontextmanager
async def peer() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    command = [sys.executable, "-m", "tests.tunnel.peer", *["direct"] * Server.direct]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=os.environ)
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
async def test_every_waiting_call_ends_unavailable(sign: signal.Signals) -> None:
    async with peer() as (process, address), TunnelChannel(address, tunnel=IMPATIENT) as channel:
        client = Client(channel)
        await client.empty({})
        duplex = client.duplex()
        await duplex.write({"sizes": [1]})
        await duplex.read()
        waiting = [asyncio.ensure_future(_code(client.hang({"name": str(number)}))) for number in range(20)]
        waiting.append(asyncio.ensure_future(_code(client.unary({"body": "x" * 300_000}))))
        waiting.append(asyncio.ensure_future(_code(duplex)))
        reading = asyncio.ensure_future(duplex.read())
        await asyncio.sleep(0.05)
        start = time.monotonic()
        process.send_signal(sign)
        codes = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK}
        assert codes.count(grpc.StatusCode.UNAVAILABLE) >= 21
        with pytest.raises(aio.AioRpcError):
            await reading
        assert time.monotonic() - start < 5
        assert not channel._usable
        if sign is signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            assert await client.empty({}, wait_for_ready=True, timeout=10) == {}


async def _code(call: aio.Call) -> grpc.StatusCode:
    return await call.code()


async def test_a_client_that_falls_silent_frees_its_calls() -> None:
    async with Server(options=IMPATIENT) as server:
        code = f"""
import asyncio
from modelmuxer.tunnel import TunnelChannel
from tests.tunnel.conftest import Client
async def main():
    async with TunnelChannel({server.address!r}) as channel:
        await Client(channel).hang({{"name": "a"}})
asyncio.run(main())
"""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=os.environ)
        try:
            await eventually(lambda: server.service.started, 10)
            process.send_signal(signal.SIGSTOP)
            await eventually(lambda: server.service.cancelled == ["a"], 5)
            await eventually(lambda: not server.tunnel._links)
        finally:
            process.kill()
            await process.wait()


async def test_an_idle_tunnel_lives() -> None:
    options = TunnelOptions(ping_interval_s=0.05, ping_limit=3)
    async with Server(options=options) as server, TunnelChannel(server.address, tunnel=options) as channel:
        client = Client(channel)
        await client.empty({})
        link = channel._usable[0][1]
        await asyncio.sleep(0.5)
        assert channel._usable[0][1] is link
        assert await client.empty({}) == {}


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with Server() as server, TunnelChannel(server.address) as channel:
        client = Client(channel)
        call = client.duplex()
        await call.write({"sizes": [1]})
        await call.read()
        client.hang({"name": "a"})
        await eventually(lambda: server.service.started)
    ours = {task for task in asyncio.all_tasks() - before if "modelmuxer" in repr(task.get_coro())}
    await eventually(lambda: all(task.done() for task in ours))
