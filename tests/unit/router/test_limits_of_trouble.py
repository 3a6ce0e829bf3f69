"""A dependency's bad day is bounded: retries are a share of calls, and what keeps failing is left alone."""

from __future__ import annotations

from services.router.retry_budget import RetryBudget
from shared.breaker import Breaker


def test_retries_are_a_tenth_of_calls_once_the_burst_is_spent() -> None:
    budget = RetryBudget(share=0.1, floor_per_s=0, burst=20)
    granted = 0
    for _ in range(1000):
        budget.earn(0.0)
        granted += budget.spend(0.0)
    assert 100 <= granted <= 120


def test_a_quiet_router_may_still_retry() -> None:
    budget = RetryBudget(share=0.1, floor_per_s=1, burst=5)
    while budget.spend(0.0):
        pass
    assert not budget.spend(0.5)
    assert budget.spend(1.5)


def test_a_breaker_opens_probes_and_closes() -> None:
    breaker = Breaker(threshold=3, rest_s=1, max_rest_s=4)
    for _ in range(3):
        assert breaker.allows(0.0)
        breaker.failed(0.0)
    assert not breaker.allows(0.9)
    assert breaker.allows(1.0)
    assert not breaker.allows(1.0), "one probe at a time"
    breaker.failed(1.02)
    assert not breaker.allows(2.9), "a failed probe doubles the rest"
    assert breaker.allows(3.1)
    breaker.succeeded()
    assert breaker.closed
    assert all(breaker.allows(3.2) for _ in range(5))


def test_late_failures_do_not_lengthen_the_rest() -> None:
    breaker = Breaker(threshold=3, rest_s=1, max_rest_s=30)
    for _ in range(64):
        breaker.failed(0.0)
    assert breaker.allows(1.0)


def test_a_probe_that_never_answers_is_followed_by_another() -> None:
    breaker = Breaker(threshold=1, rest_s=1, max_rest_s=4)
    breaker.failed(0.0)
    assert breaker.allows(1.0)
    assert breaker.allows(2.0)
