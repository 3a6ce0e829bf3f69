"""How near two vectors must be, by how the words of their questions differ.

The steps were found on labelled pairs of questions with all-MiniLM-L6-v2 (`make bench SUITE=semantic` shows what they
give). They move with the threshold, which belongs to one build of one embedding model: `mux cache tune` draws it.
"""

from __future__ import annotations

from typing import Final

from modelmuxer.likeness.difference import Difference, Kind

DEFAULT_THRESHOLD: Final = 0.87
MOST: Final = 0.999
_STEPS: Final = {
    Kind.SAME: -0.35,
    Kind.PHRASED: -0.05,
    Kind.SPELT: -0.05,
    Kind.ORDERED: -0.02,
    Kind.REWORDED: 0.0,
    Kind.ADDED: 0.0,
    Kind.ASKED: 0.0,
    Kind.NAMED: 0.04,
}


def needed(difference: Difference, threshold: float) -> float | None:
    """The similarity from which on one may stand for the other; None for questions that may not at any."""
    step = _STEPS.get(difference.kind)
    return None if step is None else min(MOST, threshold + step)


def score(similarity: float, difference: Difference) -> float:
    """The highest threshold at which the one may stand for the other; below -1 if at none."""
    step = _STEPS.get(difference.kind)
    return -2.0 if step is None else similarity - step
