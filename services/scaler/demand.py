"""How many replicas a service should have, and why. Pure.

    load metric = target × (max(ceil(load ÷ target), least replicas) + sick)

Sickness adds whole replicas to what load wants, one for one, and while one is sick none is taken away. If more than
half are sick, sickness is ignored: then it is not they that are sick but what they all depend on. The time that the
mesh adds is a metric of its own.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.scaler.replica import Load, Replica, State
from services.scaler.targets import Targets

LOAD_METRIC = "modelmuxer-load"
TIME_METRIC = "modelmuxer-added-time"

LOAD_TARGET = 100.0  # the load metric is in percent of what one replica should carry

# A HorizontalPodAutoscaler changes nothing while its metric is within 10% of its target. This is a bit more than that,
# and coarser than the thousandths that metrics are rounded to.
TOLERANCE = 0.1
BEYOND = 0.005

# Lateness and added time are no sums: how many replicas would cure them is a guess, at most so many times those there.
MOST_GROWTH = 2.0


@dataclass(frozen=True, slots=True)
class Signal:
    """One kind of load: its value, what a replica should carry of it, and how many replicas that makes."""

    name: str
    value: float
    target: float
    unit: str
    replicas: int

    def __str__(self) -> str:
        return f"{self.name} {self.value:.0f} {self.unit} at {self.target:.0f} {self.unit} a replica"


@dataclass(frozen=True, slots=True)
class Metric:
    """What an autoscaler reads: it makes value ÷ target replicas of it, rounded up."""

    name: str
    value: float
    target: float

    @property
    def replicas(self) -> int:
        return math.ceil(self.value / self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked for. Where no replica is known nothing is: `wanted` is 0 and there are no metrics."""

    wanted: int = 0
    current: int = 0
    counts: Mapping[State, int]
    panic: bool = False
    signals: tuple[Signal, ...] = ()
    metrics: tuple[Metric, ...] = ()
    reasons: tuple[str, ...] = ()
    replicas: tuple[Replica, ...] = ()

    def metric(self, name: str) -> Metric | None:
        """A metric by name."""
        return next((metric for metric in self.metrics if metric.name == name), None)


class Recent:
    """The most that was wanted lately. Streams are long, so replicas go slowly."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._wanted: deque[tuple[float, int]] = deque()

    def most(self, wanted: int, now_s: float) -> int:
        """Takes what is wanted now, and gives the most of the window."""
        while self._wanted and self._wanted[0][0] <= now_s - self.window_s:
            self._wanted.popleft()
        while self._wanted and self._wanted[-1][1] <= wanted:
            self._wanted.pop()
        self._wanted.append((now_s, wanted))
        return self._wanted[0][1]


def decide(replicas: Sequence[Replica], targets: Targets, recent: Recent, now_s: float) -> Demand:
    """What to ask for, given what is seen of the replicas."""
    counts = Counter(replica.state for replica in replicas)
    serving, sick = counts[State.SERVING], counts[State.SICK]
    current = serving + sick + counts[State.STARTING]
    if not current:
        return Demand(counts=counts, replicas=tuple(replicas), reasons=("No replica is known: nothing is asked for.",))
    panic = 2 * sick > serving + sick
    carriers = [each for each in replicas if each.state is State.SERVING or (panic and each.state is State.SICK)]
    load, time = _load(carriers, targets), _added_time(carriers, targets)
    if serving:
        wanted, reasons = _wanted(load, targets, recent.most(_base(load, targets), now_s), recent.window_s)
        wanted, why = _with_sick(wanted, sick, current, panic=panic)
        reasons += why
    else:
        wanted, reasons = current, ["None serves: nothing is changed."]
    asked = _past_tolerance(wanted, current)
    if asked > wanted:
        reasons.append(f"An autoscaler ignores a tenth: so that it adds to the {current}, a bit more is asked for.")
    slow = time.replicas if serving and not panic else 0
    if slow:
        reasons.append(f"The mesh adds {time.value:.0f} ms to a call, more than {time.target:.0f} ms: {slow} wanted.")
    metrics = (
        Metric(LOAD_METRIC, LOAD_TARGET * asked, LOAD_TARGET),
        Metric(TIME_METRIC, targets.added_ms * _past_tolerance(slow, current), targets.added_ms),
    )
    return Demand(
        wanted=max(metric.replicas for metric in metrics),
        current=current,
        counts=counts,
        panic=panic,
        signals=(*load, time),
        metrics=metrics,
        reasons=tuple(reasons),
        replicas=tuple(replicas),
    )


def _load(carriers: Sequence[Replica], targets: Targets) -> tuple[Signal, ...]:
    def total(name: str, unit: str, target: float, of: Callable[[Load], float]) -> Signal:
        value = sum(of(replica.load) for replica in carriers)
        return Signal(name, value, target, unit, math.ceil(round(value / target, 6)))

    return (
        total("cpu", "%", targets.cpu_percent, lambda load: load.cpu_percent),
        total("memory", "%", targets.memory_percent, lambda load: load.memory_percent),
        total("slots", "%", targets.slots_percent, lambda load: load.slots_percent),
        total("queue", "ms", targets.queue_ms, lambda load: min(load.queue_ms, MOST_GROWTH * targets.queue_ms)),
    )


def _added_time(carriers: Sequence[Replica], targets: Targets) -> Signal:
    calls = sum(each.load.added_calls_per_s for each in carriers)
    total_ms = sum(each.load.added_ms * each.load.added_calls_per_s for each in carriers)
    mean_ms = total_ms / calls if calls else 0.0
    growth = min(mean_ms / targets.added_ms, MOST_GROWTH)
    wanted = math.ceil(round(len(carriers) * growth, 6)) if growth > 1 else 0
    return Signal("added time", mean_ms, targets.added_ms, "ms", wanted)


def _base(load: Sequence[Signal], targets: Targets) -> int:
    return max(targets.least_replicas, *(signal.replicas for signal in load))


def _wanted(load: Sequence[Signal], targets: Targets, lately: int, window_s: float) -> tuple[int, list[str]]:
    most = max(load, key=lambda signal: signal.replicas)
    if most.replicas > targets.least_replicas:
        reasons = [f"Load wants {most.replicas}: {most}."]
    else:
        reasons = [f"Load wants no more than {targets.least_replicas}, the least."]
    if lately > _base(load, targets):
        reasons.append(f"Load wanted {lately} within the last {window_s:.0f} s: replicas go slowly.")
    return lately, reasons


def _with_sick(wanted: int, sick: int, current: int, *, panic: bool) -> tuple[int, list[str]]:
    if not sick:
        return wanted, []
    if panic:
        reasons = [f"More than half are sick ({sick}): they are not replaced, because it is not they that are ill."]
    else:
        wanted += sick
        reasons = [f"{sick} sick: as many more are asked for."]
    if wanted < current:
        reasons.append("While one is sick none is taken away.")
    return max(wanted, current), reasons


def _past_tolerance(wanted: int, current: int) -> float:
    """The replicas to ask for so that an autoscaler with `current` ones does not take the difference for noise."""
    edge = current * (1 + TOLERANCE)
    return edge + BEYOND if current < wanted <= edge + BEYOND else float(wanted)
