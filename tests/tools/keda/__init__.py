"""KEDA's operator and metrics adapter, built in its own Go module, and the definitions of its kinds."""

import shutil
from pathlib import Path

from tests.tools.kubernetes import go_build
from tests.tools.schemas import downloaded

MODULE = "github.com/kedacore/keda/v2@v2.21.0"


def build(folder: Path) -> None:
    """Makes `keda/` with `operator`, `adapter` and `crds/`. Raises OSError and SubprocessError."""
    source = downloaded(MODULE)
    made = folder / "keda"
    made.mkdir()
    # `go install` refuses a module that replaces another; its unpacked folder builds as it is.
    for program in ("operator", "adapter"):
        go_build(source, made / program, package=f"./cmd/{program}")
    shutil.copytree(source / "config/crd/bases", made / "crds")
    for file in [made / "crds", *(made / "crds").iterdir()]:
        file.chmod(0o755 if file.is_dir() else 0o644)
