"""What the scaler asks for, case by case, and what a HorizontalPodAutoscaler makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from services.scaler.demand import LOAD_METRIC, TIME_METRIC, Demand, Metric, Recent, decide
from services.scaler.replica import Load, Replica, State
from services.scaler.targets import Targets

IDLE = Load(cpu_percent=2, memory_percent=10)
TARGETS = Targets(cpu_percent=70, memory_percent=80, slots_percent=80, queue_ms=50, added_ms=2000, least_replicas=2)


def replicas(serving: int = 0, sick: int = 0, starting: int = 0, draining: int = 0, load: Load = IDLE) -> list[Replica]:
    states = {State.SERVING: serving, State.SICK: sick, State.STARTING: starting, State.DRAINING: draining}
    return [
        Replica(address=f"{state}-{number}", state=state, load=load)
        for state, count in states.items()
        for number in range(count)
    ]


def demand(seen: list[Replica], targets: Targets = TARGETS) -> Demand:
    return decide(seen, targets, Recent(0), 0.0)


def autoscaled(metric: Metric | None, current: int) -> int:
    """What a HorizontalPodAutoscaler makes of a metric with an AverageValue target: its own arithmetic."""
    assert metric is not None
    usage, target = round(metric.value * 1000), round(metric.target * 1000)
    if current and abs(1.0 - usage / (target * current)) <= 0.1:
        return current
    return math.ceil(usage / target)


@dataclass(frozen=True)
class Case:
    what: str
    seen: list[Replica]
    asks: float
    """The load metric, in replicas."""

    becomes: int
    """What an autoscaler makes of it."""

    targets: Targets = field(default=TARGETS)


def busy(cpu: float) -> Load:
    return Load(cpu_percent=cpu, memory_percent=10)


CASES = [
    Case("idle asks for the least", replicas(serving=5), 2, 2),
    Case("one replica alone asks for the least", replicas(serving=1), 2, 2),
    Case("CPU asks for what carries it", replicas(serving=2, load=busy(95)), 3, 3),
    Case("CPU at its target changes nothing", replicas(serving=4, load=busy(70)), 4, 4),
    Case("memory counts", replicas(serving=3, load=Load(memory_percent=90)), 4, 4),
    Case("slots count", replicas(serving=2, load=Load(slots_percent=100)), 3, 3),
    Case("a late event loop counts", replicas(serving=2, load=Load(queue_ms=100)), 4, 4),
    Case("an event loop that stands still asks for twice as many, not for hundreds",
         replicas(serving=2, load=Load(queue_ms=60_000)), 4, 4),
    Case("callers who wait for a provider weigh less than CPU",
         replicas(serving=2, load=Load(cpu_percent=90, slots_percent=50)), 3, 3),
    Case("a full replica is loaded, not sick", replicas(serving=3, load=Load(slots_percent=100)), 4, 4),
    Case("the sick one is replaced", replicas(serving=1, sick=1), 3, 3),
    Case("two sick ones are both replaced", replicas(serving=3, sick=2), 5, 5),
    Case("the sick one adds to what load wants", replicas(serving=4, sick=1, load=busy(80)), 6, 6),
    Case("once replaced, no more is asked for", replicas(serving=2, sick=1), 3, 3),
    Case("sick at low load never scales down", replicas(serving=7, sick=1), 8, 8),
    Case("sick and full scales up", replicas(serving=2, sick=1, load=busy(100)), 4, 4),
    Case("a starting pod is not sick", replicas(serving=2, starting=3), 2, 2),
    Case("a starting pod is not load", replicas(serving=2, starting=1, load=busy(95)), 3, 3),
    Case("all starting changes nothing", replicas(starting=3), 3, 3),
    Case("a draining pod is not sick", replicas(serving=2, draining=2), 2, 2),
    Case("a rolling upgrade does not scale",
         replicas(serving=3, starting=1, draining=1, load=busy(65)), 3, 3),
    Case("eleven with one sick asks past the tolerance", replicas(serving=10, sick=1, load=busy(77)), 12.105, 13),
    Case("ten that want eleven ask past the tolerance", replicas(serving=10, load=busy(74)), 11.005, 12),
    Case("twenty that want twenty-one ask past the tolerance", replicas(serving=20, load=busy(72)), 22.005, 23),
    Case("what lies past the tolerance by itself is asked for as it is",
         replicas(serving=20, load=busy(90)), 26, 26),
    Case("nine with one sick need no overshoot", replicas(serving=8, sick=1, load=busy(78)), 10.0, 10),
    Case("half sick are replaced", replicas(serving=2, sick=2), 4, 4),
    Case("more than half sick are not replaced", replicas(serving=2, sick=3), 5, 5),
    Case("more than half sick still follow load", replicas(serving=2, sick=3, load=busy(90)), 7, 7),
    Case("everything sick changes nothing", replicas(sick=4), 4, 4),
    Case("everything sick changes nothing, whatever its last load", replicas(sick=4, load=busy(100)), 4, 4),
    Case("everything sick and one starting changes nothing", replicas(sick=3, starting=1), 4, 4),
    Case("another least", replicas(serving=2, sick=1), 6, 6, Targets(least_replicas=5)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_the_load_metric(case: Case) -> None:
    asked = demand(case.seen, case.targets)
    metric = asked.metric(LOAD_METRIC)
    assert metric is not None
    assert metric.value / metric.target == pytest.approx(case.asks)
    assert autoscaled(metric, asked.current) == case.becomes


@pytest.mark.parametrize(
    ("added_ms", "calls_per_s", "serving", "becomes"),
    [(1999, 10, 4, 0), (2001, 10, 4, 5), (3000, 10, 4, 6), (60_000, 10, 4, 8), (60_000, 0, 4, 0), (2100, 5, 12, 14)],
)
def test_time_that_the_mesh_adds_is_a_trigger_of_its_own(
    added_ms: float, calls_per_s: float, serving: int, becomes: int
) -> None:
    asked = demand(replicas(serving=serving, load=Load(added_ms=added_ms, added_calls_per_s=calls_per_s)))
    assert autoscaled(asked.metric(TIME_METRIC), serving) == becomes
    assert autoscaled(asked.metric(LOAD_METRIC), serving) == 2


def test_added_time_is_the_mean_over_calls_not_over_replicas() -> None:
    slow, fast = Load(added_ms=9000, added_calls_per_s=1), Load(added_ms=10, added_calls_per_s=99)
    asked = demand(replicas(serving=1, load=slow) + replicas(serving=1, load=fast))
    assert autoscaled(asked.metric(TIME_METRIC), 2) == 0


def test_a_sick_mesh_does_not_grow_for_being_slow() -> None:
    slow = Load(added_ms=9000, added_calls_per_s=1)
    assert autoscaled(demand(replicas(serving=1, sick=3, load=slow)).metric(TIME_METRIC), 4) == 0


def test_where_no_replica_is_known_nothing_is_asked() -> None:
    for seen in ([], replicas(draining=2)):
        asked = demand(seen)
        assert (asked.wanted, asked.metrics) == (0, ())
        assert asked.reasons


def test_replicas_go_slowly_and_come_at_once() -> None:
    recent = Recent(60)
    wanted = [
        decide(replicas(serving=4, load=busy(cpu)), TARGETS, recent, at_s).wanted
        for at_s, cpu in ((0, 70), (1, 120), (30, 30), (60, 30), (61, 30), (89, 30), (90, 2), (121, 2), (151, 2))
    ]
    assert wanted == [4, 7, 7, 7, 2, 2, 2, 2, 2]


def test_each_decision_says_why() -> None:
    asked = demand(replicas(serving=10, sick=1, load=busy(77)))
    assert asked.reasons == (
        "Load wants 11: cpu 770 % at 70 % a replica.",
        "1 sick: as many more are asked for.",
        "An autoscaler ignores a tenth: so that it adds to the 11, a bit more is asked for.",
    )
    assert demand(replicas(serving=7, sick=1)).reasons[-1] == "While one is sick none is taken away."
    assert demand(replicas(sick=3)).reasons == ("None serves: nothing is changed.",)
