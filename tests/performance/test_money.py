"""The money suite runs and says what it measured: two meshes beside each other, and what accounting settles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mesh.mesh import ROOT


@pytest.mark.timeout(400)
def test_what_money_costs_is_measured_beside_a_mesh_without_a_ledger(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.performance", "money", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    (counted,) = [row for row in rows if row["case"] == "http unary, sqlite" and row["suite"] == "money"]
    (bare,) = [row for row in rows if row["suite"] == "no ledger"][:1]
    assert counted["rps_of_unledgered"] > 0
    assert (counted["errors"], bare["errors"]) == (0, 0)
    (settled,) = [row for row in rows if row["case"] == "attempts settled, sqlite"]
    assert settled["rps"] > 0
