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
        self._held: dict[tuple[float, float], float] = {}

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
        self._held.clear()

    def threshold(self, asked: float, most_wrong: float) -> float:
        """The threshold that holds the promised share of wrong answers, from the one that is asked for."""
        if not most_wrong:
            return asked
        name = (asked, most_wrong)
        if name not in self._held:
            self._held[name] = self._hold(asked, most_wrong)
        return self._held[name]

    def _hold(self, asked: float, most_wrong: float) -> float:
        threshold = asked
        while threshold < 1.0 and self._surely_above(threshold, most_wrong):
            threshold += STEP
        return min(threshold, 1.0) if threshold > asked else self._loosened(asked, most_wrong)

    def _surely_above(self, threshold: float, most_wrong: float) -> bool:
        given = [wrong for score, wrong in self._verdicts if score >= threshold]
        return bool(given) and wilson(sum(given), len(given))[0] > most_wrong

    def _loosened(self, asked: float, most_wrong: float) -> float:
        """The lowest score down to which the promise is surely kept: never lower than what was judged."""
        lowest, wrongs = asked, 0
        for count, (score, wrong) in enumerate(sorted(self._verdicts, reverse=True), 1):
            wrongs += wrong
            if LOWEST <= score < lowest and count >= ENOUGH and wilson(wrongs, count)[1] <= most_wrong:
                lowest = score
        return lowest


def wilson(wrong: int, count: int) -> tuple[float, float]:
    """The interval in which the true share lies with 95 % confidence."""
    share = wrong / count
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
