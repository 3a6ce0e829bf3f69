"""What all tests share: those that drive an external program are skipped, and counted, where it is missing."""

import os

import pytest

from tests.tools import TOOLS, tool

pytest_plugins = ["tests.stores.mongodb"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three for two cores: tests that kill and stop services wait for half of their time."""
    return max(1, (os.cpu_count() or 1) * 3 // 2)


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
