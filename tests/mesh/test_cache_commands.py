"""`mux cache` on a running mesh: warm, look, forget."""

from __future__ import annotations

import json
from pathlib import Path

from tests.mesh.mesh import Mesh, until
from tests.mesh.test_main_job import mux, mux_json

QUESTIONS = [
    {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Warm one?"}], "tags": {"doc": "7"}},
    {"messages": [{"role": "ROLE_USER", "content": [{"text": {"text": "Warm two?"}}]}]},
]


def test_a_file_of_requests_is_made_once_found_again_and_forgotten(mesh: Mesh, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, QUESTIONS)) + "\n\n")
    made = mux_json(mesh, "cache", "warm", str(questions))
    assert (made["made"], made["failed"]) == (2, 0)
    assert made["cost_nanos"] > 0
    again = until(lambda: _all_there(mesh, questions))
    assert again["cost_nanos"] == 0
    before = _default_tenant(mesh)
    assert before["hits"] >= 2
    assert before["saved_nanos"] > 0
    assert 0 < before["hit_rate"] <= 1
    mux_json(mesh, "cache", "invalidate", "--tag", "doc=7")
    after = mux_json(mesh, "cache", "warm", str(questions))
    assert (after["made"], after["present"]) == (1, 1)


def test_a_line_that_is_no_request_is_named(mesh: Mesh, tmp_path: Path) -> None:
    questions = tmp_path / "broken.jsonl"
    questions.write_text('{"messages": [{"role": "user", "content": "Fine"}]}\n{"message": 1}\n')
    done = mux(mesh, "cache", "warm", str(questions))
    assert done.returncode == 1
    assert "Line 2 is no request" in done.stderr


def test_to_forget_everything_has_to_be_said(mesh: Mesh) -> None:
    done = mux(mesh, "cache", "invalidate")
    assert done.returncode == 1
    assert "all" in done.stderr
    assert "modelmuxer_cache_lookup_seconds_count" in mesh.metrics("router")


def _all_there(mesh: Mesh, questions: Path) -> dict[str, int] | None:
    told = mux_json(mesh, "cache", "warm", str(questions))
    return told if told["present"] == len(QUESTIONS) else None


def _default_tenant(mesh: Mesh) -> dict[str, float]:
    stats = mux_json(mesh, "cache", "stats")
    assert stats["entries"] >= len(QUESTIONS)
    return next(tenant for tenant in stats["tenants"] if tenant["tenant"] == "default")
