"""Watches processes that were started with the sampler: what each of their threads did, and how much CPU it used."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.mesh.mesh import until
from tests.performance.sampler import sitecustomize as sampler


@dataclass(frozen=True)
class Watched:
    """What one process did."""

    pid: int
    cpu_s: Mapping[int, float]
    """By thread."""
    stacks: list[tuple[int, list[str], int]]
    """Thread, frames from the outermost, samples."""


class Sampling:
    """The environment for processes that can be watched, and the watching."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = os.pathsep.join(filter(None, (str(Path(sampler.__file__).parent), os.environ.get("PYTHONPATH"))))
        self.environ = {"PYTHONPATH": path, sampler.FOLDER: str(folder)}

    @contextmanager
    def watch(self, processes: Mapping[str, psutil.Process]) -> Iterator[dict[str, Watched]]:
        """Watches processes inside the block; what they did is in the result after it."""
        watched: dict[str, Watched] = {}
        before = {name: _cpu_s(process) for name, process in processes.items()}
        for process in processes.values():
            process.send_signal(sampler.TOGGLE)
        yield watched
        after = {name: _cpu_s(process) for name, process in processes.items()}
        for name, process in processes.items():
            process.send_signal(sampler.TOGGLE)
            used = {tid: cpu_s - before[name].get(tid, 0.0) for tid, cpu_s in after[name].items()}
            written = self._folder / str(process.pid)
            until(written.exists)
            watched[name] = Watched(process.pid, used, list(_stacks(written.read_text())))
            written.unlink()


@contextmanager
def sampling() -> Iterator[Sampling]:
    """A `Sampling` with a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="modelmuxer-samples-") as folder:
        yield Sampling(Path(folder))


def _cpu_s(process: psutil.Process) -> dict[int, float]:
    return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}


def _stacks(text: str) -> Iterator[tuple[int, list[str], int]]:
    for line in text.splitlines():
        stack, _, samples = line.rpartition(" ")
        thread, *frames = stack.split(";")
        yield int(thread), frames, int(samples)
