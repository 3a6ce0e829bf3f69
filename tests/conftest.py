"""What all tests share: those that drive an external program are skipped, and counted, where it is missing."""

import gc

import pytest

from tests.tools import TOOLS, tool

pytest_plugins = ["tests.stores.mongodb"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires_tool(name): drives an external program that `make tools` provides")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires_tool"):
        tool(mark.args[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.getreports("skipped")]
    for name, needed in TOOLS.items():
        if count := sum(f"{name} is not here" in reason for reason in skipped):
            terminalreporter.write_line(f"{count} tests were skipped for want of {name}: {needed.hint}", yellow=True)


def pytest_collection_finish() -> None:
    """What is imported and collected is never garbage: a collector that looks at it each time takes seconds."""
    gc.collect()
    gc.freeze()
