"""The users' guide's load test runs against the mesh with the real locust."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.mesh.mesh import ROOT, Mesh


def test_the_guides_scenario_meets_no_failure(tmp_path: Path) -> None:
    locustfile = Path(__file__).with_name("locustfile.py")
    with Mesh(tmp_path / "home") as mesh:
        # Each user begins with either task, by chance: so many that nobody needs luck.
        command = [sys.executable, "-m", "locust", "-f", str(locustfile), f"--host={mesh.http}"]
        headless = ["--headless", "--users=16", "--spawn-rate=16", "--run-time=4s", "--stop-timeout=5", "--json"]
        environ = {**os.environ, "MODELMUXER_HOME": str(mesh.home)}
        done = subprocess.run(
            command + headless, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows.keys() >= {"/api/v1/chat/completions", "/api/v1/chat/completions (first token)"}
    for name, row in rows.items():
        assert row["num_requests"] > 0, name
        assert row["num_failures"] == 0, name
