"""What was done, how long it took and which calls failed: as it happens, as a table for eyes, and for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(kw_only=True)
class Step:
    """One thing that was done."""

    name: str
    seconds: float = 0.0
    calls: int | None = None
    """Calls that ran meanwhile, streams among them; None where none was made."""
    streams: int = 0
    failed: int = 0
    cut: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Promises that did not hold."""

    @property
    def ok(self) -> bool:
        """Whether everything that was promised held."""
        return not self.problems

    def note(self, text: str) -> None:
        """Says something worth knowing."""
        self.notes.append(text)

    def expect(self, holds: bool, problem: str) -> None:
        """Writes down a promise that does not hold."""
        if not holds:
            self.problems.append(problem)


class Report:
    """The steps of a run. Progress goes to stderr."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._console = Console(stderr=True, highlight=False)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Says how far things are."""
        self._console.print(f"{time.monotonic() - self._began:6.1f} s  {text}", markup=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Times a step. An error in it is a promise that did not hold, and ends no more than the step."""
        self.say(f"{name} …")
        step, began = Step(name=name), time.monotonic()
        try:
            yield step
        except KeyboardInterrupt:
            step.problems.append("interrupted")
            raise
        except Exception as error:
            step.problems.append(f"{type(error).__name__}: {error}")
        finally:
            step.seconds = step.seconds or time.monotonic() - began
            self.steps.append(step)
            self.say(f"{'done' if step.ok else 'FAILED'}: {_summary(step)}")
            for problem in step.problems:
                self.say(f"  {problem}")

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def table(self) -> Table:
        """The steps for eyes."""
        table = Table(title="The chart in a real Kubernetes", title_justify="left")
        table.add_column("step")
        for name in ("seconds", "calls", "streams", "failed", "cut"):
            table.add_column(name, justify="right")
        table.add_column("")
        for step in self.steps:
            counts = ("", "", "", "") if step.calls is None else (step.calls, step.streams, step.failed, step.cut)
            said = "\n".join((*step.notes, *step.problems))
            style = None if step.ok else "red"
            table.add_row(step.name, f"{step.seconds:.1f}", *map(str, counts), said, style=style)
        return table

    def json(self) -> dict[str, Any]:
        """The same for machines."""
        rows = [{**asdict(step), "seconds": round(step.seconds, 2), "ok": step.ok} for step in self.steps]
        return {"ok": self.ok, "seconds": round(time.monotonic() - self._began, 1), "steps": rows}

    def show(self) -> None:
        """Prints the table."""
        Console(file=sys.stdout, width=160 if not sys.stdout.isatty() else None).print(self.table())


def _summary(step: Step) -> str:
    said = [f"{step.name} in {step.seconds:.1f} s"]
    if step.calls is not None:
        said.append(f"{step.calls} calls ({step.streams} streams), {step.failed} failed, {step.cut} cut")
    return "; ".join((*said, *step.notes))
