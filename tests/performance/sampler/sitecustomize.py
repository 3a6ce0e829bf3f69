"""Samples where a Python process spends its CPU. A process that finds this folder on its path imports it at the start.

Samples are taken by CPU time, not by the clock: on a busy machine a thread that waits for its turn would else seem to
work, most of all where it has just woken another. The signal `TOGGLE` starts the sampling, and again ends it and writes
a line for each stack, `thread;frame;…;frame count`, outermost frame first, to `$SAMPLES/<pid>`.
"""

import os
import signal
import sys
import threading
from collections import Counter
from functools import cache
from types import CodeType, FrameType

TOGGLE = signal.SIGXCPU  # which nothing else here uses
FOLDER = "SAMPLES"
_EVERY_S = 0.004
_WAITING = ("threading.py", "concurrent/futures/thread.py", "selectors.py", "queue.py")
"""Where the stacks of threads end that wait; threads of gRPC's own end there too."""


class _Sampler:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._stacks: Counter[str] | None = None
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(TOGGLE, self._toggle)

    def _toggle(self, signum: int, frame: FrameType | None) -> None:
        stacks, self._stacks = self._stacks, None
        if stacks is None:
            self._stacks = Counter()
            signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
            return
        signal.setitimer(signal.ITIMER_PROF, 0)
        path = os.path.join(self._folder, str(os.getpid()))
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            file.writelines(f"{stack} {count}\n" for stack, count in stacks.items())
        os.rename(f"{path}.part", path)

    def _sample(self, signum: int, frame: FrameType | None) -> None:
        """Runs in the main thread, where it was interrupted."""
        if self._stacks is None:
            return
        self._stacks[f"{os.getpid()};{_stack(frame)}"] += 1
        others = sys._current_frames()
        for thread in threading.enumerate():
            innermost = others.get(thread.ident or 0)
            if thread is threading.main_thread() or innermost is None:
                continue
            if not innermost.f_code.co_filename.endswith(_WAITING):
                self._stacks[f"{thread.native_id};{_stack(innermost)}"] += 1


@cache
def _name(code: CodeType) -> str:
    return f"{code.co_qualname} ({code.co_filename})"


def _stack(frame: FrameType | None) -> str:
    frames = []
    while frame is not None:
        frames.append(_name(frame.f_code))
        frame = frame.f_back
    return ";".join(reversed(frames))


if folder := os.environ.get(FOLDER):
    _Sampler(folder)
