"""``mux cache tune``: what each threshold of the semantic cache would have served, on pairs that people judged.

A row is a JSON object: questions ``a`` and ``b``, ``same`` (may the answer to one be served for the other?), and, where
they are ready, ``embedding_a`` and ``embedding_b``: lists of numbers, or base64 of little-endian floats.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from modelmuxer.embedding.v1 import embedding_pb2
from modelmuxer.likeness import DEFAULT_THRESHOLD, compare, read, score
from rich.console import Console
from rich.progress import track
from rich.table import Table

BATCH = 256
THRESHOLDS = [round(0.70 + 0.01 * step, 2) for step in range(31)]
_BAR = 40

Vector = Sequence[float]


@dataclass(frozen=True)
class Pair:
    """Two questions, how near they are, and the highest threshold at which one would be served for the other."""

    same: bool
    similarity: float
    score: float


@click.command()
@click.option(
    "--pairs",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON lines, gzipped or not.",
)
@click.option(
    "-m", "--model", default="", help="Embedding model for rows without vectors; the alias embed if left out."
)
@click.option("--dimensions", type=click.IntRange(1), help="Length of the vectors, for models that can shorten theirs.")
@click.option("--no-guards", is_flag=True, help="Judge by the vectors alone, whatever the words say.")
@click.option("--floats", type=click.Choice(["16", "32"]), default="16", help="Bits of the floats in base64 (16).")
@json_option
def tune(path: Path, model: str, dimensions: int | None, no_guards: bool, floats: str, as_json: bool) -> None:
    """Draw precision and recall of the semantic cache, by its threshold.

    Vectors that are not in the file are made through the mesh, and paid for.
    """
    rows = list(_rows(path))
    missing = [row for row in rows if "embedding_a" not in row or "embedding_b" not in row]
    spent: list[int] = []
    if missing:
        _embed(missing, model, dimensions, spent, as_json=as_json)
    pairs = [_pair(row, floats, guards=not no_guards) for row in rows]
    curve = list(_curve(pairs))
    area = _auc(pairs)
    if as_json:
        body = {"auc": area, "pairs": len(pairs), "guards": not no_guards, "cost_nanos": sum(spent), "curve": curve}
        print_json(body)
        return
    _draw(pairs, curve, area, sum(spent))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                row["a"], row["b"], row["same"] = str(row["a"]), str(row["b"]), bool(row["same"])
            except (ValueError, TypeError, KeyError):
                raise click.ClickException(
                    f'{path}, line {number}: not a JSON object with "a", "b" and "same".'
                ) from None
            yield row


@connected
async def _embed(
    connection: Connection,
    rows: list[dict[str, Any]],
    model: str,
    dimensions: int | None,
    spent: list[int],
    *,
    as_json: bool,
) -> None:
    """Embeds what has no vector yet. What that cost in nano-dollars goes into `spent`."""
    texts = list(dict.fromkeys(row[side] for row in rows for side in ("a", "b")))
    vectors: dict[str, Vector] = {}
    async with connection.client() as client:
        stderr = Console(stderr=True)
        starts = range(0, len(texts), BATCH)
        for start in track(starts, "Embedding", console=stderr, transient=True, disable=as_json):
            some = texts[start : start + BATCH]
            answer = await client.embed(_request(some, dimensions), model=model)
            vectors.update(zip(some, (each.values for each in answer.embeddings), strict=True))
            spent.append(answer.cost.nanos)
    for row in rows:
        row["embedding_a"], row["embedding_b"] = vectors[row["a"]], vectors[row["b"]]


def _request(texts: list[str], dimensions: int | None) -> embedding_pb2.EmbedRequest:
    request = embedding_pb2.EmbedRequest(inputs=[embedding_pb2.Input(text=text) for text in texts])
    if dimensions is not None:
        request.dimensions = dimensions
    return request


def _pair(row: dict[str, Any], floats: str, *, guards: bool) -> Pair:
    similarity = _cosine(_vector(row["embedding_a"], floats), _vector(row["embedding_b"], floats))
    given = score(similarity, compare(read(row["a"]), read(row["b"]))) if guards else similarity
    return Pair(row["same"], similarity, given)


def _vector(value: Any, floats: str) -> Vector:
    if not isinstance(value, str):
        return array("d", value)
    packed = base64.b64decode(value)
    code, size = ("e", 2) if floats == "16" else ("f", 4)
    return struct.unpack(f"<{len(packed) // size}{code}", packed)


def _cosine(one: Vector, other: Vector) -> float:
    if len(one) != len(other):
        raise click.ClickException(f"Vectors of {len(one)} and {len(other)} numbers cannot be compared.")
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    length = math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return dot / length if length else 0.0


def _curve(pairs: Sequence[Pair]) -> Iterator[dict[str, float]]:
    """At each threshold: of what would be served, the share that is right; of what is right, the share served."""
    positives = sum(pair.same for pair in pairs)
    for threshold in THRESHOLDS:
        served = [pair.same for pair in pairs if pair.score >= threshold]
        yield {
            "threshold": threshold,
            "precision": sum(served) / len(served) if served else 1.0,
            "recall": sum(served) / positives if positives else 0.0,
        }


def _auc(pairs: Iterable[Pair]) -> float:
    """How well the vectors alone rank: the chance that a right pair is nearer than a wrong one."""
    ranked = sorted(pairs, key=lambda pair: pair.similarity)
    positives = sum(pair.same for pair in ranked)
    negatives = len(ranked) - positives
    if not positives or not negatives:
        return 0.5
    below = beaten = at = 0
    while at < len(ranked):
        tied = at
        while tied < len(ranked) and ranked[tied].similarity == ranked[at].similarity:
            tied += 1
        right = sum(pair.same for pair in ranked[at:tied])
        wrong = tied - at - right
        beaten += right * (2 * below + wrong)
        below += wrong
        at = tied
    return beaten / (2 * positives * negatives)


def _draw(pairs: Sequence[Pair], curve: Sequence[dict[str, float]], area: float, spent: int) -> None:
    table = Table(
        "Threshold", "Precision", "Recall", "", title=f"{len(pairs):,} pairs, area under the curve {area:.3f}"
    )
    for point in curve:
        mark = " ◀ default" if point["threshold"] == DEFAULT_THRESHOLD else ""
        right = round(point["precision"] * _BAR)
        served = round(point["recall"] * _BAR)
        bars = f"[green]{'━' * right}[/green]{' ' * (_BAR - right)} [blue]{'━' * served}[/blue]{' ' * (_BAR - served)}"
        table.add_row(f"{point['threshold']:.2f}{mark}", f"{point['precision']:.3f}", f"{point['recall']:.3f}", bars)
    console.print(table)
    console.print("Green: precision. Blue: recall. Set it with cache.semantic.threshold of an alias.")
    if spent:
        console.print(f"Embedding the pairs cost {dollars(spent)}.")
