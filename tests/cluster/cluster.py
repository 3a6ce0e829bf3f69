"""The whole cluster: up inside the block, and nothing left of it after."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import control_plane, host, network
from tests.cluster.api import Api
from tests.cluster.node import Node
from tests.cluster.processes import Processes

FOLDER = Path(tempfile.gettempdir()) / "modelmuxer-cluster"  # networks have fixed names too: one cluster at a time


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up."""

    folder: Path
    processes: Processes
    api: Api
    node: Node

    @property
    def keys(self) -> Path:
        """Where its keys lie."""
        return self.folder / "keys"


@contextmanager
def up(say: Callable[[str], None], load_images: Callable[[Node], None]) -> Iterator[Cluster]:
    """A cluster of one node, which has taken in its images. Raises HostTaken, NetworkTaken and NotInTime."""
    with host.borrowed(FOLDER):
        network.create()
        processes, node = Processes(FOLDER), Node(FOLDER)
        try:
            api = control_plane.start(processes, FOLDER)
            say("the control plane is up")
            node.start_runtime(processes)
            load_images(node)
            say("images are in")
            node.start(processes, api)
            say("the node is ready")
            yield Cluster(FOLDER, processes, api, node)
        finally:
            if (FOLDER / "pids" / "kubelet").exists():
                processes.stop("kubelet")  # it would start again what is ended here
            node.stop_containers()
            processes.stop()


def keep_logs() -> Path:
    """Copies the logs of a cluster that is about to end, pods' too, and returns where to."""
    kept = FOLDER.with_name(f"{FOLDER.name}-logs")
    shutil.rmtree(kept, ignore_errors=True)
    for name, place in (("programs", FOLDER / "logs"), ("pods", FOLDER / "kubelet" / "pod-logs")):
        if place.exists():
            shutil.copytree(place, kept / name, symlinks=True)
    return kept
