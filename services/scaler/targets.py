"""What one replica of a service should carry: the scaler's settings, which an autoscaler's own words override. Pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

# What a ScaledObject, or the selector of an external metric, may say: the service, its least replicas, and the field of
# its targets that each other word sets.
SERVICE = "service"
LEAST = "minReplicas"
FIELDS = {
    "cpuPercent": "cpu_percent",
    "memoryPercent": "memory_percent",
    "slotsPercent": "slots_percent",
    "queueMs": "queue_ms",
    "responseTimeMs": "added_ms",
}
# KEDA's own words in a trigger's metadata, which it passes on: how it reaches the scaler.
KEDAS_OWN = frozenset(
    {"scalerAddress", "enableTLS", "tlsCertFile", "unsafeSsl", "caCert", "tlsClientCert", "tlsClientKey"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What one replica should carry. A call that only waits for its provider weighs no more than its slot."""

    cpu_percent: float = 70.0
    memory_percent: float = 80.0
    slots_percent: float = 80.0
    queue_ms: float = 50.0
    added_ms: float = 2000.0
    least_replicas: int = 2


def read(words: Mapping[str, str], services: Iterable[str], usual: Targets) -> tuple[str, Targets]:
    """The service that an autoscaler asks about, and its targets. Raises ValueError with a sentence."""
    known = sorted(services)
    service = words.get(SERVICE, "")
    if service not in known:
        raise ValueError(f"service must be one of {', '.join(known)}, and is {service[:200]!r}.")
    least = usual.least_replicas
    given: dict[str, float] = {}
    for word, text in words.items():
        if word == LEAST:
            least = _whole(word, text)
        elif word in FIELDS:
            given[FIELDS[word]] = _number(word, text)
        elif word != SERVICE and word not in KEDAS_OWN:
            others = ", ".join((LEAST, *FIELDS))
            raise ValueError(f"{word[:200]!r} means nothing here: beside {SERVICE} there are {others}.")
    return service, replace(usual, least_replicas=least, **given)


def _whole(word: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:  # at none there would be nobody to tell of load
        raise ValueError(f"{word} must be a whole number of at least 1, and is {text[:200]!r}.")
    return int(text)


def _number(word: str, text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise ValueError(f"{word} must be a number above 0, and is {text[:200]!r}.")
