"""What a provider's module gives to the player: an HTTP answer, whole or as events, and what it is charged with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from services.simulator.behaviour import Behaviour
from services.simulator.bill import Charge

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
PLAIN = Behaviour()


@dataclass(slots=True)
class Answer:
    """One answer. A streamed one has events, each with the tokens that are generated for it.

    An event may be empty: tokens that the provider generates without showing them.
    """

    body: bytes
    headers: bytes = b""  # further header lines, each ended by CRLF
    status: int = 200
    content_type: bytes = JSON
    events: list[bytes] | None = None
    weights: list[int] = field(default_factory=list)
    tokens: int = 0
    charge: Charge | None = None
    behaviour: Behaviour = PLAIN
    failure: bytes = b""  # the body of the provider's own 500
    failure_event: bytes = b""  # its error in the middle of a stream


def json_answer(value: Any, status: int = 200, headers: bytes = b"") -> Answer:
    return Answer(orjson.dumps(value), headers, status)
