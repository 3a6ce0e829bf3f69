"""A question, read: its words without case, punctuation and courtesy, and what each of them is."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from modelmuxer.likeness.vocabulary import (
    ASKS_YES_NO,
    CODE_SYMBOLS,
    CONTRACTIONS,
    ENDINGS,
    FUNCTION,
    KINDS,
    NEGATIONS,
    NUMBERS,
    OPENING,
    OPENING_WORDS,
    PLACES,
    POLES,
    SIDES,
    SYMBOLS,
    SYNONYMS,
    THANKS,
    THANKS_WORDS,
    UNIT_SYMBOLS,
    UNITS,
    words_of,
)

MAX_CHARS: Final = 4_000  # longer texts are told apart by more than a sentence's words
_QUOTES: Final = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": " "})
_PIECE: Final = re.compile(
    r"\d+(?:[.,:/]\d+)*(?:st|nd|rd|th)?(?![^\W_])|\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[%$€£₹°&+#=<>^{}@\\|~*]"
)
_HALVES_OF_DAY: Final = frozenset(("am", "pm"))
_ARTICLES: Final = frozenset(("a", "an", "the"))
_CODE: Final = re.compile(r"`[^`]+`|\w+(?:\.\w+)*\(|\b[^\W\d_]+_\w+\b|[<>=!]=|=>|->|::|</?\w+>|\\\w")
_QUOTED: Final = re.compile(r'"+([^"]+)"+')
_CODE_SIGNS: Final = frozenset("`(_=<>:\\-")
_FIRST: Final = re.compile(r"[\w']+")
_EDGES: Final = " \t\n,.:;!-"
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True, slots=True)
class Word:
    """One word. `stem` is what it is compared by."""

    stem: str
    text: str
    kind: str
    """"content", "number", "unit", "symbol", "negation", "pole", "side" or "function"."""
    is_name: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What a text asks, as far as its words tell."""

    words: tuple[Word, ...]
    asks: str
    """What kind of question it is: "what", "how", "why", …, "yes or no"; empty for what is none."""
    code: frozenset[str]
    script: str
    is_whole: bool
    """The text is short enough to be compared by its words."""

    @property
    def plain(self) -> tuple[str, ...]:
        """All its words, as they are compared."""
        return tuple(word.stem for word in self.words)


@lru_cache(maxsize=4096)
def read(text: str) -> Question:
    """Reads a text."""
    whole = len(text) <= MAX_CHARS
    clean = unicodedata.normalize("NFKC", text[:MAX_CHARS]).translate(_QUOTES)
    bare = _without_courtesy(clean)
    words = tuple(_words(bare))
    return Question(
        words=words,
        asks=_asks(words),
        code=frozenset(found.lower() for found in _CODE.findall(clean)) if _CODE_SIGNS & set(clean) else frozenset(),
        script=_script(clean),
        is_whole=whole,
    )


def _without_courtesy(text: str) -> str:
    text = text.strip()
    low = text.lower()
    if any(word in low for word in THANKS_WORDS):
        text = " ".join(THANKS.sub(" ", text).split()).strip(_EDGES)
    while (start := _FIRST.match(text)) and start[0].lower() in OPENING_WORDS:
        shorter = OPENING.sub("", text, count=1).strip(_EDGES)
        if shorter == text:
            break
        text = shorter
    return text


def _words(text: str) -> list[Word]:
    silent = _capitals_name_nothing(text)
    found: list[Word] = []
    begins = True
    text = _THOUSANDS.sub("", text)
    quoted = _quoted(text)
    for match in _PIECE.finditer(text):
        piece = match[0]
        capital = piece[0].isupper() and not silent
        acronym = capital and len(piece) > 1 and piece.isupper()
        is_name = acronym or (capital and not begins and piece != "I")
        spoken_of = any(match.start() in span for span in quoted)
        for part in _parts(piece):
            if spoken_of and part in FUNCTION:
                found.append(Word(part, piece, "content", False))
            elif part in _HALVES_OF_DAY and found and found[-1].kind == "number":
                found.append(Word(part, piece, "unit", False))
            elif part not in _ARTICLES:
                found.append(_word(part, piece, is_name))
        begins = match.end() < len(text) and text[match.end()] in ".?!:"
    return found


