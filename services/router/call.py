"""One request of one caller, apart from what it says: who, which, until when."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from os import urandom

from modelmuxer.accounting.v1.accounting_pb2 import Principal

from services.router.rates import NO_POLICIES, Policies

DEFAULT_TIMEOUT_S = 600.0  # what the providers' own SDKs wait


def mint_request_id() -> str:
    """A new request id."""
    return f"req_{urandom(16).hex()}"


def mint_attempt_id() -> str:
    """A new attempt id; the provider receives it."""
    return f"att_{urandom(16).hex()}"


def deadline_in(seconds: float | None) -> float:
    """The deadline of a caller who waits so long; None for one who does not say."""
    return time.monotonic() + (DEFAULT_TIMEOUT_S if seconds is None else seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who calls, by which face ("grpc", "http"), and how long they wait. `deadline` is a time.monotonic()."""

    principal: Principal
    face: str
    request_id: str = field(default_factory=mint_request_id)
    run_id: str = ""
    operation_id: str = ""
    policies: Policies = NO_POLICIES
    """The budgets and limits that it may be subject to."""
    deadline: float = field(default_factory=lambda: deadline_in(None))

    def remaining_s(self) -> float:
        """Seconds until the caller stops waiting; 0 once it has."""
        return max(0.0, self.deadline - time.monotonic())
