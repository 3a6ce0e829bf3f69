"""Vectors of texts as an embedding model would make them: the same for the same text, near for near texts, of length 1.

A text's features (its words, pairs of words, and runs of three and four letters) are hashed into the vector's
components with a sign. Frequent words weigh little, so that two questions are not near for "how do I" alone.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from functools import lru_cache
from zlib import crc32

DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "mistral-embed": 1024,
    "codestral-embed": 1536,
    "gemini-embedding-001": 3072,
    "gemini-embedding-2": 3072,
    "BAAI/bge-base-en-v1.5": 768,
}
USUAL_DIMENSIONS = 256  # of "sim-…" models
_WORD = re.compile(r"\w+")
_FREQUENT = frozenset(
    _WORD.findall(
        "a an the is are was were be do does did how what why when where which who can could should would will i my me "
        "you your we it its of to in on at for from with and or that this there please tell"
    )
)


def dimensions(model: str) -> int | None:
    """How long the model's vectors are; None for a model that makes none."""
    return USUAL_DIMENSIONS if model.startswith("sim-") else DIMENSIONS.get(model)


@lru_cache(maxsize=4096)
def embed(text: str, size: int) -> array[float]:
    """The text's vector."""
    values = array("d", bytes(8 * size))
    for feature, weight in _features(text):
        hashed = crc32(feature.encode())
        values[hashed % size] += weight if hashed & 1 << 31 else -weight
    length = math.sqrt(sum(value * value for value in values))
    if not length:
        values[0] = length = 1.0
    return array("f", (value / length for value in values))


def _features(text: str) -> Iterator[tuple[str, float]]:
    words = _WORD.findall(text.lower())
    before = ""
    for word in words:
        weight = 0.25 if word in _FREQUENT else 1.0
        yield f"w {word}", weight
        yield f"p {before} {word}", weight / 4
        padded = f"<{word}>"
        for length in (3, 4):
            runs = max(1, len(padded) - length + 1)
            for start in range(runs):
                yield f"g {padded[start : start + length]}", weight / math.sqrt(runs)
        before = word
