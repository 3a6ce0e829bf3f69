"""`mux cache tune` draws what each threshold would have served, without a mesh where the vectors are there."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from modelmuxer.cli.commands import mux
from modelmuxer.likeness import DEFAULT_THRESHOLD


def packed(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}e", *values)).decode()


ROWS: list[dict[str, Any]] = [
    {
        "a": "How do I keep bees?",
        "b": "how do i keep bees",
        "same": 1,
        "embedding_a": [1, 0],
        "embedding_b": [0.8, 0.6],
    },
    {"a": "Can I eat moss?", "b": "Is moss food?", "same": 1, "embedding_a": [1, 0], "embedding_b": packed(0.96, 0.28)},
    {"a": "Who won in 2015?", "b": "Who won in 2016?", "same": 0, "embedding_a": [1, 0], "embedding_b": [1, 0]},
    {"a": "What is rye?", "b": "Where is Rye?", "same": 0, "embedding_a": [1, 0], "embedding_b": packed(0, 1)},
]


def tune(path: Path, *arguments: str) -> Any:
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    done = CliRunner().invoke(mux, ["cache", "tune", "--pairs", str(path), *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(("guards", "precision"), [((), 1.0), (("--no-guards",), 0.5)])
def test_guards_keep_near_questions_with_another_answer_out(
    tmp_path: Path, guards: tuple[str, ...], precision: float
) -> None:
    told = json.loads(tune(tmp_path / "pairs.jsonl", "--json", *guards))
    point = next(point for point in told["curve"] if point["threshold"] == 0.95)
    assert point["precision"] == precision
    assert told["auc"] == 0.5  # of the four comparisons two are won
    recalls = [point["recall"] for point in told["curve"]]
    assert recalls == sorted(recalls, reverse=True)


def test_it_is_drawn_for_eyes(tmp_path: Path) -> None:
    drawn = tune(tmp_path / "pairs.jsonl")
    assert f"{DEFAULT_THRESHOLD} ◀ default" in drawn
    assert "area under the curve 0.500" in drawn


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "x"}\n')
    done = CliRunner().invoke(mux, ["cache", "tune", "--pairs", str(path)])
    assert done.exit_code == 1
    assert "line 1" in done.output
