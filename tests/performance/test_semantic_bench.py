"""What the semantic suite says on questions of the project's own, whose answers are known."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.performance import retrieval, semantic

PAIRS = (
    ("How do I bake rye bread?", "How can I bake rye bread?", True),
    ("Where do storks nest in Spain?", "Where do storks nest in Spain, please?", True),
    ("How do I bake rye bread?", "How do I bake corn bread?", False),
    ("Is the museum open on 3 May?", "Is the museum open on 4 May?", False),
)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Every question as near every other as can be, so that words alone tell them apart."""
    vector = base64.b64encode(np.full(4, 0.5, "<f2").tobytes()).decode()
    rows = [{"a": a, "b": b, "same": int(same), "embedding_a": vector, "embedding_b": vector} for a, b, same in PAIRS]
    path = tmp_path / "pairs.jsonl.gz"
    with gzip.open(path, "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_it_says_what_would_be_served_and_how_long_a_look_up_takes(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "find", lambda _: None)  # whether or not the model is at hand
    rows, tables = semantic.measure(replace(semantic.QUICK, pairs=pairs), Console(quiet=True))
    shown: dict[str, Any] = {row["case"]: row for row in rows}
    look_ups = [row for row in rows if "cpu_ms" in row]
    assert len(look_ups) == 3
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in look_ups)
    (default,) = (row for case, row in shown.items() if "(default)" in case)
    assert (default["precision"], default["recall"]) == (1.0, 1.0)
    assert default["cold"] == 0.0
    assert default["plain_cold"] > 0
    assert shown["minimal edits: all, whatever the vectors"]["misses"] == 1.0
    assert shown["neutral edits: all, whatever the vectors"]["hits"] == 1.0
    for table in tables:
        Console(quiet=True).print(table)
