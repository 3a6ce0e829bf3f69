"""`make tools`: builds what is missing, says what it does, and says what cannot be had."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.tools import TOOLS, Tool, find, in_ci

BUILD_TIMEOUT_S = 1_800


def main() -> int:
    missing = [tool for tool in TOOLS.values() if not _have(tool)]
    return 1 if in_ci() and any(tool.needed_by_tests for tool in missing) else 0


def _have(tool: Tool) -> bool:
    if tool.package and not tool.cached.exists() and shutil.which("go"):
        _build(tool)
    path = find(tool.name)
    if path is None:
        print(f"tools: {tool.name} is missing, what needs it is skipped: {tool.hint}")
    elif not path.startswith(str(tool.cached.parent)):
        print(f"tools: {tool.name}: {path} (the system's own)")
    else:
        print(f"tools: {tool.name} {tool.version}: {path}")
    return path is not None


def _build(tool: Tool) -> None:
    """Builds beside its place and moves it there, so that a build that is cut short leaves nothing half made."""
    print(f"tools: building {tool.name} {tool.version} with go; this takes minutes, once", flush=True)
    tool.cached.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=tool.cached.parent) as folder:
        command = ["go", "install", f"{tool.package}@{tool.version}"]
        try:
            subprocess.run(
                command, env=os.environ | {"GOBIN": folder, "GOFLAGS": "-mod=mod"}, check=True, timeout=BUILD_TIMEOUT_S
            )
        except (subprocess.SubprocessError, OSError) as error:
            print(f"tools: {tool.name} could not be built: {error}", file=sys.stderr)
            return
        (Path(folder) / tool.name).rename(tool.cached)
    print(f"tools: built {tool.name} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
