"""The external programs that tests drive: what they are, where they are found, and how a test asks for one.

They are built once, from pinned sources, into a cache folder that every clone shares (`make tools`). Where one cannot
be had, tests that need it are skipped with a line that says so; where CI=true they fail.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Tool:
    """A program of a pinned version: a Go package, or what a module of this folder builds; else the system's own."""

    name: str
    version: str
    package: str = ""
    tags: str = ""
    """Go's build tags."""
    recipe: str = ""
    """A module with `build(folder)`, which puts the program, or a folder of its name, into a folder."""
    needed_by_tests: bool = True
    on_request: bool = False
    """Not among what `make tools` builds unasked, because it takes too long."""
    hint: str = ""

    @property
    def cached(self) -> Path:
        """Where it is once it has been built."""
        return cache_folder() / f"{self.name}-{self.version}" / self.name


GO = "install Go (https://go.dev)"

TOOLS = {
    tool.name: tool
    for tool in (
        Tool("grpcurl", "v1.9.4", "github.com/fullstorydev/grpcurl/cmd/grpcurl", hint=GO),
        Tool("helm", "v3.22.0", "helm.sh/helm/v3/cmd/helm", hint=GO),
        Tool("kubeconform", "v0.8.0", "github.com/yannh/kubeconform/cmd/kubeconform", hint=GO),
        Tool(
            "mongodb",
            "ferretdb-2.7.0",
            recipe="tests.tools.mongodb",
            hint="it needs Linux on x86-64, apt with a Debian mirror, and Go; or set MONGODB_URL to a server of yours",
        ),
        Tool(
            "redis-server",
            "7.0-bookworm",
            recipe="tests.tools.redis_server",
            hint="install your system's package redis-server; or it needs Linux on x86-64 and apt with a Debian mirror",
        ),
        Tool(
            "promtool",
            "v0.316.0",
            "github.com/prometheus/prometheus/cmd/promtool",
            tags="remove_all_sd",  # rules need no service discovery, which is most of what there is to compile
            needed_by_tests=False,
            on_request=True,
            hint="`make tools TOOL=promtool` builds it, in some minutes",
        ),
        Tool(
            "all-minilm-l6-v2",
            "0.1.0",
            recipe="tests.tools.all_minilm",
            needed_by_tests=False,
            on_request=True,
            hint="`make tools TOOL=all-minilm-l6-v2` fetches it (80 MB); only `make bench SUITE=semantic` uses it",
        ),
        Tool(
            "kubernetes",
            "v1.34.4",
            recipe="tests.tools.kubernetes",
            needed_by_tests=False,
            on_request=True,
            hint="`make tools TOOL=kubernetes` builds it, in a quarter of an hour; `make cluster` uses it",
        ),
        Tool(
            "keda",
            "v2.21.0",
            recipe="tests.tools.keda",
            needed_by_tests=False,
            on_request=True,
            hint="`make tools TOOL=keda` builds it, in a quarter of an hour; `make cluster` uses it",
        ),
        Tool("schemas", "v1.34.4-2", recipe="tests.tools.schemas", hint=GO),
        Tool("wrk", "any", needed_by_tests=False, hint="install your system's package wrk; only `make bench` uses it"),
    )
}


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/modelmuxer/tools."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "modelmuxer" / "tools"


def find(name: str) -> str | None:
    """The path of a program: the pinned one, or else whatever the system has."""
    cached = TOOLS[name].cached
    return str(cached) if cached.exists() else shutil.which(name)


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails where CI=true."""
    if path := find(name):
        return path
    missing = f"{name} is not here: run `make tools` ({TOOLS[name].hint})"
    if in_ci() and TOOLS[name].needed_by_tests:
        pytest.fail(missing)
    pytest.skip(missing)


def requires_tool(name: str) -> pytest.MarkDecorator:
    """Marks a test that drives an external program."""
    return pytest.mark.requires_tool(name)


def in_ci() -> bool:
    """Whether a missing program is a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true"}
