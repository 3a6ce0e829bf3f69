"""Debian packages of another suite, downloaded by apt and unpacked: no root is needed and nothing is installed."""

import getpass
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

_TIMEOUT_S = 900
_SOURCES = Path("/etc/apt")
_KEYRINGS = Path("/usr/share/keyrings")


class CannotUnpack(RuntimeError):
    """Why packages cannot be had, and what to do."""


def unpack(packages: Sequence[str], suite: str, folder: Path, work: Path) -> None:
    """Unpacks packages of a suite, with all that they depend on, into `folder`. `work` is emptied by the caller."""
    archives = _download(packages, suite, work)
    folder.mkdir(parents=True)
    for archive in archives:
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True, timeout=_TIMEOUT_S)


def _download(packages: Sequence[str], suite: str, work: Path) -> list[Path]:
    state, cache = work / "state", work / "cache"
    (state / "lists" / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    (work / "status").touch()  # as if nothing were installed, so that every library comes along
    (work / "sources.list").write_text(f"deb [arch=amd64 signed-by={_keyring()}] {_mirror()} {suite} main\n")
    options = {
        "Dir::State": state,
        "Dir::State::status": work / "status",
        "Dir::Cache": cache,
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": getpass.getuser(),
        "Acquire::Languages": "none",
    }
    config = work / "apt.conf"
    config.write_text("".join(f'{name} "{value}";\n' for name, value in options.items()))
    environ = os.environ | {"APT_CONFIG": str(config), "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-yqq", "--no-install-recommends", "--download-only", *packages]
    for command in (["apt-get", "update", "-qq"], install):
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, timeout=_TIMEOUT_S)
    return sorted((cache / "archives").glob("*.deb"))


def _mirror() -> str:
    """Where this system gets its own packages from, or what $DEBIAN_MIRROR says."""
    if mirror := os.environ.get("DEBIAN_MIRROR"):
        return mirror
    for path in sorted(_SOURCES.glob("sources.list*")):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
            if found := re.search(r"https?://\S+/debian/?(?=\s|$)", "\n".join(lines)):
                return found[0]
    raise CannotUnpack("this system's apt names no Debian mirror: set DEBIAN_MIRROR to the URL of one")


def _keyring() -> Path:
    for suffix in (".gpg", ".pgp"):
        if (keyring := _KEYRINGS / f"debian-archive-keyring{suffix}").exists():
            return keyring
    raise CannotUnpack("Debian's keys are not here: install the package debian-archive-keyring")
