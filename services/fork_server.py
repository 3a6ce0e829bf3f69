"""Starts services as forks of one process that has imported them: an import takes a second or two of CPU, which is paid
once for the whole mesh, and their memory is shared. Linux only; elsewhere a service is a process of its own making.

The supervisor and the server speak over a socket that keeps messages apart, in JSON: a program with the writing end of
its standard output there, its process number back, and its exit status once it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

import setproctitle

_MAX_MESSAGE = 1 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with(parent: int) -> None:
    """Asks Linux to end this process when its parent dies, so that a killed supervisor leaves no port taken."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked; in a container it may well be process 1
        os._exit(1)


class Child:
    """A service that was forked, with what a supervisor needs of an asyncio.subprocess.Process."""

    def __init__(self, stdout: asyncio.StreamReader) -> None:
        self.pid = 0
        self.stdout = stdout
        self.returncode: int | None = None
        self.born: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """The exit status; negative for the number of the signal that ended it."""
        await self._ended.wait()
        assert self.returncode is not None  # noqa: S101 set before the event
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signals it. Raises ProcessLookupError once it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Asks it to drain."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def ended(self, status: int) -> None:
        """It has been reaped."""
        self.returncode = status
        self._ended.set()


class Ending(Protocol):
    """A process that can be waited for."""

    async def wait(self) -> int:
        """Its exit status."""


class ForkServer:
    """The supervisor's end. Started with the first program; started again if it dies, and its children with it."""

    def __init__(self, modules: Sequence[str]) -> None:
        """`modules` are imported ahead, in this order."""
        self._modules = modules
        self._server: Ending | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._unborn: deque[Child] = deque()
        self._children: dict[int, Child] = {}

    async def spawn(
        self, module: str, environ: Mapping[str, str], arguments: Sequence[str] = (), stderr: int | None = None
    ) -> Child:
        """Starts a module as if by `python -m`, with its standard output as a pipe. `stderr` is a descriptor for its
        standard error, if that is not to be the supervisor's."""
        reading, writing = os.pipe()
        stdout = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(stdout)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(reading, "rb", 0))
        child = Child(stdout)
        message = json.dumps({"argv": [module, *arguments], "environ": dict(environ)}).encode()
        try:
            await self._ask(message, [writing] if stderr is None else [writing, stderr])
        finally:
            os.close(writing)
        self._unborn.append(child)
        await child.born
        return child

    async def _ask(self, message: bytes, descriptors: list[int]) -> None:
        """Tells the server, or another one where it turns out to be dead: then nobody has been told yet."""
        async with self._starting:  # one server for all that are to be started again
            if self._control is not None:
                with contextlib.suppress(OSError):
                    socket.send_fds(self._control, [message], descriptors)
                    return
                self._lost()
            try:
                socket.send_fds(await self._start(), [message], descriptors)
            except OSError as error:
                raise ChildProcessError("the fork server has just ended") from error

    async def close(self) -> None:
        """Ends the server, and by that whatever it still has running."""
        self._hang_up()
        if self._server is not None:
            await self._server.wait()

    def _hang_up(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE)
            self._server = await self._launch(theirs)
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours, self._heard, ours)
        self._control = ours
        return ours

    async def _launch(self, control: socket.socket) -> Ending:
        """Starts the process that serves at the other end of the socket, which is closed here afterwards."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.fork_server", str(control.fileno()), str(os.getpid())),
            *self._modules,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[control.fileno()],
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then stops the others in order
        )

    def _heard(self, control: socket.socket) -> None:
        try:
            message = control.recv(_MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lost()
            return
        said: dict[str, int] = json.loads(message)
        if "status" in said:
            self._children.pop(said["pid"]).ended(said["status"])
        else:
            child = self._children[said["pid"]] = self._unborn.popleft()
            child.pid = said["pid"]
            if not child.born.done():  # else whoever started it has given up
                child.born.set_result(None)

    def _lost(self) -> None:
        """The server is dead, and what it forked is being ended by the system: each in its own time, with its ports."""
        self._hang_up()
        for child in self._unborn:
            if not child.born.done():
                child.born.set_exception(ChildProcessError("the fork server ended; it says why above"))
        for child in self._children.values():
            _watch_end(child)
        self._unborn.clear()
        self._children.clear()


def _watch_end(child: Child) -> None:
    """Waits for a process that is no longer ours to reap; what it ended with nobody can tell us."""
    loop = asyncio.get_running_loop()
    try:
        process = os.pidfd_open(child.pid)
    except ProcessLookupError:
        child.ended(-signal.SIGTERM)
        return

    def ended() -> None:
        loop.remove_reader(process)
        os.close(process)
        child.ended(-signal.SIGTERM)

    loop.add_reader(process, ended)


def serve(control: socket.socket, modules: list[str]) -> None:
    """The server's end: imports modules while nothing is asked, and forks what is. Returns in a child that has ended,
    and when the supervisor is gone."""
    waking, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([control.fileno(), waking], [], [], 0 if modules else None)
        if waking in ready:
            os.read(waking, 4096)
            _reap(control)
        if control.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE, 2)
            if not message:
                return
            program = json.loads(message)
            if (module := program["argv"][0]) in modules:
                modules.remove(module)
                _import(module)
            gc.freeze()  # what is imported is never garbage, and a collector that looks at it would copy its pages
            server, pid = os.getpid(), os.fork()
            if pid == 0:
                _die_with(server)
                control.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(waking)
                os.close(woken)
                _become(program["argv"], program["environ"], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            _tell(control, pid=pid)
        elif modules and not ready:
            _import(modules.pop(0))


def _import(module: str) -> None:
    importlib.import_module(f"{module}.__main__")
    del sys.modules[f"{module}.__main__"]  # it is run, under another name, in the fork


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell(control, pid=pid, status=os.waitstatus_to_exitcode(status))


def _tell(control: socket.socket, **said: int) -> None:
    try:
        control.send(json.dumps(said).encode())
    except BrokenPipeError:  # the supervisor has hung up
        sys.exit()


def _become(argv: list[str], environ: dict[str, str], descriptors: list[int]) -> NoReturn:
    os.setsid()
    for descriptor, stream in zip(descriptors, (sys.stdout, sys.stderr), strict=False):
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environ)
    setproctitle.setproctitle(f"{sys.executable} -m {' '.join(argv)}")
    sys.argv = argv
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    sys.exit()


def run(control: socket.socket, supervisor: int, modules: list[str]) -> None:
    """Serves the supervisor, whose child this process is, and ends with it."""
    _die_with(supervisor)
    setproctitle.getproctitle()  # it has to see the environment as it was at the start
    with control:
        serve(control, modules)


def main() -> None:
    """`python -m services.fork_server <descriptor> <supervisor's process> <module>…`"""
    run(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3:])


if __name__ == "__main__":
    main()
