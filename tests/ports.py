"""Ports for tests, away from those that the system gives to outgoing connections: a service that is started
again on its own port must find it free. Test processes that run side by side have ranges of their own.
"""

import os
import random
import socket

_FIRST, _END = 10_000, 30_000  # Linux gives outgoing connections 32768 to 60999
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_SIZE = (_END - _FIRST) // _WORKERS
_START = _FIRST + _SIZE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_next = random.randrange(_SIZE)  # other suites may run on this machine


def free_port() -> int:
    """A port that nobody listens on, and that is not given again for long."""
    return free_ports(1)[0]


def free_ports(count: int, room: int = 0) -> list[int]:
    """Ports in a row that nobody listens on. As many behind them as `room` stay out of use: their replicas'."""
    global _next
    while True:
        if _next + count + room > _SIZE:
            _next = 0
        ports = [_START + _next + number for number in range(count)]
        _next += count + room
        if all(map(_is_free, ports)):
            return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
