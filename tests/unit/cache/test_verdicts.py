"""Verdicts hold a promised share of wrong hits, and loosen nothing before there are enough of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.semantic.verdicts import ENOUGH, LOWEST, Verdicts, wilson

scores = st.lists(st.tuples(st.floats(0.7, 1.2), st.booleans()), max_size=ENOUGH - 1)


@given(scores, st.floats(0.001, 0.5))
def test_nothing_is_loosened_before_there_are_enough(given_: list[tuple[float, bool]], most_wrong: float) -> None:
    assert Verdicts(given_).threshold(0.9, most_wrong) >= 0.9


@given(st.lists(st.tuples(st.floats(0.7, 1.2), st.booleans()), max_size=600))
def test_without_a_promise_nothing_moves(given_: list[tuple[float, bool]]) -> None:
    assert Verdicts(given_).threshold(0.9, 0.0) == 0.9


def test_wrong_hits_raise_the_threshold_until_the_promise_holds() -> None:
    verdicts = Verdicts()
    for number in range(100):
        verdicts.add(0.91, wrong=number % 2 == 0)
        verdicts.add(0.96, wrong=False)
    raised = verdicts.threshold(0.9, 0.02)
    assert 0.91 < raised <= 0.92
    assert verdicts.wrong == 50


def test_many_right_ones_below_bring_it_down_but_not_beyond_what_was_judged() -> None:
    verdicts = Verdicts()
    for _ in range(ENOUGH):
        verdicts.add(0.87, wrong=False)
    assert 0.865 <= verdicts.threshold(0.9, 0.02) <= 0.9
    assert verdicts.threshold(0.9, 0.02) < 0.9
    assert verdicts.threshold(0.9, 0.001) == 0.9  # 200 right ones do not prove one in a thousand


def test_the_threshold_settles_where_the_promise_is_kept() -> None:
    chance = random.Random(3)
    verdicts = Verdicts()
    for _ in range(3000):
        score = chance.uniform(0.8, 1.0)
        verdicts.add(score, wrong=chance.random() < (0.2 if score < 0.9 else 0.002))
    threshold = verdicts.threshold(0.82, 0.03)
    served = [wrong for score, wrong in verdicts.all if score >= threshold]
    assert sum(served) / len(served) < 0.05
    assert LOWEST < threshold < 0.92


@pytest.mark.parametrize(("wrong", "count"), [(0, 200), (4, 200), (100, 200), (200, 200)])
def test_the_interval_holds_the_share(wrong: int, count: int) -> None:
    low, high = wilson(wrong, count)
    assert 0.0 <= low <= wrong / count <= high <= 1.0
