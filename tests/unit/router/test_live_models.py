"""What is known of models now, by their best deployment."""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from modelmuxer.provider.v1.provider_pb2 import DeploymentState

from services.router.providers import PROBE_EVERY_S, LiveModels


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def live(clock: Clock, *states: DeploymentState) -> LiveModels:
    models = LiveModels(cast("Any", None), clock=clock)
    models.update(states)
    return models


def test_a_model_is_as_good_as_its_best_deployment() -> None:
    known = live(
        Clock(),
        DeploymentState(model="m", available=False, unavailable_reason="set A_KEY"),
        DeploymentState(model="m", available=True, time_to_first_token=Duration(seconds=2), tokens_per_second=10),
        DeploymentState(model="m", available=True, time_to_first_token=Duration(seconds=1), tokens_per_second=5),
    ).of("m")
    assert known is not None
    assert (known.available, known.first_token_s, known.tokens_per_s) == (True, 1.0, 10)


def test_a_model_without_any_is_unavailable_for_the_reason_given() -> None:
    known = live(Clock(), DeploymentState(model="m", unavailable_reason="set A_KEY")).of("m")
    assert known is not None
    assert (known.available, known.unavailable_reason) == (False, "set A_KEY")


def test_a_model_that_nobody_told_of_is_unknown() -> None:
    assert live(Clock()).of("m") is None
    assert live(Clock()).rest_reason("m") == ""


def test_a_rest_that_a_provider_asked_for_runs_out_by_the_clock() -> None:
    clock = Clock()
    models = live(clock, DeploymentState(model="m", available=True, retry_after=Duration(seconds=5)))
    assert "5 s" in models.rest_reason("m")
    clock.now_s += 5
    assert models.rest_reason("m") == ""


def test_a_failing_model_rests_but_is_probed_now_and_then() -> None:
    clock = Clock()
    models = live(clock, DeploymentState(model="m", available=True, error_rate=0.8))
    assert models.rest_reason("m") == ""
    assert "80%" in models.rest_reason("m")
    clock.now_s += PROBE_EVERY_S
    assert models.rest_reason("m") == ""
    assert models.rest_reason("m") != ""
