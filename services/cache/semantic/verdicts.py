"""Verdicts on answers that stood for other questions, and the threshold that they call for. Pure.

A verdict counts for every threshold up to its score: at any of those the answer would have been given. The threshold
is raised as soon as the share of wrong answers is surely above what is promised, and comes down below where it was set
only once enough verdicts say that the share is surely within it (Wilson's interval, 95 %).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import sqrt
from typing import Final

ENOUGH: Final = 200  # verdicts, before anything is loosened
KEPT: Final = 4000  # the newest count
STEP: Final = 0.005
LOWEST: Final = 0.7
Z: Final = 1.96


class Verdicts:
    """Of one tenant and class."""

    def __init__(self, kept: Iterable[tuple[float, bool]] = ()) -> None:
        self._verdicts: deque[tuple[float, bool]] = deque(kept, maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._verdicts)

    @property
    def wrong(self) -> int:
        """Verdicts that an answer was wrong."""
        return sum(wrong for _, wrong in self._verdicts)

    @property
    def all(self) -> tuple[tuple[float, bool], ...]:
        """Scores, and whether the answer was wrong."""
        return tuple(self._verdicts)

    def add(self, score: float, wrong: bool) -> None:
        """Takes a verdict."""
        self._verdicts.append((score, wrong))

    def threshold(self, asked: float, most_wrong: float) -> float:
        """The threshold that holds the promised share of wrong answers, from the one that is asked for."""
        if not most_wrong:
            return asked
        threshold = asked
        while threshold < 1.0 and self._surely_above(threshold, most_wrong):
            threshold += STEP
        if threshold > asked:
            return min(threshold, 1.0)
        while threshold - STEP >= LOWEST and self._surely_within(threshold - STEP, most_wrong):
            threshold -= STEP
        return threshold

    def _surely_above(self, threshold: float, most_wrong: float) -> bool:
        wrong, count = self._at(threshold)
        return count > 0 and wilson(wrong, count)[0] > most_wrong

    def _surely_within(self, threshold: float, most_wrong: float) -> bool:
        wrong, count = self._at(threshold)
        return count >= ENOUGH and wilson(wrong, count)[1] <= most_wrong

    def _at(self, threshold: float) -> tuple[int, int]:
        given = [wrong for score, wrong in self._verdicts if score >= threshold]
        return sum(given), len(given)


def wilson(wrong: int, count: int) -> tuple[float, float]:
    """The interval in which the true share lies with 95 % confidence."""
    share = wrong / count
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
