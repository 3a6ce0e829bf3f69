"""What a cluster leaves on the machine that runs it, and how that is put back, also after a run that was cut short.

Everything that has to be put back is written down in the cluster's folder before it is changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import network
from tests.cluster.node import Node
from tests.cluster.processes import kill_left

# What the kubelet sets for the whole machine.
_SETTINGS = (
    *("vm.overcommit_memory", "vm.panic_on_oom", "kernel.panic", "kernel.panic_on_oops"),
    *("kernel.keys.root_maxkeys", "kernel.keys.root_maxbytes"),
)
_CGROUPS = Path("/sys/fs/cgroup")
_OURS = ("kubepods", "k8s.io")  # of the kubelet, and of containerd
_NOTE = "host.json"


class HostTaken(Exception):
    """Why no cluster can be made on this machine now."""


@contextmanager
def borrowed(folder: Path) -> Iterator[None]:
    """Lets the block make a cluster in a folder, which must be its own; puts everything back after it.

    What a run has left that was killed is cleared up first. Raises HostTaken.
    """
    folder.mkdir(mode=0o755, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostTaken(f"Another cluster runs in {folder}.") from None
        put_back(folder)
        _note(folder)
        try:
            yield
        finally:
            put_back(folder)


def put_back(folder: Path) -> None:
    """Ends whatever runs in a cluster's folder, and takes away what it has left on this machine."""
    note = folder / _NOTE
    if not note.exists():
        return
    before = json.loads(note.read_text())
    node = Node(folder)
    kubelet = folder / "pids" / "kubelet"
    if kubelet.exists():  # it would start again what is ended here
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(kubelet.read_text()), signal.SIGKILL)
    node.stop_containers()
    kill_left(folder)
    _end_shims(folder)
    groups = [Path(group) for group in _cgroups() - set(before["cgroups"])]
    for group in groups:
        _end_members(group)
    _unmount(folder)
    network.remove(set(before["namespaces"]))
    for group in groups:
        _remove_cgroup(group)
    for name, value in before["settings"].items():
        subprocess.run(["sysctl", "-qw", f"{name}={value}"], check=False, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder)


def traces(folder: Path) -> list[str]:
    """What is on this machine of a cluster that is gone, in words; nothing if all was put back."""
    found = [f"mount {path}" for path in _mounts(folder)]
    found += [f"cgroup {path}" for path in sorted(_cgroups())]
    found += [f"network namespace {name}" for name in sorted(network.namespaces()) if name == network.NAMESPACE]
    return found + ([f"folder {folder}"] if folder.exists() else [])


def _note(folder: Path) -> None:
    folder.mkdir(mode=0o755, exist_ok=True)
    before = {
        "settings": {name: value for name in _SETTINGS if (value := _setting(name)) is not None},
        "namespaces": sorted(network.namespaces()),
        "cgroups": sorted(_cgroups()),
    }
    (folder / _NOTE).write_text(json.dumps(before))


def _setting(name: str) -> str | None:
    path = Path("/proc/sys") / name.replace(".", "/")
    return path.read_text().strip() if path.exists() else None


def _mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return sorted((place for line in lines if (place := line.split()[1]).startswith(f"{folder}/")), reverse=True)


def _unmount(folder: Path) -> None:
    for place in _mounts(folder):
        subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)


def _end_shims(folder: Path) -> None:
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command_line.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"containerd-shim-runc-v2") and any(str(folder).encode() in word for word in words):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(command_line.parent.name), signal.SIGKILL)


def _end_members(group: Path) -> None:
    """Ends what runs in a group: containers outlive a runtime that was killed."""
    for members in group.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            for member in members.read_text().split():
                os.kill(int(member), signal.SIGKILL)


def _cgroups() -> set[str]:
    roots = [_CGROUPS, *(path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())]
    return {str(root / name) for root in roots for name in _OURS if (root / name).is_dir()}


def _remove_cgroup(group: Path) -> None:
    """Removes a group and those in it; processes that were just killed may take a moment to leave."""
    deadline = time.monotonic() + 5
    while group.exists() and time.monotonic() < deadline:
        for path, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if group.exists():
            time.sleep(0.1)
