"""Balancing between deployments, and what calls teach of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provider_proxy.balancer import LEAST_CONNECTIONS, ROUND_ROBIN, Balancer
from services.provider_proxy.statistics import MAX_REST_S, Figures, Statistics
from shared.errors import Reason

THREE = ["a", "b", "c"]


def test_round_robin_takes_turns_per_model() -> None:
    balancer = Balancer(ROUND_ROBIN)
    assert [balancer.choose("m", THREE, lambda _: 0) for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]
    assert balancer.choose("other", THREE, lambda _: 0) == "a"


def test_least_connections_goes_where_fewest_calls_are() -> None:
    load = {"a": 2, "b": 1, "c": 1}
    balancer = Balancer(LEAST_CONNECTIONS)
    assert Counter(balancer.choose("m", THREE, load.__getitem__) for _ in range(10)) == {"b": 5, "c": 5}


@given(st.integers(1, 200), st.integers(1, 5))
def test_least_connections_never_lets_one_get_ahead_by_more_than_a_call(calls: int, deployments: int) -> None:
    names = [f"d{number}" for number in range(deployments)]
    load = Counter(dict.fromkeys(names, 0))
    balancer = Balancer(LEAST_CONNECTIONS)
    for _ in range(calls):
        load[balancer.choose("m", names, load.__getitem__)] += 1
    assert max(load.values()) - min(load.values()) <= 1


def test_without_balancing_the_first_is_taken() -> None:
    balancer = Balancer(ROUND_ROBIN, enabled=False)
    assert {balancer.choose("m", THREE, lambda _: 0) for _ in range(5)} == {"a"}


def test_means_follow_the_newest_calls() -> None:
    figures = Figures()
    figures.succeeded(1.0, output_tokens=100, output_s=2.0)
    assert (figures.first_token_s, figures.tokens_per_s) == (1.0, 50.0)
    for _ in range(30):
        figures.succeeded(0.1, output_tokens=100, output_s=1.0)
    assert figures.first_token_s == pytest.approx(0.1, abs=0.01)
    assert figures.tokens_per_s == pytest.approx(100, rel=0.01)


def test_an_answer_in_one_piece_says_nothing_of_speed() -> None:
    figures = Figures()
    figures.succeeded(None, output_tokens=100, output_s=0.001)
    assert (figures.first_token_s, figures.tokens_per_s) == (None, None)


def test_only_the_providers_faults_count() -> None:
    figures = Figures()
    for reason in (Reason.PROVIDER_INVALID_REQUEST, Reason.CONTENT_POLICY, Reason.CANCELLED, Reason.DEADLINE_EXCEEDED):
        figures.failed(reason, None, 0)
    assert figures.error_rate == 0
    for _ in range(4):
        figures.failed(Reason.PROVIDER_OVERLOADED, None, 0)
    assert figures.error_rate > 0.5
    for _ in range(10):
        figures.succeeded(None, 1, 1)
    assert figures.error_rate < 0.1


def test_a_rest_lasts_as_long_as_the_provider_asked_within_reason() -> None:
    figures = Figures()
    figures.failed(Reason.PROVIDER_RATE_LIMITED, 30, now_s=100)
    figures.failed(Reason.PROVIDER_RATE_LIMITED, 5, now_s=101)
    assert figures.rest_s(110) == 20
    assert figures.rest_s(131) == 0
    figures.failed(Reason.PROVIDER_RATE_LIMITED, 86_400, now_s=0)
    assert figures.rest_s(0) == MAX_REST_S


def test_figures_of_deployments_that_are_gone_go_too() -> None:
    statistics = Statistics()
    statistics.of("idle").calls = 3
    statistics.of("running").began()
    statistics.of("kept").calls = 5
    statistics.keep_only(["kept"])
    assert [statistics.of(name).calls for name in ("idle", "running", "kept")] == [0, 1, 5]


def test_an_answer_in_one_piece_that_is_left_early_is_estimated_by_what_such_answers_come_to() -> None:
    figures = Figures()
    assert figures.unseen_tokens(5.0) == 0
    figures.succeeded(0.5, output_tokens=1000, output_s=1.0)
    assert figures.unseen_tokens(5.0) == 0  # streams say nothing of it
    figures.succeeded(None, output_tokens=40, output_s=2.0)
    assert figures.unseen_tokens(0.4) == 0  # nothing can have been generated
    assert figures.unseen_tokens(1.0) == 20
    assert figures.unseen_tokens(60.0) == 40
