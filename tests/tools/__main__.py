"""`make tools`: builds what is missing, says what it does, and says what cannot be had."""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.tools import TOOLS, Tool, find, in_ci

BUILD_TIMEOUT_S = 1_800


def main() -> int:
    asked = set(sys.argv[1:])
    missing = [tool for tool in TOOLS.values() if not _have(tool, asked=tool.name in asked)]
    return 1 if in_ci() and any(tool.needed_by_tests for tool in missing) else 0


def _have(tool: Tool, *, asked: bool) -> bool:
    wanted = asked or not tool.on_request
    if wanted and tool.recipe and find(tool.name) is None:
        _build(tool, importlib.import_module(tool.recipe).build)
    if wanted and tool.package and not tool.cached.exists() and shutil.which("go"):
        _build(tool, partial(_go_install, tool))
    path = find(tool.name)
    if path is None:
        print(f"tools: {tool.name} is missing, what needs it is skipped: {tool.hint}")
    elif not path.startswith(str(tool.cached.parent)):
        print(f"tools: {tool.name}: {path} (the system's own)")
    else:
        print(f"tools: {tool.name} {tool.version}: {path}")
    return path is not None


def _build(tool: Tool, build: Callable[[Path], None]) -> None:
    """Builds beside its place and moves it there, so that a build that is cut short leaves nothing half made."""
    print(f"tools: building {tool.name} {tool.version}; this takes minutes, once", flush=True)
    place = tool.cached.parent
    place.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    draft = Path(tempfile.mkdtemp(prefix=f".{tool.name}-", dir=place.parent))
    try:
        build(draft)
        draft.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
    except (subprocess.SubprocessError, OSError, RuntimeError) as error:
        print(f"tools: {tool.name} could not be built: {error}", file=sys.stderr)
        return
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"tools: built {tool.name} in {time.monotonic() - started:.0f} s")


def _go_install(tool: Tool, folder: Path) -> None:
    command = ["go", "install", f"{tool.package}@{tool.version}"]
    environ = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    subprocess.run(command, env=environ, check=True, timeout=BUILD_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
