"""Debian's redis-server, unpacked beside the libraries that it loads, for machines that have none."""

import platform
import shutil
import subprocess
from pathlib import Path

from tests.tools import debian

SUITE = "bookworm"
PACKAGE = "redis-tools"  # has the one program that is server, sentinel and checker, by the name that it is called by
_PROGRAM = "redis-check-rdb"
_TIMEOUT_S = 60

_LAUNCHER = f"""#!/bin/sh
here=${{0%/*}}
exec "$here/lib/ld-linux-x86-64.so.2" --argv0 redis-server --library-path "$here/lib" "$here/{_PROGRAM}" "$@"
"""


def build(folder: Path) -> None:
    """Makes the server. Raises CannotUnpack, OSError and SubprocessError."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise debian.CannotUnpack("it is made of Debian's packages for Linux on x86-64")
    for needed in ("apt-get", "dpkg-deb"):
        if shutil.which(needed) is None:
            raise debian.CannotUnpack(f"{needed} is needed and not here")
    work, root, kept = folder / "work", folder / "root", folder / "lib"
    work.mkdir()
    kept.mkdir()
    debian.unpack([PACKAGE], SUITE, root, work)
    program = root / "usr/bin" / _PROGRAM
    places = [place / "x86_64-linux-gnu" for place in (root / "lib", root / "usr/lib")]
    loader = next(file for place in places if (file := place / "ld-linux-x86-64.so.2").exists())
    shutil.copy2(loader, kept)
    for library in _libraries(loader, program, places):
        shutil.copy2(library, kept)
    shutil.copy2(program, folder)
    launcher = folder / "redis-server"
    launcher.write_text(_LAUNCHER)
    launcher.chmod(0o755)
    shutil.rmtree(work)
    shutil.rmtree(root)


def _libraries(loader: Path, program: Path, places: list[Path]) -> list[Path]:
    listing = subprocess.run(
        [loader, "--library-path", ":".join(map(str, places)), "--list", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    targets = [line.partition(" => ")[2].split(" (")[0].strip() for line in listing.stdout.splitlines()]
    return [path for target in targets if target and (path := Path(target)).is_absolute() and path != loader]
