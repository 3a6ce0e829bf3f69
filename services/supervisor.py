"""Runs the whole mesh on one machine: starts every service as its own process, in order of dependence, starts again
what dies, and stops in reverse. For laptops and tests; on a cluster Kubernetes does this.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# What runner exits with where starting again cannot help: bad settings, a port that is taken (sysexits.h, EX_CONFIG).
EXIT_CONFIG = 78

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 40.0
_BACKOFF_FIRST_S = 0.2
_BACKOFF_MAX_S = 10.0
_STABLE_AFTER_S = 30.0  # a process that lived this long has earned a fresh backoff
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Program:
    """One service to run."""

    name: str
    module: str
    address: str
    """host:port at which it answers health checks."""
    health: Callable[[str], Awaitable[bool]] = field(repr=False)


class StartError(Exception):
    """A service did not come up, and would not if started again. Says which, and what to do."""


async def grpc_ready(address: str) -> bool:
    """Asks a gRPC service whether it is ready."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service="readiness")
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=1)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def port_open(address: str) -> bool:
    """Asks whether anything listens."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


class Supervisor:
    """Keeps programs running. ``start`` brings them up in order, ``run`` restarts, ``stop`` drains them in reverse."""

    def __init__(self, programs: list[Program], environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._programs = programs
        self._environ = dict(environ)
        self._say = say
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Starts every program, each after the one before it is ready. Raises StartError."""
        for program in self._programs:
            began = time.monotonic()
            process = await self._spawn(program)
            await self._until_ready(program, process)
            self._say(f"{program.name} is ready on {program.address} ({time.monotonic() - began:.1f} s)")
            self._keepers.append(asyncio.create_task(self._keep(program, process)))

    async def stop(self) -> None:
        """Stops every program in reverse order, each with time to drain."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        for program in reversed(self._programs):
            process = self._processes.get(program.name)
            if process is None or process.returncode is not None:
                continue
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
                self._say(f"{program.name} has stopped")
            except TimeoutError:
                self.kill(program.name)
                self._say(f"{program.name} did not drain within {_STOP_TIMEOUT_S:.0f} s and was killed")

    def kill(self, name: str | None = None) -> None:
        """Kills one program, or all, at once."""
        for process_name, process in self._processes.items():
            if name in (None, process_name) and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    async def _spawn(self, program: Program) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C reaches the supervisor alone, which then stops the others in order.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            program.module,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        self._processes[program.name] = process
        return process

    async def _until_ready(self, program: Program, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not await program.health(program.address):
            if process.returncode is not None:
                raise StartError(f"{program.name} stopped at start with exit status {process.returncode}; see above.")
            if time.monotonic() > deadline:
                raise StartError(f"{program.name} did not become ready within {_START_TIMEOUT_S:.0f} s; see above.")
            await asyncio.sleep(0.05)

    async def _keep(self, program: Program, process: asyncio.subprocess.Process) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            born = time.monotonic()
            status = await process.wait()
            if self._stopping:
                return
            if status == EXIT_CONFIG:
                if not self.failed.done():
                    self.failed.set_result(f"{program.name} cannot run with these settings; see above.")
                return
            if time.monotonic() - born > _STABLE_AFTER_S:
                backoff_s = _BACKOFF_FIRST_S
            self._say(f"{program.name} ended with {_ending(status)}; starting it again in {backoff_s:.1f} s")
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
            process = await self._spawn(program)


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _die_with_parent() -> None:
    """Asks Linux to end this process when the supervisor dies, so that a killed supervisor leaves no port taken."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
