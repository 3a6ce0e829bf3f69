"""What a replica is to the scaler, by what it has told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.scaler.replica import Load, Record, State

LOAD = Load(cpu_percent=50)


def told(*events: Callable[[Record], None]) -> Record:
    record = Record("10.0.0.1:50052", patience_s=5)
    for event in events:
        event(record)
    return record


def ready(record: Record) -> None:
    record.ready()


def drains(record: Record) -> None:
    record.drains()


def not_ready(at_s: float) -> Callable[[Record], None]:
    return lambda record: record.not_ready(at_s)


def lost(at_s: float) -> Callable[[Record], None]:
    return lambda record: record.lost("It does not answer.", at_s)


def reports(at_s: float) -> Callable[[Record], None]:
    return lambda record: record.reported(LOAD, at_s)


@pytest.mark.parametrize(
    ("record", "at_s", "state"),
    [
        (told(), 100, State.STARTING),
        (told(not_ready(0)), 100, State.STARTING),
        (told(lost(0)), 100, State.STARTING),
        (told(reports(0)), 100, State.STARTING),
        (told(ready), 100, State.SERVING),
        (told(ready, reports(96)), 100, State.SERVING),
        (told(ready, not_ready(96)), 100, State.SERVING),
        (told(ready, not_ready(95)), 100, State.SICK),
        (told(ready, not_ready(50), ready), 100, State.SERVING),
        (told(ready, not_ready(50), not_ready(99)), 100, State.SICK),
        (told(ready, lost(95)), 100, State.SICK),
        (told(ready, reports(94), lost(99)), 100, State.SICK),
        (told(ready, reports(94)), 100, State.SICK),
        (told(ready, reports(50), reports(99)), 100, State.SERVING),
        (told(ready, lost(50), not_ready(99)), 100, State.SICK),
        (told(ready, drains, not_ready(50)), 100, State.DRAINING),
        (told(ready, drains, not_ready(50), lost(60)), 100, State.DRAINING),
        (told(ready, drains, lost(60), ready), 100, State.SERVING),
        (told(not_ready(0), drains), 100, State.STARTING),
    ],
)
def test_its_state(record: Record, at_s: float, state: State) -> None:
    assert record.at(at_s).state is state


def test_it_says_what_troubles_it_before_that_counts() -> None:
    seen = told(ready, reports(98), not_ready(99)).at(100)
    assert (seen.state, seen.trouble, seen.load) == (State.SERVING, "It says that it is not ready.", LOAD)
    assert told(ready, reports(0)).at(100).trouble == "It has fallen silent."
    assert told(ready).at(100).trouble == ""
