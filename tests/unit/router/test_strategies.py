"""How candidates are put in order, and that each score is explained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.providers import Live
from services.router.scoring import Option, Size
from services.router.strategies import STRATEGIES, check_strategy, explain, rank
from shared.errors import MeshError
from tests.unit.router.catalogues import model

SHORT, LONG = Size(prompt=20, input=20, output=200), Size(prompt=20_000, input=20_000, output=200)
QUICK = Live(available=True, first_token_s=0.1, tokens_per_s=200)
SLOW = Live(available=True, first_token_s=2.0, tokens_per_s=20)
CHEAP = Option(model("a/cheap"), cost_nanos=1_000)
MIDDLE = Option(model("b/middle"), cost_nanos=10_000)
DEAR = Option(model("c/dear"), cost_nanos=100_000)


def order(name: str, *options: Option, size: Size = SHORT) -> list[str]:
    return [scored.option.model.id for scored in rank(name, options, size)]


def with_live(option: Option, live: Live, **fields: object) -> Option:
    return Option(option.model, option.cost_nanos, live, **fields)  # type: ignore[arg-type]


def test_hybrid_sends_short_prompts_to_the_cheap_and_long_ones_to_the_able() -> None:
    assert order("hybrid", DEAR, MIDDLE, CHEAP, size=SHORT)[0] == "a/cheap"
    assert order("hybrid", CHEAP, MIDDLE, DEAR, size=LONG)[0] == "c/dear"


def test_hybrid_looks_at_live_latency() -> None:
    same_price = Option(model("z/other"), cost_nanos=1_000)
    assert order("hybrid", with_live(CHEAP, SLOW), with_live(same_price, QUICK)) == ["z/other", "a/cheap"]


def test_cheapest_fastest_and_ordered_do_what_they_say() -> None:
    assert order("cheapest", DEAR, CHEAP, MIDDLE) == ["a/cheap", "b/middle", "c/dear"]
    assert order("fastest", with_live(CHEAP, SLOW), with_live(DEAR, QUICK)) == ["c/dear", "a/cheap"]
    assert order("ordered", DEAR, CHEAP, MIDDLE) == ["c/dear", "a/cheap", "b/middle"]


def test_a_model_that_often_fails_is_slow_in_effect() -> None:
    failing = Live(available=True, first_token_s=0.1, tokens_per_s=200, error_rate=0.9)
    healthy = Live(available=True, first_token_s=0.2, tokens_per_s=150)
    assert order("fastest", with_live(CHEAP, failing), with_live(DEAR, healthy)) == ["c/dear", "a/cheap"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_fallbacks_come_after_targets_and_what_rests_last(name: str) -> None:
    fallback = Option(CHEAP.model, CHEAP.cost_nanos, QUICK, fallback=1)
    resting = Option(MIDDLE.model, MIDDLE.cost_nanos, QUICK, rest_reason="90% of its recent calls failed")
    assert order(name, resting, fallback, DEAR) == ["c/dear", "a/cheap", "b/middle"]
    ranked = rank(name, [resting, fallback, DEAR], SHORT)
    assert "b/middle comes last: 90% of its recent calls failed" in explain(name, ranked, SHORT, pinned=False)


lives = st.none() | st.builds(
    Live,
    available=st.just(True),
    first_token_s=st.none() | st.floats(0, 10),
    tokens_per_s=st.none() | st.floats(0.1, 1000),
    error_rate=st.floats(0, 1),
)
options = st.lists(
    st.builds(Option, model=st.just(CHEAP.model), cost_nanos=st.integers(0, 10**12), live=lives), min_size=1, max_size=5
)


@given(st.sampled_from(sorted(STRATEGIES)), options, st.integers(0, 10**6))
def test_parts_add_up_to_scores_between_0_and_1(name: str, options: list[Option], prompt: int) -> None:
    size = Size(prompt=prompt, input=prompt, output=100)
    ranked = rank(name, options, size)
    assert len(ranked) == len(options)
    for scored in ranked:
        assert scored.score == pytest.approx(sum(scored.parts.values()))
        assert -1e-9 <= scored.score <= 1 + 1e-9
    assert explain(name, ranked, size, pinned=False).endswith(".")


def test_an_unknown_strategy_is_met_with_those_there_are() -> None:
    with pytest.raises(MeshError, match="hybrid, cheapest, fastest, ordered") as caught:
        check_strategy("magic")
    assert caught.value.field == "routing.strategy"
