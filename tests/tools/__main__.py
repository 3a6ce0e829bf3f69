"""`make tools`: builds what is missing, says what it does, and says what cannot be had."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.tools import TOOLS, Tool, find, in_ci, schemas

BUILD_TIMEOUT_S = 1_800


def main() -> int:
    asked = set(sys.argv[1:])
    missing = [tool for tool in TOOLS.values() if not _have(tool, asked=tool.name in asked)]
    return 1 if in_ci() and any(tool.needed_by_tests for tool in missing) else 0


def _have(tool: Tool, *, asked: bool) -> bool:
    wanted = asked or not tool.on_request
    if wanted and not tool.cached.exists() and shutil.which("go"):
        if tool.name == "schemas":
            _make(tool, schemas.write)
        elif tool.package:
            _make(tool, functools.partial(_build, tool))
    path = find(tool.name)
    if path is None:
        print(f"tools: {tool.name} is missing, what needs it is skipped: {tool.hint}")
    elif not path.startswith(str(tool.cached.parent)):
        print(f"tools: {tool.name}: {path} (the system's own)")
    else:
        print(f"tools: {tool.name} {tool.version}: {path}")
    return path is not None


def _make(tool: Tool, make: Callable[[Path], None]) -> None:
    """Makes it beside its place and moves it there, so that what is cut short leaves nothing half made."""
    print(f"tools: making {tool.name} {tool.version} with go; this takes minutes, once", flush=True)
    tool.cached.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=tool.cached.parent) as folder:
        made = Path(folder) / tool.name
        made.mkdir()
        try:
            make(made)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"tools: {tool.name} could not be made: {error}", file=sys.stderr)
            return
        (made / tool.name if tool.package else made).rename(tool.cached)
    print(f"tools: made {tool.name} in {time.monotonic() - started:.0f} s")


def _build(tool: Tool, folder: Path) -> None:
    subprocess.run(
        ["go", "install", f"{tool.package}@{tool.version}"],
        env=os.environ | {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"},
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )


if __name__ == "__main__":
    sys.exit(main())
