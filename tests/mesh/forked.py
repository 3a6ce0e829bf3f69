"""``python -m services`` for a process that has imported every service: its first fork server is a fork of it."""

from __future__ import annotations

import asyncio
import os
import runpy
import socket
import sys

import setproctitle

from services import fork_server, supervisor
from services.fork_server import Ending, ForkServer


class _Child:
    def __init__(self, pid: int) -> None:
        self._pid = pid

    async def wait(self) -> int:
        _, status = await asyncio.to_thread(os.waitpid, self._pid, 0)
        return os.waitstatus_to_exitcode(status)


def _stand_by(handing: socket.socket, supervising: int) -> None:
    """Becomes the fork server, once it is handed its control socket."""
    os.setsid()
    setproctitle.setproctitle(f"{sys.executable} -m services.fork_server {handing.fileno()} {supervising}")
    with handing:
        _, descriptors, _, _ = socket.recv_fds(handing, 1, 1)
    if descriptors:
        fork_server.run(socket.socket(fileno=descriptors[0]), supervising, [])


def main() -> None:
    """Forks while nothing runs yet, and becomes the supervisor."""
    handing, handed = socket.socketpair()
    supervising = os.getpid()
    if (pid := os.fork()) == 0:
        handing.close()
        _stand_by(handed, supervising)
        sys.exit()
    handed.close()

    class Prepared(ForkServer):
        """Its first server stands by; one after it is started as always."""

        async def _launch(self, control: socket.socket) -> Ending:
            if handing.fileno() < 0:
                return await super()._launch(control)
            with handing:
                socket.send_fds(handing, [b"."], [control.fileno()])
            return _Child(pid)

    supervisor.ForkServer = Prepared  # type: ignore[attr-defined]
    runpy.run_module("services", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
