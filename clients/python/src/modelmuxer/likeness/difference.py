"""What the words of two questions say of their difference: whether it may be one of meaning, and how far it goes.

A number, a name, a "not", a unit, code or a script that differs is another question, however near the vectors are. So
is one word put in another's place while all else stays: that is how near-identical questions with another answer look.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from functools import cached_property

from modelmuxer.likeness.vocabulary import (
    ASKED_APART,
    DIRECTIONS,
    MODALS,
    OPPOSITES,
    PAST,
    WORDS_A_LETTER_APART,
)
from modelmuxer.likeness.words import Question, Word


class Kind(StrEnum):
    """How two questions differ, the least first."""

    SAME = "same"
    """In nothing but case, punctuation, articles and courtesy."""
    PHRASED = "phrased"
    """In words that say how a sentence is built."""
    ORDERED = "ordered"
    """The same words stand in another order."""
    SPELT = "spelt"
    """In the spelling of a word."""
    REWORDED = "reworded"
    """Both say something in other words."""
    ADDED = "added"
    """One says something more."""
    NAMED = "named"
    """One names something more."""
    ASKED = "asked"
    """They ask for something else about the same: how, and where."""
    OTHER = "other"
    """In something that changes the answer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How two questions differ, and for `OTHER` in what."""

    kind: Kind
    reason: str = ""


def compare(one: Question, other: Question) -> Difference:
    """What differs. Symmetric."""
    return _Pair(one, other).difference()


class _Pair:
    def __init__(self, one: Question, other: Question) -> None:
        self._one = one
        self._other = other

    def difference(self) -> Difference:
        one, other = self._one, self._other
        if not (one.is_whole and other.is_whole):
            return Difference(Kind.OTHER, "length")
        if one.script != other.script:
            return Difference(Kind.OTHER, "language")
        if one.code != other.code:
            return Difference(Kind.OTHER, "code")
        if one.plain == other.plain:
            return Difference(Kind.SAME)
        if reason := self._told_apart():
            return Difference(Kind.OTHER, reason)
        mine, theirs = self._only
        if not mine and not theirs:
            return self._same_content()
        if mine and theirs:
            return self._both_differ(mine, theirs)
        return Difference(Kind.NAMED if any(word.is_name for word in (*mine, *theirs)) else Kind.ADDED)

    def _told_apart(self) -> str:
        """What of the things that always matter differs."""
        for kind in ("number", "symbol", "pole"):
            if self._of(self._one, kind) != self._of(self._other, kind):
                return kind
        if self._of(self._one, "negation").total() != self._of(self._other, "negation").total():
            return "negation"
        units, others = self._of(self._one, "unit"), self._of(self._other, "unit")
        if units != others and (self._of(self._one, "number") or (units and others)):
            return "unit"
        asks = frozenset((self._one.asks, self._other.asks))
        if len(asks) > 1 and any(each.startswith("how ") for each in asks):
            return "measure"
        if asks in ASKED_APART:
            return "asked"
        if self._are_opposed():
            return "side"
        mine, theirs = self._only
        if (
            any(word.is_name for word in mine)
            and any(word.is_name for word in theirs)
            and not _is_respelt(mine, theirs)
        ):
            return "name"
        return ""

    def _are_opposed(self) -> bool:
        """Whether the one has "before" where the other has "after", or the like."""
        one, other = set(self._one.plain), set(self._other.plain)
        mine, theirs = one - other, other - one
        return any((mine & this and theirs & that) or (mine & that and theirs & this) for this, that in OPPOSITES)

    def _same_content(self) -> Difference:
        sides, others = self._of(self._one, "side"), self._of(self._other, "side")
        if sides != others:
            lone = set(sides) ^ set(others)
            return Difference(Kind.ADDED) if lone <= _MILD else Difference(Kind.OTHER, "side")
        mine, theirs = (
            [word for word in question.words if word.kind in _CONTENT] for question in (self._one, self._other)
        )
        if [word.stem for word in mine] != [word.stem for word in theirs]:
            return self._moved(mine, theirs)
        alike = {self._one.asks, self._other.asks} <= _ALIKE or self._one.asks == self._other.asks
        return Difference(Kind.PHRASED if alike and not self._differ_in_time() else Kind.ASKED)

    def _differ_in_time(self) -> bool:
        """Whether the one speaks of what was and the other of what may be."""
        one, other = set(self._one.plain), set(self._other.plain)
        return any(
            there & PAST and not there & MODALS and here & MODALS and not here & PAST
            for there, here in ((one, other), (other, one))
        )

    def _moved(self, mine: list[Word], theirs: list[Word]) -> Difference:
        """The same words in another order: a verdict on who does what to whom, unless it is but another phrasing."""
        places = [at for at, (one, other) in enumerate(zip(mine, theirs, strict=False)) if one.stem != other.stem]
        exchanged = len(places) == 2 and len(mine) == len(theirs)
        sided = any(word.kind == "side" and word.stem in DIRECTIONS for word in self._one.words)
        if sided or (exchanged and not self._are_listed(mine[places[0]], mine[places[1]])):
            return Difference(Kind.OTHER, "order")
        return Difference(Kind.ORDERED)

    def _are_listed(self, first: Word, second: Word) -> bool:
        """Whether nothing but "and", "or" and the like stands between two words: lists have no order."""
        words = self._one.words
        between = words[words.index(first) + 1 : words.index(second)]
        return all((word.kind == "function" or word.stem in _LISTS) and word.stem not in DIRECTIONS for word in between)

    def _both_differ(self, mine: list[Word], theirs: list[Word]) -> Difference:
        if _is_respelt(mine, theirs):
            return Difference(Kind.SPELT)
        if self._is_substitution(mine, theirs):
            return Difference(Kind.OTHER, "word")
        return Difference(Kind.REWORDED)

    def _is_substitution(self, mine: list[Word], theirs: list[Word]) -> bool:
        """Whether words stand in one another's place, and all else that is said stays as it is."""
        one, other = self._one.plain, self._other.plain
        own, foreign = {word.stem for word in mine}, {word.stem for word in theirs}
        matcher = SequenceMatcher(None, one, other, autojunk=False)
        placed = 0
        for tag, start, end, begin, stop in matcher.get_opcodes():
            if tag == "replace":
                here, there = own & set(one[start:end]), foreign & set(other[begin:stop])
                if here and there:
                    placed += len(here) + len(there)
        return placed == len(own) + len(foreign)

    @cached_property
    def _only(self) -> tuple[list[Word], list[Word]]:
        """Content that is in one and not in the other, names first."""
        return _missing(self._one, self._other), _missing(self._other, self._one)

    @staticmethod
    def _of(question: Question, kind: str) -> Counter[str]:
        return Counter(word.stem for word in question.words if word.kind == kind)


