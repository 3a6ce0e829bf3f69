"""Callers that are at work while the cluster changes, and what became of their calls."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.cluster import network
from tests.cluster.callers import KEY, TIMEOUT_S, Call, Crowd
from tests.mesh.mesh import ROOT

STEADY = (  # calls and streams through every face, all the time
    Crowd(face="grpc", stream=False, callers=3, orders="ttft=50ms tokens=20", pause_s=0.4),
    Crowd(face="tunnel", stream=False, callers=3, orders="ttft=50ms tokens=20", pause_s=0.4),
    Crowd(face="http", stream=False, callers=3, orders="ttft=50ms tokens=20", pause_s=0.4),
    Crowd(face="grpc", stream=True, callers=3, orders="ttft=100ms tps=20 tokens=100"),
    Crowd(face="tunnel", stream=True, callers=3, orders="ttft=100ms tps=20 tokens=100"),
    Crowd(face="http", stream=True, callers=3, orders="ttft=100ms tps=20 tokens=100"),
)


@dataclass(frozen=True)
class Tally:
    """Calls of a stretch of time."""

    calls: Sequence[Call]

    @property
    def failed(self) -> list[Call]:
        """Those that ended with an error."""
        return [call for call in self.calls if call.error]

    @property
    def streams(self) -> int:
        """How many of them are streams."""
        return sum(call.stream for call in self.calls)

    @property
    def cut(self) -> int:
        """Streams that broke after they had begun."""
        return sum(call.cut for call in self.calls)

    def errors(self) -> str:
        """The errors, each once, with how often."""
        return "; ".join(f"{many} × {error}" for error, many in Counter(call.error for call in self.failed).items())


class Load:
    """Callers of a release, from entering the block until leaving it, when the last call has ended."""

    def __init__(self, release: str, namespace: str, key: str, folder: Path, crowds: Sequence[Crowd]) -> None:
        self._plan = {
            "release": release,
            "namespace": namespace,
            "crowds": [dataclasses.asdict(crowd) for crowd in crowds],
        }
        self._key = key
        self._names = folder / f"{namespace}.resolv.conf"
        self._namespace = namespace
        self._calls: list[Call] = []
        self._grown = threading.Condition()

    def __enter__(self) -> Self:
        network.write_resolv_conf(self._names, self._namespace)
        command = [sys.executable, "-m", "tests.cluster.callers", json.dumps(self._plan)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *network.with_names(self._names), *command],
            cwd=ROOT,
            env=os.environ | {KEY: self._key},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Has the callers end the calls that they have begun."""
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(TIMEOUT_S)

    @property
    def running(self) -> bool:
        """Whether the callers still call."""
        return self._process.poll() is None

    def wait_for(self, calls: int, timeout_s: float = 60.0) -> bool:
        """Waits until so many more calls have ended; whether they have."""
        with self._grown:
            wanted = len(self._calls) + calls
            return self._grown.wait_for(lambda: len(self._calls) >= wanted, timeout_s)

    def until_ended(self, began_before: float, callers: int, timeout_s: float = TIMEOUT_S) -> None:
        """Waits until each of so many callers has begun a call later than that: earlier ones have then ended."""
        with self._grown:
            self._grown.wait_for(lambda: sum(call.began > began_before for call in self._calls) >= callers, timeout_s)

    def during(self, began: float, ended: float = float("inf")) -> Tally:
        """Calls that ran at any moment of a stretch of time, as far as they have ended."""
        with self._grown:
            return Tally([call for call in self._calls if call.ended >= began and call.began <= ended])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._grown:
                self._calls.append(Call(**json.loads(line)))
                self._grown.notify_all()
