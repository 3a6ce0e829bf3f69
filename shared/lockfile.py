"""A lock that one process holds for as long as it lives, however it dies."""

import fcntl
import os
from pathlib import Path


class Locked(RuntimeError):
    """Another process holds the lock. Says which, and what to do."""


def lock(path: Path) -> int:
    """Takes the lock and returns the descriptor that holds it; closing it lets go. Raises Locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise Locked(
            f"{path.parent} is in use by process {holder or '(unknown)'}; stop it, or name another directory here."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