_CONTENT = ("content", "pole", "number", "unit")
# Of the words that tell sides apart, those that a question may as well do without.
_MILD = frozenset(("from", "out", "off", "up", "down", "over", "between", "more", "most", "his", "her"))
_LISTS = frozenset(("vs", "versus"))
_ALIKE = frozenset(("what", "how", ""))  # "what is a way to" and "how can I" ask the same


def _missing(question: Question, other: Question) -> list[Word]:
    """Content that the other does not have; of a name, each time that it stands once more."""
    there = Counter(word.stem for word in other.words)
    seen: Counter[str] = Counter()
    missing = []
    for word in question.words:
        seen[word.stem] += 1
        lacks = there[word.stem] < (seen[word.stem] if word.is_name else 1)
        if lacks and word.kind in ("content", "unit"):
            missing.append(word)
    return missing


def _is_respelt(mine: list[Word], theirs: list[Word]) -> bool:
    """Whether the words differ as a slip of the pen does."""
    if len(mine) != len(theirs):
        return "".join(word.stem for word in mine) == "".join(word.stem for word in theirs)
    return all(
        _is_slip(one.stem, other.stem, names=one.is_name and other.is_name)
        for one, other in zip(mine, theirs, strict=True)
    )


def _is_slip(one: str, other: str, *, names: bool) -> bool:
    """Whether a letter is too many, missing, another (not so in names), or two have changed places.

    Two slips are none: "endothermic" and "exothermic", "Austria" and "Australia" are two words.
    """
    if (
        min(len(one), len(other)) < 5
        or one[0] != other[0]
        or (one in WORDS_A_LETTER_APART and other in WORDS_A_LETTER_APART)
    ):
        return False
    start = next((at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), None)
    if start is None:
        return abs(len(one) - len(other)) == 1
    rest, other_rest = one[start:], other[start:]
    turned = rest[1::-1] + rest[2:] == other_rest
    missing = rest[1:] == other_rest or rest == other_rest[1:]
    return turned or missing or (not names and rest[1:] == other_rest[1:])
