"""A Redis in trouble costs misses and nothing else: no failed request, no wait beyond 25 ms, and it mends by itself.

Some hundred requests beside other tests tell no 99th percentile, so the limit is held against the median here, which a
look-up that waits for Redis would lift beyond it; `make bench SUITE=cache-faults` measures the 99th.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cache_faults import ADDED_P99_MS, Bed, Seen, cluster, one_server
from tests.tools import requires_tool

pytestmark = [requires_tool("redis-server"), pytest.mark.timeout(400)]

_SECONDS = 2.0
# The machine's own pauses are longer than what is measured; they do not come three times running.
_ROUNDS = 3


async def least(bed: Bed, fault: str, rounds: int = _ROUNDS) -> Seen:
    """The round that was disturbed least. No round may have an error."""
    best: Seen | None = None
    for _ in range(rounds):
        seen = await bed.run(fault, _SECONDS)
        print(seen.row())
        assert not seen.errors
        if best is None or seen.added_p50_ms < best.added_p50_ms:
            best = seen
        if best.added_p50_ms <= ADDED_P99_MS:
            break
    assert best is not None
    return best


async def test_no_trouble_of_redis_costs_more_than_misses(tmp_path: Path) -> None:
    async with one_server(tmp_path / "home") as bed:
        for fault in bed.faults:
            seen = await least(bed, fault)
            assert seen.added_p50_ms <= ADDED_P99_MS, seen.row()
            if fault in ("none", "full (maxmemory)"):
                assert seen.hits > len(seen.cached_ms) / 5, seen.row()  # half of what is asked was asked before


async def test_a_cluster_that_loses_a_primary_goes_on_and_comes_back(tmp_path: Path) -> None:
    async with cluster(tmp_path / "home") as bed:
        seen = await least(bed, "a primary of the Cluster killed", rounds=1)
        assert seen.added_p50_ms <= ADDED_P99_MS, seen.row()
