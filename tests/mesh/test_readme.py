"""What the README shows works: its grpcurl and curl lines, its Python, against a running mesh."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shared import catalogue
from tests.mesh.mesh import ROOT, Mesh
from tests.tools import requires_tool, tool

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    if language == "sh"
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(("grpcurl", "curl"))
]
PROGRAMS = [block for language, block in BLOCKS if language == "python"]


def adapted(text: str, mesh: Mesh) -> str:
    """The text with this mesh's ports and key in the place of the usual ones."""
    return (
        text.replace("localhost:50051", mesh.grpc())
        .replace("http://localhost:8000", mesh.http)
        .replace(".modelmuxer/key", str(mesh.home / "key"))
    )


def run(command: str, path: str = "") -> str:
    environ = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@requires_tool("grpcurl")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("grpcurl")])
def test_the_grpcurl_lines_work(mesh: Mesh, command: str, tmp_path: Path) -> None:
    (tmp_path / "grpcurl").symlink_to(tool("grpcurl"))
    said = run(adapted(command, mesh), path=str(tmp_path))
    if command.endswith("list"):
        assert "modelmuxer.router.v1.RouterService" in said
    if command.endswith("StreamChat"):
        assert said.count('"started"') == said.count('"completed"') == 1
        assert '"delta"' in said


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("curl")])
def test_the_curl_lines_work(mesh: Mesh, command: str) -> None:
    assert '"chat.completion"' in run(adapted(command, mesh))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_python_works(mesh: Mesh, program: str) -> None:
    done = subprocess.run([sys.executable, "-c", adapted(program, mesh)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_tunnels_example_works(mesh: Mesh) -> None:
    environ = {**os.environ, "MODELMUXER_API_KEY": mesh.key}
    example = [sys.executable, str(ROOT / "clients/python/examples/many_calls.py"), mesh.grpc(), "20"]
    done = subprocess.run(example, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "20 answers" in done.stdout


@pytest.mark.parametrize("text", [block for language, block in BLOCKS if language == "yaml"])
def test_the_configuration_loads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    aliases = catalogue.load(str(path), {}).aliases
    assert all(aliases[name].models for name in yaml.safe_load(text)["aliases"])


def test_there_is_something_to_run() -> None:
    assert len([c for c in COMMANDS if c.startswith("grpcurl")]) >= 3
    assert any("routing_strategy" in c for c in COMMANDS)
    assert len(PROGRAMS) >= 2
