"""Questions edited by script: in what changes the answer, and in what does not."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

NAMES = ("Lisbon", "Brazil", "Siemens", "Maria", "Toyota", "Einstein")
UNITS = {
    "km": "miles",
    "kg": "pounds",
    "days": "weeks",
    "hours": "minutes",
    "years": "months",
    "inches": "cm",
    "dollars": "euros",
    "rupees": "dollars",
    "meters": "feet",
    "minutes": "hours",
}
_VERB = re.compile(r"\b(is|are|can|does|do|should|will|would|was|were|did|has|have)\b")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")
_UNIT = re.compile(rf"\b({'|'.join(UNITS)})\b")

NEUTRAL: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "title case": str.title,
    "no question mark": lambda text: text.rstrip("? "),
    "more question marks": lambda text: f"{text}??",
    "space before the mark": lambda text: text.replace("?", " ?"),
    "no commas": lambda text: text.replace(",", ""),
    "typographic quotes": lambda text: text.replace("'", "’"),
    "please before": lambda text: f"Please, {_small(text)}",
    "please behind": lambda text: f"{text.rstrip('? ')}, please?",
    "thanks": lambda text: f"{text} Thanks!",
    "thanks in advance": lambda text: f"{text} Thank you in advance.",
    "greeting": lambda text: f"Hi, {_small(text)}",
    "tell me": lambda text: f"Could you please tell me, {_small(text)}",
    "like to know": lambda text: f"I would like to know: {text}",
}


def minimal(text: str, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Edits of a question that change its answer, by kind: a number or year, a name, a unit, a "not"."""
    if numbers := list(re.finditer(r"\d+", text)):
        at = chance.choice(numbers)
        kind = "year" if re.fullmatch(r"(?:19|20)\d\d", at[0]) else "number"
        yield kind, text[: at.start()] + str(int(at[0]) + chance.choice((1, 2, 10))) + text[at.end() :]
    if names := list(_NAME.finditer(text)):
        at = chance.choice(names)
        other = chance.choice([name for name in NAMES if name != at[0]])
        yield "name", text[: at.start()] + other + text[at.end() :]
    if unit := _UNIT.search(text):
        yield "unit", text[: unit.start()] + UNITS[unit[0]] + text[unit.end() :]
    if verb := _VERB.search(text):
        yield "not", f"{text[: verb.end()]} not{text[verb.end() :]}"


def _small(text: str) -> str:
    """Without the capital that only its sentence gave it."""
    first = text.partition(" ")[0]
    return text if first.isupper() and len(first) > 1 else text[:1].lower() + text[1:]
