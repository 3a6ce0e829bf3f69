"""KEDA's operator and metrics adapter, built in its own Go module, and the definitions of its kinds."""

import json
import shutil
import subprocess
from pathlib import Path

from tests.tools.kubernetes import BUILD_TIMEOUT_S, go_build

MODULE = "github.com/kedacore/keda/v2@v2.21.0"


def build(folder: Path) -> None:
    """Makes `keda/` with `operator`, `adapter` and `crds/`. Raises OSError and SubprocessError."""
    source = _source()
    made = folder / "keda"
    made.mkdir()
    # `go install` refuses a module that replaces another; its unpacked folder builds as it is.
    for program in ("operator", "adapter"):
        go_build(source, made / program, package=f"./cmd/{program}")
    shutil.copytree(source / "config/crd/bases", made / "crds")
    for file in [made / "crds", *(made / "crds").iterdir()]:
        file.chmod(0o755 if file.is_dir() else 0o644)


def _source() -> Path:
    command = ["go", "mod", "download", "-json", MODULE]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=BUILD_TIMEOUT_S, text=True).stdout
    return Path(json.loads(output)["Dir"])
