"""A process that has imported every service, one for each process of tests, of which fleets and meshes are forks: what
a mesh imports at its start is seconds of CPU, and a run of all tests starts some fifty.

What is forked is what would be started otherwise, down to fork servers and the supervisor: only imports are shared.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from services import fork_server
from services.fork_server import Ending, ForkServer

_ROOT = Path(__file__).resolve().parents[1]
_MODULES = (
    *("services", "services.simulator", "services.accounting", "services.cache", "services.provider_proxy"),
    *("services.router", "services.scaler"),
)
_MAX_MESSAGE = 1 << 20
_STDOUT = 1


class Process:
    """What was forked, with what tests need of a subprocess.Popen."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self.pid = pid
        self._zygote = zygote
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._descriptor = None

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Signals it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(9)

    def _status(self, timeout_s: float | None) -> int | None:
        if self._descriptor is not None and not select.select([self._descriptor], [], [], timeout_s)[0]:
            return None
        return self._zygote.status(self.pid)


class Zygote:
    """Forks programs on demand. Usable from any thread."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._statuses: dict[int, int] = {}
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.zygote", str(theirs.fileno()), str(os.getpid())],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its own process number."""
        return self._process.pid

    def spawn(self, argv: Sequence[str], environ: Mapping[str, str], stdout: int, stderr: int | None = None) -> Process:
        """Starts a module as if by `python -m`, in the repository's folder."""
        message = json.dumps({"argv": [*argv], "environ": dict(environ)}).encode()
        with self._lock:
            socket.send_fds(self._control, [message], [stdout] if stderr is None else [stdout, stderr])
            while "status" in (said := self._heard()):
                pass
            return Process(self, said["pid"])

    def run(self, argv: Sequence[str], environ: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Runs a module to its end, as subprocess.run does with a program."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            process = self.spawn(argv, environ, stdout.fileno(), stderr.fileno())
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            stdout.seek(0)
            stderr.seek(0)
            return subprocess.CompletedProcess(argv, status, stdout.read(), stderr.read())

    def status(self, pid: int) -> int:
        """The exit status of one that has ended."""
        with self._lock:
            while pid not in self._statuses:
                self._heard()
            return self._statuses[pid]

    def close(self) -> None:
        """Ends it, and by that whatever it still has running."""
        self._control.close()
        self._process.wait()

    def _heard(self) -> dict[str, int]:
        message = self._control.recv(_MAX_MESSAGE)
        if not message:
            raise ChildProcessError("the zygote has ended; it says why above")
        said: dict[str, int] = json.loads(message)
        if "status" in said:
            self._statuses[said["pid"]] = said["status"]
        return said


@functools.cache
def zygote() -> Zygote:
    """This process's own. First asked for by its main thread, with which it ends."""
    made = Zygote()
    atexit.register(made.close)
    return made


class WarmForkServer(ForkServer):
    """A fork server that is itself a fork, and has nothing to import."""

    async def _launch(self, control: socket.socket) -> Ending:
        parent = zygote()
        argv = ["tests.forks", str(_STDOUT), str(parent.pid), *self._modules]
        return _Awaited(parent.spawn(argv, os.environ, stdout=control.fileno()))


class _Awaited:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def wait(self) -> int:
        return await asyncio.to_thread(self._process.wait)


def main() -> None:
    """`python -m tests.zygote <descriptor> <process of tests>`: forks nothing before all is imported."""
    for module in _MODULES:
        importlib.import_module(f"{module}.__main__")
        del sys.modules[f"{module}.__main__"]  # it is run, under another name, in the fork
    fork_server.run(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), [])


if __name__ == "__main__":
    main()
