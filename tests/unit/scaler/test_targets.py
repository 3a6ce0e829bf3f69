"""What an autoscaler may say of a service."""

from __future__ import annotations

import pytest

from services.scaler.targets import Targets, read

SERVICES = ("provider-proxy", "router")


def test_words_override_the_settings_and_kedas_own_are_left_alone() -> None:
    words = {
        "scalerAddress": "modelmuxer-scaler:50055",
        "service": "router",
        "minReplicas": "3",
        "cpuPercent": "55.5",
        "memoryPercent": "60",
        "slotsPercent": "40",
        "queueMs": "20",
        "responseTimeMs": "500",
    }
    assert read(words, SERVICES, Targets()) == (
        "router",
        Targets(least_replicas=3, cpu_percent=55.5, memory_percent=60, slots_percent=40, queue_ms=20, added_ms=500),
    )
    assert read({"service": "router"}, SERVICES, Targets(cpu_percent=1)) == ("router", Targets(cpu_percent=1))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({}, "service must be one of provider-proxy, router, and is ''."),
        ({"service": "worker"}, "service must be one of provider-proxy, router, and is 'worker'."),
        ({"service": "router", "minReplica": "2"}, "'minReplica' means nothing here"),
        ({"service": "router", "minReplicas": "0"}, "minReplicas must be a whole number of at least 1, and is '0'."),
        ({"service": "router", "minReplicas": "1.5"}, "minReplicas must be a whole number"),
        ({"service": "router", "cpuPercent": "lots"}, "cpuPercent must be a number above 0, and is 'lots'."),
        ({"service": "router", "cpuPercent": "-1"}, "cpuPercent must be a number above 0"),
        ({"service": "router", "queueMs": "inf"}, "queueMs must be a number above 0"),
        ({"service": "router", "queueMs": "nan"}, "queueMs must be a number above 0"),
    ],
)
def test_what_means_nothing_is_refused_with_a_sentence(words: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence.replace(".", r"\.")):
        read(words, SERVICES, Targets())
