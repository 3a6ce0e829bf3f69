"""What the semantic cache would serve on labelled pairs of questions: retrieval, minimal edits, neutral edits.

One side of each pair labelled "same" is stored and the other asked; of pairs labelled "different" both sides are
stored, or one is asked with nothing stored that it is known to match. Labels are noisy (the data's README says how
noisy), so the plain vectors are drawn beside, and every pair that was served against its label was read once: what was
found stands in `read_pairs.json` by the pair's digest. A hit is wrong "as read" if its label says so and the reader
does not call it the same; what nobody has read counts as wrong.

Edited questions have no embedding in the file. With the model at hand (`make tools TOOL=all-minilm-l6-v2`) they get
theirs from it; without, an edit that changes the answer counts as a miss only if no similarity would make it a hit, a
neutral one as a hit if a similarity of .8 does.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from modelmuxer.likeness import DEFAULT_THRESHOLD, compare, read, score

from tests.performance.edits import NEUTRAL, minimal
from tests.performance.minilm import MiniLM
from tests.tools import find

PAIRS = Path(__file__).resolve().parents[3] / "shared" / "data" / "cache" / "pairs.jsonl.gz"
READ = Path(__file__).with_name("read_pairs.json")
MODEL = "all-minilm-l6-v2"
CANDIDATES = 3
COLD = 1000
MOST_EDITS = 250  # of a kind
NEUTRAL_EDITED = 60
NEUTRAL_SIMILARITY = 0.8

Vectors = npt.NDArray[np.float32]


class Asked(NamedTuple):
    """A question, its vector, and the stored texts that answer it."""

    text: str
    vector: Vectors
    linked: frozenset[str]


class Best(NamedTuple):
    """The best stored question by words and vectors, and the nearest by vectors alone."""

    score: float
    right: bool
    text: str
    similarity: float
    nearest_right: bool
    asked: str

    @property
    def digest(self) -> str:
        """Names the pair without its words."""
        return hashlib.sha256("\0".join(sorted((self.asked, self.text))).encode()).hexdigest()[:16]


def figures(path: Path, seeds: Sequence[int] = (1, 2, 3)) -> Iterator[dict[str, Any]]:
    """A row for each threshold, and for each kind of edit."""
    with gzip.open(path, "rt") as lines:
        pairs = [json.loads(line) for line in lines]
    read_as: dict[str, str] = json.loads(READ.read_text())
    warm: list[Best] = []
    cold: list[Best] = []
    stored = 0
    for seed in seeds:
        texts, vectors, known, unknown = _split(pairs, seed)
        warm += _best(texts, vectors, known)
        cold += _best(texts, vectors, unknown)
        stored = len(texts)
    case = f"retrieval among {stored:,} stored questions"
    for threshold in (0.85, DEFAULT_THRESHOLD, 0.9, 0.92, 0.95):
        guarded = [(each.score >= threshold, each.right) for each in warm]
        as_read = [(each.score >= threshold, each.right or read_as.get(each.digest) == "same") for each in warm]
        plain = [(each.similarity >= threshold, each.nearest_right) for each in warm]
        yield {
            "case": f"{case}, threshold {threshold:.2f}{' (default)' if threshold == DEFAULT_THRESHOLD else ''}",
            **_figures(guarded),
            "precision_as_read": _figures(as_read)["precision"],
            "cold": sum(each.score >= threshold for each in cold) / len(cold),
            "cold_as_read": sum(
                each.score >= threshold and not each.right and read_as.get(each.digest) != "same" for each in cold
            )
            / len(cold),
            **{f"plain_{name}": value for name, value in _figures(plain).items()},
            "plain_cold": sum(each.similarity >= threshold for each in cold) / len(cold),
        }
    model = find(MODEL)
    questions = sorted({pair[side] for pair in pairs for side in ("a", "b")})
    yield from _edits(questions, MiniLM(Path(model)) if model else None)


def _figures(served: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    hits = [right for hit, right in served if hit]
    return {"precision": sum(hits) / max(1, len(hits)), "recall": sum(hits) / len(served)}


class Edit(NamedTuple):
    """A question, and what was made of it."""

    kind: str
    text: str
    edited: str


def _edits(questions: list[str], model: MiniLM | None) -> Iterator[dict[str, Any]]:
    chance = random.Random(7)
    chance.shuffle(questions)
    kinds: defaultdict[str, list[Edit]] = defaultdict(list)
    for text in questions:
        for kind, edited in minimal(text, chance):
            if len(kinds[kind]) < MOST_EDITS and edited != text:
                kinds[kind].append(Edit(kind, text, edited))
    yield from _served("minimal", [edit for kind in sorted(kinds) for edit in kinds[kind]], model)
    neutral = [
        Edit(kind, text, change(text)) for kind, change in NEUTRAL.items() for text in questions[:NEUTRAL_EDITED]
    ]
    yield from _served("neutral", neutral, model)


def _served(name: str, edits: Sequence[Edit], model: MiniLM | None) -> Iterator[dict[str, Any]]:
    """What of the edits would be hits, by kind and in all."""
    similarities = (
        _similarities(edits, model) if model else [1.0 if name == "minimal" else NEUTRAL_SIMILARITY] * len(edits)
    )
    hits, made = Counter[str](), Counter(edit.kind for edit in edits)
    for edit, similarity in zip(edits, similarities, strict=True):
        hits[edit.kind] += score(similarity, compare(read(edit.text), read(edit.edited))) >= DEFAULT_THRESHOLD
    vectors = "" if model else ", whatever the vectors"
    for kind, count, hit in [*((kind, made[kind], hits[kind]) for kind in made), ("all", made.total(), hits.total())]:
        share = {"misses": 1 - hit / count} if name == "minimal" else {"hits": hit / count}
        yield {"case": f"{name} edits: {kind}{vectors}", "edits": count, **share}


def _similarities(edits: Sequence[Edit], model: MiniLM) -> Sequence[float]:
    texts = sorted({text for edit in edits for text in (edit.text, edit.edited)})
    vectors = dict(zip(texts, model.embed(texts), strict=True))
    return [float(vectors[edit.text] @ vectors[edit.edited]) for edit in edits]


def _split(pairs: list[dict[str, Any]], seed: int) -> tuple[list[str], Vectors, list[Asked], list[Asked]]:
    chance = random.Random(seed)
    same = [pair for pair in pairs if pair["same"]]
    different = [pair for pair in pairs if not pair["same"]]
    chance.shuffle(different)
    links = _links(same)
    texts: list[str] = []
    vectors: list[Vectors] = []
    warm: list[Asked] = []
    for pair in same:
        kept, asked = ("a", "b") if chance.random() < 0.5 else ("b", "a")
        texts.append(pair[kept])
        vectors.append(_vector(pair, kept))
        warm.append(Asked(pair[asked], _vector(pair, asked), links(pair["a"])))
    for pair in different[COLD:]:
        for side in ("a", "b"):
            texts.append(pair[side])
            vectors.append(_vector(pair, side))
    plain: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for text in texts:
        plain[read(text).plain].add(text)
    warm = [_with_same_words(each, plain) for each in warm]
    cold = [
        Asked(pair["b"], _vector(pair, "b"), frozenset())
        for pair in different[:COLD]
        if read(pair["b"]).plain not in plain
    ]
    return texts, np.array(vectors), warm, cold


def _with_same_words(asked: Asked, plain: dict[tuple[str, ...], set[str]]) -> Asked:
    """Links what is word for word the same, which the labels do not always."""
    linked = set(asked.linked)
    for text in (asked.text, *asked.linked):
        linked |= plain.get(read(text).plain, set())
    return asked._replace(linked=frozenset(linked))


def _links(same: list[dict[str, Any]]) -> Any:
    near: defaultdict[str, set[str]] = defaultdict(set)
    for pair in same:
        near[pair["a"]].add(pair["b"])
        near[pair["b"]].add(pair["a"])

    def linked(text: str) -> frozenset[str]:
        seen, open_ = {text}, [text]
        while open_:
            fresh = near[open_.pop()] - seen
            seen |= fresh
            open_ += fresh
        return frozenset(seen)

    return linked


def _best(texts: list[str], vectors: Vectors, asked: list[Asked]) -> Iterator[Best]:
    similarities = np.array([each.vector for each in asked]) @ vectors.T
    nearest = np.argsort(-similarities, axis=1)[:, :CANDIDATES]
    for each, row, places in zip(asked, similarities, nearest, strict=True):
        question = read(each.text)
        best, right, text = max(
            (score(float(row[place]), compare(question, read(texts[place]))), texts[place] in each.linked, texts[place])
            for place in places
        )
        yield Best(best, right, text, float(row[places[0]]), texts[places[0]] in each.linked, each.text)


def _vector(pair: dict[str, Any], side: str) -> Vectors:
    return np.frombuffer(base64.b64decode(pair[f"embedding_{side}"]), "<f2").astype(np.float32)
