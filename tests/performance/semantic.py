"""The semantic cache by itself: `python -m tests.performance semantic`. How long a look-up takes among so many vectors,
what they take in memory, and what would be served on the labelled pairs where those are at hand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from services.cache.semantic.index import SemanticIndex
from services.cache.semantic.partition import Entry, Vector
from services.cache.stores import Key
from tests.performance import retrieval

DIMENSIONS = 384
LOOK_UPS = 500
CHUNK = 2_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many vectors, in one partition and in many."""

    one: int = 100_000
    many: int = 1_000_000
    partitions: int = 1_000
    max_bytes: int = 3 * 2**30
    pairs: Path | None = retrieval.PAIRS


QUICK = Plan(one=6_000, many=2_000, partitions=20, pairs=None)


def measure(plan: Plan, console: Console) -> tuple[list[dict[str, Any]], list[Table]]:
    """The rows, and tables of them."""
    rows: list[dict[str, Any]] = []
    for vectors, partitions in ((plan.one, 1), (plan.many, plan.partitions)):
        console.print(f"semantic: {vectors:,} vectors in {partitions:,} partitions")
        rows.append(_look_ups(vectors, partitions, plan.max_bytes))
    bounded = plan.max_bytes // 64
    console.print(f"semantic: the same within {bounded / 2**20:,.0f} MiB")
    rows.append(_look_ups(plan.many // 4, plan.partitions, bounded))
    shown = [_times(rows)]
    if plan.pairs is not None and plan.pairs.exists():
        console.print(f"semantic: retrieval and edits on {plan.pairs.name}")
        served = [{"suite": "semantic", "errors": 0, **row} for row in retrieval.figures(plan.pairs)]
        rows += served
        shown.append(_served(served))
    elif plan.pairs is not None:
        console.print(f"semantic: skipped what the labelled pairs would show: {plan.pairs} is not there")
    return rows, shown


def _look_ups(count: int, partitions: int, max_bytes: int) -> dict[str, Any]:
    before = psutil.Process().memory_info().rss
    index = SemanticIndex(max_bytes, time.time)
    began = time.perf_counter()
    asked: list[tuple[Key, Vector, str]] = []
    chance = np.random.default_rng(1)
    each = count // partitions
    for number in range(partitions):
        key = Key("acme", number.to_bytes(32, "big"))
        for vectors, entries in _questions(each, number, chance):
            index.extend(key, vectors, entries)
            if len(asked) < LOOK_UPS or chance.random() < LOOK_UPS * CHUNK / count:
                place = int(chance.integers(len(vectors)))
                asked.append((key, _near(vectors[place], chance), f"Please, {entries[place].text.lower()}"))
    built_s = time.perf_counter() - began
    times, found, cpu_s = [], 0, time.process_time()
    for place in chance.permutation(len(asked))[:LOOK_UPS]:
        key, vector, text = asked[place]
        start = time.perf_counter()
        match = index.best(key, vector, text)
        times.append(time.perf_counter() - start)
        found += match is not None and match.score >= 0.9
    cpu_s = time.process_time() - cpu_s
    p50, p95, p99 = np.percentile(np.array(times) * 1000, [50, 95, 99])
    return {
        "suite": "semantic",
        "case": f"{count:,} vectors of {DIMENSIONS} in {partitions:,} partitions, at most {max_bytes / 2**20:,.0f} MiB",
        "callers": 1,
        "requests": len(times),
        "errors": 0,
        "rps": len(times) / sum(times),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "cpu_ms": cpu_s * 1000 / len(times),
        "found": found / len(times),
        "kept": len(index),
        "built_s": built_s,
        "index_mb": index.size_bytes / 2**20,
        "rss_mb": {"cache": (psutil.Process().memory_info().rss - before) / 2**20},
    }


def _questions(count: int, partition: int, chance: np.random.Generator) -> Iterator[tuple[list[Vector], list[Entry]]]:
    """Vectors in clusters, as questions of one application are, and a text for each."""
    centres = chance.normal(size=(max(1, count // 50), DIMENSIONS)).astype(np.float32)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        drawn = centres[chance.integers(len(centres), size=size)]
        drawn = drawn + 0.7 * chance.normal(size=(size, DIMENSIONS)).astype(np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        names = range(start, start + size)
        yield (
            list(drawn.astype(np.float32)),
            [
                Entry(f"How do I replace part {n} of machine {partition}?", _digest(partition, n), 2.0**40)
                for n in names
            ],
        )


def _digest(partition: int, number: int) -> bytes:
    return partition.to_bytes(16, "big") + number.to_bytes(16, "big")


def _near(vector: Vector, chance: np.random.Generator) -> Vector:
    near = vector + 0.01 * chance.normal(size=DIMENSIONS).astype(np.float32)
    near /= np.linalg.norm(near)
    return near


def _times(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "Vectors", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "Found", "Kept", "Index MiB", "RSS + MiB", "Built s"
    )
    for row in rows:
        table.add_row(
            row["case"],
            *(f"{row[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")),
            f"{row['found']:.1%}",
            f"{row['kept']:,}",
            f"{row['index_mb']:,.0f}",
            f"{row['rss_mb']['cache']:,.0f}",
            f"{row['built_s']:.0f}",
        )
    return table


def _served(rows: list[dict[str, Any]]) -> Table:
    table = Table("On labelled pairs", "Precision", "As read", "Recall", "Cold, falsely hit", "As read")
    for name in ("Vectors alone", "Edits", "Share"):
        table.add_column(name)
    for row in rows:
        if "precision" in row:
            plain = f"{row['plain_precision']:.3f} / {row['plain_recall']:.3f} / {row['plain_cold']:.2%}"
            shares = (f"{row[name]:.3f}" for name in ("precision", "precision_as_read", "recall"))
            table.add_row(row["case"], *shares, f"{row['cold']:.2%}", f"{row['cold_as_read']:.2%}", plain)
        else:
            share = f"{row['misses']:.1%} misses" if "misses" in row else f"{row['hits']:.1%} hits"
            table.add_row(row["case"], *[""] * 6, f"{row['edits']:,}", share)
    return table
