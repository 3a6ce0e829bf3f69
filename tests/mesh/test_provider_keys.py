"""With a provider's key in the environment the mesh talks to that provider, and to no other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.mesh import ROOT, Mesh
from tests.mesh.test_main_job import mux, mux_json


@pytest.fixture
def provider() -> Iterator[str]:
    """A server that speaks OpenAI's format, as any provider's would; here a simulator of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.simulator", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    listening: dict[str, Any] = json.loads(process.stdout.readline())
    yield str(listening["url"])
    process.terminate()
    process.wait(10)


def test_the_provider_whose_key_is_set_answers(tmp_path: Path, provider: str) -> None:
    environ = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"{provider}/openai/v1"}
    with Mesh(tmp_path / "home", environ) as mesh:
        assert "simulator" not in mesh.services
        answer = mux_json(mesh, "chat", "Hello")
        assert answer["provider"] == "openai"
        assert {model["provider"] for model in mux_json(mesh, "models")["models"]} == {"", "openai"}
        refused = mux(mesh, "chat", "-m", "anthropic/claude-haiku-4-5", "Hello")
        assert refused.returncode == 1
        assert "ANTHROPIC_API_KEY" in refused.stderr
        assert "sk-test" not in mesh.logged()
