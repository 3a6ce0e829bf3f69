"""Kubernetes from its own Go modules, since no release of it is to be had from a package registry: etcd, the control
plane, kubelet, kube-proxy and kubectl in one program under their names, CoreDNS beside it, and the process that holds
a pod's network namespace.
"""

import os
import subprocess
from pathlib import Path

from tests.tools.schemas import DEFINITIONS, downloaded

VERSION = "v1.34.4"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
BUILD_TIMEOUT_S = 7_200
_HERE = Path(__file__).parent


def build(folder: Path) -> None:
    """Makes `kubernetes/` with every part by its name, `coredns`, `pause`, and `crds/`: the kinds of other makers that
    the chart has objects of. Raises OSError and SubprocessError."""
    programs = folder / "kubernetes"
    programs.mkdir()
    go_build(_HERE / "kube", programs / "kube", _version_flags())
    for part in PARTS:
        (programs / part).symlink_to("kube")
    go_build(_HERE / "dns", programs / "coredns")
    go_build(_HERE / "pause", programs / "pause")
    copy_definitions(programs / "crds")


def copy_definitions(folder: Path) -> None:
    """Copies the definitions of other makers' kinds into a folder."""
    folder.mkdir()
    for module, paths in DEFINITIONS.items():
        for path in paths:
            (folder / Path(path).name).write_bytes((downloaded(module) / path).read_bytes())


def go_build(module: Path, program: Path, flags: str = "", package: str = ".") -> None:
    """Builds a package of a module, exactly as its go.sum has it, into a program that needs no library."""
    command = ["go", "build", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", str(program), package]
    environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    subprocess.run(command, cwd=module, env=environ, check=True, timeout=BUILD_TIMEOUT_S)


def _version_flags() -> str:
    """What the programs say they are: without these v0.0.0, which a chart's `kubeVersion` would refuse."""
    base, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
    major, minor, _ = VERSION.removeprefix("v").split(".")
    facts = {
        f"{base}.gitVersion": VERSION,
        f"{base}.gitMajor": major,
        f"{base}.gitMinor": minor,
        f"{base}.gitTreeState": "clean",
        f"{client}.gitVersion": VERSION,
    }
    return " ".join(f"-X {name}={value}" for name, value in facts.items())
