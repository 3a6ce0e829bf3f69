"""The whole mesh as process 1, which it is in a container: what it starts has it for a parent, and not init."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mesh.mesh import ROOT

UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--mount-proc", "--fork", "--kill-child"]
SERVICES = ("ROUTER", "ROUTER_HTTP", "PROVIDER_PROXY", "CACHE", "ACCOUNTING", "SIMULATOR")


def _can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _can_unshare(), reason="this system makes no process namespaces for us")
def test_the_mesh_serves_as_process_one(tmp_path: Path) -> None:
    ports = {f"MODELMUXER_{name}_PORT": "0" for name in SERVICES}
    with subprocess.Popen(
        [*UNSHARE, sys.executable, "-m", "services", "--json", "--simulate"],
        cwd=ROOT,
        env={**os.environ, **ports, "MODELMUXER_HOME": str(tmp_path / "home"), "MODELMUXER_DRAIN_WAIT_S": "0"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert {"router", "provider-proxy", "cache", "accounting", "simulator"} <= set(json.loads(line)["services"])
