"""The programs of a cluster: those that `make tools` builds, and those of the system. Says what is missing."""

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.tools import TOOLS, find

PLUGINS = Path("/usr/lib/cni")
_TOOLS = ("kubernetes", "keda", "helm")
_SYSTEM = {  # programs and Debian's packages that have them
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables-restore": "iptables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}


def kubernetes(name: str) -> str:
    """The path of a part of Kubernetes, of CoreDNS ("coredns") or of "pause"."""
    return str(_tool("kubernetes") / name)


def keda(name: str) -> Path:
    """The path of KEDA's "operator", "adapter", or folder "crds"."""
    return _tool("keda") / name


def helm() -> str:
    """The path of helm."""
    return str(_tool("helm"))


def missing() -> Iterator[str]:
    """What a cluster needs and this machine has not, in sentences; nothing if all is there."""
    if platform.system() != "Linux":
        yield "A cluster's node runs on Linux."
        return
    if os.geteuid() != 0:
        yield "A cluster's node is run by root: it makes namespaces, mounts and cgroups."
    for name in _TOOLS:
        if find(name) is None:
            yield f"{name} is not built: {TOOLS[name].hint}."
    packages = {package for program, package in _SYSTEM.items() if shutil.which(program) is None}
    if not (PLUGINS / "bridge").exists():
        packages.add("containernetworking-plugins")
    if packages:
        yield f"Programs of the system are not here: apt install {' '.join(sorted(packages))}."


def _tool(name: str) -> Path:
    path = find(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not built: {TOOLS[name].hint}")
    return Path(path)
