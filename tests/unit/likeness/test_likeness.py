"""Questions with another answer are told apart, whatever their vectors say; questions that say the same are not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.likeness import DEFAULT_THRESHOLD, Difference, Kind, compare, needed, read, score

from tests.performance.edits import NEUTRAL, minimal

# The project's own: the labelled pairs are for measuring only.
QUESTIONS = [
    "How do I bake rye bread in 2 hours?",
    "Which trains run from Lisbon to Porto on 14 May 2026?",
    "What is the boiling point of water at 3000 meters in Bolivia?",
    "Can I carry 5 kg of cheese on a flight to Canada?",
    "Why does my neighbour's dog bark at the postman every morning?",
    "Is it safe to store batteries in a fridge?",
    "What are the main differences between Rust and Haskell?",
    "How many days does a visa for Japan take?",
    "Where can I watch the eclipse in Spain in 2027?",
    "Does the warranty of the Falcon 9 printer cover water damage?",
    "Who was the mayor of Hamburg in 1974?",
    "Should I water my tomatoes before or after sunset?",
    "What does the function read_csv() return in Pandas?",
    "How can I convert 12 inches into cm?",
    "When will the museum in Oslo open again?",
    "Are mushrooms from the forest near Krakow safe to eat?",
]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How tall is a giraffe?", "how tall is a giraffe"),
        ("What's the capital of Peru?", "What is the capital of Peru"),
        ("How do I sharpen a knife?", "Hello, could you please tell me how do I sharpen a knife? Thanks!"),
        ("Is it cold in May?", "Can you tell me, is it cold in may?"),
        ("WHY DO CATS PURR?", "Why do cats purr"),
        ("What costs 1,000 euros?", "What costs 1000 euros?"),
        ("Is it raining or not?", "Is it raining?"),
        ("I need 2 eggs, is that right?", "I need two eggs, is that right?"),
    ],
)
def test_case_marks_courtesy_and_spelling_out_change_nothing(one: str, other: str) -> None:
    assert compare(read(one), read(other)).kind is Kind.SAME


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("Who won the cup in 2015?", "Who won the cup in 2016?", "number"),
        ("Who won the cup?", "Who won the cup in 2016?", "number"),
        ("How far is 5 km?", "How far is 5 miles?", "unit"),
        ("Can I eat raw eggs?", "Can't I eat raw eggs?", "negation"),
        ("What eats grass?", "What never eats grass?", "negation"),
        ("How do I reach Anna Berg?", "How do I reach Otto Berg?", "name"),
        ("Where did Will Turner live?", "Where did Jack Turner live?", "name"),
        ("What is the best hotel here?", "What is the worst hotel here?", "pole"),
        ("How long is the bridge?", "How old is the bridge?", "measure"),
        ("How do cars brake?", "How do trucks brake?", "word"),
        ("What does `a + b` mean?", "What does `a - b` mean?", "code"),
        ("Is C fast to compile?", "Is C++ fast to compile?", "symbol"),
        ("Was ist das beste Brot?", "Какой хлеб самый лучший?", "language"),
        ("Do dogs chase cats?", "Do cats chase dogs?", "order"),
        ("How do I fly from Rome to Paris?", "How do I fly from Paris to Rome?", "order"),
        ("How do I convert miles to kilometres?", "How do I convert kilometres to miles?", "order"),
        ("What should I eat before a workout?", "What should I eat after a workout?", "side"),
        ("Are there ferries to Corfu?", "Are there ferries from Corfu?", "side"),
        ("Which towns have more snow than Oslo?", "Which towns have less snow than Oslo?", "side"),
        ("Do all owls hoot?", "Do some owls hoot?", "side"),
        ("Do plants need light?", "Do plants only need light?", "side"),
        ("Does he trust her?", "Does she trust him?", "side"),
        ("How do I turn on the heater?", "How do I turn off the heater?", "side"),
        ("Why did Rome fall?", "How did Rome fall?", "asked"),
        ("Where was Napoleon born?", "When was Napoleon born?", "asked"),
        ("Do eggs expire?", "Why do eggs expire?", "asked"),
        ("How long do eggs last if refrigerated?", "How long do eggs last if not refrigerated?", "negation"),
        ("Is the call at 3 am?", "Is the call at 3 pm?", "unit"),
        ("Is it open on Monday?", "Is it open on Sunday?", "pole"),
        ("Is coffee good for me?", "Is coffee bad for me?", "pole"),
        ("What is an endothermic reaction?", "What is an exothermic reaction?", "word"),
        ("Can a doctor prescribe this?", "Can a doctor proscribe this?", "word"),
        ("How large is Austria?", "How large is Australia?", "name"),
        ("Who was Maria Berg?", "Who was Marie Berg?", "name"),
        ('How do "who" and "whom" differ?', 'How do "who" and "which" differ?', "word"),
        ("a " * 3000, "a " * 3001, "length"),
    ],
)
def test_what_changes_the_answer_is_no_hit_at_any_similarity(one: str, other: str, reason: str) -> None:
    difference = compare(read(one), read(other))
    assert (difference.kind, difference.reason) == (Kind.OTHER, reason)
    assert needed(difference, 0.1) is None
    assert score(1.0, difference) < 0


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("How can I keep bees?", "What is a good way to keep bees?", Kind.PHRASED),
        ("Are Honda or Toyota cars cheaper to run?", "Are Toyota or Honda cars cheaper to run?", Kind.ORDERED),
        ("How do I repot a rhododendron?", "How do I repot a rhododendren?", Kind.SPELT),
        ("How was it received?", "How was it recieved?", Kind.SPELT),
        ("Who is Hillary Berg?", "Who is Hilary Berg?", Kind.SPELT),
        ("What are the main causes of rust?", "What are the causes of rust?", Kind.PHRASED),
        ("How did you learn to sail?", "How can you learn to sail?", Kind.ASKED),
        ("How do I renew a visa?", "How do I renew a visa in india?", Kind.NAMED),
        ("How do I keep bees?", "How do I keep bees in a garden?", Kind.ADDED),
        ("What is the price of gold?", "What is the price of gold in Malta?", Kind.NAMED),
        ("Where do I keep bees?", "How do I keep bees?", Kind.ASKED),
        ("How can I calm a crying baby at night?", "My baby cries after dark, what helps?", Kind.REWORDED),
    ],
)
def test_what_may_say_the_same_needs_the_more_the_further_it_goes(one: str, other: str, kind: Kind) -> None:
    assert compare(read(one), read(other)).kind is kind


def test_the_less_two_questions_differ_the_less_near_their_vectors_need_to_be() -> None:
    kinds = (Kind.SAME, Kind.PHRASED, Kind.SPELT, Kind.ORDERED, Kind.ADDED, Kind.NAMED)
    bounds = [needed(Difference(kind), DEFAULT_THRESHOLD) or 2.0 for kind in kinds]
    assert bounds == sorted(bounds)


def test_edits_by_script_that_change_the_answer_miss() -> None:
    chance = random.Random(1)
    edits = [(text, edited) for text in QUESTIONS for _, edited in minimal(text, chance)]
    assert len(edits) > 30
    hits = [(a, b) for a, b in edits if needed(compare(read(a), read(b)), DEFAULT_THRESHOLD) is not None]
    assert not hits


@pytest.mark.parametrize("edit", NEUTRAL)
def test_edits_by_script_that_change_nothing_hit(edit: str) -> None:
    for text in QUESTIONS:
        bound = needed(compare(read(text), read(NEUTRAL[edit](text))), DEFAULT_THRESHOLD)
        assert bound is not None, (text, NEUTRAL[edit](text))
        assert bound < 0.8


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_two_texts_compare_the_same_either_way(one: str, other: str) -> None:
    there, back = compare(read(one), read(other)), compare(read(other), read(one))
    assert there.kind is back.kind
    assert compare(read(one), read(one)).kind is Kind.SAME


@given(st.sampled_from(QUESTIONS), st.sampled_from(QUESTIONS), st.floats(0.5, 1.0))
def test_a_score_is_the_threshold_up_to_which_an_answer_may_stand(one: str, other: str, similarity: float) -> None:
    difference = compare(read(one), read(other))
    threshold = score(similarity, difference)
    bound = needed(difference, threshold)
    assert bound is None if threshold < 0 else bound == pytest.approx(min(similarity, 0.999))