def _quoted(text: str) -> list[range]:
    """Where words are spoken of, not said: in quotes, unless most of the text is."""
    spans = [range(*match.span(1)) for match in _QUOTED.finditer(text)] if '"' in text else []
    return spans if sum(map(len, spans)) < len(text) / 2 else []


def _capitals_name_nothing(text: str) -> bool:
    """Whether it is written in capitals alone, or every word of it begins with one."""
    if not any(char.islower() for char in text):
        return True
    words = [piece for piece in _PIECE.findall(text) if piece[0].isalpha()]
    return len(words) > 3 and sum(word[0].isupper() for word in words) > 0.75 * len(words)


def _parts(piece: str) -> list[str]:
    low = piece.lower()
    if low in CONTRACTIONS:
        return CONTRACTIONS[low].split()
    for ending, spelt in ENDINGS:
        if low.endswith(ending) and len(low) > len(ending):
            return (low.removesuffix(ending) + spelt).split()
    return [low.replace("'", "")]


def _word(low: str, text: str, is_name: bool) -> Word:
    if low in CODE_SYMBOLS:
        return Word(low, text, "symbol", False)
    if low in SYMBOLS:
        return Word(SYMBOLS[low], text, "unit" if low in UNIT_SYMBOLS else "function", False)
    if low[0].isdigit():
        return Word(_number(low), text, "number", False)
    if low in NUMBERS:
        return Word(str(NUMBERS[low]), text, "number", False)
    if low in UNITS:
        return Word(UNITS[low], text, "unit", False)
    if low in NEGATIONS:
        return Word(low, text, "negation", False)
    if low in FUNCTION and not is_name:
        return Word(low, text, "side" if low in SIDES else "function", False)
    if low in FUNCTION:
        return Word(low, text, "content", True)  # a name that is spelt like it: Will, May, US
    if low in SIDES:
        return Word(low, text, "side", False)
    if low in POLES:
        return Word(low, text, "pole", is_name)
    return Word(meaning(low), text, "content", is_name or low in PLACES)


def _number(low: str) -> str:
    value = re.sub(r"(?:st|nd|rd|th)$", "", low)
    return re.sub(r"\.0+$", "", value)


@lru_cache(maxsize=65_536)
def meaning(word: str) -> str:
    """What a word is compared by: its stem, or that of its best known synonym."""
    root = stem(word)
    return _MEANINGS.get(root, root)


def stem(word: str) -> str:
    """A word without the endings of number and tense. Rough on purpose: what it joins must still be near by vector."""
    if len(word) <= 3 or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and len(root) >= 3 and any(vowel in root for vowel in "aeiouy"):
            if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz":
                root = root[:-1]
            word = root
            break
    return word.removesuffix("e") if len(word) > 4 else word


def _asks(words: tuple[Word, ...]) -> str:
    for place, word in enumerate(words):
        if word.stem in KINDS:
            if word.stem == "how" and place + 1 < len(words) and words[place + 1].stem in _MEASURES:
                return f"how {words[place + 1].stem}"
            return KINDS[word.stem]
        if place == 0 and word.stem in ASKS_YES_NO:
            return "yes or no"
    return ""


_MEANINGS: Final = {stem(word): stem(first) for word, first in SYNONYMS.items()}
_MEASURES: Final = words_of(
    """
    much many long far old often big fast tall deep high soon
    """
)


def _script(text: str) -> str:
    """The script of most of its letters: a stand-in for its language."""
    if text.isascii():
        return "LATIN"
    counts: dict[str, int] = {}
    for char in text:
        if char.isalpha():
            name = "LATIN" if char.isascii() else unicodedata.name(char, "").partition(" ")[0]
            counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda name: counts[name], default="")
