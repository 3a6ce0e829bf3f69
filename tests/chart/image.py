"""Builds the project's image from its Dockerfile, without a registry: the base is a Debian that mmdebstrap makes.

``python -m tests.chart.image`` does it by hand; it needs root, buildah and mmdebstrap (apt). Prints the image's name.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.mesh.mesh import ROOT
from tests.tools import cache_folder

IMAGE = "localhost/modelmuxer:0.1.0"
BASE = "localhost/modelmuxer-base:bookworm-1"
PACKAGES = "python3,python3-venv,ca-certificates"
BUILD_TIMEOUT_S = 1_800


class ImageError(Exception):
    """Why no image can be built here."""


def build(*, quiet: bool = False) -> str:
    """Builds the image and returns its name. Raises ImageError, and CalledProcessError where a step fails."""
    for program in ("buildah", "mmdebstrap"):
        if shutil.which(program) is None:
            raise ImageError(f"{program} is not here: install your system's package {program}")
    if os.geteuid() != 0:
        raise ImageError("an image is built by root here")
    if subprocess.run(["buildah", "inspect", BASE], capture_output=True).returncode:
        _build_base()
    arguments = [f"--build-arg=BASE={BASE}", f"--tag={IMAGE}", "--format=docker", "--timestamp=0"]
    if bundle := os.environ.get("SSL_CERT_FILE"):  # whom this machine trusts is trusted in the build too
        arguments += [f"--volume={Path(bundle).resolve().parent}:/etc/ssl/certs:ro", f"--build-arg=PIP_CERT={bundle}"]
    if index := os.environ.get("UV_DEFAULT_INDEX"):
        arguments.append(f"--build-arg=UV_DEFAULT_INDEX={index}")
    _buildah("bud", "--isolation=chroot", "--network=host", *arguments, str(ROOT), quiet=quiet)
    return IMAGE


def _build_base() -> None:
    """A Debian with Python, kept as a tarball in the tools' cache: making it takes minutes."""
    tarball = cache_folder() / "base-bookworm-1.tar"
    tarball.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tarball.parent) as folder:
        if not tarball.exists():
            draft = Path(folder) / "draft.tar"
            command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(draft)]
            subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
            draft.rename(tarball)
        context = Path(folder)
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        os.link(tarball, context / "base.tar")
        _buildah("bud", "--isolation=chroot", "--timestamp=0", f"--tag={BASE}", str(context))


def _buildah(*arguments: str, quiet: bool = False) -> None:
    subprocess.run(["buildah", *arguments], check=True, timeout=BUILD_TIMEOUT_S, capture_output=quiet)


if __name__ == "__main__":
    print(build())
