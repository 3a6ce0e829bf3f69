"""The deadline of the call that is being served, which calls to other services inherit.

gRPC carries no deadline over a hop by itself. The server side sets it; channels made by the runner give what is left of
it to every call that names no timeout of its own. Work that must outlive its caller passes a timeout.
"""

import asyncio
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def set_remaining(seconds: float | None) -> None:
    """Gives the current task, and the tasks that it starts, a deadline; None lifts it."""
    _deadline.set(None if seconds is None else asyncio.get_running_loop().time() + seconds)


def remaining_s() -> float | None:
    """Seconds until the deadline, 0 if it has passed, None if there is none."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
