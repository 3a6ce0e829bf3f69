"""The images that the cluster's node runs: ours from our Dockerfile, and the one that holds a pod together."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.chart import image
from tests.cluster import programs
from tests.cluster.node import PAUSE

_BUILD_TIMEOUT_S = 1_800


def ours() -> str:
    """Builds the image of all services, and returns its name. Raises ImageError and CalledProcessError."""
    return image.build(quiet=True)


def pause() -> str:
    """Builds the image of a pod's own container, and returns its name. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(programs.kubernetes("pause"), folder)
        (Path(folder) / "Dockerfile").write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
        _buildah("bud", "--isolation=chroot", "--timestamp=0", f"--tag={PAUSE}", folder)
    return PAUSE


def save(name: str, archive: Path) -> None:
    """Writes an image as Docker saves it. Raises CalledProcessError."""
    _buildah("push", name, f"docker-archive:{archive}:{name}")


def _buildah(*arguments: str) -> None:
    subprocess.run(["buildah", *arguments], check=True, capture_output=True, timeout=_BUILD_TIMEOUT_S)
