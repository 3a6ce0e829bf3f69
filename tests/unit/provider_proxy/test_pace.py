"""Streams gather tokens only where the event loop is late, and never for long."""

from __future__ import annotations

import asyncio

from services.provider_proxy.pace import Pace


def test_nothing_waits_while_the_loop_is_on_time() -> None:
    pace = Pace()
    for _ in range(100):
        pace.was_late(0.001)
    assert pace.pause_s == 0


def test_a_late_loop_makes_streams_gather_the_longer_the_later_it_is() -> None:
    slightly, very = Pace(), Pace()
    for _ in range(10):
        slightly.was_late(0.01)
        very.was_late(0.05)
    assert 0 < slightly.pause_s < very.pause_s


def test_a_pause_is_short_enough_to_read_as_a_stream() -> None:
    pace = Pace()
    for _ in range(100):
        pace.was_late(10.0)
    assert pace.pause_s <= 0.25


def test_pauses_end_when_the_loop_is_on_time_again() -> None:
    pace = Pace()
    for _ in range(100):
        pace.was_late(0.1)
    for _ in range(100):
        pace.was_late(0.0)
    assert pace.pause_s == 0


async def test_a_loop_that_is_held_up_is_noticed() -> None:
    pace = Pace()
    watch = asyncio.create_task(pace.watch())
    deadline_s = asyncio.get_running_loop().time() + 5
    while not pace.pause_s and asyncio.get_running_loop().time() < deadline_s:
        _hold_up(0.05)
        await asyncio.sleep(0)
    watch.cancel()
    assert pace.pause_s > 0


def _hold_up(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while loop.time() < until_s:
        pass
