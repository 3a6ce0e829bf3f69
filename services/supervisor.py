"""Runs the whole mesh on one machine: starts every service as its own process, in order of dependence, starts again
what dies, and stops in reverse. For laptops and tests; on a cluster Kubernetes does this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.fork_server import Child, ForkServer

# What shared.runner exits with where starting again cannot help: bad settings, a port that is taken.
EXIT_CONFIG = 2

_START_TIMEOUT_S = 180.0  # of a hang only: one that ends is noticed at once, and busy machines are slow to import
_STOP_TIMEOUT_S = 40.0
_BACKOFF_FIRST_S = 0.2
_BACKOFF_MAX_S = 10.0
_STABLE_AFTER_S = 30.0  # a process that lived this long has earned a fresh backoff

Listening = dict[str, Any]
Process = asyncio.subprocess.Process | Child


@dataclass(frozen=True)
class Program:
    """One service to run. When it serves it says so in a line of JSON on its standard output."""

    name: str
    module: str
    ports: Callable[[Listening], Mapping[str, str]]
    """The ports that it has, as its settings: kept for when it is started again, since others have learnt them."""
    address: Callable[[Listening], tuple[str, str]]
    """The setting by which those started after it find it, and its address."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Settings of this process alone."""


class StartError(Exception):
    """A service did not come up, and would not if started again. Says which, and what to do."""


class Supervisor:
    """Keeps programs running: ``start`` brings them up in order, ``stop`` drains them in reverse."""

    def __init__(self, programs: list[Program], environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._programs = programs
        self._environ = dict(environ)
        self._say = say
        self._own = {program.name: dict(program.environ) for program in programs}
        modules = list(dict.fromkeys(program.module for program in programs))
        self._fork_server = ForkServer(modules) if sys.platform == "linux" else None
        self._processes: dict[str, Process] = {}
        self._published: dict[str, str] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self.listening: dict[str, Listening] = {}
        """Where each program listens, by name, in its own words."""
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the mesh cannot go on, with the reason."""

    async def start(self) -> None:
        """Starts every program, each once the one before it serves. Raises StartError."""
        for program in self._programs:
            began = time.monotonic()
            process = await self._spawn(program)
            listening = self.listening[program.name] = await self._until_serving(program, process)
            self._own[program.name].update(program.ports(listening))
            self._publish(*program.address(listening))
            self._say(f"{program.name} serves ({time.monotonic() - began:.1f} s)")
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
        if self._fork_server is not None:
            await self._fork_server.close()

    def kill(self, name: str | None = None) -> None:
        """Kills one program, or all, at once."""
        for process_name, process in self._processes.items():
            if name in (None, process_name) and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    def _publish(self, variable: str, address: str) -> None:
        """Replicas of one service stand in one setting, with commas between."""
        published = self._published.get(variable)
        self._published[variable] = f"{published},{address}" if published else address
        self._environ[variable] = self._published[variable]

    async def _spawn(self, program: Program) -> Process:
        environ = {**self._environ, **self._own[program.name]}
        process: Process
        if self._fork_server is not None:
            try:
                process = await self._fork_server.spawn(program.module, environ)
            except ChildProcessError as error:
                raise StartError(str(error)) from None
        else:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", program.module),
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then stops the others in order
            )
        self._processes[program.name] = process
        return process

    async def _until_serving(self, program: Program, process: Process) -> Listening:
        assert process.stdout is not None  # noqa: S101 spawned with a pipe
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT_S)
        except TimeoutError:
            raise StartError(f"{program.name} did not serve within {_START_TIMEOUT_S:.0f} s; see above.") from None
        if not line:
            status = await process.wait()
            raise StartError(f"{program.name} ended at start with {_ending(status)}; it says why above.")
        listening: Listening = json.loads(line)
        return listening

    async def _keep(self, program: Program, process: Process) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            born = time.monotonic()
            status = await process.wait()
            if self._stopping:
                return
            if status == EXIT_CONFIG:
                if not self.failed.done():
                    self.failed.set_result(f"{program.name} cannot run with these settings; it says why above.")
                return
            if time.monotonic() - born > _STABLE_AFTER_S:
                backoff_s = _BACKOFF_FIRST_S
            self._say(f"{program.name} ended with {_ending(status)}; starting it again in {backoff_s:.1f} s")
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
            process = await self._spawn_again(program)

    async def _spawn_again(self, program: Program) -> Process:
        """As `_spawn`, however often the fork server is killed meanwhile."""
        while True:
            try:
                return await self._spawn(program)
            except StartError as error:
                self._say(f"{program.name} could not be started: {error}")
                await asyncio.sleep(_BACKOFF_FIRST_S)


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
