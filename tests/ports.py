"""Ports for tests, away from those that the system gives to outgoing connections: a service that is started
again on its own port must find it free.
"""

import random
import socket

_RANGE = range(10_000, 30_000)  # Linux gives outgoing connections 32768 to 60999


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
