"""An instance of the MongoDB-compatible server: an empty one within a second, on a port of its own, that can be killed,
stopped and started again with what it had kept."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.ports import free_port
from tests.tools import TOOLS
from tests.tools.mongodb import Cluster, give_to_nobody

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.02


class MongoServer:
    """PostgreSQL with DocumentDB, and FerretDB before it. Survives `kill`, not power loss."""

    def __init__(self) -> None:
        self._cluster = Cluster(TOOLS["mongodb"].cached.parent)
        self._folder = Path(tempfile.mkdtemp(prefix="mm-mongo-"))  # short, since a socket's path may not be long
        self._postgres: subprocess.Popen[Any] | None = None
        self._ferretdb: subprocess.Popen[Any] | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        self._folder.chmod(0o755)
        sockets = self._folder / "sockets"
        sockets.mkdir()
        sockets.chmod(0o777)
        (self._folder / "state").mkdir()
        data = self._folder / "data"
        shutil.copytree(self._cluster.seed, data, symlinks=True)
        for each in (data, *data.rglob("*")):
            give_to_nobody(each)
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"mongodb://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Starts what does not run, and returns when it serves."""
        sockets = self._folder / "sockets"
        with (self._folder / "log").open("ab") as log:
            if self._postgres is None:
                command = self._cluster.postgres(self._folder / "data", sockets)
                self._postgres = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                until_serving(self._cluster, sockets, self._postgres)
            if self._ferretdb is None:
                self._ferretdb = subprocess.Popen(
                    [
                        # No preexec_fn, for which gRPC in this process would have to survive a fork: it may hang in it.
                        *("setpriv", "--pdeathsig", "KILL", str(self._cluster.ferretdb)),
                        *("-listen", f"127.0.0.1:{self.port}"),
                        *("-postgresql", f"postgres://postgres@/postgres?host={sockets}&pool_max_conns=100"),
                        *("-state", str(self._folder / "state")),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                self._until_listening(self._ferretdb)

    def kill(self) -> None:
        """SIGKILL to every process of it, at once."""
        processes = self._processes()
        for process in processes:
            _send(process, signal.SIGKILL)
        for started in (self._postgres, self._ferretdb):
            if started is not None:
                started.wait()
        psutil.wait_procs(processes, _STOP_TIMEOUT_S)  # PostgreSQL does not start beside a backend that still ends
        self._postgres = self._ferretdb = None

    def pause(self) -> None:
        """Stops it, connections open, until `resume`."""
        for process in self._processes():
            _send(process, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        for process in self._processes():
            _send(process, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Processor time that it has used since it was started."""
        total = 0.0
        for process in self._processes():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        for started in (self._postgres, self._ferretdb):  # backends that have ended count as their parent's children
            if started is not None:
                times = psutil.Process(started.pid).cpu_times()
                total += times.children_user + times.children_system
        return total

    def rss_bytes(self) -> int:
        """Memory of its own, shared pages counted once."""
        return sum(process.memory_full_info().pss for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for started in (self._postgres, self._ferretdb):
            if started is not None and started.poll() is None:
                process = psutil.Process(started.pid)
                found += [process, *process.children(recursive=True)]
        return found

    def _until_listening(self, process: subprocess.Popen[Any]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(_POLL_S)
        raise RuntimeError(f"FerretDB does not serve: {(self._folder / 'log').read_text()[-2000:]}")


def until_serving(cluster: Cluster, sockets: Path, process: subprocess.Popen[Any]) -> None:
    """Returns when PostgreSQL answers."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if cluster.psql(sockets, "SELECT 1"):
            return
        time.sleep(_POLL_S)
    raise RuntimeError(f"PostgreSQL does not serve; it ended with {process.poll()}.")


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
