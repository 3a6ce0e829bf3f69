"""The cluster's own processes: each in its network, with a log, and ended with whoever started them."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster import network

_END_S = 10.0


class Processes:
    """Programs by name. Their ids stand in `FOLDER/pids`, for who has to clear up after a run that was cut short."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self._pids = folder / "pids"
        for made in (self.logs, self._pids):
            made.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environ: Mapping[str, str] | None = None,
        inside: Sequence[str] | None = None,
    ) -> None:
        """Starts a program in the cluster's network."""
        place = network.inside() if inside is None else inside
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *place, *map(str, command)],
                env=os.environ | (environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt is for who drives the cluster: it ends them in their order
            )
        self._running[name] = process
        (self._pids / name).write_text(str(process.pid))

    def stop(self, *names: str) -> None:
        """Ends programs, or all of them: there is nothing in them worth a graceful end."""
        for name in names or [*self._running]:
            process = self._running.pop(name)
            process.kill()
            process.wait(_END_S)
            (self._pids / name).unlink()

    def ended(self) -> dict[str, int]:
        """Exit statuses of programs that have ended by themselves."""
        return {name: status for name, each in self._running.items() if (status := each.poll()) is not None}

    def log(self, name: str, lines: int = 15) -> str:
        """The end of a program's log."""
        return "\n".join((self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def cpu_s(self) -> dict[str, float]:
        """Processor time that each has used, in seconds."""
        used = {}
        for name, process in self._running.items():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            used[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return used


def kill_left(folder: Path) -> None:
    """Ends what a run has left running that was itself killed: it named the folder on its command line."""
    for file in sorted((folder / "pids").glob("*")):
        pid = int(file.read_text() or 0)
        if pid and str(folder).encode() in _command_line(pid):
            os.kill(pid, signal.SIGKILL)
            _await_end(pid)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + _END_S
    while _command_line(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
